"""Mixtures that put blocks of other families together: ERNIE 4.5, dots.llm1, Solar Open, MiniMax-M2, Flex-OLMo,
Phi-3.5-MoE. Data only.
"""

from growkit.families.deepseek import DEEPSEEK_SIZES, MIXED, MIXED_BIASES, ROUTED, SMALL_MIXED
from growkit.families.llama import AFTER_BLOCKS, ATTENTION, HEAD_NORM, NORM_OVER_HEADS, NORMED_AFTER, llama_like
from growkit.families.moe import EXPERTS, FUSED, MIXTRAL_EXPERTS, TOP_K, fused, mixture, no_biases
from growkit.families.schema import LAYER, RMS, AttentionWindows, ExpertKeys, Norms, Rotary

_NO_O_BIAS = {name: axes for name, axes in ATTENTION.items() if not name.endswith("o_proj.bias")}
_MIXTRAL_DEFAULTS = {"num_key_value_heads": 8, "num_experts_per_tok": 2, "num_local_experts": 16}

DOTS1 = mixture(
    "dots1",
    "Dots1",
    {**ATTENTION, **HEAD_NORM, **MIXED},
    DEEPSEEK_SIZES,
    experts=ROUTED,
    norms=Norms(kind=RMS, on_heads=True),
    windows=AttentionWindows(listed=("layer_types",)),
    switches={"attention_bias": "layers.{layer}.self_attn.q_proj.bias"},
    defaults={"num_key_value_heads": 32, "first_k_dense_replace": 0},
    small={**SMALL_MIXED, "sliding_window": 6, "max_window_layers": 2, "attention_bias": True},
    variants=({"sliding_window": None, "attention_bias": False, "norm_topk_prob": True},),
)
SOLAR_OPEN = mixture(
    "solar_open",
    "SolarOpen",
    {**_NO_O_BIAS, **{name: axes for name, axes in MIXED.items() if "dense_ffn" not in axes}},
    {axis: key for axis, key in DEEPSEEK_SIZES.items() if axis != "dense_ffn"},
    experts=ExpertKeys(**{**vars(ROUTED), "first_dense": ""}),
    rotary=Rotary(base=1e6),
    switches={"attention_bias": "layers.{layer}.self_attn.q_proj.bias"},
    defaults={"num_key_value_heads": 8, "head_dim": 128, "n_routed_experts": 128, "num_experts_per_tok": 8,
              "n_shared_experts": 1, "moe_intermediate_size": 1280},
    small={**{key: value for key, value in SMALL_MIXED.items() if key != "first_k_dense_replace"}, "head_dim": 8,
           "attention_bias": True},
    variants=({"attention_bias": False},),
)  # fmt: skip
_BLOCK = "layers.{layer}.block_sparse_moe"
MINIMAX_M2 = mixture(
    "minimax_m2",
    "MiniMaxM2",
    {**no_biases(ATTENTION), **NORM_OVER_HEADS, **MIXTRAL_EXPERTS, f"{_BLOCK}.e_score_correction_bias": "expert"},
    {"expert": "num_local_experts"},
    experts=ExpertKeys(
        top_k=TOP_K,
        gates="sigmoid",
        divided=True,
        fused={
            **fused("block_sparse_moe", "w1", "w3", "w2"),
            "layers.{layer}.mlp.e_score_correction_bias": (f"{_BLOCK}.e_score_correction_bias",),
        },
    ),
    norms=Norms(kind=RMS, on_heads=True),
    rotary=Rotary(base=5e6),
    forbids={"rotary_dim": ((None,), ("head_dim",), "a part of a head turns, and its norm runs over all of it")},
    defaults={
        **_MIXTRAL_DEFAULTS, "head_dim": 128, "num_local_experts": 256, "num_experts_per_tok": 8, "rotary_dim": None,
    },
    small={"head_dim": 8},
    variants=({"rotary_dim": 4},),
)  # fmt: skip
FLEX_OLMO = llama_like(
    "flex_olmo",
    "FlexOlmo",
    {
        **{name: axes for name, axes in NORMED_AFTER.items() if ".mlp." not in name},
        **NORM_OVER_HEADS,
        **EXPERTS,
    },
    {"expert": "num_experts"},
    experts=ExpertKeys(top_k=TOP_K, divided="norm_topk_prob", fused=FUSED),
    norms=Norms(kind=RMS, on_heads=True, branch=AFTER_BLOCKS),
    own_head_dim=False,
    rotary=Rotary(base=500000.0),
    switches={"attention_bias": "layers.{layer}.self_attn.q_proj.bias"},
    defaults={"num_experts": 7, "num_experts_per_tok": 5},
    small={"attention_bias": True},
    variants=({"attention_bias": False, "norm_topk_prob": True},),
)
PHIMOE = mixture(
    "phimoe",
    "Phimoe",
    {**ATTENTION, **MIXTRAL_EXPERTS, "lm_head.bias": "vocab"},
    {"expert": "num_local_experts"},
    experts=ExpertKeys(
        top_k=TOP_K,
        fused={
            **{
                name: parts
                for name, parts in fused("block_sparse_moe", "w1", "w3", "w2").items()
                if "gate." not in name
            },
            "layers.{layer}.mlp.router.weight": (f"{_BLOCK}.gate.weight",),
        },
    ),
    norms=Norms(kind=LAYER),
    rotary=Rotary(base=1e6),
    own_head_dim=False,
    forbids={"": ((), ("expert",), "its router takes experts whose scores stand apart, and those of copies are equal")},
    switches={"attention_bias": "layers.{layer}.self_attn.q_proj.bias", "lm_head_bias": "lm_head.bias"},
    defaults=_MIXTRAL_DEFAULTS,
    small={"attention_bias": True, "lm_head_bias": True, "sliding_window": 6},
    variants=({"attention_bias": False, "lm_head_bias": False, "sliding_window": None},),
)
_STATICS = "moe_statics.e_score_correction_bias"
ERNIE4_5_MOE = mixture(
    "ernie4_5_moe",
    "Ernie4_5_Moe",
    {
        **ATTENTION,
        **{name: axes for name, axes in MIXED.items() if not name.endswith("bias")},
        **MIXED_BIASES,
        f"layers.{{layer}}.mlp.{_STATICS}": "/one /expert",  # added to shares of a softmax, which copies divide
        "lm_head.bias": "vocab",
    },
    {**DEEPSEEK_SIZES, "expert": "moe_num_experts", "shared": "moe_num_shared_experts"},
    experts=ExpertKeys(
        top_k="moe_k",
        first_dense="moe_layer_start_index",
        last="moe_layer_end_index",
        divided=True,
        fused={**FUSED, f"layers.{{layer}}.mlp.gate.{_STATICS}": (f"layers.{{layer}}.mlp.{_STATICS}",)},
    ),
    tied=True,
    rotary=Rotary(base=500000.0, pairs=True),
    switches={"use_bias": "layers.{layer}.self_attn.q_proj.bias"},
    refused={"moe_layer_interval": (1, "it has experts in every so many-th layer only")},
    defaults={"num_key_value_heads": 4},
    small={"moe_num_experts": 8, "moe_num_shared_experts": 2, "use_bias": True},
    variants=({"use_bias": False, "moe_layer_start_index": 0, "moe_layer_end_index": 2},),
)

FAMILIES = (ERNIE4_5_MOE, DOTS1, SOLAR_OPEN, MINIMAX_M2, FLEX_OLMO, PHIMOE)
