"""A training request as people write it, made whole part by part: steps from tokens or epochs, stages from a schedule.
Knows what follows where nothing is said; ignorant of how a run is carried out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growkit.checkpoint.source import Checkpoint
from growkit.data.tagged import untagged
from growkit.data.tokens import open_tokens
from growkit.data.word_store import is_store, open_header
from growkit.errors import RequestError
from growkit.families import Family, family_named
from growkit.growth.optimizer import kept_state
from growkit.growth.sources import open_source
from growkit.growth.width.sizes import read_sizes
from growkit.training.run_batches import rows_in
from growkit.training.stages import SCHEDULES, STEADY, Stage, read_stages

LENGTH = 512
TEMPERATURE = 1.0  # where a teacher's logits are there, all of them
ESTIMATE = "head+sampled"  # of KL(teacher || student), where few of its entries are
BALANCE, ROUTER_Z = 1e-2, 1e-3  # Switch (arXiv 2101.03961), ST-MoE (arXiv 2202.08906)


@dataclass(frozen=True)
class Origin:
    """The model that a run begins with, as far as its config and headers say."""

    source: Checkpoint  # closed again
    family: Family
    config: dict[str, Any]

    @property
    def layers(self) -> int:
        """How many layers it has."""
        return read_sizes(self.family, self.config)["layer"]


@dataclass(frozen=True)
class Duration:
    """How long a run is, as people say it: by one of three."""

    steps: int | None
    tokens: int | None
    epochs: float | None

    @property
    def options(self) -> list[str]:
        """The options that were given."""
        given = (("--steps", self.steps), ("--tokens", self.tokens), ("--epochs", self.epochs))
        return [option for option, value in given if value is not None]

    def in_steps(self, size: int, length: int, data: str | Path, family: Family) -> int:
        """Optimizer steps of `size` rows of so many tokens each, at least 1. data: what epochs are counted in; family:
        of the model, which says whether conversations share rows.

        Raises RequestError where nothing or several things were said.
        """
        if len(self.options) != 1:
            raise RequestError("say how long the run is by one of --steps, --tokens, --epochs")
        if self.steps is not None:
            return self.steps
        if self.epochs is not None and (rows := rows_in(data, length, family)) is not None:
            return max(1, math.ceil(self.epochs * rows / size))
        tokens = self.tokens if self.epochs is None else int(self.epochs * len(open_tokens(data)))
        return max(1, (tokens or 0) // (size * length))


@dataclass(frozen=True, kw_only=True)
class Staging:
    """What is trained when, as people say it: a schedule and how it is placed, or stages of their own."""

    schedule: str  # a row of growkit.training.stages.SCHEDULES
    sub_layers: int | None  # two-stage: layers that learn in a step of the first stage
    sub_steps: int | None  # two-stage: steps of the first stage
    to_layers: int | None  # stackbert, mslt, late: layers at the end
    jump_at: float | None  # late: share of the steps before the jump
    stages: str | Path | Sequence[Stage] | None  # instead: a TOML file, or the stages themselves

    def chosen(self, origin: Origin, duration: Duration, size: int, length: int, data: str | Path) -> tuple[Stage, ...]:
        """The stages of a run that begins with a model. size, length: rows of a step, and their tokens. Raises
        RequestError for what cannot be."""
        stages = self._asked(origin, duration, size, length, data)
        if origin.family.passes and any(stage.sub_layers or stage.train_top or stage.layers for stage in stages):
            raise RequestError(
                f"{origin.family.model_type} passes the layers it has again and again, so that no stage can train or add"
                " some of them; leave --schedule out"
            )
        return stages

    def _asked(self, origin: Origin, duration: Duration, size: int, length: int, data: str | Path) -> tuple[Stage, ...]:
        layers = origin.layers
        if self.stages is not None:
            return self._own_stages(self.stages, duration, layers)
        steps = duration.in_steps(size, length, data, origin.family)
        if self.schedule not in SCHEDULES:
            raise RequestError(f"--schedule {self.schedule!r} is not one of {', '.join(SCHEDULES)}")
        for option, schedules in self._placing():
            if self.schedule not in schedules:
                raise RequestError(f"{option} is for --schedule {' or '.join(schedules)}, not for {self.schedule}")
        return SCHEDULES[self.schedule](
            steps,
            layers,
            sub_layers=self.sub_layers,
            sub_steps=self.sub_steps,
            to_layers=self.to_layers,
            jump_at=self.jump_at,
        )

    def _placing(self) -> list[tuple[str, tuple[str, ...]]]:
        """The options given that place stages, and the schedules they are for."""
        options = (
            ("--sub-layers", self.sub_layers, ("two-stage",)),
            ("--sub-steps", self.sub_steps, ("two-stage",)),
            ("--to-layers", self.to_layers, ("stackbert", "mslt", "late")),
            ("--jump-at", self.jump_at, ("late",)),
        )
        return [(option, schedules) for option, value, schedules in options if value is not None]

    def _own_stages(self, stages: str | Path | Sequence[Stage], duration: Duration, layers: int) -> tuple[Stage, ...]:
        if duration.options:
            given = duration.options[0]
            raise RequestError(f"{given} and --stages both say how long; leave {given} out")
        twice = [option for option, _ in self._placing()]
        twice += ["--schedule"] if self.schedule != "plain" else []
        if twice:
            raise RequestError(f"{twice[0]} and --stages both say what is trained when; leave {twice[0]} out")
        chosen = read_stages(stages) if isinstance(stages, str | Path) else tuple(stages)
        for stage in chosen:
            if stage.layers is not None and stage.layers < layers:
                raise RequestError(f"{stage.name!r} has {stage.layers} layers, fewer than the {layers} before it")
            layers = stage.layers or layers
        return chosen


def origin_of(checkpoint: str | Path) -> Origin:
    """The model that a run begins with. Raises CheckpointError for what is none."""
    source = open_source(checkpoint)
    source.close()
    config = source.config or {}
    return Origin(source, family_named(config.get("model_type")), config)


def window_of(origin: Origin, seq_len: int | None) -> int:
    """Tokens in a sequence: those asked for, or 512, or the model's positions where they are fewer."""
    return seq_len or min(LENGTH, usable_positions(origin.config) or LENGTH)


