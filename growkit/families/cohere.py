"""Command R and Command R7B: parallel blocks behind one LayerNorm without a shift, and rotary slots in neighbouring
pairs. Data only.
"""

from typing import Any

from growkit.families.llama import DECODER, llama_like
from growkit.families.schema import LAYER, AttentionWindows, Norms, Rotary

_TENSORS = {name: axes for name, axes in DECODER.items() if ".post_attention_layernorm." not in name}
# a LayerNorm over each head's own slots, with gains of its own for each head
_HEAD_NORM = {
    "layers.{layer}.self_attn.q_norm.weight": "head ~query_dim",
    "layers.{layer}.self_attn.k_norm.weight": "kv_head ~key_dim",
}
_FACTS: dict[str, Any] = dict(
    tied=True,
    switches={"attention_bias": "layers.{layer}.self_attn.q_proj.bias"},
)

COHERE = llama_like(
    "cohere",
    "Cohere",
    {**_TENSORS, **_HEAD_NORM},
    norms=Norms(kind=LAYER, on_heads=True),
    rotary=Rotary(base=500000.0, pairs=True),
    stored_where={name: ({"use_qk_norm": (True,)},) for name in _HEAD_NORM},
    small={"attention_bias": True, "use_qk_norm": True},
    variants=({"attention_bias": False, "use_qk_norm": False, "head_dim": 8},),
    **_FACTS,
)
COHERE2 = llama_like(
    "cohere2",
    "Cohere2",
    _TENSORS,
    norms=Norms(kind=LAYER),
    rotary=Rotary(pairs=True),
    windows=AttentionWindows(listed=("layer_types",)),
    small={"attention_bias": True, "sliding_window": 6, "sliding_window_pattern": 2},
    variants=({"attention_bias": False, "head_dim": 8},),
    **_FACTS,
)

FAMILIES = (COHERE, COHERE2)
