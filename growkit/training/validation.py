"""The loss of a model on the validation split, while it learns. Knows windows and processes; ignorant of the run around it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from growkit.data.batches import Batches
from growkit.training.machine import Machine
from growkit.training.objective import Predicted, total_loss
from growkit.training.routing import described, routing
from growkit.training.settings import Settings


def validate(
    model: Any,
    val: Batches,
    settings: Settings,
    machine: Machine,
    whole: Callable[[Callable[[], Any]], Any] = lambda work: work(),
) -> tuple[float, dict[str, Any]]:
    """(mean nats per predicted token of all layers, the plain loss whoever teaches; how a mixture routed).

    The first windows of the split, as many as settings.eval_tokens allow. whole: what runs work where a sharded model's own
    weights are there. All processes call this together.
    """
    windows = max(1, min(val.windows, settings.eval_tokens // settings.seq_len))
    rows = settings.batch_size // (machine.world * settings.grad_accum)
    mine = list(range(machine.rank, windows, machine.world))
    model.eval()
    total, tallies = 0.0, None
    # every process runs as often, because sharded layers wait for one another; one that is done repeats and counts nothing
    for first in range(0, -(-windows // machine.world), rows):
        chosen = mine[first : first + rows]
        sides = zip(*(val.window(number, number) for number in chosen or [0]))
        pair = [torch.from_numpy(np.stack(side)).to(machine.device) for side in sides]

        def work(pair: list[torch.Tensor] = pair) -> tuple[float, torch.Tensor | None]:
            with torch.no_grad(), machine.autocast(), routing(model) as routed:
                nats = total_loss(Predicted(model, *pair)).item()
            return nats, routed.tallies()

        nats, routed = whole(work)
        counts = 1.0 if chosen else 0.0
        total += counts * nats
        if routed is not None:
            tallies = counts * routed + (0.0 if tallies is None else tallies)
    (total,) = machine.total([total])
    loss = total / (windows * val.predicted)
    if tallies is None:
        return loss, {}
    shared = torch.tensor(machine.total(tallies.flatten().tolist()), dtype=torch.float64)
    return loss, described(shared.view_as(tallies))