def asked_teachers(given: str | Path | Sequence[str | Path] | None) -> str | dict[str, str] | None:
    """Teachers as people write them: one for everything, or domain=TEACHER, several times. Raises RequestError for
    several of which not all say their domain, or of one domain."""
    listed = [given] if isinstance(given, str | Path) else list(given or ())
    pairs = [untagged(one) for one in listed]
    bare = [str(path) for tag, path in pairs if tag is None]
    if len(bare) == 1 == len(pairs):
        return bare[0]
    if bare:
        raise RequestError(
            f"--teacher {bare[0]!r} is one of {len(pairs)} and says no domain; write each as domain=TEACHER, or give one for"
            " everything"
        )
    teachers: dict[str, str] = {}
    for tag, path in pairs:
        assert tag is not None
        if tag in teachers:
            raise RequestError(f"--teacher {tag}=... is given twice, {teachers[tag]!r} and {str(path)!r}; give one")
        teachers[tag] = str(path)
    return teachers or None


def teaching_steps(
    teacher: str | dict[str, str] | None, teacher_steps: int | None, until: str | None, weight: float | None, steps: int
) -> int:
    """How many of a run's steps a teacher teaches: those asked for, or a third; 0 without one.

    Raises RequestError for words about a teacher where there is none.
    """
    if teacher is not None:
        return max(1, steps // 3) if teacher_steps is None else teacher_steps
    for option, value, says in (
        ("--teacher-until", until, "when a teacher ends"),
        ("--teacher-steps", teacher_steps, "how long a teacher teaches"),
        ("--teacher-weight", weight, "how much a teacher counts"),
    ):
        if value is not None:
            raise RequestError(f"{option} says {says}, but not which: add --teacher CKPT")
    return 0


def teaching_temperature(teacher: str | dict[str, str] | None, asked: float | None) -> float:
    """The temperature of both distributions: the one asked for, or that of a teacher's store, or 1. Raises
    CheckpointError for a store that is not whole."""
    stores = _stores(teacher)
    if asked is not None or not stores:
        return TEMPERATURE if asked is None else asked
    return open_header(stores[0]).temperature


def teaching_estimate(teacher: str | dict[str, str] | None, asked: str | None) -> str | None:
    """How stores' words are read: as asked for, or as usual; None without one. Raises RequestError where there is
    none."""
    if _stores(teacher):
        return asked or ESTIMATE
    if asked is not None:
        raise RequestError(
            "--teacher-estimate is for a teacher's store, and none is given; write one with growkit teach, and add"
            " --teacher STORE"
        )
    return None


def _stores(teacher: str | dict[str, str] | None) -> list[Path]:
    """Those of the teachers that are written down."""
    specs = [teacher] if isinstance(teacher, str) else (teacher or {}).values()
    return [Path(spec) for spec in specs if is_store(Path(spec))]


def chosen_decay(schedule: str, asked: str | None) -> str:
    """How the rate falls: as asked for, or by cosine, or where a schedule grows at a steady rate as wsd does. Raises
    RequestError for a decay that leaves such a schedule no steady rate."""
    steady = STEADY.get(schedule)
    if asked is None:
        return steady[0] if steady else "cosine"
    if steady and asked not in steady:
        raise RequestError(
            f"--schedule {schedule} grows while the rate is steady, which it never is with --decay {asked}; use --decay"
            f" {' or '.join(steady)}"
        )
    return asked


def mixture_weight(origin: Origin, checkpoint: str | Path, option: str, asked: float | None, usual: float) -> float:
    """A number that trains a mixture of experts: the one asked for, or the usual one; 0 for a dense model.

    Raises RequestError where a dense model should have one.
    """
    if origin.family.is_moe:
        return usual if asked is None else asked
    if asked:
        raise RequestError(f"{option} is for mixtures of experts; {str(checkpoint)!r} has none")
    return 0.0


def warmup_steps(origin: Origin, asked: int | None, steps: int, beta2: float, share: float = 0.0) -> int:
    """Steps of warm-up where none are asked for: with AdamW's state beside the checkpoint, whose steps are right from
    the start, this share of the run.

    Without it as many as second moments remember, 1 / (1 - beta2), at most a quarter of the run: until then they are
    too small, and steps too large (measured: examples/benchmarks/rewarm.py).
    """
    if asked is not None:
        return asked
    least = round(share * steps)
    if kept_state(origin.source.folder) is not None:
        return least
    return max(least, min(round(1.0 / max(1.0 - beta2, 1e-9)), steps // 4))


def usable_positions(config: dict[str, Any]) -> int | None:
    """The longest sequence a model takes, None where its config does not say."""
    return family_named(config.get("model_type")).longest(config)
