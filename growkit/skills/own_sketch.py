"""What a skill's own data say of its directions, while the model runs over rows it will learn from: sketches V^T C V of
what is read, and where the loss wants what is put out to move. Knows a live model's layers; ignorant of what follows.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from growkit.data.batches import Batch, BatchSource
from growkit.operators.seeds import stable_seed
from growkit.skills.panel_control import PanelControl, bypassed, panel_controls
from growkit.training.machine import Machine
from growkit.training.objective import Predicted
from growkit.training.settings import Settings
from growkit.training.step import learn_batch


@dataclass(frozen=True)
class OwnRows:
    """The rows of a run's first steps that have about so many tokens, of one step at least."""

    train: BatchSource
    settings: Settings
    machine: Machine
    tokens: int

    def of_steps(self) -> Iterator[tuple[int, Batch]]:
        """(how many tokens the step predicts over all processes, this process's rows), step by step."""
        s = self.settings
        share = s.batch_size // self.machine.world
        for step in range(min(s.steps, max(1, self.tokens // (s.batch_size * s.seq_len)))):
            yield max(1, self.train.predicted(step)), self.train.rows(step, self.machine.rank * share, share)


def own_sketches(
    model: Any, inputs: Mapping[str, tuple[Any, torch.Tensor]], own: OwnRows
) -> tuple[dict[str, torch.Tensor], int]:
    """(K (r, r) float64 of each group, of how many tokens); what fills rows up does not count. All processes call this
    together.

    inputs: of each group a module that reads it, and V (in, r).
    """
    machine = own.machine
    sums = {name: torch.zeros(v.shape[1], v.shape[1], dtype=torch.float64) for name, (_, v) in inputs.items()}
    bases = {name: v.to(machine.device) for name, (_, v) in inputs.items()}
    counted, real = 0, torch.ones(0, dtype=torch.bool)

    def reading(name: str) -> Callable[..., None]:
        def read(_: Any, given: tuple[torch.Tensor, ...]) -> None:
            with torch.autocast(machine.device.type, enabled=False):
                seen = given[0].flatten(0, -2)[real].float() @ bases[name]
                sums[name] += (seen.T @ seen).double().cpu()

        return read

    with ExitStack() as hooks, torch.no_grad():
        for name, (module, _) in inputs.items():
            hooks.callback(module.register_forward_pre_hook(reading(name)).remove)
        model.eval()
        for _, batch in own.of_steps():
            for part in batch.parts(own.settings.grad_accum):
                real = (part.places >= 0).flatten().to(machine.device)
                counted += int(real.sum())
                machine.whole(model, _running(model, part.to(machine.device), machine))
    _add_up(sums, machine)
    counted = int(machine.total([counted])[0])
    return {name: total / max(1, counted) for name, total in sums.items()}, counted


def wanted_outputs(model: Any, own: OwnRows) -> dict[str, torch.Tensor]:
    """Of each weight of a panel the gradient of the loss along its input directions, G V_s (out, m_g), float32. All
    processes call this together, before anything has learned.
    """
    sums = {one.weight: torch.zeros(len(one.left), len(one.right)) for one in panel_controls(model)}

    def seen(control: PanelControl, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if not output.requires_grad:  # validation
            return
        with torch.autocast(own.machine.device.type, enabled=False):
            read = given[0].detach().flatten(0, -2).float() @ control.right.T

        def wanted(gradient: torch.Tensor) -> None:
            sums[control.weight] += (gradient.flatten(0, -2).float().T @ read).cpu()

        output.register_hook(wanted)

    with ExitStack() as hooks, torch.enable_grad():
        for control in panel_controls(model):
            hooks.callback(control.register_forward_hook(seen).remove)
        model.train(own.settings.grad_checkpointing)  # or else nothing would be recomputed
        torch.manual_seed(stable_seed(own.settings.seed, f"directions, process {own.machine.rank}"))
        for count, batch in own.of_steps():
            learn_batch(model, batch, count, None, 0.0, own.settings, own.machine)
            model.zero_grad(set_to_none=True)
    _add_up(sums, own.machine)
    return sums


def check_changes_nothing(model: Any, own: OwnRows) -> None:
    """Assert that a skill which has not learned changes no bit of what the model makes of one row. All processes call
    this together."""
    _, batch = next(own.of_steps())
    row = batch.parts(len(batch.inputs))[0].to(own.machine.device)
    model.eval()
    with bypassed(model):
        alone = own.machine.whole(model, _running(model, row, own.machine))
    on = own.machine.whole(model, _running(model, row, own.machine))
    assert torch.equal(on, alone), "a new skill changes what the model makes of its data"


@contextmanager
def uncompiled(model: torch.nn.Module) -> Iterator[None]:
    """Within the block, modules that are to be compiled run as they are: what is compiled now would keep the hooks that
    it has now."""
    kept = {module: module._compiled_call_impl for module in model.modules() if module._compiled_call_impl is not None}
    for module in kept:
        module._compiled_call_impl = None
    try:
        yield
    finally:
        for module, compiled in kept.items():
            module._compiled_call_impl = compiled


def _running(model: Any, part: Batch, machine: Machine) -> Callable[[], torch.Tensor]:
    def work() -> torch.Tensor:
        with torch.no_grad(), machine.autocast():
            return Predicted(model, part).hidden

    return work


def _add_up(sums: Mapping[str, torch.Tensor], machine: Machine) -> None:
    """Over all processes."""
    for total in sums.values() if machine.world > 1 else ():
        dist.all_reduce(total, group=machine.line)
