"""The towers of CLIP, each by itself: one reads images, the other texts, into a space that both share; and both, of
which the one that reads texts grows. Data only.
"""

from dataclasses import replace
from typing import Any

from growkit.families.modules import linear, norm
from growkit.families.schema import LAYER, Family, Norms, Tower

SIZES = {
    "hidden": "hidden_size",
    "head": "num_attention_heads",
    "ffn": "intermediate_size",
    "layer": "num_hidden_layers",
}
ENCODER = {
    **norm("encoder.layers.{layer}.layer_norm1"),
    **linear("encoder.layers.{layer}.self_attn.q_proj", "(head query_dim)", "hidden"),
    **linear("encoder.layers.{layer}.self_attn.k_proj", "(head key_dim)", "hidden"),
    **linear("encoder.layers.{layer}.self_attn.v_proj", "(head value_dim)", "hidden"),
    **linear("encoder.layers.{layer}.self_attn.out_proj", "hidden", "(head value_dim)"),
    **norm("encoder.layers.{layer}.layer_norm2"),
    **linear("encoder.layers.{layer}.mlp.fc1", "ffn", "hidden"),
    **linear("encoder.layers.{layer}.mlp.fc2", "hidden", "ffn"),
}
TEXT = {
    "embeddings.token_embedding.weight": "vocab hidden",
    "embeddings.position_embedding.weight": "position hidden",
    **ENCODER,
    **norm("final_layer_norm", before_head=True),
}

_TOWER: dict[str, Any] = dict(
    norms=Norms(kind=LAYER),
    packs=False,
    tied=False,
    heads=(),
    buffers=("embeddings.position_ids",),
)
READS_IMAGES: dict[str, Any] = dict(
    sizes=SIZES,
    causal=False,
    embedding="embeddings.patch_embedding.weight",
    pools="hidden",
    prefixes=("vision_model.",),
    **_TOWER,
)
READS_TEXTS: dict[str, Any] = dict(
    sizes={**SIZES, "vocab": "vocab_size", "position": "max_position_embeddings"},
    embedding="embeddings.token_embedding.weight",
    prefixes=("text_model.",),
    **_TOWER,
)

CLIP_VISION = Family(
    model_type="clip_vision_model",
    tensors={
        "embeddings.class_embedding": "hidden",
        "embeddings.patch_embedding.weight": "hidden /channel /kernel /kernel",
        "embeddings.position_embedding.weight": "position hidden",
        **norm("pre_layrnorm", "normed"),
        **ENCODER,
        **norm("post_layernorm", before_head=True),
        "visual_projection.weight": "space /hidden",
    },
    architectures=(
        ("visual_projection.weight", "CLIPVisionModelWithProjection"),
        ("*", "CLIPVisionModel"),
    ),
    small={"image_size": 12, "patch_size": 4, "projection_dim": 10},
    **READS_IMAGES,
)

CLIP_TEXT = Family(
    model_type="clip_text_model",
    tensors={**TEXT, "text_projection.weight": "space /hidden"},
    pools="hidden",
    architectures=(
        ("text_projection.weight", "CLIPTextModelWithProjection"),
        ("*", "CLIPTextModel"),
    ),
    small={"projection_dim": 10, "bos_token_id": 1, "eos_token_id": 3},
    variants=({"eos_token_id": 2},),
    **READS_TEXTS,
)

SMALL_TOWER = {
    "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 12,
    "patch_size": 4,
}  # fmt: skip


def two_towers(text: Family, model_type: str, architecture: str, *others: str, **facts: Any) -> Family:
    """The family of both towers: the one that reads texts grows, and the other one, what both share, and what `others`
    are, stay.
    """
    return replace(
        text,
        model_type=model_type,
        tensors={**dict.fromkeys(("vision_model.*", "logit_*", *others), "..."), **text.tensors},
        architectures=(("*", architecture),),
        beside=Tower(texts=(text.model_type,), place="text_model", settings={"vision_config": SMALL_TOWER}),
        **facts,
    )


CLIP = two_towers(CLIP_TEXT, "clip", "CLIPModel", "visual_projection.weight")

FAMILIES = (CLIP_VISION, CLIP_TEXT, CLIP)
