"""StarCoder2, StableLM, Nemotron and Jais 2: Llama's attention under LayerNorms. Data only."""

from growkit.families.llama import ATTENTION, DECODER, OUTSIDE, llama_like
from growkit.families.llama_kin import BIASES, UP_DOWN
from growkit.families.modules import linear, norm
from growkit.families.schema import LAYER, Norms, Rotary

STARCODER2 = llama_like(
    "starcoder2",
    "Starcoder2",
    {
        **OUTSIDE,
        **ATTENTION,
        **linear("layers.{layer}.mlp.c_fc", "ffn", "hidden"),
        **linear("layers.{layer}.mlp.c_proj", "hidden", "ffn"),
    },
    norms=Norms(kind=LAYER),
    tied=True,
    switches={"use_bias": "layers.{layer}.self_attn.q_proj.bias"},
    defaults={"num_key_value_heads": 2},
    small={"sliding_window": 6},
    variants=({"use_bias": False, "sliding_window": None, "head_dim": 8},),
)
_HEAD_NORMS = {  # the number is a head's
    **norm("layers.{layer}.self_attn.q_layernorm.norms.{expert}", "query_dim"),
    **norm("layers.{layer}.self_attn.k_layernorm.norms.{expert}", "key_dim"),
}
STABLELM = llama_like(
    "stablelm",
    "StableLm",
    {**DECODER, **_HEAD_NORMS},
    norms=Norms(kind=LAYER),
    rotary=Rotary(fraction=0.25),
    own_head_dim=False,
    stored_where={
        "layers.{layer}.post_attention_layernorm.weight": ({"use_parallel_residual": (False,)},),
        **{name: ({"qk_layernorm": (True,)},) for name in _HEAD_NORMS},
    },
    switches={"use_qkv_bias": "layers.{layer}.self_attn.q_proj.bias"},
    defaults={"num_key_value_heads": 32},
    forbids={
        "qk_layernorm": (
            (False,),
            ("head", "kv_head", "head_dim"),
            "each head has a LayerNorm of its own, which growkit does not copy",
        )
    },
    small={"partial_rotary_factor": 0.7},
    variants=({"use_parallel_residual": True, "use_qkv_bias": True}, {"qk_layernorm": True}),
)
NEMOTRON = llama_like(
    "nemotron",
    "Nemotron",
    {**OUTSIDE, **ATTENTION, **UP_DOWN},
    norms=Norms(kind=LAYER, gain_offset=1.0),
    rotary=Rotary(fraction=0.5),
    small={"head_dim": 8, **BIASES["small"]},
    variants=({**BIASES["variants"][0], "partial_rotary_factor": 1.0},),
)
JAIS2 = llama_like(
    "jais2",
    "Jais2",
    {**OUTSIDE, **ATTENTION, **UP_DOWN},
    norms=Norms(kind=LAYER),
    hidden_by_heads=True,
    rotary=Rotary(),
    **BIASES,
)

FAMILIES = (STARCODER2, STABLELM, NEMOTRON, JAIS2)
