"""The loop: stages, steps, losses, checkpoints. Knows the order of things; every part lives elsewhere.

A step is a pure function of the state before it and of (seed, step), so a run that was stopped, however rudely, goes on
from its last checkpoint as if nothing had happened.
"""

import math
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from growkit.data.batches import Ahead, Batch, BatchSource
from growkit.errors import CheckpointError, FailedError, GrowkitError
from growkit.operators.seeds import stable_seed
from growkit.training import checkpoints as state
from growkit.training.blank import Blank
from growkit.training.flops import step_flops
from growkit.training.kept_multipliers import exponent
from growkit.training.learning.learners import Course, Learners, WholeCourse, learning_layers
from growkit.training.machine import Machine
from growkit.training.optim import rate, set_rate
from growkit.training.routing import dead_note
from growkit.training.run_folder import CHECKPOINTS, GROWN
from growkit.training.saved import Saved
from growkit.training.settings import Settings
from growkit.training.stages import Stage, place
from growkit.training.step import PlannedStep, StepLosses, learn_batch, step_losses
from growkit.training.student import Student
from growkit.training.teachers.lessons import Lessons
from growkit.training.validation import validate

Say = Callable[[dict[str, Any]], None]  # called with each line of metrics


class NotFiniteError(FailedError):
    """The loss became NaN or Inf."""


