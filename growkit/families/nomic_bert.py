"""Nomic BERT, GTE and Jina Embeddings v3: post-LayerNorm encoders with rotary positions. Data only.

Files have older names, and queries, keys and values in one tensor; stock models have them by themselves.
"""

from typing import Any

from growkit.families.bert import ROBERTA, ROBERTA_HEADS, SIZES, TOKEN_LABELS
from growkit.families.llama import ATTENTION, FEED_FORWARD
from growkit.families.modules import linear, norm
from growkit.families.schema import LAYER, Family, Norms, Rotary

_IN = "layers.{layer}"


def _rotary_encoder(
    model_type: str,
    tensors: dict[str, str],
    feed_forward: dict[str, str] = FEED_FORWARD,
    prefix: str = "",
    **facts: Any,
) -> Family:
    """An encoder with Llama's names inside its layers; `tensors` are those behind them."""
    return Family(
        model_type=model_type,
        sizes={**SIZES, "head_dim": "head_dim"},
        defaults={"head_dim": None},
        own_head_dim=True,
        hidden_by_heads=False,
        tensors={
            "embeddings.word_embeddings.weight": "vocab hidden",
            "embeddings.token_type_embeddings.weight": "type hidden",
            **norm("embeddings.LayerNorm"),
            **ATTENTION,
            **norm(f"{_IN}.post_attention_layernorm"),
            **feed_forward,
            **norm(f"{_IN}.post_mlp_layernorm"),
            **linear("pooler.dense", "pooled", "hidden"),
            **tensors,
        },
        task_tensors=TOKEN_LABELS,
        norms=Norms(kind=LAYER, after=True),
        causal=False,
        packs=False,
        embedding="embeddings.word_embeddings.weight",
        tied=True,
        prefixes=(prefix or f"{model_type}.",),
        buffers=("embeddings.position_ids", "embeddings.token_type_ids", "rotary_emb.inv_freq"),
        **facts,
    )


def _stored(place: str, names: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """What files have at a place, weights and biases, as what stock models have in a layer."""
    return {
        f"{place}.{name}.{kind}": tuple(f"{_IN}.{own}.{kind}" for own in held)
        for name, held in names.items()
        for kind in ("weight", "bias")
    }


_EMBEDDINGS_NORM = {f"emb_ln.{kind}": (f"embeddings.LayerNorm.{kind}",) for kind in ("weight", "bias")}
_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")

NOMIC_BERT = _rotary_encoder(
    "nomic_bert",
    {
        **linear("cls.predictions.transform.dense", "head_hidden", "hidden"),
        **norm("cls.predictions.transform.layer_norm", "head_hidden", before_head=True),
        **linear("cls.predictions.decoder", "vocab", "head_hidden"),
        "cls.predictions.bias": "vocab",
        **linear("classifier", "label", "pooled"),
    },
    rotary=Rotary(base=1000.0),
    heads=("cls.predictions.decoder.weight",),
    copies={"cls.predictions.decoder.bias": "cls.predictions.bias"},
    architectures=(
        ("cls.predictions.bias", "NomicBertForMaskedLM"),
        ("", "NomicBertModel"),
        ("pooler.dense.weight", "NomicBertForSequenceClassification"),
        ("classifier.weight", "NomicBertForTokenClassification"),
        ("*", "NomicBertModel"),
    ),
    stored_as={
        **_EMBEDDINGS_NORM,
        **_stored(
            "encoder.layers.{layer}",
            {
                "attn.Wqkv": _QKV,
                "attn.out_proj": ("self_attn.o_proj",),
                "mlp.fc11": ("mlp.up_proj",),
                "mlp.fc12": ("mlp.gate_proj",),
                "mlp.fc2": ("mlp.down_proj",),
                "norm1": ("post_attention_layernorm",),
                "norm2": ("post_mlp_layernorm",),
            },
        ),
    },
)

GTE = _rotary_encoder(
    "gte",
    {
        **linear("lm_head.dense", "head_hidden", "hidden"),
        **norm("lm_head.layer_norm", "head_hidden", before_head=True),
        **linear("lm_head.decoder", "vocab", "head_hidden"),
        **linear("classifier", "label", "pooled"),
    },
    rotary=Rotary(base=160000.0),
    small={"type_vocab_size": 2},
    heads=("lm_head.decoder.weight",),
    architectures=(
        ("lm_head.dense.weight", "GteForMaskedLM"),
        ("", "GteModel"),
        ("pooler.dense.weight", "GteForSequenceClassification"),
        ("classifier.weight", "GteForTokenClassification"),
        ("*", "GteModel"),
    ),
    stored_as={
        "lm_head.norm.weight": ("lm_head.layer_norm.weight",),
        "lm_head.norm.bias": ("lm_head.layer_norm.bias",),
        **_stored(
            "encoder.layer.{layer}",
            {
                "attention.qkv_proj": _QKV,
                "attention.o_proj": ("self_attn.o_proj",),
                "attn_ln": ("post_attention_layernorm",),
                "mlp.up_gate_proj": ("mlp.up_proj", "mlp.gate_proj"),
                "mlp.down_proj": ("mlp.down_proj",),
                "mlp_ln": ("post_mlp_layernorm",),
            },
        ),
    },
)

JINA_EMBEDDINGS_V3 = _rotary_encoder(
    "jina_embeddings_v3",
    {**linear("qa_outputs", "label", "hidden"), **ROBERTA_HEADS},
    {**linear(f"{_IN}.mlp.fc1", "ffn", "hidden"), **linear(f"{_IN}.mlp.fc2", "hidden", "ffn")},
    "roberta.",
    rotary=Rotary(base=20000.0),
    small={"type_vocab_size": 2},
    heads=ROBERTA.heads,
    copies=ROBERTA.copies,
    architectures=(
        ("lm_head.bias", "JinaEmbeddingsV3ForMaskedLM"),
        ("classifier.dense.weight", "JinaEmbeddingsV3ForSequenceClassification"),
        ("qa_outputs.weight", "JinaEmbeddingsV3ForQuestionAnswering"),
        ("", "JinaEmbeddingsV3Model"),
        ("classifier.weight", "JinaEmbeddingsV3ForTokenClassification"),
        ("*", "JinaEmbeddingsV3Model"),
    ),
    stored_as={
        **_EMBEDDINGS_NORM,
        **_stored(
            "encoder.layers.{layer}",
            {
                "mixer.Wqkv": _QKV,
                "mixer.out_proj": ("self_attn.o_proj",),
                "mlp.fc1": ("mlp.fc1",),
                "mlp.fc2": ("mlp.fc2",),
                "norm1": ("post_attention_layernorm",),
                "norm2": ("post_mlp_layernorm",),
            },
        ),
    },
)

FAMILIES = (NOMIC_BERT, GTE, JINA_EMBEDDINGS_V3)
