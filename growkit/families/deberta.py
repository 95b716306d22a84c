"""DeBERTa v2 and v3: BERT's encoder with attention to relative positions, which all layers share. Data only."""

from growkit.families.bert import BEHIND_VALUES, SIZES, TOKEN_LABELS
from growkit.families.keys import Both
from growkit.families.modules import linear, norm
from growkit.families.schema import LAYER, Family, Norms

_OFF = (None, False)
_BOTH = (["c2p", "p2c"], ["p2c", "c2p"], "c2p|p2c", "p2c|c2p")
_C2P, _P2C = (*_BOTH, ["c2p"], "c2p"), (*_BOTH, ["p2c"], "p2c")
_SELF = "encoder.layer.{layer}.attention.self"

DEBERTA_V2 = Family(
    model_type="deberta-v2",
    sizes={
        **SIZES,
        "hidden": Both("hidden_size", "pooler_hidden_size"),
        "head_dim": "attention_head_size",
        "embedding": "embedding_size",
    },
    tensors={
        "embeddings.word_embeddings.weight": "vocab embedding",
        "embeddings.position_embeddings.weight": "position embedding",
        "embeddings.token_type_embeddings.weight": "type embedding",
        "embeddings.embed_proj.weight": "hidden /embedding",
        **norm("embeddings.LayerNorm"),
        "encoder.rel_embeddings.weight": "bucket hidden",
        **norm("encoder.LayerNorm"),
        "encoder.conv.conv.weight": "hidden /hidden /kernel",
        "encoder.conv.conv.bias": "hidden",
        **norm("encoder.conv.LayerNorm"),
        **linear(f"{_SELF}.query_proj", "(head query_dim)", "hidden"),
        **linear(f"{_SELF}.key_proj", "(head key_dim)", "hidden"),
        **linear(f"{_SELF}.value_proj", "(head value_dim)", "hidden"),
        **linear(f"{_SELF}.pos_key_proj", "(head key_dim)", "hidden"),
        **linear(f"{_SELF}.pos_query_proj", "(head query_dim)", "hidden"),
        **BEHIND_VALUES,
        **linear("pooler.dense", "pooled", "hidden"),
        **linear("cls.predictions.transform.dense", "head_embedding", "hidden"),
        **norm("cls.predictions.transform.LayerNorm", "head_embedding", before_head=True),
        **linear("cls.predictions.decoder", "vocab", "head_embedding"),
        "cls.predictions.bias": "vocab",
        **linear("lm_predictions.lm_head.dense", "head_hidden", "hidden"),
        **norm("lm_predictions.lm_head.LayerNorm", "head_hidden", before_head=True),
        "lm_predictions.lm_head.bias": "vocab",
        **linear("classifier", "label", "pooled"),
        **linear("qa_outputs", "label", "hidden"),
    },
    task_tensors=TOKEN_LABELS,
    norms=Norms(kind=LAYER, after=True),
    causal=False,
    packs=False,
    embedding="embeddings.word_embeddings.weight",
    heads=("cls.predictions.decoder.weight",),
    copies={"cls.predictions.decoder.bias": "cls.predictions.bias"},
    tied=True,
    always_tied={"legacy": False},
    defaults={"attention_head_size": None, "embedding_size": None},
    stored_where={
        "embeddings.position_embeddings.weight": ({"position_biased_input": (True,)},),
        f"{_SELF}.pos_key_proj.weight": ({"relative_attention": (True,), "share_att_key": _OFF, "pos_att_type": _C2P},),
        f"{_SELF}.pos_query_proj.weight": (
            {"relative_attention": (True,), "share_att_key": _OFF, "pos_att_type": _P2C},
        ),
    },
    prefixes=("deberta.",),
    architectures=(
        ("cls.predictions.bias", "DebertaV2ForMaskedLM"),
        ("lm_predictions.lm_head.bias", "DebertaV2ForMaskedLM"),
        ("qa_outputs.weight", "DebertaV2ForQuestionAnswering"),
        ("", "DebertaV2Model"),
        ("pooler.dense.weight", "DebertaV2ForSequenceClassification"),
        ("classifier.weight", "DebertaV2ForTokenClassification"),
        ("*", "DebertaV2Model"),
    ),
    # the class leaves out what a discriminator was trained with, and a table of positions that it does not add
    buffers=(
        "embeddings.position_ids",
        *(
            f"mask_predictions.{part}"
            for layer in ("dense", "LayerNorm", "classifier")
            for part in linear(layer, "", "")
        ),
    ),
    only_multiples={
        "conv_kernel_size": (
            (None, 0),
            ("hidden",),
            "what its convolution writes passes an activation, which copies pass but no scale and no filler does",
        )
    },
    refused={"conv_groups": (1, "each group of a convolution's channels reads its own alone")},
    small={
        "type_vocab_size": 2,
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "pos_att_type": ["c2p", "p2c"],
    },
    variants=(
        {"embedding_size": 24},
        {"conv_kernel_size": 3},
        {"embedding_size": 24, "legacy": False, "share_att_key": True, "position_biased_input": False},
        {"pos_att_type": ["p2c"], "norm_rel_ebd": "none", "attention_head_size": 6, "position_buckets": -1},
    ),
)

FAMILIES = (DEBERTA_V2,)
