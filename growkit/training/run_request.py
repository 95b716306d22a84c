"""A training request as people write it, made whole: steps from tokens or epochs, stages from a schedule. Knows defaults;
ignorant of how a run is carried out.
"""

from pathlib import Path
from typing import Any

from growkit.checkpoint.source import Checkpoint
from growkit.data.tokens import open_tokens
from growkit.errors import RequestError
from growkit.families import family_named
from growkit.growth.optimizer import OPTIMIZER
from growkit.growth.sources import open_source
from growkit.growth.width.sizes import read_sizes
from growkit.training.settings import Settings
from growkit.training.stages import SCHEDULES, Stage, read_stages

LENGTH = 512
BALANCE, ROUTER_Z = 1e-2, 1e-3  # Switch (arXiv 2101.03961), ST-MoE (arXiv 2202.08906)


def settings(
    checkpoint: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    steps: int | None = None,
    tokens: int | None = None,
    epochs: float | None = None,
    schedule: str = "plain",
    sub_layers: int | None = None,
    sub_steps: int | None = None,
    to_layers: int | None = None,
    stages: str | Path | tuple[Stage, ...] | None = None,
    seq_len: int | None = None,
    batch_size: int = 32,
    warmup: int | None = None,
    teacher: str | Path | None = None,
    teacher_steps: int | None = None,
    **rest: Any,
) -> Settings:
    """Settings of a run: its length from one of steps, tokens and epochs, its stages from a schedule, a file or as they are.

    warmup: steps; None: as _warmup chooses. rest: those that Settings takes as they are. Raises RequestError for no or several lengths, an unknown schedule or
    stages that cannot be, CheckpointError for a checkpoint that cannot be read.
    """
    source = open_source(checkpoint)
    source.close()
    config = source.config or {}
    family = family_named(config.get("model_type"))
    layers = read_sizes(family, config)["layer"]
    positions = usable_positions(config)
    length = seq_len or min(LENGTH, positions or LENGTH)
    given = [
        name for name, value in (("--steps", steps), ("--tokens", tokens), ("--epochs", epochs)) if value is not None
    ]
    if stages is not None:
        if given:
            raise RequestError(f"{given[0]} and --stages both say how long; leave {given[0]} out")
        placing = {"--sub-layers": sub_layers, "--sub-steps": sub_steps, "--to-layers": to_layers}
        twice = [option for option, value in placing.items() if value is not None]
        twice += ["--schedule"] if schedule != "plain" else []
        if twice:
            raise RequestError(f"{twice[0]} and --stages both say what is trained when; leave {twice[0]} out")
        chosen: tuple[Stage, ...] = stages if isinstance(stages, tuple) else read_stages(stages)
        steps = sum(stage.steps for stage in chosen)
        deep = layers
        for stage in chosen:
            if stage.layers is not None and stage.layers < deep:
                raise RequestError(f"{stage.name!r} has {stage.layers} layers, fewer than the {deep} before it")
            deep = stage.layers or deep
    else:
        if len(given) != 1:
            raise RequestError("say how long the run is by one of --steps, --tokens, --epochs")
        per_step = batch_size * length
        if epochs is not None:
            tokens = int(epochs * len(open_tokens(data)))
        steps = steps if steps is not None else max(1, (tokens or 0) // per_step)
        if schedule not in SCHEDULES:
            raise RequestError(f"--schedule {schedule!r} is not one of {', '.join(SCHEDULES)}")
        for option, value, of in (
            ("--sub-layers", sub_layers, ("two-stage",)),
            ("--sub-steps", sub_steps, ("two-stage",)),
            ("--to-layers", to_layers, ("stackbert", "mslt")),
        ):
            if value is not None and schedule not in of:
                raise RequestError(f"{option} is for --schedule {' or '.join(of)}, not for {schedule}")
        chosen = SCHEDULES[schedule](steps, layers, sub_layers=sub_layers, sub_steps=sub_steps, to_layers=to_layers)
    teaching = 0
    if teacher is not None:
        teaching = teacher_steps if teacher_steps is not None else max(1, steps // 3)
    elif rest.get("teacher_until", "steps") != "steps":
        raise RequestError("--teacher-until says when a teacher ends, but not which: add --teacher CKPT")
    elif teacher_steps is not None:
        raise RequestError("--teacher-steps says how long a teacher teaches, but not which: add --teacher CKPT")
    usual = {"balance": BALANCE, "router_z": ROUTER_Z, "expert_dropout": 0.0} if family.is_moe else {}
    for name in ("balance", "router_z", "expert_dropout"):
        value = rest.pop(name, None)
        if not family.is_moe and value:
            raise RequestError(f"--{name.replace('_', '-')} is for mixtures of experts; {str(checkpoint)!r} has none")
        rest |= {name: usual.get(name, 0.0) if value is None else value}
    return Settings(
        str(checkpoint),
        str(data),
        str(out),
        steps,
        chosen,
        seq_len=length,
        batch_size=batch_size,
        warmup=_warmup(source, steps, rest.get("beta2", Settings.beta2)) if warmup is None else warmup,
        teacher=None if teacher is None else str(teacher),
        teacher_steps=teaching,
        **rest,
    )


def _warmup(source: Checkpoint, steps: int, beta2: float) -> int:
    """Steps of warm-up where none are asked for: 0 with AdamW's state beside the checkpoint, whose steps are right from the start.

    Without it as many as second moments remember, 1 / (1 - beta2), at most a quarter of the run: until then they are too small, and
    steps too large (measured: examples/benchmarks/rewarm.py).
    """
    if source.folder is not None and (source.folder / OPTIMIZER).exists():
        return 0
    return min(round(1.0 / (1.0 - beta2)), steps // 4)


def usable_positions(config: dict[str, Any]) -> int | None:
    """The longest sequence a model takes, None where its config does not say."""
    return family_named(config.get("model_type")).longest(config)
