"""T5 and its kin: an encoder and a decoder of pre-RMSNorm layers, whose positions are a bias of the first one, or of
each. Data only.
"""

from typing import Any

from growkit.families.modules import linear
from growkit.families.schema import RMS, Family, Norms


def _attention(name: str) -> dict[str, str]:
    return {
        f"{name}.q.weight": "(head query_dim) /hidden",
        f"{name}.k.weight": "(head key_dim) /hidden",
        f"{name}.v.weight": "(head value_dim) /hidden",
        f"{name}.o.weight": "hidden /(head value_dim)",
    }


def _feed_forward(name: str) -> dict[str, str]:
    return {
        **{f"{name}.{own}.weight": "ffn /hidden" for own in ("wi", "wi_0", "wi_1")},
        f"{name}.wo.weight": "hidden /ffn",
    }


_BLOCKS = ("encoder.block.{layer}.layer", "decoder.block.{layer}.layer")
_BIASES = tuple(f"{block}.0.SelfAttention.relative_attention_bias.weight" for block in _BLOCKS)
_FEEDS = (f"{_BLOCKS[0]}.1.DenseReluDense", f"{_BLOCKS[1]}.2.DenseReluDense")
_GATED = {f"{feed}.{own}.weight": own != "wi" for feed in _FEEDS for own in ("wi", "wi_0", "wi_1")}


def _t5(model_type: str, stem: str, head_scaled: str, variant: dict[str, Any], each: bool = False) -> Family:
    """One of them. head_scaled: of Family; variant: another way to set it; each: whether every layer has a bias."""
    return Family(
        model_type=model_type,
        sizes={
            "hidden": "d_model",
            "head": "num_heads",
            "head_dim": "d_kv",
            "ffn": "d_ff",
            "vocab": "vocab_size",
            "layer": "num_layers",
        },
        tensors={
            "shared.weight": "vocab hidden",
            "encoder.embed_tokens.weight": "vocab hidden",
            "decoder.embed_tokens.weight": "vocab hidden",
            **{bias: "bucket head" for bias in _BIASES},
            **{f"{_BLOCKS[0]}.{part}.layer_norm.weight": "~hidden" for part in range(2)},
            **{f"{_BLOCKS[1]}.{part}.layer_norm.weight": "~hidden" for part in range(3)},
            **_attention(f"{_BLOCKS[0]}.0.SelfAttention"),
            **_attention(f"{_BLOCKS[1]}.0.SelfAttention"),
            **_attention(f"{_BLOCKS[1]}.1.EncDecAttention"),
            **_feed_forward(_FEEDS[0]),
            **_feed_forward(_FEEDS[1]),
            "encoder.final_layer_norm.weight": "~hidden",
            "decoder.final_layer_norm.weight": "~/hidden",
            "lm_head.weight": "vocab /hidden",
            **linear("classification_head.dense", "pooled", "hidden"),
            **linear("classification_head.out_proj", "label", "pooled"),
            **linear("classifier", "label", "hidden"),
            **linear("qa_outputs", "label", "hidden"),
        },
        norms=Norms(kind=RMS),
        causal=False,
        packs=False,
        own_head_dim=True,
        hidden_by_heads=False,
        embedding="shared.weight",
        heads=("lm_head.weight",),
        copies=dict.fromkeys(("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"), "shared.weight"),
        tied=True,
        head_scaled=head_scaled,
        scaled_scores=False,
        stacks={"encoder.": "num_layers", "decoder.": "num_decoder_layers"},
        first_only=() if each else _BIASES,
        buffers=(f"{_BLOCKS[1]}.1.EncDecAttention.relative_attention_bias.weight",),  # of T5's first files
        stored_where={name: ({"is_gated_act": (gated,)},) for name, gated in _GATED.items()},
        small={"d_kv": 8, "eos_token_id": 1},
        variants=({"feed_forward_proj": "gated-gelu"}, {"num_decoder_layers": 2, **variant}),
        prefixes=("transformer.",),
        architectures=(
            ("decoder.final_layer_norm.weight", f"{stem}ForConditionalGeneration"),
            ("*", f"{stem}EncoderModel"),
        ),
    )


FAMILIES = (
    _t5("t5", "T5", "scale_decoder_outputs", {"scale_decoder_outputs": False}),
    # whose classes tie the head whatever a config says; only the second scales what is tied
    _t5("mt5", "MT5", "", {"feed_forward_proj": "relu"}),
    _t5("umt5", "UMT5", "tie_word_embeddings", {"feed_forward_proj": "relu"}, each=True),
)