@dataclass(kw_only=True)
class Run:
    """A run in progress: what is fixed, and the model as it is."""

    settings: Settings
    machine: Machine
    train: BatchSource
    val: BatchSource | None
    lessons: Lessons
    open_model: Callable[[str | Path], Blank]
    learners: Learners
    saved: Saved
    grow: Callable[[Path, Path, Stage], None]
    say: Say
    course: Course = field(default_factory=WholeCourse)
    finished: bool = False  # its result is there already
    release: Callable[[], object] = lambda: None  # lets others into its folder
    forget: Callable[[], object] = lambda: None  # takes its folder back
    notes: Sequence[str] = ()  # what was settled that nobody asked for, said when it begins
    spent: float = 0.0  # operations that went into what it begins with: those of a growth whose maps learned
    told: bool = False
    stopped: bool = False
    begun: bool = False

    def __post_init__(self) -> None:
        s = self.settings
        self.out = Path(s.out)
        self.step = self.stage_number = self.tokens = 0
        self.flops, self.seconds = self.spent, 0.0
        self.val_loss: float | None = None  # the model's own, when it was last asked

    def begin(self, resume: bool = False) -> None:
        """Build the model and the optimizer, or take them up from the newest checkpoint. Raises CheckpointError."""
        s = self.settings
        share = s.batch_size // self.machine.world
        pinned = self.machine.device.type == "cuda"
        self.batches = Ahead(self.train, self.machine.rank * share, share, pinned)
        self.saver = state.Saver(self.out / CHECKPOINTS, s.keep)
        try:
            if not (resume and self._resume()):
                self._begin_stage(0)
        except GrowkitError:
            self.forget()
            raise
        self.begun = True

    def go(self, resume: bool = False) -> Student:
        """Run to the end, or until a signal; returns the model. Begins where begin was not called before.

        Raises NotFiniteError, NotSavedError.
        """
        s = self.settings
        before = {kind: signal.signal(kind, self._stop) for kind in (signal.SIGTERM, signal.SIGINT)}
        try:
            if not self.begun:
                self.begin(resume)
            if self.step == 0:
                self._enter()
            while not self.is_complete and not self.stopped:
                self._one_step()
            self.student.keep_multipliers(exponent(self.settings.multipliers, self.step))
            if self.stopped and not self.is_complete and self.step % s.save_every:
                self._save()
            self.saver.settle(wait=True)
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)
            self.batches.close()
            self.saver.end()
        return self.student

    @property
    def is_complete(self) -> bool:
        """Whether all of its steps are done, or as many as its course lets it have."""
        return self.step >= self.settings.steps or self.course.is_over(self.student.model)

    def _enter(self) -> None:
        """Say what was settled, and measure before the first step: whether a teacher is better at all, and where tagged
        text begins, by which is told what is gained and forgotten."""
        for note in self.notes:
            self.say({"kind": "note", "text": note})
        if self.val is not None and (self.lessons.watched or self.val.domains is not None or self.course.asks(0)):
            self._say_validation()

    def _stop(self, *_: Any) -> None:
        self.told = True
        signal.signal(signal.SIGINT, signal.default_int_handler)  # who asks twice does not want to wait

    def _begin_stage(self, number: int) -> None:
        """Build the model and the optimizer that stage `number` starts from."""
        self.stage_number = number
        grown = [n for n, stage in enumerate(self.settings.stages[: number + 1]) if stage.layers is not None]
        base = self.out / GROWN / str(grown[-1]) if grown else self.settings.checkpoint
        self.student = Student(self.settings, self.machine, self.open_model(base), self.learners)

    def _resume(self) -> bool:
        """Go on from the newest checkpoint that can be read; False where there is none."""
        for checkpoint in reversed(state.checkpoints_in(self.out / CHECKPOINTS)):
            try:
                trainer = state.trainer_of(checkpoint)
                if trainer["step"] > self.settings.steps or trainer["stage"] >= len(self.settings.stages):
                    raise CheckpointError("it is of a longer run")
                self._begin_stage(trainer["stage"])
                state.load(checkpoint, self.student.model, self.student.optimizer)
                self.step, self.tokens = trainer["step"], trainer["tokens"]
                self.lessons.take_up(trainer)
                self.flops, self.seconds = trainer["flops"], trainer["elapsed_s"]
            except CheckpointError as error:
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
            self.saver.settle(wait=True)  # a growth that fails may cost no steps
            before, after = self.out / GROWN / f"{following}-before", self.out / GROWN / str(following)
            self.saved.export(self.student, before)
            stage = stages[following]
            self.machine.agreed(lambda: self.grow(before, after, stage))  # noqa: B023 - called here and now
            self._begin_stage(following)
        return stages[number], into

    def _one_step(self) -> None:
        started = time.monotonic()
        plan = self._plan_step()
        torch.manual_seed(stable_seed(self.settings.seed, f"step {self.step} process {self.machine.rank}"))  # dropout
        asked = time.monotonic()
        batch = self.batches.rows(self.step)
        waited = time.monotonic() - asked
        losses = self._learn(plan, batch)
        norm = self._clip()
        self._check_finite(losses, norm)
        self._update(plan.lr)
        self._count_and_say(plan, losses, norm, time.monotonic() - started, waited)
        self._after_step()

    def _plan_step(self) -> PlannedStep:
        """Rate, prefix and the teacher's weight of this step, the model grown first where a stage begins."""
        s = self.settings
        stage, into = self._enter_stage()
        lr = s.lr * stage.lr * rate(self.step, s.steps, s.warmup, s.decay, s.final_lr)
        lr *= (into + 1) / stage.warmup if stage.warmup and into < stage.warmup else 1.0
        depth, trained = stage.prefix(self.student.depth, s.seed, self.step)
        alpha = self.lessons.alpha(self.step)
        return PlannedStep(stage=stage.name, lr=lr, depth=depth, trained=trained, alpha=alpha)

    def _learn(self, plan: PlannedStep, batch: Batch) -> StepLosses:
        """Gradients of the step, on every process; whether all stop after it, they agree here."""
        model, count = self.student.model, max(1, self.train.predicted(self.step))
        model.train()
        with self.learners.in_step(model, plan):
            taught = (self.lessons.teacher, plan.alpha)
            sums = learn_batch(model, batch, count, *taught, self.settings, self.machine, self.student.capacity)
        losses = step_losses(sums, count, self.told, self.machine, self.student.capacity)
        self.stopped = losses.told > 0
        return losses

    def _clip(self) -> float:
        """Clip the gradients to the norm that is allowed; returns the norm they had."""
        most = self.settings.clip if self.settings.clip > 0 else float("inf")
        learning = [p for p in self.student.model.parameters() if p.grad is not None]
        clipped = torch.nn.utils.clip_grad_norm_(learning, most)
        return (clipped.full_tensor() if isinstance(clipped, DTensor) else clipped).item()

    def _update(self, lr: float) -> None:
        """One step of the optimizer."""
        self.student.keep_multipliers(exponent(self.settings.multipliers, self.step))
        set_rate(self.student.optimizer, lr)
        self.student.optimizer.step()
        self.student.optimizer.zero_grad(set_to_none=True)
        if self.machine.device.type == "cuda":
            torch.cuda.synchronize()  # or the clock would stop before the work does

    def _count_and_say(self, plan: PlannedStep, losses: StepLosses, norm: float, took: float, waited: float) -> None:
        """Count a step that is done, and write its line of metrics. took, waited: seconds, all and for data."""
        s, peak = self.settings, self.machine.peak
        tokens, learning = s.batch_size * s.seq_len, learning_layers(self.student.model, plan.depth, plan.trained)
        flops = step_flops(self.student.model, tokens, s.seq_len, plan.depth, plan.trained)
        if self.lessons.teacher is not None:
            flops += self.lessons.teacher.flops(tokens, s.seq_len)
        self.step, self.tokens = self.step + 1, self.tokens + tokens
        self.flops, self.seconds = self.flops + flops, self.seconds + took
        line = {"kind": "train", "step": self.step, "stage": plan.stage, "loss": losses.own, "lr": plan.lr}
        line |= {"grad_norm": norm, "depth": plan.depth, "trained": learning, "tokens": self.tokens}
        line |= {"tok_per_s": tokens / took, "seconds": took}
        line |= {"data_fraction": waited / took, "alpha": plan.alpha, **self._spent()}
        line |= {"kd_loss": losses.taught} if plan.alpha else {}
        line |= {"balance": losses.balance, "router_z": losses.router_z} if losses.router_z else {}
        line |= {"dropped": losses.dropped} if self.student.capacity is not None else {}
        line |= {"mfu": flops / took / (peak * self.machine.world)} if peak else {}
        self.say(line)

    def _after_step(self) -> None:
        """Validation and checkpoints where they are due."""
        s, last = self.settings, self.step == self.settings.steps
        if self.val is not None and (last or self.step % s.eval_every == 0 or self.course.asks(self.step)):
            self._say_validation()
        self.saver.settle()
        if self.step % s.save_every == 0 or last:
            self._save()

    def _check_finite(self, losses: StepLosses, norm: float) -> None:
        if all(math.isfinite(value) for value in (losses.own, losses.taught, norm)):
            return
        self.saver.settle(wait=True)
        kept = state.checkpoints_in(self.out / CHECKPOINTS)
        raise NotFiniteError(
            f"the loss is {losses.own}, the gradient's norm {norm} at step {self.step + 1}; the last good checkpoint is"
            f" {kept[-1].name if kept else 'none'}: lower --lr, raise --warmup, or look at the data"
        )

    def _spent(self) -> dict[str, float]:
        """Operations and seconds of training so far, validation and checkpoints left out."""
        return {"flops": self.flops, "elapsed_s": self.seconds}

    def _say_validation(self) -> None:
        assert self.val is not None
        whole = lambda work: self.machine.whole(self.student.model, work)  # noqa: E731
        loss, seen = validate(self.student.model, self.val, self.settings, self.machine, whole)
        self.val_loss = loss
        self.say({"kind": "val", "step": self.step, "loss": loss, "tokens": self.tokens, **self._spent(), **seen})
        if (note := dead_note(seen)) is not None:
            self.say({"kind": "note", "text": note})
        for note in self.lessons.compare(self.step, loss, seen.get("domains", {}), self.val):
            self.say({"kind": "note", "text": note})
        for note in self.course.heard(self.student.model, self.step, loss):
            self.say({"kind": "note", "text": note})

    def _save(self) -> None:
        trainer = {"stage": self.stage_number, "tokens": self.tokens, **self.lessons.state(), **self._spent()}
        path = self.saver.begin(self.step, self.student.model, self.student.optimizer, trainer)
        self.say({"kind": "save", "step": self.step, "path": path.name})
