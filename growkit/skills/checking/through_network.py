"""What skills do to each other through the whole network: losses, and divergences from what the model put out. Knows a
live model and rows; ignorant of what is concluded.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from growkit.data.batches import IGNORED, Batch
from growkit.models.stock import computing
from growkit.skills.checking.rows_of_data import parts_of_rows
from growkit.skills.checking.switched import SwitchedSkills

NUMBERS = 1 << 25  # that one pass may put out, in float32 128 MB
On = frozenset[str]  # which skills are on


@dataclass(frozen=True)
class Through:
    """Means over predicted tokens, by which skills are on. loss: nats. kl: of KL(reference || that), nats."""

    loss: dict[On, float]
    kl: dict[On, float]


@torch.no_grad()
def through_network(
    model: Any,
    skills: SwitchedSkills,
    rows: Batch,
    sets: Collection[On],
    reference: On,
    advance: Callable[[int], None] = lambda _done: None,
) -> Through:
    """Run rows with several sets of skills on. model: causal, in eval mode. reference: what the others' distributions
    are compared with, one of the sets. advance: called with the number of passes done."""
    order = [reference, *sorted((on for on in {*sets} if on != reference), key=sorted)]
    loss, kl = dict.fromkeys(order, 0.0), dict.fromkeys(order, 0.0)
    vocabulary, device = model.get_output_embeddings().weight.shape[0], next(model.parameters()).device
    for part in parts_of_rows(rows, max(1, NUMBERS // vocabulary)):
        counts = part.labels != IGNORED
        labels = part.labels[counts].to(device)
        told = torch.empty(0)
        for on in order:
            with skills.only(on), computing(type(model).__name__):
                logits = model(input_ids=part.inputs.to(device)).logits[counts.to(device)]
            said = torch.log_softmax(logits.float() if logits.dtype != torch.float64 else logits, -1)
            loss[on] -= float(said.gather(1, labels[:, None]).double().sum())
            if on == reference:
                told = said
            else:
                kl[on] += float((told.exp() * (told - said)).sum(-1).double().sum())
            advance(1)
    tokens = rows.predicted
    return Through(
        {on: total / tokens for on, total in loss.items()}, {on: max(0.0, total / tokens) for on, total in kl.items()}
    )


def passes(rows: Batch, sets: Sequence[On] | Collection[On], vocabulary: int) -> int:
    """How many passes through_network makes."""
    return len({*sets}) * sum(1 for _ in parts_of_rows(rows, max(1, NUMBERS // vocabulary)))
