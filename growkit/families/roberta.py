"""RoBERTa's kin: the same encoder under other names, and the one whose norms stand before its blocks. Data only."""

from dataclasses import replace

from growkit.families.bert import ROBERTA, renamed
from growkit.families.modules import norm
from growkit.families.schema import LAYER, Family, Norms


def _like_roberta(model_type: str, stem: str, prefix: str = "roberta.") -> Family:
    """What computes as RoBERTa does, from tensors of the same names."""
    classes = renamed(ROBERTA.architectures, "Roberta", stem)
    return replace(ROBERTA, model_type=model_type, architectures=classes, prefixes=(prefix,))


_OUTPUT = ("encoder.layer.{layer}.attention.output.LayerNorm", "encoder.layer.{layer}.output.LayerNorm")


def _before_blocks() -> dict[str, str]:
    """RoBERTa's tensors with norms before the blocks, none over the embeddings, and one behind the last layer."""
    moved = {
        **norm("encoder.layer.{layer}.attention.self_attn_layer_norm"),
        **norm("encoder.layer.{layer}.LayerNorm"),
    }
    table: dict[str, str] = {}
    for name, axes in ROBERTA.tensors.items():
        if name == "pooler.dense.weight":
            table |= norm("encoder.LayerNorm")
        if not name.startswith(("embeddings.LayerNorm", *_OUTPUT)):
            table[name] = axes
        if name == "encoder.layer.{layer}.output.dense.bias":
            table |= moved
    return table


XLM_ROBERTA = _like_roberta("xlm-roberta", "XLMRoberta")
CAMEMBERT = _like_roberta("camembert", "Camembert")
XLM_ROBERTA_XL = replace(
    _like_roberta("xlm-roberta-xl", "XLMRobertaXL"), tensors=_before_blocks(), norms=Norms(kind=LAYER)
)
DATA2VEC_TEXT = _like_roberta("data2vec-text", "Data2VecText", "data2vec_text.")

FAMILIES = (XLM_ROBERTA, CAMEMBERT, XLM_ROBERTA_XL, DATA2VEC_TEXT)
