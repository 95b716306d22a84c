"""OLMo, whose norms have no parameters, and OLMo 3, which is OLMo 2 with sliding windows. Data only."""

from growkit.families.llama import ATTENTION, FEED_FORWARD, OLMO2, OUTSIDE, llama_like
from growkit.families.schema import LAYER, AttentionWindows, Norms, Rotary

OLMO = llama_like(
    "olmo",
    "Olmo",
    {
        "embed_tokens.weight": "vocab hidden",
        **ATTENTION,
        **FEED_FORWARD,
        **{name: axes for name, axes in OUTSIDE.items() if "norm." not in name},
    },
    norms=Norms(kind=LAYER),
    forbids={"clip_qkv": ((None,), ("head_dim",), "its queries would be scaled, and are clipped as they were")},
    variants=({"attention_bias": True, "num_key_value_heads": 4}, {"clip_qkv": 0.5}),
)
OLMO3 = llama_like(
    "olmo3",
    "Olmo3",
    OLMO2.tensors,
    norms=OLMO2.norms,
    rotary=Rotary(by_type={"full_attention": "rope_theta", "sliding_attention": "rope_theta"}),
    windows=AttentionWindows(listed=("layer_types",)),
    small={"sliding_window": 6},
    variants=({"attention_bias": True},),
)

FAMILIES = (OLMO, OLMO3)
