"""BART and its kin: an encoder and a decoder of layers with biases and LayerNorms, and learned positions. Data only."""

from typing import Any

from growkit.families.keys import Both
from growkit.families.modules import linear, norm
from growkit.families.schema import LAYER, Family, Norms, Positions


def attention(name: str, key_bias: bool = True) -> dict[str, str]:
    """The four projections of an attention, all with biases but those of keys in some families."""
    keys = linear(f"{name}.k_proj", "(head key_dim)", "hidden")
    if not key_bias:
        del keys[f"{name}.k_proj.bias"]
    return {
        **linear(f"{name}.q_proj", "(head query_dim)", "hidden"),
        **keys,
        **linear(f"{name}.v_proj", "(head value_dim)", "hidden"),
        **linear(f"{name}.out_proj", "hidden", "(head value_dim)"),
    }


def layers(key_bias: bool = True) -> dict[str, str]:
    """A layer of the encoder, and one of the decoder, which attends to what the encoder made as well."""
    both: dict[str, str] = {}
    for stack, names in (("encoder", ("self_attn",)), ("decoder", ("self_attn", "encoder_attn"))):
        layer = f"{stack}.layers.{{layer}}"
        for name in names:
            both |= {**attention(f"{layer}.{name}", key_bias), **norm(f"{layer}.{name}_layer_norm")}
        both |= {**linear(f"{layer}.fc1", "ffn", "hidden"), **linear(f"{layer}.fc2", "hidden", "ffn")}
        both |= norm(f"{layer}.final_layer_norm")
    return both


SIZES: dict[str, Any] = {
    "hidden": "d_model",
    "head": Both("encoder_attention_heads", "decoder_attention_heads"),
    "ffn": Both("encoder_ffn_dim", "decoder_ffn_dim"),
    "vocab": "vocab_size",
    "layer": "encoder_layers",
    "position": "max_position_embeddings",
}
STACKS = {"encoder.": "encoder_layers", "decoder.": "decoder_layers"}
_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
EMBEDDINGS = {
    **dict.fromkeys(("shared.weight", *_COPIES), "vocab hidden"),
    "encoder.embed_positions.weight": "position hidden",
    "decoder.embed_positions.weight": "position hidden",
}
HEADS = {
    "lm_head.weight": "vocab /hidden",
    "final_logits_bias": "one vocab",
    **linear("classification_head.dense", "pooled", "hidden"),
    **linear("classification_head.out_proj", "label", "pooled"),
    **linear("qa_outputs", "label", "hidden"),
}
FACTS: dict[str, Any] = dict(
    sizes=SIZES,
    causal=False,
    packs=False,
    tied=True,
    embedding="shared.weight",
    heads=("lm_head.weight",),
    copies=dict.fromkeys(_COPIES, "shared.weight"),
    buffers=("encoder.version", "decoder.version"),  # of fairseq's files
    embedding_scaled="scale_embedding",
    stacks=STACKS,
    positions=Positions(extra_rows=2),
    prefixes=("model.",),
    small={"decoder_layers": 3},
    variants=({"decoder_layers": 2, "scale_embedding": True},),
)


def _classes(stem: str) -> tuple[tuple[str, str], ...]:
    return (
        ("classification_head.dense.weight", f"{stem}ForSequenceClassification"),
        ("qa_outputs.weight", f"{stem}ForQuestionAnswering"),
        ("final_logits_bias", f"{stem}ForConditionalGeneration"),
        ("*", f"{stem}Model"),
    )


BART = Family(
    model_type="bart",
    tensors={
        **EMBEDDINGS,
        **norm("encoder.layernorm_embedding"),
        **norm("decoder.layernorm_embedding"),
        **layers(),
        **HEADS,
    },
    norms=Norms(kind=LAYER, after=True),
    last_norm="decoder.layers.{layer}.final_layer_norm",
    architectures=_classes("Bart"),
    **FACTS,
)

MBART = Family(
    model_type="mbart",
    tensors={
        **EMBEDDINGS,
        **norm("encoder.layernorm_embedding", "normed"),
        **norm("decoder.layernorm_embedding", "normed"),
        **layers(),
        **norm("encoder.layer_norm"),
        **norm("decoder.layer_norm", before_head=True),
        **HEADS,
    },
    norms=Norms(kind=LAYER),
    architectures=_classes("MBart"),
    **FACTS,
)

FAMILIES = (BART, MBART)
