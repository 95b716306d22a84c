"""The sketches of a skill's own data: V^T C V of what each group of weights reads, while the model runs over the rows
it will learn from. Knows a live model's inputs; ignorant of what sketches are for.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist

from growkit.data.batches import Batch, BatchSource
from growkit.training.machine import Machine
from growkit.training.objective import Predicted
from growkit.training.settings import Settings


@torch.no_grad()
def own_sketches(
    model: Any, inputs: Mapping[str, tuple[Any, torch.Tensor]], train: BatchSource, settings: Settings, tokens: int,
    machine: Machine,
) -> tuple[dict[str, torch.Tensor], int]:  # fmt: skip
    """(K (r, r) float64 of each group, of how many tokens) over the rows of the first steps, as many as have so many
    tokens, one step at least; what fills rows up does not count. All processes call this together.

    inputs: of each group a module that reads it, and V (in, r).
    """
    steps = min(settings.steps, max(1, tokens // (settings.batch_size * settings.seq_len)))
    sums = {name: torch.zeros(v.shape[1], v.shape[1], dtype=torch.float64) for name, (_, v) in inputs.items()}
    bases = {name: v.to(machine.device) for name, (_, v) in inputs.items()}
    counted, real = 0, torch.ones(0, dtype=torch.bool)

    def read(name: str) -> Any:
        def hook(_: Any, given: tuple[torch.Tensor, ...]) -> None:
            with torch.autocast(machine.device.type, enabled=False):
                seen = given[0].flatten(0, -2)[real].float() @ bases[name]
                sums[name] += (seen.T @ seen).double().cpu()

        return hook

    hooks = [module.register_forward_pre_hook(read(name)) for name, (module, _) in inputs.items()]
    model.eval()
    try:
        share = settings.batch_size // machine.world
        for step in range(steps):
            for part in train.rows(step, machine.rank * share, share).parts(settings.grad_accum):
                real = (part.places >= 0).flatten().to(machine.device)
                counted += int(real.sum())
                machine.whole(model, _running(model, part.to(machine.device), machine))
    finally:
        for hook in hooks:
            hook.remove()
    if machine.world > 1:
        for total in sums.values():
            dist.all_reduce(total, group=machine.line)
    counted = int(machine.total([counted])[0])
    return {name: total / max(1, counted) for name, total in sums.items()}, counted


def _running(model: Any, part: Batch, machine: Machine) -> Any:
    def work() -> None:
        with torch.no_grad(), machine.autocast():
            Predicted(model, part)

    return work
