"""GPT-OSS: experts stacked, gate and up next to one another, a sink for each head, windows in every other layer. Data
only.
"""

from growkit.families.llama import ATTENTION
from growkit.families.moe import TOP_K, mixture
from growkit.families.schema import AttentionWindows, ExpertKeys, Rotary

_BLOCK = "layers.{layer}.mlp"
GPT_OSS = mixture(
    "gpt_oss",
    "GptOss",
    {
        **ATTENTION,
        # a score that takes its share of the softmax and gives nothing
        "layers.{layer}.self_attn.sinks": "head",
        f"{_BLOCK}.router.weight": "expert /hidden",
        f"{_BLOCK}.router.bias": "expert",
        f"{_BLOCK}.experts.gate_up_proj": "expert /hidden (ffn pair)",
        f"{_BLOCK}.experts.gate_up_proj_bias": "expert (ffn pair)",
        f"{_BLOCK}.experts.down_proj": "expert /ffn hidden",
        f"{_BLOCK}.experts.down_proj_bias": "expert hidden",
    },
    {"expert": "num_local_experts"},
    experts=ExpertKeys(top_k=TOP_K, gates="taken", fused={f"{_BLOCK}.router.weight": (f"{_BLOCK}.router.weight",)}),
    rotary=Rotary(base=150000.0, kind="yarn"),
    windows=AttentionWindows(layer_cycle=("sliding_attention", "full_attention")),
    switches={"attention_bias": "layers.{layer}.self_attn.q_proj.bias"},
    defaults={
        "head_dim": 64,
        "num_key_value_heads": 8,
        "num_local_experts": 128,
        "num_experts_per_tok": 4,
        "sliding_window": 128,
    },
    small={"sliding_window": 4, "swiglu_limit": 0.5},
)

FAMILIES = (GPT_OSS,)
