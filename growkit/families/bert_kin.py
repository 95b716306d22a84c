"""BERT's kin: LayoutLM, which also knows where on a page a word stands, and two whose norms stand before their blocks,
Megatron-BERT and RoBERTa-PreLayerNorm. Data only.
"""

from dataclasses import replace

from growkit.families.bert import BERT, ROBERTA, renamed
from growkit.families.modules import norm
from growkit.families.schema import LAYER, Family, Norms

_LAYER = "encoder.layer.{layer}"


def _before_blocks(family: Family, first: str, second: str, last: str, embedded: dict[str, str]) -> dict[str, str]:
    """A family's tensors with norms of these names before its blocks and behind the last layer. embedded: what is over
    the embeddings."""
    table: dict[str, str] = {}
    for name, axes in family.tensors.items():
        if name.startswith(_LAYER) and not table.get(f"{first}.weight"):
            table |= {**embedded, **norm(first), **norm(second)}
        if name == "pooler.dense.weight":
            table |= norm(last)
        if not ("LayerNorm" in name and name.startswith(("embeddings", _LAYER))):
            table[name] = axes
    return table


LAYOUTLM = replace(
    BERT,
    model_type="layoutlm",
    tensors={
        **{f"embeddings.{side}_position_embeddings.weight": "bucket hidden" for side in "xyhw"},
        **{name: axes for name, axes in BERT.tensors.items() if not name.startswith("cls.seq_relationship")},
    },
    prefixes=("layoutlm.",),
    architectures=renamed(BERT.architectures[1:], "Bert", "LayoutLM"),
)
MEGATRON_BERT = replace(
    BERT,
    model_type="megatron-bert",
    tensors=_before_blocks(BERT, f"{_LAYER}.attention.ln", f"{_LAYER}.ln", "encoder.ln", {}),
    norms=Norms(kind=LAYER),
    architectures=renamed(BERT.architectures, "Bert", "MegatronBert"),
)
ROBERTA_PRELAYERNORM = replace(
    ROBERTA,
    model_type="roberta-prelayernorm",
    tensors=_before_blocks(
        ROBERTA,
        f"{_LAYER}.attention.LayerNorm",
        f"{_LAYER}.intermediate.LayerNorm",
        "LayerNorm",
        norm("embeddings.LayerNorm", "normed"),
    ),
    norms=Norms(kind=LAYER),
    prefixes=("roberta_prelayernorm.",),
    architectures=renamed(ROBERTA.architectures, "Roberta", "RobertaPreLayerNorm"),
)

FAMILIES = (LAYOUTLM, MEGATRON_BERT, ROBERTA_PRELAYERNORM)
