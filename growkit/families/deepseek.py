"""Mixtures whose first layers have no experts and whose tokens all pass shared experts: GLM-4-MoE, DeepSeek. Data
only.

DeepSeek's attention reads low-rank latents: of a head one part has no positions, the other turns (its key is one for
all heads), and values have a width of their own.
"""

from dataclasses import replace
from typing import Any

from growkit.families.bert import renamed
from growkit.families.keys import Keys
from growkit.families.llama import ATTENTION, FEED_FORWARD, HEAD_NORM, OUTSIDE, llama_like
from growkit.families.modules import linear
from growkit.families.moe import EXPERTS, FUSED, TOP_K, feed_forward, mixture, no_biases
from growkit.families.schema import RMS, AttentionWindows, ExpertKeys, Norms, Rotary

MIXED = {
    **EXPERTS,
    # what training moves so that experts are taken equally often: it chooses, and weighs nothing
    "layers.{layer}.mlp.gate.e_score_correction_bias": "expert",
    **feed_forward("layers.{layer}.mlp.shared_experts", "(shared ffn)"),
    **feed_forward("layers.{layer}.mlp", "dense_ffn"),
}
DEEPSEEK_SIZES: dict[str, Keys] = {
    "ffn": "moe_intermediate_size",
    "dense_ffn": "intermediate_size",
    "expert": "n_routed_experts",
    "shared": "n_shared_experts",
}
ROUTED = ExpertKeys(
    top_k=TOP_K,
    first_dense="first_k_dense_replace",
    gates="sigmoid",
    divided="norm_topk_prob",
    scale="routed_scaling_factor",
    groups=("n_group", "topk_group"),
    fused=FUSED,
)

_NORMED = ({"use_qk_norm": (True,)},)
SMALL_MIXED: dict[str, Any] = {
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 1,
    "routed_scaling_factor": 1.7,
}
_SMALL_LATENT: dict[str, Any] = {
    **SMALL_MIXED,
    "num_key_value_heads": 4,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "kv_lora_rank": 12,
    "q_lora_rank": 10,
}
GLM4_MOE = mixture(
    "glm4_moe",
    "Glm4Moe",
    {**{name: axes for name, axes in ATTENTION.items() if not name.endswith("o_proj.bias")}, **HEAD_NORM, **MIXED},
    DEEPSEEK_SIZES,
    experts=ROUTED,
    norms=Norms(kind=RMS, on_heads=True),
    stored_where={f"layers.{{layer}}.self_attn.{name}_norm.weight": _NORMED for name in "qk"},
    rotary=Rotary(fraction=0.5),
    switches={"attention_bias": "layers.{layer}.self_attn.q_proj.bias"},
    defaults={
        "num_key_value_heads": 8,
        "n_routed_experts": 128,
        "num_experts_per_tok": 8,
        "n_shared_experts": 1,
        "moe_intermediate_size": 1408,
        "first_k_dense_replace": 1,
        "use_qk_norm": False,
    },
    small={**SMALL_MIXED, "head_dim": 8, "attention_bias": True, "use_qk_norm": True},
    variants=({"use_qk_norm": False, "attention_bias": False},),
)

_HEAD = "(head: head nope_dim | head rope_dim)"  # of each head both parts
_LATENT = {
    "layers.{layer}.self_attn.q_proj.weight": f"{_HEAD} /hidden",
    **linear("layers.{layer}.self_attn.q_a_proj", "q_rank", "hidden"),
    "layers.{layer}.self_attn.q_a_layernorm.weight": "~q_rank",
    "layers.{layer}.self_attn.q_b_proj.weight": f"{_HEAD} /q_rank",
    **linear("layers.{layer}.self_attn.kv_a_proj_with_mqa", "(kv_rank | rope_dim)", "hidden"),
    "layers.{layer}.self_attn.kv_a_layernorm.weight": "~kv_rank",
    "layers.{layer}.self_attn.kv_b_proj.weight": "(head: head nope_dim | head value_dim) /kv_rank",
    **linear("layers.{layer}.self_attn.o_proj", "hidden", "(head value_dim)"),
}
_LATENT_SIZES: dict[str, Keys] = {
    **DEEPSEEK_SIZES,
    "head_dim": "v_head_dim",
    "q_rank": "q_lora_rank",
    "kv_rank": "kv_lora_rank",
    "nope_dim": "qk_nope_head_dim",
    "rope_dim": "qk_rope_head_dim",
}
_LATENT_FACTS: dict[str, Any] = dict(
    rotary=None,  # what turns never grows
    grouped_where={"kv_lora_rank": None},  # a latent makes a key and a value for each head
    stored_where={"layers.{layer}.self_attn.q_proj.weight": ({"q_lora_rank": (None,)},)},
    switches={"attention_bias": "layers.{layer}.self_attn.o_proj.bias"},
)
_LATENT_DEFAULTS = {
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}

