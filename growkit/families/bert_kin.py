"""BERT's kin: LayoutLM, which also knows where on a page a word stands, and those whose norms stand before their
blocks: Megatron-BERT, RoBERTa-PreLayerNorm, and ESM, which reads proteins and has rotary positions or learned ones.
Data only.
"""

from dataclasses import replace

from growkit.families.bert import BERT, ROBERTA, renamed
from growkit.families.modules import linear, norm
from growkit.families.schema import LAYER, Family, Norms, Rotary

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
_NO_LINES = ("embeddings.token_type_embeddings", "qa_outputs", "lm_head.decoder.bias")
ESM = replace(
    ROBERTA,
    model_type="esm",
    tensors={
        name: axes
        for name, axes in _before_blocks(
            ROBERTA,
            f"{_LAYER}.attention.LayerNorm",
            f"{_LAYER}.LayerNorm",
            "encoder.emb_layer_norm_after",
            norm("embeddings.layer_norm", "normed"),
        ).items()
        if not name.startswith(_NO_LINES)
    }
    | linear("contact_head.regression", "gate", "space"),
    norms=Norms(kind=LAYER),
    rotary=Rotary(),
    stored_where={
        "embeddings.position_embeddings.weight": ({"position_embedding_type": ("absolute",)},),
        "embeddings.layer_norm.weight": ({"emb_layer_norm_before": (True,)},),
    },
    forbids={
        "": (
            (),
            ("head", "layer"),
            "its contact head, which all of transformers' classes have, reads the attention of each head of each layer",
        )
    },
    refused={"is_folding_model": (False, "what folds has axes of its own")},
    copies={},
    prefixes=("esm.",),
    architectures=renamed(
        tuple(one for one in ROBERTA.architectures if "Question" not in one[1] and "Multiple" not in one[1]),
        "Roberta",
        "Esm",
    ),
    buffers=(
        "embeddings.position_ids",
        "rotary_embeddings.inv_freq",
        f"{_LAYER}.attention.self.rotary_embeddings.inv_freq",
    ),
    small={"position_embedding_type": "rotary", "token_dropout": True, "mask_token_id": 4, "pad_token_id": 1},
    variants=({"position_embedding_type": "absolute", "emb_layer_norm_before": True, "token_dropout": False},),
)

FAMILIES = (LAYOUTLM, MEGATRON_BERT, ROBERTA_PRELAYERNORM, ESM)
