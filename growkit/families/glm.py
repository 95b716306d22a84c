"""GLM-4: Llama's decoder with gate and up in one, half of whose slots turn, in neighbouring pairs. Data only."""

from typing import Any

from growkit.families.llama import ATTENTION, OUTSIDE, llama_like
from growkit.families.modules import norm
from growkit.families.schema import RMS, Norms, Rotary

_TENSORS = {
    **OUTSIDE,
    **ATTENTION,
    "layers.{layer}.mlp.gate_up_proj.weight": "(ffn | ffn) /hidden",
    "layers.{layer}.mlp.down_proj.weight": "hidden /ffn",
}
_FACTS: dict[str, Any] = dict(
    rotary=Rotary(fraction=0.5, pairs=True),
    switches={"attention_bias": "layers.{layer}.self_attn.q_proj.bias"},
    defaults={"num_key_value_heads": 2, "head_dim": 128},
)
_NORMED = ("layers.{layer}.post_self_attn_layernorm", "layers.{layer}.post_mlp_layernorm")

GLM = llama_like("glm", "Glm", _TENSORS, **_FACTS)
GLM4 = llama_like(
    "glm4",
    "Glm4",
    {**_TENSORS, **norm(_NORMED[0]), **norm(_NORMED[1])},
    norms=Norms(kind=RMS, branch=tuple(f"{name}.weight" for name in _NORMED)),
    **_FACTS,
)

FAMILIES = (GLM, GLM4)
