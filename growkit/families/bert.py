"""BERT and its kin: post-LayerNorm encoders with absolute positions. Data only."""

from growkit.families.keys import Keys
from growkit.families.modules import linear, norm
from growkit.families.schema import LAYER, Family, Norms, Positions

# of one layer, under the names that most encoders have
FEED_FORWARD = {
    **linear("encoder.layer.{layer}.intermediate.dense", "ffn", "hidden"),
    **linear("encoder.layer.{layer}.output.dense", "hidden", "ffn"),
    **norm("encoder.layer.{layer}.output.LayerNorm"),
}
BEHIND_VALUES = {
    **linear("encoder.layer.{layer}.attention.output.dense", "hidden", "(head value_dim)"),
    **norm("encoder.layer.{layer}.attention.output.LayerNorm"),
    **FEED_FORWARD,
}
ENCODER_LAYER = {
    **linear("encoder.layer.{layer}.attention.self.query", "(head query_dim)", "hidden"),
    **linear("encoder.layer.{layer}.attention.self.key", "(head key_dim)", "hidden"),
    **linear("encoder.layer.{layer}.attention.self.value", "(head value_dim)", "hidden"),
    **BEHIND_VALUES,
}

BODY = {
    "embeddings.word_embeddings.weight": "vocab hidden",
    "embeddings.position_embeddings.weight": "position hidden",
    "embeddings.token_type_embeddings.weight": "type hidden",
    **norm("embeddings.LayerNorm"),
    **ENCODER_LAYER,
    **linear("pooler.dense", "pooled", "hidden"),
    **linear("qa_outputs", "label", "hidden"),
}

SIZES: dict[str, Keys] = {
    "hidden": "hidden_size",
    "head": "num_attention_heads",
    "ffn": "intermediate_size",
    "vocab": "vocab_size",
    "layer": "num_hidden_layers",
    "position": "max_position_embeddings",
}

TOKEN_LABELS = {"TokenClassification": linear("classifier", "label", "hidden")}


def renamed(architectures: tuple[tuple[str, str], ...], stem: str, other: str) -> tuple[tuple[str, str], ...]:
    """The same classes of kin, whose names have another stem."""
    return tuple((template, name.replace(stem, other)) for template, name in architectures)


BERT = Family(
    model_type="bert",
    sizes=SIZES,
    tensors={
        **BODY,
        **linear("cls.predictions.transform.dense", "head_hidden", "hidden"),
        **norm("cls.predictions.transform.LayerNorm", "head_hidden", before_head=True),
        **linear("cls.predictions.decoder", "vocab", "head_hidden"),
        "cls.predictions.bias": "vocab",
        **linear("cls.seq_relationship", "label", "pooled"),
        **linear("classifier", "label", "pooled"),
    },
    task_tensors=TOKEN_LABELS,
    norms=Norms(kind=LAYER, after=True),
    causal=False,
    packs=False,
    embedding="embeddings.word_embeddings.weight",
    heads=("cls.predictions.decoder.weight",),
    copies={"cls.predictions.decoder.bias": "cls.predictions.bias"},
    tied=True,
    prefixes=("bert.",),
    architectures=(
        ("cls.seq_relationship.weight", "BertForPreTraining"),
        ("cls.predictions.bias", "BertForMaskedLM"),
        ("qa_outputs.weight", "BertForQuestionAnswering"),
        ("", "BertModel"),
        ("pooler.dense.weight", "BertForSequenceClassification"),
        ("classifier.weight", "BertForTokenClassification"),
        ("*", "BertModel"),
    ),
    buffers=("embeddings.position_ids", "embeddings.token_type_ids"),
)

ROBERTA_HEADS = {
    **linear("lm_head.dense", "head_hidden", "hidden"),
    **norm("lm_head.layer_norm", "head_hidden", before_head=True),
    **linear("lm_head.decoder", "vocab", "head_hidden"),
    "lm_head.bias": "vocab",
    **linear("classifier.dense", "pooled", "hidden"),
    **linear("classifier.out_proj", "label", "pooled"),
    **linear("classifier", "label", "pooled"),
}

ROBERTA = Family(
    model_type="roberta",
    sizes=SIZES,
    tensors={**BODY, **ROBERTA_HEADS},
    task_tensors=TOKEN_LABELS,
    norms=Norms(kind=LAYER, after=True),
    causal=False,
    packs=False,
    embedding="embeddings.word_embeddings.weight",
    heads=("lm_head.decoder.weight",),
    copies={"lm_head.decoder.bias": "lm_head.bias"},
    tied=True,
    prefixes=("roberta.",),
    positions=Positions(counted_after="pad_token_id"),
    architectures=(
        ("lm_head.bias", "RobertaForMaskedLM"),
        ("classifier.dense.weight", "RobertaForSequenceClassification"),
        ("qa_outputs.weight", "RobertaForQuestionAnswering"),
        ("", "RobertaModel"),
        ("pooler.dense.weight", "RobertaForMultipleChoice"),
        ("classifier.weight", "RobertaForTokenClassification"),
        ("*", "RobertaModel"),
    ),
    buffers=("embeddings.position_ids", "embeddings.token_type_ids"),
)

DISTILBERT = Family(
    model_type="distilbert",
    sizes={
        "hidden": "dim",
        "head": "n_heads",
        "ffn": "hidden_dim",
        "vocab": "vocab_size",
        "layer": "n_layers",
        "position": "max_position_embeddings",
    },
    tensors={
        "embeddings.word_embeddings.weight": "vocab hidden",
        "embeddings.position_embeddings.weight": "position hidden",
        **norm("embeddings.LayerNorm"),
        **linear("transformer.layer.{layer}.attention.q_lin", "(head query_dim)", "hidden"),
        **linear("transformer.layer.{layer}.attention.k_lin", "(head key_dim)", "hidden"),
        **linear("transformer.layer.{layer}.attention.v_lin", "(head value_dim)", "hidden"),
        **linear("transformer.layer.{layer}.attention.out_lin", "hidden", "(head value_dim)"),
        **norm("transformer.layer.{layer}.sa_layer_norm"),
        **linear("transformer.layer.{layer}.ffn.lin1", "ffn", "hidden"),
        **linear("transformer.layer.{layer}.ffn.lin2", "hidden", "ffn"),
        **norm("transformer.layer.{layer}.output_layer_norm"),
        **linear("vocab_transform", "head_hidden", "hidden"),
        **norm("vocab_layer_norm", "head_hidden", before_head=True),
        **linear("vocab_projector", "vocab", "head_hidden"),
        **linear("pre_classifier", "pooled", "hidden"),
        **linear("classifier", "label", "pooled"),
        **linear("qa_outputs", "label", "hidden"),
    },
    task_tensors=TOKEN_LABELS,
    norms=Norms(kind=LAYER, after=True),
    causal=False,
    packs=False,
    embedding="embeddings.word_embeddings.weight",
    heads=("vocab_projector.weight",),
    tied=True,
    prefixes=("distilbert.",),
    architectures=(
        ("vocab_transform.weight", "DistilBertForMaskedLM"),
        ("pre_classifier.weight", "DistilBertForSequenceClassification"),
        ("qa_outputs.weight", "DistilBertForQuestionAnswering"),
        ("", "DistilBertModel"),
        ("classifier.weight", "DistilBertForTokenClassification"),
        ("*", "DistilBertModel"),
    ),
    buffers=("embeddings.position_ids",),
)

FAMILIES = (BERT, ROBERTA, DISTILBERT)
