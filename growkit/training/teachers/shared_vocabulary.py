"""A teacher that has fewer entries than the model that it teaches: of what it can speak, and what that costs it. Knows
batches and live models; ignorant of where its word comes from.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from growkit.data.batches import IGNORED, Batch, BatchSource
from growkit.training.machine import Machine
from growkit.training.objective import Predicted, is_masked
from growkit.training.settings import Settings
from growkit.training.validation import own_batches


def of_the_beginning(own: int, entries: int) -> str:
    """What a person should know of a teacher with `own` entries of the model's."""
    return (
        f"the teacher's vocabulary of {own:,} is the beginning of the model's {entries:,}: it teaches on what both have,"
        " and says nothing where it meets a token that it lacks"
    )


def readable(batch: Batch, vocabulary: int, causal: bool) -> tuple[Batch, torch.Tensor | None]:
    """(the batch as a model with so many entries can read it, of which of the predicted positions (n,) all that it sees
    is known to it; None: of all)."""
    known = batch.inputs < vocabulary
    if bool(known.all()):
        return batch, None
    seen = known.cumprod(1).bool() if causal else known.all(1, keepdim=True).expand_as(known)
    return replace(batch, inputs=batch.inputs.where(known, 0)), seen[batch.labels != IGNORED]


@torch.no_grad()
def nats_of(model: Any, whole: Batch, vocabulary: int, machine: Machine) -> torch.Tensor:
    """(n,) a model's own loss at each position that a batch predicts, in main memory, float32; NaN where it has no
    entry for what it sees or should say."""
    batch, speaks = readable(whole, vocabulary, not is_masked(model.config))
    predicted = Predicted(model, batch.to(machine.device))
    known = predicted.labels < vocabulary
    labels, losses = predicted.labels.where(known, 0), torch.empty(known.shape, device=known.device)
    for piece in predicted.pieces:
        logits = predicted.logits(predicted.hidden[piece])
        losses[piece] = torch.nn.functional.cross_entropy(logits, labels[piece], reduction="none")
    losses = losses.where(known, torch.nan).cpu()
    return losses if speaks is None else losses.where(speaks.cpu(), torch.nan)


def mean_of_known(
    val: BatchSource, settings: Settings, machine: Machine, nats: Callable[[Batch], torch.Tensor]
) -> float:
    """Mean nats over the validation windows of the positions that a teacher can tell. nats: (n,) of a batch, NaN where
    it cannot. All processes call this together."""
    total, count = 0.0, 0.0
    for batch, counts in own_batches(val, settings, machine):
        each = nats(batch)
        known = each[~each.isnan()].double()
        total, count = total + counts * float(known.sum()), count + counts * len(known)
    total, count = machine.total([total, count])
    return total / max(1.0, count)
