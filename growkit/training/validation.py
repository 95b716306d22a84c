"""The loss of a model on the validation split, while it learns. Knows windows and processes; ignorant of the run around
it."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from growkit.data.batches import Batch, BatchSource
from growkit.data.domains import DomainLosses
from growkit.models.expert_domains import expert_domains
from growkit.training.machine import Machine
from growkit.training.objective import Predicted, total_loss
from growkit.training.routing import Routing, described, routing
from growkit.training.settings import Settings


def validate(
    model: Any,
    val: BatchSource,
    settings: Settings,
    machine: Machine,
    whole: Callable[[Callable[[], Any]], Any] = lambda work: work(),
) -> tuple[float, dict[str, Any]]:
    """(mean nats per predicted token of all layers, the plain loss whoever teaches; what else was seen: of tagged text
    the loss of each of its domains, and how a mixture routed, and what that tells of domains).

    The first windows of the split, as many as settings.eval_tokens allow; of tagged text so many from all of it.
    whole: what runs work where a sharded model's own weights are there. All processes call this together.
    """
    model.eval()
    total, predicted, tallies, pairs = 0.0, 0, None, None
    kinds = DomainLosses(val.domains.names) if val.domains is not None else None
    for mine, counts in own_batches(val, settings, machine):
        batch = mine.to(machine.device)

        def work(batch: Batch = batch) -> tuple[float, torch.Tensor | None, Routing]:
            with torch.no_grad(), machine.autocast(), routing(model, batch.held) as routed:
                nats, each = total_loss(Predicted(model, batch), kinds is not None)
            return nats.item(), each, routed

        nats, each, noted = whole(work)
        total, predicted = total + counts * nats, predicted + int(counts) * batch.predicted
        if kinds is not None and counts:
            kinds.add(batch.of.numpy(), each.double().cpu().numpy())
        if (routed := noted.tallies()) is not None:
            tallies = counts * routed + (0.0 if tallies is None else tallies)
            if val.domains is not None:
                shown = torch.from_numpy(val.domains.shown(batch.places.numpy()))
                told = noted.by_domain(shown, len(val.domains.names))
                pairs = counts * told + (0.0 if pairs is None else pairs)
    total, count = machine.total([total, predicted])
    seen: dict[str, Any] = {}
    if kinds is not None:
        kinds.nats, kinds.predicted = np.array(machine.total([*kinds.nats, *kinds.predicted])).reshape(2, -1)
        seen["domains"] = kinds.means()
    if tallies is not None:
        shared = torch.tensor(machine.total(tallies.flatten().tolist()), dtype=torch.float64)
        seen |= described(shared.view_as(tallies))
    if pairs is not None:
        shared = torch.tensor(machine.total(pairs.flatten().tolist()), dtype=torch.float64)
        seen["expert_domains"] = expert_domains(seen["sparse_layers"], shared.view_as(pairs))
    return total / max(1.0, count), seen


def own_batches(val: BatchSource, settings: Settings, machine: Machine) -> Iterator[tuple[Batch, float]]:
    """This process's share of the validation windows, batch by batch, and whether each counts: 1 or 0.

    Every process gets as many, because sharded layers wait for one another; one that is done repeats and counts
    nothing.
    """
    windows = max(1, min(val.windows, settings.eval_tokens // settings.seq_len))
    # the first ones, and of tagged text, whose domains follow one another, so many spread evenly over all
    chosen = range(windows) if val.domains is None else np.linspace(0, val.windows - 1, windows).round().astype(int)
    rows = settings.batch_size // (machine.world * settings.grad_accum)
    mine = [int(number) for number in chosen[machine.rank :: machine.world]]
    for first in range(0, -(-windows // machine.world), rows):
        now = mine[first : first + rows]
        yield val.at(now or [0]), 1.0 if now else 0.0
