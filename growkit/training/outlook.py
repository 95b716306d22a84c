"""What a run will be, before it is: stages, operations, memory, disk. Knows sizes; reads headers, computes nothing."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import torch

from growkit.training.flops import step_flops
from growkit.training.machine import BYTES
from growkit.training.prefix import layers_of
from growkit.training.ready import prepare
from growkit.training.settings import Settings
from growkit.training.stages import Stage


@dataclass(frozen=True)
class Outlook:
    """stages: of each its name, steps, layers, mean depth and mean layers that learn, and operations. parameters: of the model
    that the run begins with. passes: times through the data. warmup: steps. teacher_flops: at most. state: bytes that weights, gradient
    and moments take, activations left out. disk: bytes at most.
    """

    parameters: int
    sequences: int
    tokens: int
    passes: float
    warmup: int
    stages: tuple[dict[str, Any], ...]
    flops: float
    teacher_flops: float
    state: int
    disk: int
    device: str
    precision: str
    processes: int

    def to_json(self) -> dict[str, Any]:
        """The outlook as plain data."""
        return asdict(self)


def outlook(settings: Settings, resume: bool = False) -> Outlook:
    """What a run of these settings will be. Raises what the run itself would before it begins."""
    ready = prepare(settings, resume)
    s = ready.settings
    model = _shape(ready.source.config or {})
    parameters = sum(p.numel() for p in model.parameters())
    tokens = s.batch_size * s.seq_len
    stages, layers, step = [], len(layers_of(model)), 0
    for stage in s.stages:
        layers = stage.layers or layers
        stages.append(_stage(stage, model, layers, s, step))
        step += stage.steps
    taught = 0.0
    if ready.teacher is not None:
        taught = ready.teacher.flops(tokens, s.seq_len) * min(s.teacher_steps, s.steps)
    return Outlook(
        parameters, s.batch_size * s.steps, tokens * s.steps, s.batch_size * s.steps / ready.train.windows, s.warmup, tuple(stages),
        sum(stage["flops"] for stage in stages), taught, (BYTES - 2) * _deep(model, layers),
        ready.disk, str(ready.machine.device), s.precision, ready.machine.world,
    )  # fmt: skip


def _stage(stage: Stage, model: Any, layers: int, s: Settings, first: int) -> dict[str, Any]:
    prefixes = Counter(stage.prefix(layers, s.seed, step) for step in range(first, first + stage.steps))
    tokens, steps = s.batch_size * s.seq_len, max(1, stage.steps)
    flops = sum(count * step_flops(model, tokens, s.seq_len, *prefix) for prefix, count in prefixes.items())
    depth, trained = (sum(count * prefix[side] for prefix, count in prefixes.items()) / steps for side in (0, 1))
    return {
        "name": stage.name, "steps": stage.steps, "layers": layers, "depth": depth, "trained": trained, "flops": flops,
    }  # fmt: skip


def _deep(model: Any, layers: int) -> int:
    """Parameters of a model with so many layers, each as large as its last."""
    last = sum(p.numel() for p in layers_of(model)[-1].parameters())
    return sum(p.numel() for p in model.parameters()) + (layers - len(layers_of(model))) * last


def _shape(config: dict[str, Any]) -> Any:
    """The stock model of a config without its weights."""
    import transformers

    made = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"):
        return getattr(transformers, config["architectures"][0])(made)
