"""Decoders that are Llama but for a number, a norm or a name. Data only."""

from typing import Any

from growkit.families.llama import ATTENTION, DECODER, HEAD_NORM, OUTSIDE, llama_like
from growkit.families.modules import linear, norm
from growkit.families.schema import RMS, AttentionWindows, Norms, Rotary

# a feed-forward layer without a gate
UP_DOWN = {
    **linear("layers.{layer}.mlp.up_proj", "ffn", "hidden"),
    **linear("layers.{layer}.mlp.down_proj", "hidden", "ffn"),
}
# small models with biases, and others without
BIASES: dict[str, Any] = dict(
    small={"attention_bias": True, "mlp_bias": True}, variants=({"attention_bias": False, "mlp_bias": False},)
)
_SCALES = {"embedding_multiplier": 3.0, "residual_multiplier": 0.6, "logits_scaling": 2.0}

GRANITE = llama_like(
    "granite",
    "Granite",
    score_keys={"attention_multiplier": None},
    small={**BIASES["small"], **_SCALES, "attention_multiplier": 0.3},
    variants=BIASES["variants"],
)
_POST_NORMS = ("layers.{layer}.post_norm1", "layers.{layer}.post_norm2")
HYPERCLOVAX = llama_like(
    "hyperclovax",
    "HyperCLOVAX",
    {**DECODER, **norm(_POST_NORMS[0]), **norm(_POST_NORMS[1])},
    hidden_by_heads=True,
    norms=Norms(kind=RMS, branch=tuple(f"{name}.weight" for name in _POST_NORMS)),
    stored_where={f"{name}.weight": ({"use_post_norm": (True,)},) for name in _POST_NORMS},
    score_keys={"attention_multiplier": None},
    defaults={"attention_multiplier": None},
    small={**BIASES["small"], **_SCALES},
    variants=({"use_post_norm": False, "attention_multiplier": 0.3}, *BIASES["variants"]),
)
SMOLLM3 = llama_like(
    "smollm3",
    "SmolLM3",
    tied=True,
    rotary=Rotary(base=2000000.0),
    windows=AttentionWindows(listed=("no_rope_layers", "layer_types")),
    defaults={"num_key_value_heads": 4},
    small={"no_rope_layer_interval": 2},
    variants=({**BIASES["small"], "use_sliding_window": True, "sliding_window": 6}, {"no_rope_layers": [0, 1, 1]}),
)
ARCEE = llama_like("arcee", "Arcee", {**OUTSIDE, **ATTENTION, **UP_DOWN}, hidden_by_heads=True, **BIASES)
HELIUM = llama_like(
    "helium",
    "Helium",
    own_head_dim=False,
    rotary=Rotary(base=100000.0, pairs=True),
    defaults={"num_key_value_heads": 20, "head_dim": 128},
    small={"head_dim": 6, **BIASES["small"]},
    variants=BIASES["variants"],
)
SEED_OSS = llama_like(
    "seed_oss",
    "SeedOss",
    defaults={"num_key_value_heads": 8, "head_dim": 128},
    small={"attention_out_bias": True, "mlp_bias": True},
    variants=({"attention_bias": False, "attention_out_bias": False, "mlp_bias": False},),
)
HUNYUAN = llama_like(
    "hunyuan_v1_dense",
    "HunYuanDenseV1",
    {
        **DECODER,
        **norm("layers.{layer}.self_attn.query_layernorm", "query_dim"),
        **norm("layers.{layer}.self_attn.key_layernorm", "key_dim"),
    },
    norms=Norms(kind=RMS, on_heads=True),
    small={"head_dim": 8, "attention_bias": True},
    variants=({"attention_bias": False},),
)
ERNIE4_5 = llama_like(
    "ernie4_5",
    "Ernie4_5",
    tied=True,
    rotary=Rotary(base=500000.0, pairs=True),
    switches={"use_bias": "layers.{layer}.self_attn.q_proj.bias"},
    defaults={"num_key_value_heads": 2, "head_dim": 128},
    small={"use_bias": True},
    variants=({"use_bias": False},),
)
MINISTRAL = llama_like(
    "ministral",
    "Ministral",
    switches={},
    windows=AttentionWindows(listed=("layer_types",)),
    defaults={"num_key_value_heads": 8, "sliding_window": 4096},
    small={"head_dim": 8, "sliding_window": 6},
    variants=({"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]},),
)
MINISTRAL3 = llama_like(
    "ministral3",
    "Ministral3",
    switches={},
    rotary=Rotary(base=1e6, kind="yarn"),
    defaults={"num_key_value_heads": 8, "head_dim": 128},
    # queries are scaled by their position, from the 4th on
    small={
        "sliding_window": 6,
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "original_max_position_embeddings": 4,
            "max_position_embeddings": 64, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.5,
        },
    },
    variants=({"sliding_window": None},),
)  # fmt: skip
CWM = llama_like(
    "cwm",
    "Cwm",
    hidden_by_heads=True,
    switches={"mlp_bias": "layers.{layer}.mlp.up_proj.bias"},
    rotary=Rotary(base=1e6, kind="llama3"),
    windows=AttentionWindows(listed=("layer_types",)),
    defaults={"num_key_value_heads": 8, "head_dim": 128},
    small={"sliding_window": 6, "mlp_bias": True},
    variants=({"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "mlp_bias": False},),
)
# Llama's own classes, with configs of their own
INTERNLM3 = llama_like(
    "internlm3", "Llama", hidden_by_heads=True, defaults={"num_key_value_heads": 2, "head_dim": 128}, **BIASES
)
IQUESTCODER = llama_like(
    "iquestcoder", "Llama", hidden_by_heads=True, defaults={"num_key_value_heads": 8, "head_dim": 128}, **BIASES
)
APERTUS = llama_like(
    "apertus",
    "Apertus",
    {
        **{
            name.replace("post_attention_", "feedforward_").replace("input_", "attention_"): axes
            for name, axes in OUTSIDE.items()
        },
        **ATTENTION,
        **HEAD_NORM,
        **UP_DOWN,
        # what a layer's activation learns, and two numbers that are always the same
        "layers.{layer}.mlp.act_fn.alpha_p": "one",
        "layers.{layer}.mlp.act_fn.alpha_n": "one",
        "layers.{layer}.mlp.act_fn.beta": "",
        "layers.{layer}.mlp.act_fn.eps": "",
    },
    switches={"attention_bias": "layers.{layer}.self_attn.q_proj.bias"},
    norms=Norms(kind=RMS, on_heads=True),
    rotary=Rotary(base=12e6, kind="llama3"),
    small={"attention_bias": True},
    variants=({"attention_bias": False, "head_dim": 8},),
)

FAMILIES = (
    GRANITE, HYPERCLOVAX, SMOLLM3, ARCEE, HELIUM, SEED_OSS, HUNYUAN, ERNIE4_5, MINISTRAL, MINISTRAL3, CWM, INTERNLM3,
    IQUESTCODER, APERTUS,
)  # fmt: skip
