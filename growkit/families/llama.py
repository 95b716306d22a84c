"""Llama and its kin: pre-RMSNorm decoders with rotary positions and gated feed-forward layers. Data only."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from growkit.families.keys import Keys
from growkit.families.modules import decoder_classes, linear, norm, task_heads
from growkit.families.schema import RMS, AttentionWindows, Family, Norms, Rotary

_SIZES = {
    "hidden": "hidden_size",
    "head": "num_attention_heads",
    "kv_head": "num_key_value_heads",
    "head_dim": "head_dim",
    "ffn": "intermediate_size",
    "vocab": "vocab_size",
    "layer": "num_hidden_layers",
    "position": "max_position_embeddings",
}

ATTENTION = {
    **linear("layers.{layer}.self_attn.q_proj", "(head query_dim)", "hidden"),
    **linear("layers.{layer}.self_attn.k_proj", "(kv_head key_dim)", "hidden"),
    **linear("layers.{layer}.self_attn.v_proj", "(kv_head value_dim)", "hidden"),
    **linear("layers.{layer}.self_attn.o_proj", "hidden", "(head value_dim)"),
}

FEED_FORWARD = {
    **linear("layers.{layer}.mlp.gate_proj", "ffn", "hidden"),
    **linear("layers.{layer}.mlp.up_proj", "ffn", "hidden"),
    **linear("layers.{layer}.mlp.down_proj", "hidden", "ffn"),
}

OUTSIDE = {  # what stands around and between the blocks
    "embed_tokens.weight": "vocab hidden",
    **norm("layers.{layer}.input_layernorm"),
    **norm("layers.{layer}.post_attention_layernorm"),
    **norm("norm", before_head=True),
    "lm_head.weight": "vocab /hidden",
    **task_heads(),
}

DECODER = {**OUTSIDE, **ATTENTION, **FEED_FORWARD}

# a norm over each head's own slots, shared by all heads
HEAD_NORM = {
    **norm("layers.{layer}.self_attn.q_norm", "query_dim"),
    **norm("layers.{layer}.self_attn.k_norm", "key_dim"),
}

# q and k normed over all heads at once, so that their heads are axes of their own (OLMo 2)
NORM_OVER_HEADS = {
    **linear("layers.{layer}.self_attn.q_proj", "(query_head query_dim)", "hidden"),
    **linear("layers.{layer}.self_attn.k_proj", "(key_head key_dim)", "hidden"),
    **norm("layers.{layer}.self_attn.q_norm", "(query_head query_dim)"),
    **norm("layers.{layer}.self_attn.k_norm", "(key_head key_dim)"),
}

BRANCH_NORMS = {
    **norm("layers.{layer}.pre_feedforward_layernorm"),
    **norm("layers.{layer}.post_feedforward_layernorm"),
}

# what Gemma 2 and OLMo 2 norm before it is added to the stream
AFTER_BLOCKS = (
    "layers.{layer}.post_attention_layernorm.weight",
    "layers.{layer}.post_feedforward_layernorm.weight",
)


def llama_like(
    model_type: str,
    stem: str,
    tensors: Mapping[str, str] = DECODER,
    sizes: Mapping[str, Keys] = MappingProxyType({}),
    **facts: Any,
) -> Family:
    """A family that shares Llama's names and sizes; `sizes` of its own and `facts` are what sets it apart."""
    defaults = {"num_key_value_heads": None, **facts.pop("defaults", {})}
    if sizes.get("head_dim", "head_dim") == "head_dim":
        defaults = {"head_dim": None, **defaults}
    common: dict[str, Any] = dict(
        defaults=defaults,
        norms=Norms(kind=RMS),
        rotary=Rotary(),
        own_head_dim=True,
        hidden_by_heads=False,
        embedding="embed_tokens.weight",
        heads=("lm_head.weight",),
        tied=False,
        prefixes=("model.", "transformer."),
        switches={
            "attention_bias": "layers.{layer}.self_attn.q_proj.bias",
            "mlp_bias": "layers.{layer}.mlp.up_proj.bias",
        },
        buffers=("layers.{layer}.self_attn.rotary_emb.inv_freq", "rotary_emb.inv_freq"),
        architectures=decoder_classes(
            stem, "score.bias", "score.weight", "qa_outputs.weight", "lm_head.weight", "", "*"
        ),
    )
    return Family(
        model_type=model_type,
        sizes={**_SIZES, **sizes},
        tensors=tensors,
        **{**common, **facts},
    )


GEMMA_FACTS: dict[str, Any] = dict(embedding_scaled=True, tied=True)

LLAMA = llama_like(
    "llama",
    "Llama",
    hidden_by_heads=True,
    small={"attention_bias": True, "mlp_bias": True},
    variants=({"attention_bias": False, "mlp_bias": False, "head_dim": 8}, {"num_key_value_heads": 4}),
)
MISTRAL = llama_like(
    "mistral",
    "Mistral",
    defaults={"num_key_value_heads": 8, "sliding_window": 4096},
    small={"sliding_window": 6},
    variants=({"sliding_window": None, "head_dim": 8},),
)
_WINDOW: dict[str, Any] = dict(windows=AttentionWindows(full_layers="max_window_layers"))
_WINDOW_DEFAULTS = {
    "num_key_value_heads": 32,
    "use_sliding_window": False,
    "max_window_layers": 28,
    "sliding_window": 4096,
}
_WINDOW_ON = ({"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},)
QWEN2 = llama_like("qwen2", "Qwen2", switches={}, defaults=_WINDOW_DEFAULTS, variants=_WINDOW_ON, **_WINDOW)
QWEN3 = llama_like(
    "qwen3",
    "Qwen3",
    {**DECODER, **HEAD_NORM},
    norms=Norms(kind=RMS, on_heads=True),
    defaults={"head_dim": 128, **_WINDOW_DEFAULTS},
    small={"attention_bias": True},
    variants=({"attention_bias": False, **_WINDOW_ON[0]},),
    **_WINDOW,
)
GEMMA = llama_like(
    "gemma",
    "Gemma",
    norms=Norms(kind=RMS, gain_offset=1.0),
    defaults={"head_dim": 256, "num_key_value_heads": 16},
    **GEMMA_FACTS,
)
GEMMA2 = llama_like(
    "gemma2",
    "Gemma2",
    {**DECODER, **BRANCH_NORMS},
    hidden_by_heads=True,
    score_keys={"query_pre_attn_scalar": None},
    norms=Norms(kind=RMS, gain_offset=1.0, branch=AFTER_BLOCKS),
    windows=AttentionWindows(layer_cycle=("sliding_attention", "full_attention")),
    defaults={
        "head_dim": 256,
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "final_logit_softcapping": 30.0,
    },
    small={"query_pre_attn_scalar": 12, "sliding_window": 6},
    variants=({"attention_bias": True, "final_logit_softcapping": None, "attn_logit_softcapping": None},),
    **GEMMA_FACTS,
)
# no norm before a block but one on what it puts out
NORMED_AFTER = {
    **{name: axes for name, axes in DECODER.items() if ".input_layernorm." not in name},
    **norm("layers.{layer}.post_feedforward_layernorm"),
}
OLMO2 = llama_like(
    "olmo2",
    "Olmo2",
    {**NORMED_AFTER, **NORM_OVER_HEADS},
    norms=Norms(kind=RMS, on_heads=True, branch=AFTER_BLOCKS),
)

FAMILIES = (LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA, GEMMA2, OLMO2)
