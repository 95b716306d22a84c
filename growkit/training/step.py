"""One step's learning: forward and backward over a batch in parts. Knows losses, teachers and processes; ignorant of
what comes before and after.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from growkit.data.batches import Batch
from growkit.training.capacity import Capacity
from growkit.training.machine import Machine
from growkit.training.objective import Predicted, learn
from growkit.training.routing import routing
from growkit.training.settings import Settings
from growkit.training.teachers.teacher import Speaker


@dataclass(frozen=True, kw_only=True)
class PlannedStep:
    """What is fixed before a step's batch is there. lr: learning rate. depth, trained: how many first layers run, and
    how many top ones of these learn. alpha: the teacher's weight."""

    stage: str
    lr: float
    depth: int
    trained: int
    alpha: float


@dataclass(frozen=True, kw_only=True)
class StepLosses:
    """Nats per predicted token of the model and against its teacher, a mixture's balance and z-loss, over all
    processes; dropped: the share of pairs of token and expert beyond capacity; told: how many processes were asked to
    stop."""

    own: float
    taught: float
    balance: float
    router_z: float
    dropped: float
    told: float


def learn_batch(
    model: Any, batch: Batch, count: int, teacher: Speaker | None, alpha: float, settings: Settings, machine: Machine,
    capacity: Capacity | None = None,
) -> torch.Tensor:  # fmt: skip
    """Forward and backward of this process's rows; returns this process's sums (4,) float64 on the device: nats, the
    teacher's, and its share of balance and z-loss.

    count: predicted tokens of the step over all processes, which every gradient is divided by, however they are spread
    over processes and parts.
    """
    s = settings
    sums = torch.zeros(4, device=machine.device, dtype=torch.float64)  # read once, at the end of the step
    parts = [part.to(machine.device) for part in batch.parts(s.grad_accum)]
    share = 1.0 / (len(parts) * machine.world)  # of a part, in what is a mean over parts
    weights = torch.tensor([s.balance, s.router_z], device=machine.device) * share
    for number, part in enumerate(parts):
        if machine.world > 1:
            model.set_requires_gradient_sync(number == len(parts) - 1)
        if capacity is not None:
            capacity.held = part.held
        work = _work(model, part, count, teacher, alpha, s, machine)
        hidden, routed, gradient, nats = machine.whole(model, work)
        ends = [(hidden, gradient)] if routed is None else [(hidden, gradient), (routed, weights)]
        torch.autograd.backward([end for end, _ in ends], [gradient for _, gradient in ends])
        sums[:2] += nats
        if routed is not None:
            sums[2:] += routed.detach() * share
    return sums


def step_losses(
    sums: torch.Tensor, count: int, told: bool, machine: Machine, capacity: Capacity | None = None
) -> StepLosses:
    """The losses of a step from each process's sums (4,). All processes call this together."""
    tally = (0.0, 0.0) if capacity is None else capacity.tally()
    own, taught, balance, router_z, stops, dropped, pairs = machine.total([*sums.tolist(), float(told), *tally])
    return StepLosses(
        own=own / count, taught=taught / count, balance=balance, router_z=router_z, dropped=dropped / max(1.0, pairs),
        told=stops,
    )  # fmt: skip


def _work(
    model: Any, part: Batch, count: int, teacher: Speaker | None, alpha: float, settings: Settings, machine: Machine
) -> Callable[[], tuple[Any, ...]]:
    """The forward pass of a part and the backward pass of its head, to be run where the head is whole."""

    def work() -> tuple[Any, ...]:
        with machine.autocast(), routing(model, part.held) as routed:
            predicted = Predicted(model, part)
        taught = teacher.says(part) if teacher is not None else None
        gradient, nats = learn(predicted, 1.0 / count, taught, alpha, machine.autocast)
        return predicted.hidden, routed.losses(), gradient, nats

    return work
