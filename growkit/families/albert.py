"""ALBERT: BERT's encoder with one layer that all share, behind embeddings of a width of their own. Data only."""

from growkit.families.bert import SIZES, TOKEN_LABELS
from growkit.families.modules import linear, norm
from growkit.families.schema import LAYER, Family, Norms

_LAYER = "encoder.albert_layer_groups.{layer}.albert_layers.{expert}"

ALBERT = Family(
    model_type="albert",
    sizes={**SIZES, "embedding": "embedding_size", "layer": "num_hidden_groups"},
    tensors={
        "embeddings.word_embeddings.weight": "vocab embedding",
        "embeddings.position_embeddings.weight": "position embedding",
        "embeddings.token_type_embeddings.weight": "type embedding",
        **norm("embeddings.LayerNorm", "embedding"),
        **linear("encoder.embedding_hidden_mapping_in", "hidden", "embedding"),
        **linear(f"{_LAYER}.attention.query", "(head query_dim)", "hidden"),
        **linear(f"{_LAYER}.attention.key", "(head key_dim)", "hidden"),
        **linear(f"{_LAYER}.attention.value", "(head value_dim)", "hidden"),
        **linear(f"{_LAYER}.attention.dense", "hidden", "(head value_dim)"),
        **norm(f"{_LAYER}.attention.LayerNorm"),
        **linear(f"{_LAYER}.ffn", "ffn", "hidden"),
        **linear(f"{_LAYER}.ffn_output", "hidden", "ffn"),
        **norm(f"{_LAYER}.full_layer_layer_norm"),
        **linear("pooler", "pooled", "hidden"),
        **linear("predictions.dense", "head_embedding", "hidden"),
        **norm("predictions.LayerNorm", "head_embedding", before_head=True),
        **linear("predictions.decoder", "vocab", "head_embedding"),
        "predictions.bias": "vocab",
        **linear("sop_classifier.classifier", "label", "pooled"),
        **linear("classifier", "label", "pooled"),
        **linear("qa_outputs", "label", "hidden"),
    },
    task_tensors=TOKEN_LABELS,
    norms=Norms(kind=LAYER, after=True),
    causal=False,
    packs=False,
    projected=True,
    passes="num_hidden_layers",
    defaults={"embedding_size": 128, "num_hidden_groups": 1, "inner_group_num": 1},
    embedding="embeddings.word_embeddings.weight",
    heads=("predictions.decoder.weight",),
    copies={"predictions.decoder.bias": "predictions.bias"},
    tied=True,
    prefixes=("albert.",),
    architectures=(
        ("sop_classifier.classifier.weight", "AlbertForPreTraining"),
        ("predictions.bias", "AlbertForMaskedLM"),
        ("qa_outputs.weight", "AlbertForQuestionAnswering"),
        ("", "AlbertModel"),
        ("pooler.weight", "AlbertForSequenceClassification"),
        ("classifier.weight", "AlbertForTokenClassification"),
        ("*", "AlbertModel"),
    ),
    buffers=("embeddings.position_ids", "embeddings.token_type_ids"),
    refused={"inner_group_num": (1, "only groups of one layer are understood, as every published ALBERT has them")},
    small={"num_hidden_layers": 3, "num_hidden_groups": 1},
    variants=({"embedding_size": 24}, {"num_hidden_layers": 4, "num_hidden_groups": 2}),
)

FAMILIES = (ALBERT,)
