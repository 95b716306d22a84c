"""The loop: stages, steps, losses, checkpoints. Knows the order of things; every part lives elsewhere.

A step is a pure function of the state before it and of (seed, step), so a run that was stopped, however rudely, goes on from
its last checkpoint as if nothing had happened.
"""

import math
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from growkit.checkpoint.source import read_json
from growkit.checkpoint.writer import write_json
from growkit.errors import CheckpointError, GrowkitError
from growkit.operators.seeds import stable_seed
from growkit.optimizer import MULTIPLIERS, OPTIMIZER
from growkit.plan import FORMAT
from growkit.training import state
from growkit.training.batches import Batches
from growkit.training.flops import forward_flops, step_flops
from growkit.training.machine import Machine
from growkit.training.objective import Teaching, losses, predictions
from growkit.training.optim import adamw, load_state, rate, set_rate, stored_state
from growkit.training.settings import Settings
from growkit.training.stages import Stage
from growkit.training.submodel import layers_of, submodel

CHECKPOINTS, GROWN = "checkpoints", "stages"
Say = Callable[[dict[str, Any]], None]  # called with each line of metrics


class NotFiniteError(GrowkitError):
    """The loss became NaN or Inf."""


@dataclass
class Run:
    """A run in progress: what is fixed, and the model as it is."""

    settings: Settings
    machine: Machine
    train: Batches
    val: Batches | None
    load_model: Callable[[Path], Any]
    save_model: Callable[[Any, Path, dict[str, Any]], None]
    grow: Callable[[Path, Path, Stage], None]
    say: Say
    told: bool = False
    stopped: bool = False

    def __post_init__(self) -> None:
        self.out = Path(self.settings.out)
        self.step = self.stage_number = 0
        self.tokens = 0
        self.flops = self.seconds = 0.0
        self.teacher = self.load_model(Path(self.settings.teacher)) if self.settings.teacher else None
        self.teaching = Teaching(self.settings.teacher_steps, self.settings.temperature, self.settings.alpha_schedule)

    def go(self, resume: bool) -> Any:
        """Run to the end, or until a signal; returns the model. Raises NotFiniteError where the loss does."""
        before = {kind: signal.signal(kind, self._stop) for kind in (signal.SIGTERM,)}
        try:
            if not (resume and self._resume()):
                self._begin(0)
            while self.step < self.settings.steps and not self.stopped:
                self._one_step()
            if self.stopped and self.step < self.settings.steps:
                self._save()
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)
        return self.model

    def _stop(self, *_: Any) -> None:
        self.told = True

    def _begin(self, number: int) -> None:
        """Build the model and the optimizer that stage `number` starts from."""
        self.stage_number = number
        grown = [n for n, stage in enumerate(self.settings.stages[: number + 1]) if stage.layers is not None]
        base = self.out / GROWN / str(grown[-1]) if grown else Path(self.settings.checkpoint)
        model = self.load_model(base)
        rates = base / MULTIPLIERS
        s = self.settings
        layers = layers_of(model)
        if s.grad_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            # torch warns that layers without a graph have nothing to recompute: they are the ones that do not learn
            warnings.filterwarnings("ignore", message="None of the inputs have requires_grad")
        if s.compile or (s.compile is None and self.machine.device.type == "cuda"):
            for layer in layers:
                layer.compile(dynamic=False)
        self.model = self.machine.spread(model.to(self.machine.device), list(layers))
        self.multipliers = (read_json(rates).get("multipliers") if rates.exists() else None) or {}
        self.optimizer = adamw(self.model, s.weight_decay, (s.beta1, s.beta2), s.eps, self.multipliers)
        if (base / OPTIMIZER).exists():
            load_state(self.optimizer, self.model, base / OPTIMIZER)

    def _resume(self) -> bool:
        """Go on from the newest checkpoint that can be read; False where there is none."""
        for checkpoint in reversed(state.found(self.out / CHECKPOINTS)):
            try:
                trainer = state.trainer_of(checkpoint)
                self._begin(trainer["stage"])
                state.load(checkpoint, self.model, self.optimizer)
            except (CheckpointError, KeyError) as error:
                self.say({"kind": "note", "text": f"{checkpoint.name} cannot be used, trying the one before: {error}"})
                continue
            self.step, self.tokens = trainer["step"], trainer["tokens"]
            self.flops, self.seconds = trainer["flops"], trainer["elapsed_s"]
            self.say({"kind": "note", "text": f"resumed at step {self.step}"})
            return True
        return False

    def _enter_stage(self) -> Stage:
        """The stage of this step, having grown the model where it begins."""
        ends, total = [], 0
        for stage in self.settings.stages:
            total += stage.steps
            ends.append(total)
        number = next(n for n, end in enumerate(ends) if self.step < end)
        stage = self.settings.stages[number]
        while self.stage_number < number:
            following = self.settings.stages[self.stage_number + 1]
            if following.layers is not None:
                self._grow_into(self.stage_number + 1, following)
            else:
                self.stage_number += 1
        self.into_stage = self.step - (ends[number] - stage.steps)
        return stage

    def _grow_into(self, number: int, stage: Stage) -> None:
        before, after = self.out / GROWN / f"{number}-before", self.out / GROWN / str(number)
        self.export(before, with_state=True)
        if self.machine.is_first:
            self.grow(before, after, stage)
        self.machine.total([0.0])  # all wait
        self._begin(number)

    def _one_step(self) -> None:
        started = time.monotonic()
        s, machine = self.settings, self.machine
        stage = self._enter_stage()
        lr = s.lr * stage.lr * self._rate(stage)
        set_rate(self.optimizer, lr)
        layers = len(layers_of(self.model))
        depth, trained = stage.prefix(layers, s.seed, self.step)
        alpha = self.teaching.alpha(self.step) if self.teacher is not None else 0.0
        if self.teacher is not None and alpha == 0.0:
            self.teacher = None  # its memory is free from here on
        torch.manual_seed(stable_seed(s.seed, f"step {self.step} process {machine.rank}"))  # dropout
        self.model.train()
        micro = s.batch_size // (machine.world * s.grad_accum)
        sums = torch.zeros(2, device=machine.device, dtype=torch.float64)  # read once, at the end of the step
        count = s.batch_size * self.predicted
        with submodel(self.model, depth, trained):
            for piece in range(s.grad_accum):
                first = machine.rank * micro * s.grad_accum + piece * micro
                inputs, labels = (t.to(machine.device) for t in self.train.rows(self.step, first, micro))
                if machine.world > 1:
                    getattr(self.model, "set_requires_gradient_sync")(piece == s.grad_accum - 1)  # noqa: B009
                with machine.autocast():
                    logits, targets = predictions(self.model, inputs, labels)
                    own, taught = losses(logits, targets, self._taught(inputs, labels, alpha), s.temperature)
                loss = own if taught is None else (1.0 - alpha) * own + alpha * taught
                (loss / count).backward()
                sums += torch.stack([own, own.new_zeros(()) if taught is None else taught]).detach()
        own_loss, taught_loss, told = machine.total([*sums.tolist(), float(self.told)])
        own_loss, taught_loss = own_loss / count, taught_loss / count
        self.stopped = told > 0  # all processes agree
        learning = [p for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(learning, s.clip if s.clip > 0 else float("inf"))
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        if not all(map(math.isfinite, (own_loss, taught_loss, norm.item()))):
            kept = state.found(self.out / CHECKPOINTS)
            raise NotFiniteError(
                f"the loss is {own_loss}, the gradient's norm {norm.item()} at step {self.step + 1}; the last good checkpoint is {kept[-1].name if kept else 'none'}:"
                " lower --lr, raise --warmup, or look at the data"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += s.batch_size * s.seq_len
        took = time.monotonic() - started
        self.seconds += took
        before = self.flops
        tokens = s.batch_size * s.seq_len
        self.flops += step_flops(self.model, tokens, s.seq_len, depth, trained)
        if alpha and self.teacher is not None:
            self.flops += forward_flops(self.teacher, tokens, s.seq_len)
        line = {"kind": "train", "step": self.step, "stage": stage.name, "loss": own_loss, "lr": lr}
        line |= {"grad_norm": norm.item(), "depth": depth, "trained": trained, "tokens": self.tokens}
        line |= {"tok_per_s": tokens / took, "seconds": took, "alpha": alpha, **self._spent()}
        line |= {"kd_loss": taught_loss} if alpha else {}
        if machine.peak:
            line["mfu"] = (self.flops - before) / took / (machine.peak * machine.world)
        self.say(line)
        last = self.step == s.steps
        if self.val is not None and (last or self.step % s.eval_every == 0):
            self.say(
                {"kind": "val", "step": self.step, "loss": self.validate(), "tokens": self.tokens, **self._spent()}
            )
        if self.step % s.save_every == 0 or last:
            self._save()

    def _spent(self) -> dict[str, float]:
        """Operations and seconds of training so far, validation and checkpoints left out."""
        return {"flops": self.flops, "elapsed_s": self.seconds}

    def _rate(self, stage: Stage) -> float:
        s = self.settings
        factor = rate(self.step, s.steps, s.warmup, s.decay, s.final_lr)
        if stage.warmup and self.into_stage < stage.warmup:
            factor *= (self.into_stage + 1) / stage.warmup
        return factor

    @property
    def predicted(self) -> int:
        """Predicted positions in a window, the same in all of them."""
        return int((self.train.rows(0, 0, 1)[1] >= 0).sum())

    def _taught(self, inputs: torch.Tensor, labels: torch.Tensor, alpha: float) -> torch.Tensor | None:
        if alpha == 0.0 or self.teacher is None:
            return None
        with torch.no_grad():
            return predictions(self.teacher.to(self.machine.device).eval(), inputs, labels)[0]

    def validate(self) -> float:
        """Mean nats per predicted token of the whole model on the validation split; the plain loss, whoever teaches."""
        assert self.val is not None
        s, machine = self.settings, self.machine
        windows = max(1, min(self.val.windows, s.eval_tokens // s.seq_len))
        mine = range(machine.rank, windows, machine.world)
        self.model.eval()
        sums = [0.0, 0.0]
        with torch.no_grad(), machine.autocast():
            # every process runs as often, because sharded layers wait for one another
            for place in range(-(-windows // machine.world)):
                number = mine[place] if place < len(mine) else 0
                inputs, labels = (torch.from_numpy(a)[None].to(machine.device) for a in self.val.window(number, number))
                logits, targets = predictions(self.model, inputs, labels)
                if place < len(mine):
                    sums = [sums[0] + losses(logits, targets)[0].item(), sums[1] + len(targets)]
        total, count = machine.total(sums)
        return total / count

    def export(self, folder: Path, with_state: bool) -> None:
        """The model as a Hugging Face folder, with AdamW's state beside it where asked. All processes call this together."""
        weights = get_model_state_dict(self.model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        moments = stored_state(self.optimizer, self.model) if with_state else {}
        if self.machine.is_first:
            self.save_model(self.model, folder, weights)
            if with_state:
                save_file(moments, folder / OPTIMIZER)
                write_json(
                    folder / MULTIPLIERS, {"format": FORMAT, "optimizer": "AdamW", "multipliers": self.multipliers}
                )

    def _save(self) -> None:
        trainer = {"stage": self.stage_number, "tokens": self.tokens, **self._spent()}
        path = state.save(self.out / CHECKPOINTS, self.step, self.model, self.optimizer, trainer, self.settings.keep)
        self.say({"kind": "save", "step": self.step, "path": path.name})
