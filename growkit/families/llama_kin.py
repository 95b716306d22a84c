"""Granite and SmolLM3: Llama's tensors, under a config that says more. Data only."""

from growkit.families.llama import llama_like
from growkit.families.schema import AttentionWindows, Rotary

GRANITE = llama_like(
    "granite",
    "Granite",
    score_keys={"attention_multiplier": None},
    small={
        "attention_bias": True,
        "mlp_bias": True,
        "attention_multiplier": 0.3,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.6,
        "logits_scaling": 2.0,
    },
    variants=({"attention_bias": False, "mlp_bias": False},),
)
SMOLLM3 = llama_like(
    "smollm3",
    "SmolLM3",
    tied=True,
    rotary=Rotary(base=2000000.0),
    windows=AttentionWindows(listed=("no_rope_layers", "layer_types")),
    defaults={"num_key_value_heads": 4},
    small={"no_rope_layer_interval": 2},
    variants=({"attention_bias": True, "mlp_bias": True},),
)

FAMILIES = (GRANITE, SMOLLM3)
