"""Granite's mixture of experts, which files hold stacked: all experts of a layer in one tensor. Data only."""

from growkit.families.llama import ATTENTION
from growkit.families.moe import TOP_K, mixture
from growkit.families.schema import ExpertKeys

_BLOCK = "layers.{layer}.block_sparse_moe"
GRANITEMOE = mixture(
    "granitemoe",
    "GraniteMoe",
    {
        **ATTENTION,
        f"{_BLOCK}.router.layer.weight": "expert /hidden",
        f"{_BLOCK}.input_linear.weight": "expert (ffn | ffn) /hidden",
        f"{_BLOCK}.output_linear.weight": "expert hidden /ffn",
    },
    {"expert": "num_local_experts"},
    experts=ExpertKeys(
        top_k=TOP_K,
        gates="taken",
        fused={
            f"{_BLOCK}.experts.gate_up_proj": (f"{_BLOCK}.input_linear.weight",),
            f"{_BLOCK}.experts.down_proj": (f"{_BLOCK}.output_linear.weight",),
            f"{_BLOCK}.router.weight": (f"{_BLOCK}.router.layer.weight",),
        },
    ),
    score_keys={"attention_multiplier": None},
    switches={"attention_bias": "layers.{layer}.self_attn.q_proj.bias"},
    defaults={
        "num_key_value_heads": None,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "attention_multiplier": 1.0,
    },
    small={
        "embedding_multiplier": 3.0,
        "logits_scaling": 0.5,
        "residual_multiplier": 0.7,
        "attention_multiplier": 0.3,
    },
)

FAMILIES = (GRANITEMOE,)
