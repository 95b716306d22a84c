"""Mixtures of experts with Llama's attention: Mixtral, Qwen2-MoE, Qwen3-MoE, OLMoE. Data only.

On disk each expert has tensors of its own, under the names the hub has them; stock models hold them fused.
"""

from typing import Any

from growkit.families.keys import Either, Keys
from growkit.families.llama import ATTENTION, HEAD_NORM, NORM_OVER_HEADS, OUTSIDE, llama_like
from growkit.families.schema import RMS, ExpertKeys, Family, Norms, Rotary

MIXTRAL_EXPERTS = {
    "layers.{layer}.block_sparse_moe.gate.weight": "expert /hidden",
    "layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight": "ffn /hidden",
    "layers.{layer}.block_sparse_moe.experts.{expert}.w3.weight": "ffn /hidden",
    "layers.{layer}.block_sparse_moe.experts.{expert}.w2.weight": "hidden /ffn",
}


def feed_forward(name: str, width: str) -> dict[str, str]:
    """A gated feed-forward block without biases, of a width."""
    return {
        f"{name}.gate_proj.weight": f"{width} /hidden",
        f"{name}.up_proj.weight": f"{width} /hidden",
        f"{name}.down_proj.weight": f"hidden /{width}",
    }


EXPERTS = {  # a router and experts as Qwen, OLMoE and DeepSeek call them
    "layers.{layer}.mlp.gate.weight": "expert /hidden",
    **feed_forward("layers.{layer}.mlp.experts.{expert}", "ffn"),
}
_QWEN = {**EXPERTS, **feed_forward("layers.{layer}.mlp", "dense_ffn")}

_SHARED = {
    **feed_forward("layers.{layer}.mlp.shared_expert", "shared_ffn"),
    "layers.{layer}.mlp.shared_expert_gate.weight": "gate /hidden",
}


def fused(stored: str, *names: str) -> dict[str, tuple[str, ...]]:
    """What live models call experts' tensors (the gate's, the one beside it, the one that writes) and the router."""
    gate, up, down = (f"layers.{{layer}}.{stored}.experts.{{expert}}.{name}.weight" for name in names)
    return {
        "layers.{layer}.mlp.experts.gate_up_proj": (gate, up),
        "layers.{layer}.mlp.experts.down_proj": (down,),
        "layers.{layer}.mlp.gate.weight": (f"layers.{{layer}}.{stored}.gate.weight",),
    }


def no_biases(tensors: dict[str, str]) -> dict[str, str]:
    """A table without its biases."""
    return {name: axes for name, axes in tensors.items() if name.endswith(".weight")}


FUSED = fused("mlp", "gate_proj", "up_proj", "down_proj")  # the same in live models


def mixture(model_type: str, stem: str, tensors: dict[str, str], sizes: dict[str, Keys], **facts: Any) -> Family:
    """A mixture of experts that shares Llama's names around its blocks; `facts` are what sets it apart."""
    return llama_like(model_type, stem, {**OUTSIDE, **tensors}, sizes, **{"switches": {}, **facts})


_QWEN_KEYS: dict[str, Keys] = {"ffn": "moe_intermediate_size", "dense_ffn": "intermediate_size"}
TOP_K = "num_experts_per_tok"
_QWEN_EXPERTS = ExpertKeys(
    top_k=TOP_K,
    sparse_step="decoder_sparse_step",
    dense_layers="mlp_only_layers",
    divided="norm_topk_prob",
    fused=FUSED,
)

MIXTRAL = mixture(
    "mixtral",
    "Mixtral",
    {**no_biases(ATTENTION), **MIXTRAL_EXPERTS},
    {"expert": "num_local_experts"},
    experts=ExpertKeys(top_k=TOP_K, divided=True, fused=fused("block_sparse_moe", "w1", "w3", "w2")),
    hidden_by_heads=False,
    rotary=Rotary(base=1e6),
    defaults={"num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2},
    small={"sliding_window": 6},
)
QWEN2_MOE = mixture(
    "qwen2_moe",
    "Qwen2Moe",
    {**ATTENTION, **_QWEN, **_SHARED},
    {**_QWEN_KEYS, "shared_ffn": "shared_expert_intermediate_size", "expert": "num_experts"},
    experts=_QWEN_EXPERTS,
    by_number=("use_sliding_window",),
    defaults={
        "num_key_value_heads": 16,
        "num_experts": 60,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
        "intermediate_size": 5632,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "use_sliding_window": False,
    },
    small={"norm_topk_prob": True, "mlp_only_layers": [1]},  # the middle layer has no experts
    variants=({"norm_topk_prob": False},),
)
QWEN3_MOE = mixture(
    "qwen3_moe",
    "Qwen3Moe",
    {**ATTENTION, **_QWEN, **HEAD_NORM},
    {**_QWEN_KEYS, "expert": Either("num_experts", "num_local_experts")},
    experts=_QWEN_EXPERTS,
    norms=Norms(kind=RMS, on_heads=True),
    defaults={
        "num_key_value_heads": 4,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "intermediate_size": 6144,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "use_sliding_window": False,
    },
    small={
        "head_dim": 8,
        "norm_topk_prob": True,
        "attention_bias": True,
        "decoder_sparse_step": 2,
    },  # only the middle layer has
    variants=({"norm_topk_prob": False, "decoder_sparse_step": 1},),
)

OLMOE = mixture(
    "olmoe",
    "Olmoe",
    {**ATTENTION, **NORM_OVER_HEADS, **EXPERTS},
    {"expert": Either("num_experts", "num_local_experts")},
    experts=ExpertKeys(top_k=TOP_K, divided="norm_topk_prob", fused=FUSED),
    norms=Norms(kind=RMS, on_heads=True),
    own_head_dim=False,
    forbids={"clip_qkv": ((None,), ("head_dim",), "more slots need larger queries and keys, which it would clip")},
    defaults={"num_experts": 64, "num_experts_per_tok": 8, "clip_qkv": None},
    switches={"attention_bias": "layers.{layer}.self_attn.q_proj.bias"},
)

FAMILIES = (MIXTRAL, QWEN2_MOE, QWEN3_MOE, OLMOE)
