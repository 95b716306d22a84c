"""ModernBERT, as encoder and as decoder: pre-LayerNorm behind normed embeddings, rotary positions of two bases. Data
only."""

from typing import Any

from growkit.families.modules import linear, norm
from growkit.families.schema import LAYER, AttentionWindows, Family, Norms, Rotary

_LAYER = "layers.{layer}"

# all but attention and what fills in or goes on
_BODY = {
    "embeddings.tok_embeddings.weight": "vocab hidden",
    **norm("embeddings.norm", "normed"),
    **norm(f"{_LAYER}.attn_norm"),
    **linear(f"{_LAYER}.attn.Wo", "hidden", "(head value_dim)"),
    **norm(f"{_LAYER}.mlp_norm"),
    **linear(f"{_LAYER}.mlp.Wi", "(ffn | ffn)", "hidden"),
    **linear(f"{_LAYER}.mlp.Wo", "hidden", "ffn"),
}


def _head(name: str) -> dict[str, str]:
    """A layer between the stream and a classifier or the vocabulary."""
    return {**linear(f"{name}.dense", "head_hidden", "hidden"), **norm(f"{name}.norm", "head_hidden", before_head=True)}


_COMMON: dict[str, Any] = dict(
    sizes={
        "hidden": "hidden_size",
        "head": "num_attention_heads",
        "ffn": "intermediate_size",
        "vocab": "vocab_size",
        "layer": "num_hidden_layers",
        "position": "max_position_embeddings",
    },
    norms=Norms(kind=LAYER),
    rotary=Rotary(by_type={"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"}),
    windows=AttentionWindows(listed=("layer_types",)),
    # attention of the first layer reads the normed embeddings themselves; where its copy stands elsewhere, their norm
    # stands before it
    first_lacks={f"{_LAYER}.attn_norm.{kind}": f"embeddings.norm.{kind}" for kind in ("weight", "bias")},
    embedding="embeddings.tok_embeddings.weight",
    heads=("decoder.weight",),
    tied=True,
    packs=False,
    small={
        "local_attention": 6,
        "norm_bias": True,
        "attention_bias": True,
        "mlp_bias": True,
        "classifier_bias": True,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 1),
    },
    variants=({"norm_bias": False, "attention_bias": False, "mlp_bias": False},),
    prefixes=("model.",),
    switches={
        "attention_bias": f"{_LAYER}.attn.Wo.bias",
        "mlp_bias": f"{_LAYER}.mlp.Wo.bias",
        "norm_bias": "final_norm.bias",
        "decoder_bias": "decoder.bias",
    },
)

MODERNBERT = Family(
    model_type="modernbert",
    tensors={
        **_BODY,
        **linear(f"{_LAYER}.attn.Wqkv", "(head query_dim | head key_dim | head value_dim)", "hidden"),
        **norm("final_norm"),
        **_head("head"),
        **linear("decoder", "vocab", "head_hidden"),
        **linear("classifier", "label", "head_hidden"),
    },
    causal=False,
    architectures=(
        ("decoder.weight", "ModernBertForMaskedLM"),
        ("classifier.weight", "ModernBertForSequenceClassification"),
        ("", "ModernBertModel"),
        ("*", "ModernBertForMaskedLM"),
    ),
    **_COMMON,
)

MODERNBERT_DECODER = Family(
    model_type="modernbert-decoder",
    tensors={
        **_BODY,
        **linear(f"{_LAYER}.attn.q_proj", "(head query_dim)", "hidden"),
        **linear(f"{_LAYER}.attn.k_proj", "(head key_dim)", "hidden"),
        **linear(f"{_LAYER}.attn.v_proj", "(head value_dim)", "hidden"),
        **norm("final_norm"),
        **_head("lm_head"),
        **_head("head"),
        **linear("decoder", "vocab", "head_hidden"),
        **linear("classifier", "label", "head_hidden"),
    },
    architectures=(
        ("classifier.weight", "ModernBertDecoderForSequenceClassification"),
        ("", "ModernBertDecoderModel"),
        ("*", "ModernBertDecoderForCausalLM"),
    ),
    **_COMMON,
)

FAMILIES = (MODERNBERT, MODERNBERT_DECODER)
