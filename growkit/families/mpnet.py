"""MPNet: RoBERTa's head and positions on an encoder with one table of position biases for all layers. Data only."""

from dataclasses import replace

from growkit.families.bert import FEED_FORWARD, ROBERTA, ROBERTA_HEADS, renamed
from growkit.families.modules import linear, norm
from growkit.families.schema import Positions

MPNET = replace(
    ROBERTA,
    model_type="mpnet",
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
        **FEED_FORWARD,
        **linear("pooler.dense", "pooled", "hidden"),
        **ROBERTA_HEADS,
        **linear("qa_outputs", "label", "hidden"),
    },
    prefixes=("mpnet.",),
    positions=Positions(counted_after=1),
    architectures=renamed(ROBERTA.architectures, "Roberta", "MPNet"),
    buffers=("embeddings.position_ids",),
)

FAMILIES = (MPNET,)
