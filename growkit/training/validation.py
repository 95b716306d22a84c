"""The loss of a model on the validation split, while it learns. Knows windows and processes; ignorant of the run around
it."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from growkit.data.batches import Batch, BatchSource
from growkit.training.machine import Machine
from growkit.training.objective import Predicted, total_loss
from growkit.training.routing import described, routing
from growkit.training.settings import Settings


def validate(
    model: Any,
    val: BatchSource,
    settings: Settings,
    machine: Machine,
    whole: Callable[[Callable[[], Any]], Any] = lambda work: work(),
) -> tuple[float, dict[str, Any]]:
    """(mean nats per predicted token of all layers, the plain loss whoever teaches; how a mixture routed).

    The first windows of the split, as many as settings.eval_tokens allow. whole: what runs work where a sharded model's
    own weights are there. All processes call this together.
    """
    model.eval()
    total, predicted, tallies = 0.0, 0, None
    for mine, counts in own_batches(val, settings, machine):
        batch = mine.to(machine.device)

        def work(batch: Batch = batch) -> tuple[float, torch.Tensor | None]:
            with torch.no_grad(), machine.autocast(), routing(model) as routed:
                nats = total_loss(Predicted(model, batch)).item()
            return nats, routed.tallies()

        nats, routed = whole(work)
        total, predicted = total + counts * nats, predicted + int(counts) * batch.predicted
        if routed is not None:
            tallies = counts * routed + (0.0 if tallies is None else tallies)
    total, count = machine.total([total, predicted])
    loss = total / max(1.0, count)
    if tallies is None:
        return loss, {}
    shared = torch.tensor(machine.total(tallies.flatten().tolist()), dtype=torch.float64)
    return loss, described(shared.view_as(tallies))


def own_batches(val: BatchSource, settings: Settings, machine: Machine) -> Iterator[tuple[Batch, float]]:
    """This process's share of the validation windows, batch by batch, and whether each counts: 1 or 0.

    Every process gets as many, because sharded layers wait for one another; one that is done repeats and counts
    nothing.
    """
    windows = max(1, min(val.windows, settings.eval_tokens // settings.seq_len))
    rows = settings.batch_size // (machine.world * settings.grad_accum)
    mine = list(range(machine.rank, windows, machine.world))
    for first in range(0, -(-windows // machine.world), rows):
        chosen = mine[first : first + rows]
        yield val.at(chosen or [0]), 1.0 if chosen else 0.0
