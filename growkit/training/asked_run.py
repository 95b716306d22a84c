"""From the words of a command that trains to its run: made whole, then looked at or carried out. Knows what follows
where nothing is said; ignorant of how a run is carried out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any

from growkit.errors import RequestError
from growkit.training import run_request as asked
from growkit.training.kept_multipliers import made_whole
from growkit.training.learning.train_words import ALL, usual_rate
from growkit.training.outlook import outlook
from growkit.training.pretrain import Finished
from growkit.training.pretrain import pretrain as run
from growkit.training.run_batches import asked_mix
from growkit.training.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command that trains, and what it does where nothing is said. balance, router_z: of a mixture of experts.
    epochs: how long. warmup: share of the run, at least."""

    name: str
    balance: float
    router_z: float
    epochs: float | None = None
    warmup: float = 0.0


PRETRAIN = Command(name="pretrain", balance=asked.BALANCE, router_z=asked.ROUTER_Z)
# OLMoE (arXiv 2409.02060) does better without its losses while it is tuned; 2 epochs and 3 % are LoRA-XS's and Alpaca's
TUNE = Command(name="tune", balance=0.0, router_z=0.0, epochs=2.0, warmup=0.03)


def asked_run(command: Command, words: Mapping[str, Any]) -> Finished:
    """The run that the words of a command ask for, or with dry_run what it will be; raises as growkit.pretrain does.

    words: every parameter of the command's public function by its name.
    """
    resume = asked_resume(words["resume"])
    settings = settings_of(command, SimpleNamespace(**words))
    forecast = words.get("forecast")
    if words["dry_run"]:
        return Finished(folder=None, step=0, loss=None, outlook=outlook(settings, resume, forecast))
    if forecast is not None:
        raise RequestError("--forecast is for --dry-run, which says what a run will be; leave it out to train")
    words["announce"](settings)
    return run(settings, resume, words["watch"])


def asked_resume(word: str) -> bool:
    """Whether a run that is there goes on. Raises RequestError."""
    if word not in ("auto", "never"):
        raise RequestError(f"--resume {word!r} is not one of auto, never")
    return word == "auto"


def settings_of(command: Command, words: SimpleNamespace) -> Settings:
    """The settings of a run, made whole. Raises RequestError for what cannot be asked, CheckpointError for what cannot
    be read."""
    s = words
    origin = asked.origin_of(s.checkpoint)
    word = getattr(s, "train", ALL)
    window = asked.window_of(origin, s.seq_len)
    placing = asked.Staging(
        schedule=s.schedule, sub_layers=s.sub_layers, sub_steps=s.sub_steps, to_layers=s.to_layers, jump_at=s.jump_at,
        stages=s.stages,
    )  # fmt: skip
    duration = asked.Duration(s.steps, s.tokens, s.epochs)
    if command.epochs and s.stages is None and not duration.options:
        duration = asked.Duration(None, None, command.epochs)
    stages = placing.chosen(origin, duration, s.batch_size, window, s.data)
    total = sum(stage.steps for stage in stages)
    teachers = asked.asked_teachers(s.teacher)
    whole: dict[str, Any] = {
        "command": command.name,
        "train": word,
        "lr": usual_rate(word, origin.family) if s.lr is None else s.lr,
        "checkpoint": str(s.checkpoint),
        "data": str(s.data),
        "decay": asked.chosen_decay(s.schedule, s.decay),
        "multipliers": made_whole(s.multipliers, total),
        "mix": asked_mix(getattr(s, "mix", None)),
        "out": str(s.out),
        "steps": total,
        "stages": stages,
        "seq_len": window,
        "teacher": teachers,
        "teacher_steps": asked.teaching_steps(teachers, s.teacher_steps, s.teacher_until, s.teacher_weight, total),
        "teacher_estimate": asked.teaching_estimate(teachers, s.teacher_estimate),
        "temperature": asked.teaching_temperature(teachers, s.temperature),
        "warmup": asked.warmup_steps(origin, s.warmup, total, s.beta2, command.warmup),
    }
    for option, usual in (
        ("balance", command.balance),
        ("router_z", command.router_z),
        ("expert_dropout", 0.0),
        ("capacity", 0.0),
    ):
        flag = f"--{option.replace('_', '-')}"
        whole[option] = asked.mixture_weight(origin, s.checkpoint, flag, getattr(s, option), usual)
    plain = {field.name: getattr(s, field.name) for field in fields(Settings) if hasattr(s, field.name)}
    return Settings(**{**plain, **whole})
