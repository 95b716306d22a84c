"""Text models beside a tower that makes images into what they read: the tower is carried along as it is, and what
projects its images to the stream follows. Data only.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from growkit.families.keys import Both
from growkit.families.llama import DECODER, HEAD_NORM, QWEN2, llama_like
from growkit.families.modules import linear
from growkit.families.schema import RMS, Family, Norms, Rotary, Tower

TOWERS = MappingProxyType({"vision_tower.*": "...", "multi_modal_projector.*": "..."})
# two layers, the first of which writes as many entries as the stream has, but no stream
TOWER_ALONE = {"vision_tower.*": "..."}
TWO_LAYERS = {
    **linear("multi_modal_projector.linear_1", "pooled", "space"),
    **linear("multi_modal_projector.linear_2", "hidden", "pooled"),
}
_TOWER = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL_TOWER = {**_TOWER, "image_size": 16, "patch_size": 4}  # 16 patches
FEW_PATCHES = {**SMALL_TOWER, "patch_size": 8}  # 4
IMAGES = {"pixel_values": (2, 3, 16, 16)}


def beside_tower(
    text: Family,
    model_type: str,
    stem: str,
    projector: Mapping[str, str],
    beside: Tower,
    towers: Mapping[str, str] = TOWERS,
    **facts: Any,
) -> Family:
    """The family of a text model inside a larger one. projector: lines of what writes the stream; towers: of what is
    carried along, by default what most models call it.
    """
    place = beside.place
    common: dict[str, Any] = dict(
        model_type=model_type,
        tensors={**projector, **towers, **text.tensors},
        prefixes=(f"{place}.model.", f"model.{place}.", f"{place}.", "model."),
        architectures=(("*", f"{stem}ForConditionalGeneration"),),
        beside=beside,
    )
    return replace(text, **{**common, **facts})


# text models of which any may be there: their classes know what is absent
_ANY = replace(QWEN2, defaults={}, small={}, variants=())
_OTHER_TEXTS = tuple({"beside.text_config.model_type": name} for name in ("mistral", "qwen2"))
_WITHOUT_BIAS = {"beside.multimodal_projector_bias": False}
_TEXTS = ("llama", "mistral", "qwen2")
_MISTRAL3 = Tower(
    texts=("mistral",),
    settings={"vision_config": {**SMALL_TOWER, "head_dim": 8}, "image_token_index": 5},
    tokens=4,
    token="image_token_index",
    inputs={**IMAGES, "image_sizes": [[16, 16], [16, 16]]},
)
MISTRAL3 = beside_tower(
    _ANY,
    "mistral3",
    "Mistral3",
    TWO_LAYERS,
    _MISTRAL3,
    tied=True,
    variants=({"beside.multimodal_projector_bias": True},),
)
LLAVA = beside_tower(
    _ANY,
    "llava",
    "Llava",
    TWO_LAYERS,
    Tower(
        texts=_TEXTS,
        settings={"vision_config": {**FEW_PATCHES, "model_type": "clip_vision_model"}, "image_token_index": 5},
        tokens=4,
        token="image_token_index",
        inputs=IMAGES,
    ),
    towers=TOWER_ALONE,
    variants=(_WITHOUT_BIAS, *_OTHER_TEXTS),
)
# several pieces of an image, each row of which ends in a vector of its own
_PIECES: dict[str, Any] = {
    "token": "image_token_index",
    "tokens": 10,
    "inputs": {"pixel_values": (2, 2, 3, 16, 16), "image_sizes": [[16, 16], [16, 16]]},
}
_ROWS = {**TWO_LAYERS, "image_newline": "hidden"}


def _with_pieces(model_type: str, stem: str, tower: str, texts: tuple[str, ...], variants: tuple[Any, ...]) -> Family:
    vision = {**FEW_PATCHES, "model_type": tower}
    settings = {"vision_config": vision, "image_token_index": 5, "image_grid_pinpoints": [[16, 16]]}
    beside = Tower(texts=texts, settings=settings, **_PIECES)
    return beside_tower(_ANY, model_type, stem, _ROWS, beside, towers=TOWER_ALONE, variants=variants)


LLAVA_NEXT = _with_pieces("llava_next", "LlavaNext", "clip_vision_model", _TEXTS, (_WITHOUT_BIAS, *_OTHER_TEXTS))
LLAVA_ONEVISION = _with_pieces(
    "llava_onevision",
    "LlavaOnevision",
    "siglip_vision_model",
    ("qwen2", "llama"),
    (_WITHOUT_BIAS, {"beside.text_config.model_type": "llama"}),
)
INTERNVL = beside_tower(
    _ANY,
    "internvl",
    "InternVL",
    TWO_LAYERS,
    Tower(
        texts=("qwen2", "llama"),
        settings={"vision_config": {**_TOWER, "image_size": [16, 16], "patch_size": [4, 4]}, "image_token_id": 5},
        tokens=4,
        inputs=IMAGES,
    ),
    tied=True,
)
_CONNECTED = Tower(
    texts=("llama", "mistral"),
    place="text_model",
    settings={"vision_config": SMALL_TOWER, "image_token_id": 5},
    tokens=4,
    inputs={"pixel_values": (2, 1, 3, 16, 16)},
)
_CONNECTOR: dict[str, Any] = dict(
    projector={"connector.modality_projection.proj.weight": "hidden /space"},
    beside=_CONNECTED,
    towers={"vision_model.*": "..."},
)
IDEFICS3 = beside_tower(_ANY, "idefics3", "Idefics3", **_CONNECTOR)
SMOLVLM = beside_tower(_ANY, "smolvlm", "SmolVLM", **_CONNECTOR)

_SECTIONS = "its slots turn by three positions in sections that rope settings count, which more slots would shift"
_MERGED: dict[str, Any] = dict(
    tokens=4,
    inputs={"pixel_values": (32, 96), "image_grid_thw": [[1, 4, 4], [1, 4, 4]]},
    marks="mm_token_type_ids",
)
_PATCHES = {"depth": 2, "hidden_size": 16, "intermediate_size": 20, "num_heads": 2, "patch_size": 4}
_TOKENS = {"image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 7, "vision_end_token_id": 8}
_SMALL_SECTIONS = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
_WRITTEN_BY_TOWER = {"hidden": Both("hidden_size", "beside.vision_config.out_hidden_size")}
QWEN3_VL = beside_tower(
    llama_like(
        "qwen3_vl_text",
        "Qwen3VL",
        {**DECODER, **HEAD_NORM},
        _WRITTEN_BY_TOWER,
        norms=Norms(kind=RMS, on_heads=True),
        rotary=Rotary(base=500000.0),
        defaults={"head_dim": 128, "num_key_value_heads": 32},
        forbids={"": ((), ("head_dim",), _SECTIONS)},
        small={"attention_bias": True, "rope_parameters": _SMALL_SECTIONS},
        variants=({"attention_bias": False},),
    ),
    "qwen3_vl",
    "Qwen3VL",
    {
        **linear("visual.merger.linear_fc2", "hidden", "space"),
        **linear("visual.deepstack_merger_list.*.linear_fc2", "hidden", "space"),
    },
    Tower(
        texts=("qwen3_vl_text",),
        settings={
            "vision_config": {
                **_PATCHES,
                "depth": 3,
                "num_position_embeddings": 16,
                "deepstack_visual_indexes": [0, 1, 2],
            },
            **_TOKENS,
        },
        added="beside.vision_config.deepstack_visual_indexes",
        **_MERGED,
    ),
    towers={"visual.*": "..."},
)
_QWEN2_5_TEXT = llama_like(
    "qwen2_5_vl_text",
    "Qwen2_5_VL",
    sizes=_WRITTEN_BY_TOWER,
    rotary=Rotary(base=1000000.0),
    own_head_dim=False,
    hidden_by_heads=True,
    defaults={"num_key_value_heads": 8, "use_sliding_window": False, "max_window_layers": 80, "sliding_window": 4096},
    windows=QWEN2.windows,
    forbids={"": ((), ("head_dim",), _SECTIONS)},
    switches={},
    small={"rope_parameters": {**_SMALL_SECTIONS, "mrope_section": [1, 1, 1]}},
)
QWEN2_5_VL = beside_tower(
    replace(_QWEN2_5_TEXT, sizes={axis: keys for axis, keys in _QWEN2_5_TEXT.sizes.items() if axis != "head_dim"}),
    "qwen2_5_vl",
    "Qwen2_5_VL",
    linear("visual.merger.mlp.2", "hidden", "space"),
    Tower(
        texts=("qwen2_5_vl_text",),
        settings={"vision_config": {**_PATCHES, "fullatt_block_indexes": [1]}, **_TOKENS},
        **_MERGED,
    ),
    towers={"visual.*": "..."},
)

QWEN2_VL = replace(
    QWEN2_5_VL,
    model_type="qwen2_vl",
    sizes={**QWEN2_5_VL.sizes, "hidden": Both("hidden_size", "beside.vision_config.hidden_size")},
    architectures=(("*", "Qwen2VLForConditionalGeneration"),),
    beside=Tower(
        texts=("qwen2_vl_text",),
        settings={
            "vision_config": {"depth": 2, "embed_dim": 16, "mlp_ratio": 2, "num_heads": 2, "patch_size": 4},
            **_TOKENS,
        },
        **_MERGED,
    ),
)

FAMILIES = (
    MISTRAL3,
    LLAVA,
    LLAVA_NEXT,
    LLAVA_ONEVISION,
    INTERNVL,
    QWEN2_VL,
    IDEFICS3,
    SMOLVLM,
    QWEN3_VL,
    QWEN2_5_VL,
)