MIXED_BIASES = {
    f"layers.{{layer}}.mlp.{place}{name}_proj.bias": "hidden" if name == "down" else width
    for place, width in (("", "dense_ffn"), ("shared_experts.", "(shared ffn)"))
    for name in ("gate", "up", "down")
}
CHOOSING = "layers.{layer}.mlp.gate.e_score_correction_bias"
DEEPSEEK_V2 = mixture(
    "deepseek_v2",
    "DeepseekV2",
    {**{name: axes for name, axes in MIXED.items() if name != CHOOSING}, **_LATENT, **MIXED_BIASES},
    _LATENT_SIZES,
    # the class does not read norm_topk_prob
    experts=replace(ROUTED, gates="all", divided=False, grouped_where={"topk_method": "group_limited_greedy"}),
    hidden_by_heads=True,
    defaults={
        **_LATENT_DEFAULTS,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "num_experts_per_tok": None,
        "moe_intermediate_size": 1407,
        "first_k_dense_replace": 0,
        "num_key_value_heads": None,
    },
    **_LATENT_FACTS,
    small={**_SMALL_LATENT, "attention_bias": True, "mlp_bias": True, "topk_method": "group_limited_greedy"},
    variants=({"q_lora_rank": None, "topk_method": "greedy", "attention_bias": False, "mlp_bias": False},),
)
DEEPSEEK_V3 = mixture(
    "deepseek_v3",
    "DeepseekV3",
    {**MIXED, **_LATENT},
    _LATENT_SIZES,
    experts=ROUTED,
    defaults={
        **_LATENT_DEFAULTS,
        "n_routed_experts": 256,
        "moe_intermediate_size": 2048,
        "first_k_dense_replace": 3,
        "num_key_value_heads": 128,
    },
    **_LATENT_FACTS,
    small={**_SMALL_LATENT, "attention_bias": True},
    variants=({"q_lora_rank": None, "attention_bias": False},),
)

# what a layer has is listed
GLM4_MOE_LITE = replace(
    DEEPSEEK_V3,
    model_type="glm4_moe_lite",
    experts=replace(ROUTED, first_dense="", kinds="mlp_layer_types"),
    windows=AttentionWindows(listed=("mlp_layer_types",)),
    architectures=renamed(DEEPSEEK_V3.architectures, "DeepseekV3", "Glm4MoeLite"),
    defaults={"num_key_value_heads": 20},
    small={key: value for key, value in DEEPSEEK_V3.small.items() if key != "first_k_dense_replace"},
    variants=({"q_lora_rank": None, "mlp_layer_types": ["sparse", "dense", "sparse"]}, {"norm_topk_prob": False}),
)
# the same attention in a dense model
YOUTU = llama_like(
    "youtu",
    "Youtu",
    {**OUTSIDE, **_LATENT, **no_biases(FEED_FORWARD)},
    {axis: key for axis, key in _LATENT_SIZES.items() if axis not in ("dense_ffn", "expert", "shared")}
    | {"ffn": "intermediate_size"},
    tied=True,
    defaults={"num_key_value_heads": 16},
    **_LATENT_FACTS,
    small={key: value for key, value in _SMALL_LATENT.items() if key not in SMALL_MIXED} | {"attention_bias": True},
    variants=({"q_lora_rank": None, "attention_bias": False},),
)

FAMILIES = (GLM4_MOE, DEEPSEEK_V2, DEEPSEEK_V3, GLM4_MOE_LITE, YOUTU)
