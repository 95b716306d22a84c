"""What a run will be, before it is: stages, operations, memory, disk. Knows sizes; reads headers, computes nothing."""

from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from growkit.models.live_layers import layers_of
from growkit.models.stock import stock_class, with_own_kernels
from growkit.reports.foreseen import Foreseen, foreseen
from growkit.training.flops import step_flops
from growkit.training.learning.learners import learning_layers
from growkit.training.machine import BYTES
from growkit.training.ready import ReadyRun, prepare
from growkit.training.settings import Settings
from growkit.training.stages import Stage

STEPS = 100_000  # of a stage of prefixes that are looked at one by one; a longer one is like its beginning


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What a run will be."""

    parameters: int  # of the model that it begins with
    learning: int  # of these learn, in one stage or another
    sequences: int  # of all steps
    tokens: int  # of all steps
    passes: float  # times through the data
    lr: float  # the peak of the rate
    warmup: int  # steps
    stages: tuple[
        dict[str, Any], ...
    ]  # of each its name, steps, layers, mean depth, mean layers that learn, operations
    flops: float  # of all stages
    teacher_flops: float  # at most
    state: int  # bytes that weights, gradient and moments take, activations left out
    disk: int  # bytes at most
    device: str  # where it runs
    precision: str  # what products are computed in
    processes: int  # that share it
    rows: dict[str, int] | None = None  # of conversations: what became of them in rows, as RowCounts says
    foreseen: Foreseen | None = None  # what a forecast says of its end
    notes: tuple[str, ...] = ()  # what was settled that nobody asked for, and why

    def to_json(self) -> dict[str, Any]:
        """The outlook as plain data."""
        return asdict(self)


def outlook(settings: Settings, resume: bool = False, forecast: str | Path | None = None) -> Outlook:
    """What a run of these settings will be. forecast: a folder of growkit forecast, which says what it ends with.
    Raises what the run itself would before it begins, and what foreseen does."""
    ready = prepare(settings, resume)
    ahead = outlook_of(ready)
    if forecast is None:
        return ahead
    source = ready.source
    return replace(ahead, foreseen=foreseen(forecast, source.folder, source.name, source.config or {}, ahead.tokens))


def outlook_of(ready: ReadyRun) -> Outlook:
    """What a run that could begin will be."""
    s = ready.settings
    model = _shape(ready.source.config or {})
    ready.trained.learners.choose(model)
    parameters = _count(model)
    tokens = s.batch_size * s.seq_len
    stages, layers, step = [], len(layers_of(model)), 0
    for stage in s.stages:
        layers = stage.layers or layers
        stages.append(_stage(stage, model, layers, s, step))
        step += stage.steps
    taught = sum(teacher.flops(tokens, s.seq_len) for teacher in ready.teachers.values())
    return Outlook(
        parameters=parameters,
        learning=_count(model, learning=True),
        sequences=s.batch_size * s.steps,
        tokens=tokens * s.steps,
        passes=s.batch_size * s.steps / ready.train.windows,
        lr=s.lr,
        warmup=s.warmup,
        stages=tuple(stages),
        flops=sum(stage["flops"] for stage in stages),
        teacher_flops=taught * min(s.teacher_steps, s.steps),
        state=4 * _deep(model, layers) + (BYTES - 6) * _deep(model, layers, learning=True),
        disk=ready.disk,
        device=str(ready.machine.device),
        precision=s.precision,
        processes=ready.machine.world,
        rows=ready.rows.to_json() if ready.rows is not None else None,
        notes=ready.notes,
    )


def _stage(stage: Stage, model: Any, layers: int, s: Settings, first: int) -> dict[str, Any]:
    steps = max(1, min(stage.steps, STEPS if stage.sub_layers is not None else 1))  # else every step is as the first
    prefixes = Counter(stage.prefix(layers, s.seed, step) for step in range(first, first + steps))
    tokens = s.batch_size * s.seq_len
    once = sum(count * step_flops(model, tokens, s.seq_len, *prefix) for prefix, count in prefixes.items())
    flops = once * stage.steps / steps
    depth = sum(count * prefix[0] for prefix, count in prefixes.items()) / steps
    trained = sum(count * learning_layers(model, *prefix) for prefix, count in prefixes.items()) / steps
    return {
        "name": stage.name, "steps": stage.steps, "layers": layers, "depth": depth, "trained": trained, "flops": flops,
    }  # fmt: skip


def _count(module: Any, learning: bool = False) -> int:
    """Parameters of a model or a layer: all, or those that learn."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not learning)


def _deep(model: Any, layers: int, learning: bool = False) -> int:
    """Parameters of a model with so many layers, each as large as its last."""
    own = layers_of(model)
    return _count(model, learning) + (layers - len(own)) * _count(own[-1], learning)


def _shape(config: dict[str, Any]) -> Any:
    """The stock model of a config without its weights."""
    import transformers

    stock = with_own_kernels(transformers.AutoConfig.for_model(**config))
    with torch.device("meta"):
        return stock_class(config, "the checkpoint")(stock)
