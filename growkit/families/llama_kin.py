"""Decoders that are Llama but for a number, a norm or a name. Data only."""

from growkit.families.llama import ATTENTION, DECODER, OUTSIDE, llama_like
from growkit.families.modules import linear, norm
from growkit.families.schema import RMS, AttentionWindows, Norms, Rotary

_BIAS = {"use_bias": "layers.{layer}.self_attn.q_proj.bias"}
# a feed-forward layer without a gate
UP_DOWN = {
    **linear("layers.{layer}.mlp.up_proj", "ffn", "hidden"),
    **linear("layers.{layer}.mlp.down_proj", "hidden", "ffn"),
}

GRANITE = llama_like("granite", "Granite", score_keys={"attention_multiplier": None})
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
)
SMOLLM3 = llama_like(
    "smollm3",
    "SmolLM3",
    tied=True,
    rotary=Rotary(base=2000000.0),
    windows=AttentionWindows(listed=("no_rope_layers", "layer_types")),
    defaults={"num_key_value_heads": 4},
)
ARCEE = llama_like("arcee", "Arcee", {**OUTSIDE, **ATTENTION, **UP_DOWN}, hidden_by_heads=True)
HELIUM = llama_like(
    "helium",
    "Helium",
    own_head_dim=False,
    hidden_by_heads=True,
    rotary=Rotary(base=100000.0, pairs=True),
    defaults={"num_key_value_heads": 20, "head_dim": 128},
)
SEED_OSS = llama_like("seed_oss", "SeedOss", defaults={"num_key_value_heads": 8, "head_dim": 128})
HUNYUAN = llama_like(
    "hunyuan_v1_dense",
    "HunYuanDenseV1",
    {
        **DECODER,
        **norm("layers.{layer}.self_attn.query_layernorm", "query_dim"),
        **norm("layers.{layer}.self_attn.key_layernorm", "key_dim"),
    },
    norms=Norms(kind=RMS, on_heads=True),
)
ERNIE4_5 = llama_like(
    "ernie4_5",
    "Ernie4_5",
    tied=True,
    rotary=Rotary(base=500000.0, pairs=True),
    switches=_BIAS,
    defaults={"num_key_value_heads": 2, "head_dim": 128},
)
MINISTRAL = llama_like(
    "ministral",
    "Ministral",
    switches={},
    windows=AttentionWindows(listed=("layer_types",)),
    defaults={"num_key_value_heads": 8, "sliding_window": 4096},
)

FAMILIES = (GRANITE, HYPERCLOVAX, SMOLLM3, ARCEE, HELIUM, SEED_OSS, HUNYUAN, ERNIE4_5, MINISTRAL)
