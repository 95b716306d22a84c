"""ELECTRA: BERT's encoder behind embeddings that may be narrower, with a generator's or a discriminator's head. Data
only."""

from growkit.families.bert import ENCODER_LAYER, SIZES, TOKEN_LABELS
from growkit.families.modules import linear, norm
from growkit.families.schema import LAYER, Family, Norms

ELECTRA = Family(
    model_type="electra",
    sizes={**SIZES, "embedding": "embedding_size"},
    tensors={
        "embeddings.word_embeddings.weight": "vocab embedding",
        "embeddings.position_embeddings.weight": "position embedding",
        "embeddings.token_type_embeddings.weight": "type embedding",
        **norm("embeddings.LayerNorm", "embedding"),
        **linear("embeddings_project", "hidden", "embedding"),
        **ENCODER_LAYER,
        **linear("generator_predictions.dense", "head_embedding", "hidden"),
        **norm("generator_predictions.LayerNorm", "head_embedding", before_head=True),
        **linear("generator_lm_head", "vocab", "head_embedding"),
        **linear("discriminator_predictions.dense", "pooled", "hidden"),
        **linear("discriminator_predictions.dense_prediction", "label", "pooled"),
        **linear("sequence_summary.summary", "pooled", "hidden"),
        **linear("classifier.dense", "pooled", "hidden"),
        **linear("classifier.out_proj", "label", "pooled"),
        **linear("classifier", "label", "pooled"),
        **linear("qa_outputs", "label", "hidden"),
    },
    task_tensors=TOKEN_LABELS,
    norms=Norms(kind=LAYER, after=True),
    defaults={"embedding_size": 128},
    causal=False,
    packs=False,
    embedding="embeddings.word_embeddings.weight",
    heads=("generator_lm_head.weight",),
    tied=True,
    headless=("ElectraForPreTraining",),
    prefixes=("electra.",),
    architectures=(
        ("generator_predictions.dense.weight", "ElectraForMaskedLM"),
        ("discriminator_predictions.dense.weight", "ElectraForPreTraining"),
        ("classifier.dense.weight", "ElectraForSequenceClassification"),
        ("qa_outputs.weight", "ElectraForQuestionAnswering"),
        ("sequence_summary.summary.weight", "ElectraForMultipleChoice"),
        ("", "ElectraModel"),
        ("classifier.weight", "ElectraForTokenClassification"),
        ("*", "ElectraModel"),
    ),
    buffers=("embeddings.position_ids", "embeddings.token_type_ids"),
    refused={
        "summary_use_proj": (True, "its multiple-choice head then reads the stream without a layer of its own"),
        "add_cross_attention": (False, "its cross-attention reads another model's hidden axis"),
    },
    variants=({"embedding_size": 24},),
)

FAMILIES = (ELECTRA,)
