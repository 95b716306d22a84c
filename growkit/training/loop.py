"""The loop: stages, steps, losses, checkpoints. Knows the order of things; every part lives elsewhere.

A step is a pure function of the state before it and of (seed, step), so a run that was stopped, however rudely, goes on from
its last checkpoint as if nothing had happened.
"""

import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from growkit.data.batches import Ahead, Batches
from growkit.errors import CheckpointError, FailedError
from growkit.operators.seeds import stable_seed
from growkit.training import checkpoints as state
from growkit.training.flops import step_flops
from growkit.training.machine import Machine
from growkit.training.objective import Predicted, Teaching, learn
from growkit.training.optim import rate, set_rate
from growkit.training.prefix import submodel
from growkit.training.routing import routing
from growkit.training.settings import Settings
from growkit.training.stages import Stage, place
from growkit.training.student import Save, Student
from growkit.training.teacher import LiveTeacher
from growkit.training.validation import validate

CHECKPOINTS, GROWN = "checkpoints", "stages"
Say = Callable[[dict[str, Any]], None]  # called with each line of metrics


class NotFiniteError(FailedError):
    """The loss became NaN or Inf."""


@dataclass
class Run:
    """A run in progress: what is fixed, and the model as it is."""

    settings: Settings
    machine: Machine
    train: Batches
    val: Batches | None
    load_model: Callable[[str | Path], tuple[Any, Path | None]]  # the model, and the folder it came from
    save_model: Save
    grow: Callable[[Path, Path, Stage], None]
    say: Say
    told: bool = False
    stopped: bool = False

    def __post_init__(self) -> None:
        s = self.settings
        self.out = Path(s.out)
        self.step = self.stage_number = self.tokens = 0
        self.flops = self.seconds = 0.0
        self.teacher = LiveTeacher(self.load_model(s.teacher)[0], self.machine) if s.teacher else None
        self.teaching = Teaching(s.teacher_steps, s.temperature, s.alpha_schedule)
        self.overtaken = False  # whether the model has become better than its teacher
        self.theirs: float | None = None  # the teacher's validation loss, which stays what it is

    def go(self, resume: bool) -> Student:
        """Run to the end, or until a signal; returns the model. Raises NotFiniteError, NotSavedError."""
        s = self.settings
        share = s.batch_size // self.machine.world
        pinned = self.machine.device.type == "cuda"
        self.batches = Ahead(self.train, self.machine.rank * share, share, pinned)
        self.saver = state.Saver(self.out / CHECKPOINTS, s.keep)
        before = {kind: signal.signal(kind, self._stop) for kind in (signal.SIGTERM, signal.SIGINT)}
        try:
            if not (resume and self._resume()):
                self._begin(0)
            while self.step < s.steps and not self.stopped:
                self._one_step()
            if self.stopped and self.step < s.steps and self.step % s.save_every:
                self._save()
            self.saver.settle(wait=True)
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)
            self.batches.close()
        return self.student

    def _stop(self, *_: Any) -> None:
        self.told = True
        signal.signal(signal.SIGINT, signal.default_int_handler)  # who asks twice does not want to wait

    def _begin(self, number: int) -> None:
        """Build the model and the optimizer that stage `number` starts from."""
        self.stage_number = number
        grown = [n for n, stage in enumerate(self.settings.stages[: number + 1]) if stage.layers is not None]
        base = self.out / GROWN / str(grown[-1]) if grown else self.settings.checkpoint
        self.student = Student(self.settings, self.machine, *self.load_model(base))

    def _resume(self) -> bool:
        """Go on from the newest checkpoint that can be read; False where there is none."""
        for checkpoint in reversed(state.found(self.out / CHECKPOINTS)):
            try:
                trainer = state.trainer_of(checkpoint)
                self._begin(trainer["stage"])
                state.load(checkpoint, self.student.model, self.student.optimizer)
                self.step, self.tokens, self.overtaken = trainer["step"], trainer["tokens"], trainer["overtaken"]
                self.flops, self.seconds = trainer["flops"], trainer["elapsed_s"]
            except (CheckpointError, KeyError) as error:
                self.say({"kind": "note", "text": f"{checkpoint.name} cannot be used, trying the one before: {error}"})
                continue
            self.say({"kind": "note", "text": f"resumed at step {self.step}"})
            return True
        return False

    def _enter_stage(self) -> tuple[Stage, int]:
        """The stage of this step and the steps done in it, having grown the model where the stage begins."""
        stages = self.settings.stages
        number, into = place(stages, self.step)
        while self.stage_number < number:
            following = self.stage_number + 1
            if stages[following].layers is None:
                self.stage_number = following
                continue
            before, after = self.out / GROWN / f"{following}-before", self.out / GROWN / str(following)
            self.student.export(before, self.save_model)
            if self.machine.is_first:
                self.grow(before, after, stages[following])
            self.machine.total([0.0])  # all wait
            self._begin(following)
        return stages[number], into

    def _one_step(self) -> None:
        started = time.monotonic()
        s, machine = self.settings, self.machine
        stage, into = self._enter_stage()
        student = self.student
        lr = s.lr * stage.lr * rate(self.step, s.steps, s.warmup, s.decay, s.final_lr)
        lr *= (into + 1) / stage.warmup if stage.warmup and into < stage.warmup else 1.0
        set_rate(student.optimizer, lr)
        depth, trained = stage.prefix(student.depth, s.seed, self.step)
        alpha = self.teaching.alpha(self.step) if self.teacher is not None and not self.overtaken else 0.0
        if alpha == 0.0:
            self.teacher = None  # its memory is free from here on
        torch.manual_seed(stable_seed(s.seed, f"step {self.step} process {machine.rank}"))  # dropout
        asked = time.monotonic()
        inputs, labels = (t.to(machine.device, non_blocking=True) for t in self.batches.rows(self.step))
        waited = time.monotonic() - asked
        student.model.train()
        with submodel(student.model, depth, trained):
            own_loss, taught_loss, *routed = self._learn(inputs, labels, alpha)
        learning = [p for p in student.model.parameters() if p.grad is not None]
        clipped = torch.nn.utils.clip_grad_norm_(learning, s.clip if s.clip > 0 else float("inf"))
        norm = (clipped.full_tensor() if isinstance(clipped, DTensor) else clipped).item()
        if not all(math.isfinite(value) for value in (own_loss, taught_loss, norm)):
            self._refuse_to_go_on(own_loss, norm)
        student.optimizer.step()
        student.optimizer.zero_grad(set_to_none=True)
        if machine.device.type == "cuda":
            torch.cuda.synchronize()  # or the clock would stop before the work does
        took = time.monotonic() - started
        tokens = s.batch_size * s.seq_len
        flops = step_flops(student.model, tokens, s.seq_len, depth, trained)
        if self.teacher is not None:
            flops += self.teacher.flops(tokens, s.seq_len)
        self.step, self.tokens = self.step + 1, self.tokens + tokens
        self.flops, self.seconds = self.flops + flops, self.seconds + took
        line = {"kind": "train", "step": self.step, "stage": stage.name, "loss": own_loss, "lr": lr, "grad_norm": norm}
        line |= {"depth": depth, "trained": trained, "tokens": self.tokens, "tok_per_s": tokens / took, "seconds": took}
        line |= {"data_fraction": waited / took, "alpha": alpha, **self._spent()}
        line |= {"kd_loss": taught_loss} if alpha else {}
        line |= dict(zip(("balance", "router_z"), routed)) if routed[1] else {}
        line |= {"mfu": flops / took / (machine.peak * machine.world)} if machine.peak else {}
        self.say(line)
        last = self.step == s.steps
        if self.val is not None and (last or self.step % s.eval_every == 0):
            self._say_validation()
        self.saver.settle()
        if self.step % s.save_every == 0 or last:
            self._save()

    def _learn(self, inputs: torch.Tensor, labels: torch.Tensor, alpha: float) -> list[float]:
        """Forward and backward of a step; returns nats per predicted token of the model and of the teacher, balance and z-loss."""
        s, machine = self.settings, self.machine
        model: Any = self.student.model
        count = s.batch_size * self.train.predicted
        sums = torch.zeros(4, device=machine.device, dtype=torch.float64)  # read once, at the end of the step
        parts = list(zip(inputs.chunk(s.grad_accum), labels.chunk(s.grad_accum)))
        share = 1.0 / (len(parts) * machine.world)  # of a part, in what is a mean over parts
        weights = torch.tensor([s.balance, s.router_z], device=machine.device) * share
        for number, part in enumerate(parts):
            if machine.world > 1:
                model.set_requires_gradient_sync(number == len(parts) - 1)

            def work(part: tuple[torch.Tensor, torch.Tensor] = part) -> tuple[Any, ...]:
                with machine.autocast(), routing(model) as routed:
                    predicted = Predicted(model, *part)
                taught = self.teacher.says(*part) if self.teacher is not None else None
                found = learn(predicted, 1.0 / count, taught, alpha, s.temperature, machine.autocast)
                return predicted.hidden, routed.losses(), *found

            hidden, routed, gradient, nats = machine.whole(model, work)
            ends = [(hidden, gradient)] if routed is None else [(hidden, gradient), (routed, weights)]
            torch.autograd.backward([end for end, _ in ends], [gradient for _, gradient in ends])
            sums[:2] += nats
            if routed is not None:
                sums[2:] += routed.detach() * share
        *found, told = machine.total([*sums.tolist(), float(self.told)])
        self.stopped = told > 0  # all processes agree
        return [found[0] / count, found[1] / count, *found[2:]]

    def _refuse_to_go_on(self, loss: float, norm: float) -> None:
        self.saver.settle(wait=True)
        kept = state.found(self.out / CHECKPOINTS)
        raise NotFiniteError(
            f"the loss is {loss}, the gradient's norm {norm} at step {self.step + 1}; the last good checkpoint is"
            f" {kept[-1].name if kept else 'none'}: lower --lr, raise --warmup, or look at the data"
        )

    def _spent(self) -> dict[str, float]:
        """Operations and seconds of training so far, validation and checkpoints left out."""
        return {"flops": self.flops, "elapsed_s": self.seconds}

    def _say_validation(self) -> None:
        assert self.val is not None
        whole = lambda work: self.machine.whole(self.student.model, work)  # noqa: E731
        loss, routed = validate(self.student.model, self.val, self.settings, self.machine, whole)
        self.say({"kind": "val", "step": self.step, "loss": loss, "tokens": self.tokens, **self._spent(), **routed})
        dead = routed.get("dead_experts", [])
        if dead:
            where = ", ".join(f"{expert} of layer {layer}" for layer, expert in dead[:4])
            more = f" and {len(dead) - 4} more" if len(dead) > 4 else ""
            text = f"hardly any token takes expert {where}{more}; a higher --balance would use them"
            self.say({"kind": "note", "text": text})
        if self.teacher is not None and self.settings.teacher_until == "overtaken":
            if self.theirs is None:
                self.theirs, _ = validate(self.teacher.model, self.val, self.settings, self.machine)
            self.overtaken = loss < self.theirs
            if self.overtaken:
                text = f"at step {self.step} the model's validation loss {loss:.4f} passes its teacher's, {self.theirs:.4f}"
                self.say({"kind": "note", "text": f"{text}; it goes on alone"})

    def _save(self) -> None:
        trainer = {"stage": self.stage_number, "tokens": self.tokens, "overtaken": self.overtaken, **self._spent()}
        path = self.saver.begin(self.step, self.student.model, self.student.optimizer, trainer)
        self.say({"kind": "save", "step": self.step, "path": path.name})
