"""MPNet: RoBERTa's head and positions on an encoder with one table of position biases for all layers. Data only."""

from growkit.families.bert import ROBERTA, SIZES, TOKEN_LABELS
from growkit.families.modules import linear, norm
from growkit.families.schema import LAYER, Family, Norms, Positions

MPNET = Family(
    model_type="mpnet",
    sizes=SIZES,
    tensors={
        "embeddings.word_embeddings.weight": "vocab hidden",
        "embeddings.position_embeddings.weight": "position hidden",
        **norm("embeddings.LayerNorm"),
        "encoder.relative_attention_bias.weight": "bucket head",
        **linear("encoder.layer.{layer}.attention.attn.q", "(head query_dim)", "hidden"),
        **linear("encoder.layer.{layer}.attention.attn.k", "(head key_dim)", "hidden"),
        **linear("encoder.layer.{layer}.attention.attn.v", "(head value_dim)", "hidden"),
        **linear("encoder.layer.{layer}.attention.attn.o", "hidden", "(head value_dim)"),
        **norm("encoder.layer.{layer}.attention.LayerNorm"),
        **linear("encoder.layer.{layer}.intermediate.dense", "ffn", "hidden"),
        **linear("encoder.layer.{layer}.output.dense", "hidden", "ffn"),
        **norm("encoder.layer.{layer}.output.LayerNorm"),
        **linear("pooler.dense", "pooled", "hidden"),
        **linear("lm_head.dense", "head_hidden", "hidden"),
        **norm("lm_head.layer_norm", "head_hidden", before_head=True),
        **linear("lm_head.decoder", "vocab", "head_hidden"),
        "lm_head.bias": "vocab",
        **linear("classifier.dense", "pooled", "hidden"),
        **linear("classifier.out_proj", "label", "pooled"),
        **linear("classifier", "label", "pooled"),
        **linear("qa_outputs", "label", "hidden"),
    },
    task_tensors=TOKEN_LABELS,
    norms=Norms(kind=LAYER, after=True),
    causal=False,
    packs=False,
    embedding="embeddings.word_embeddings.weight",
    heads=ROBERTA.heads,
    copies=ROBERTA.copies,
    tied=True,
    prefixes=("mpnet.",),
    positions=Positions(counted_after=1),
    architectures=tuple((template, name.replace("Roberta", "MPNet")) for template, name in ROBERTA.architectures),
    buffers=("embeddings.position_ids",),
)

FAMILIES = (MPNET,)
