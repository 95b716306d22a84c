"""ERNIE: BERT with one more embedding, of the task. Data only."""

from dataclasses import replace

from growkit.families.bert import BERT, renamed

ERNIE = replace(
    BERT,
    model_type="ernie",
    tensors={"embeddings.task_type_embeddings.weight": "type hidden", **BERT.tensors},
    prefixes=("ernie.",),
    architectures=renamed(BERT.architectures, "Bert", "Ernie"),
    variants=({"use_task_id": True},),
)

FAMILIES = (ERNIE,)
