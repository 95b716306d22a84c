"""BART's kin without norms over embeddings; positions are learned, or sinusoids as wide as hidden. Data only."""

from typing import Any

from growkit.families.bart import EMBEDDINGS, FACTS, layers
from growkit.families.modules import norm
from growkit.families.schema import LAYER, Family, Norms, Positions

_HEAD = {"lm_head.weight": "vocab /hidden"}
_BIAS = {"final_logits_bias": "one vocab"}
_ENDS = {**norm("encoder.layer_norm"), **norm("decoder.layer_norm", before_head=True)}
_POSITIONS = tuple(name for name in EMBEDDINGS if "positions" in name)
_TOKENS = {name: axes for name, axes in EMBEDDINGS.items() if name not in _POSITIONS}
_SINUSOIDS: dict[str, Any] = {
    "buffers": _POSITIONS,
    "forbids": {"": ((), ("hidden",), "its positions are sinusoids that transformers computes anew for each width")},
}


def _kin(model_type: str, body: str, head: str, tensors: dict[str, str], after: bool = False, **facts: Any) -> Family:
    return Family(
        model_type=model_type,
        tensors=tensors,
        norms=Norms(kind=LAYER, after=after),
        architectures=(("lm_head.weight", head), ("*", body)),
        **{**FACTS, "positions": Positions(), **facts},
    )


BLENDERBOT = _kin(
    "blenderbot",
    "BlenderbotModel",
    "BlenderbotForConditionalGeneration",
    {**EMBEDDINGS, **layers(), **_ENDS, **_HEAD, **_BIAS},
)
PEGASUS = _kin(
    "pegasus",
    "PegasusModel",
    "PegasusForConditionalGeneration",
    {**_TOKENS, **layers(), **_ENDS, **_HEAD, **_BIAS},
    **_SINUSOIDS,
)
M2M_100 = _kin(
    "m2m_100",
    "M2M100Model",
    "M2M100ForConditionalGeneration",
    {**_TOKENS, **layers(), **_ENDS, **_HEAD},
    **_SINUSOIDS,
)
MARIAN = _kin(
    "marian",
    "MarianModel",
    "MarianMTModel",
    {**_TOKENS, **layers(), **_HEAD, **_BIAS},
    after=True,
    refused={"share_encoder_decoder_embeddings": (True, "its two vocabularies have embeddings of their own")},
    **_SINUSOIDS,
)

FAMILIES = (BLENDERBOT, PEGASUS, M2M_100, MARIAN)
