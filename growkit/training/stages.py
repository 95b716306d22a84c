"""A run as data: stages, and the schedules that are made of them. Knows the literature's recipes; ignorant of models.

A stage says for how many steps which layers learn, and what is grown before it begins. bert2BERT's two stages,
StackBERT, MSLT and a late jump are rows of one table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growkit.checkpoint.fields import Fields, ListOf, Number, OneOf, Text, Whole, checked
from growkit.checkpoint.toml_text import read_toml
from growkit.data.domains import MOST as DOMAINS
from growkit.data.domains import NAME
from growkit.errors import CheckpointError, RequestError
from growkit.growth.depth.layers import METHODS
from growkit.limits import LAYERS, STEPS
from growkit.operators.seeds import stable_seed

MOST = 1000  # stages of a run
JUMP = 0.6  # share of the steps before a late jump, so that a fifth goes on at the full rate before wsd lowers it


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of a run.

    steps: optimizer steps. sub_layers: l_b of bert2BERT's first stage: each step trains the top l_b layers of a prefix
    of l_b, 2 l_b, ... or all layers; None: no prefixes. train_top: only so many top layers and the head learn; None:
    all. layers, depth: the number of layers to stack the model to before the stage begins, and the method; None: as it
    is. lr: factor on the run's learning rate. warmup: steps over which that rate rises anew; None: it goes on as the
    run's does. tasks: of a dataset of conversations, those that it learns; none named: all.
    """

    name: str
    steps: int
    sub_layers: int | None = None
    train_top: int | None = None
    layers: int | None = None
    depth: str = "stack"
    lr: float = 1.0
    warmup: int | None = None
    tasks: tuple[str, ...] = ()

    def prefix(self, layers: int, seed: int, step: int) -> tuple[int, int]:
        """(depth, trained) of a step: how many first layers run, and how many top ones of these learn.

        Depends on the seed and the step alone, so every process and every resumed run agrees.
        """
        if self.sub_layers is None:
            return layers, min(self.train_top or layers, layers)
        size = min(self.sub_layers, layers)
        prefixes = [*range(size, layers, size), layers]
        depth = prefixes[stable_seed(seed, f"prefix of step {step}") % len(prefixes)]
        # where size does not divide, the last block is shorter
        return depth, depth - (prefixes[prefixes.index(depth) - 1] if depth != prefixes[0] else 0)


def place(stages: tuple[Stage, ...], step: int) -> tuple[int, int]:
    """(number of the stage that a step of the run is in, steps done in it), both counted from 0."""
    for number, stage in enumerate(stages):
        if step < stage.steps:
            return number, step
        step -= stage.steps
    raise ValueError("a step behind the last stage")


def plain(steps: int, layers: int, **_: Any) -> tuple[Stage, ...]:
    """All layers, all steps."""
    return (Stage(name="all", steps=steps),)


def two_stage(steps: int, layers: int, sub_layers: int | None, sub_steps: int | None, **_: Any) -> tuple[Stage, ...]:
    """bert2BERT: prefixes first (by default a quarter of the layers at a time, an eighth of the steps: 5 of 40
    epochs)."""
    first = steps // 8 if sub_steps is None else sub_steps
    if not 0 <= first <= steps:
        raise RequestError(f"--sub-steps {first} should be from 0 to the run's {steps} steps")
    block = sub_layers or max(1, layers // 4)
    if not 1 <= block <= layers:
        raise RequestError(f"--sub-layers {block} should be from 1 to the model's {layers} layers")
    stages = Stage(name="prefixes", steps=first, sub_layers=block), Stage(name="all", steps=steps - first)
    return tuple(stage for stage in stages if stage.steps)


def stackbert(steps: int, layers: int, to_layers: int | None, **_: Any) -> tuple[Stage, ...]:
    """StackBERT (Gong et al., ICML 2019): double until `to_layers`; the last stage has 70 % of the steps, as 50k, 70k,
    280k do."""
    depths = _doublings(layers, to_layers)
    early = _shares(round(0.3 * steps), [5.0 + 2.0 * number for number in range(len(depths) - 1)])
    counts = [*early, steps - sum(early)]
    return tuple(
        Stage(name=f"{depth} layers", steps=count, layers=None if depth == layers else depth)
        for depth, count in zip(depths, counts)
    )


def mslt(steps: int, layers: int, to_layers: int | None, **_: Any) -> tuple[Stage, ...]:
    """MSLT (Yang et al., arXiv 2011.13635): copies of the top layers are added and trained alone, then all jointly (the
    last fifth)."""
    depths = list(range(layers, _target(layers, to_layers) + 1, layers))
    if depths[-1] != to_layers:
        depths.append(_target(layers, to_layers))
    alone = _shares(round(0.8 * steps), [1.0] * len(depths))
    stages = [
        Stage(
            name=f"{depth} layers",
            steps=count,
            train_top=None if depth == layers else depth - previous,
            layers=None if depth == layers else depth,
            depth="top" if depth != layers else "stack",
        )
        for depth, previous, count in zip(depths, [0, *depths], alone)
    ]
    return (*stages, Stage(name="all", steps=steps - sum(alone)))


def late(steps: int, layers: int, to_layers: int | None, jump_at: float | None, **_: Any) -> tuple[Stage, ...]:
    """One jump to all layers late in the run, while the rate is steady (arXiv 2511.04981): most steps are a small
    model's."""
    first = round((JUMP if jump_at is None else jump_at) * steps)
    target = _target(layers, to_layers)
    if not 0 < first < steps:
        raise RequestError(
            f"--jump-at leaves {first} steps before the jump and {steps - first} after it; give more steps"
        )
    return (
        Stage(name=f"{layers} layers", steps=first),
        Stage(name=f"{target} layers", steps=steps - first, layers=target),
    )


SCHEDULES: dict[str, Callable[..., tuple[Stage, ...]]] = {
    "plain": plain,
    "two-stage": two_stage,
    "stackbert": stackbert,
    "mslt": mslt,
    "late": late,
}
STEADY = {"late": ("wsd", "constant")}  # schedules that grow at a steady rate -> the decays that have one


COUNT = Whole(1, LAYERS)
STAGE = Fields(
    {
        "name": Text(r"[\s\S]{1,200}", "text of at most 200 characters"),
        "steps": Whole(1, STEPS),
        "sub_layers": COUNT,
        "train_top": COUNT,
        "layers": COUNT,
        "depth": OneOf(tuple(METHODS)),
        "lr": Number(1e-12, 1e12),
        "warmup": Whole(0, STEPS),
        "tasks": ListOf(Text(NAME, "a name"), 1, DOMAINS),
    },
    needed=("steps",),
)
FILE = Fields({"stage": ListOf(Fields({}), least=1, most=MOST)}, needed=("stage",))


def read_stages(path: str | Path) -> tuple[Stage, ...]:
    """Stages from a TOML file of [[stage]] tables with Stage's fields. Raises CheckpointError for what is none."""
    file = Path(path)
    tables = checked(read_toml(file, "stages"), FILE, file, "write one [[stage]] for each, with name and steps")[
        "stage"
    ]
    stages = []
    for number, table in enumerate(tables, start=1):
        where = f"{str(path)!r}, stage {number}"
        strange = [key for key in table if key not in STAGE.kinds]
        if strange:
            raise CheckpointError(f"{where}: {strange[0]!r} is none of {', '.join(STAGE.kinds)}")
        said = checked(table, STAGE, where, "mend it")
        stages.append(Stage(**{"name": f"stage {number}", **said, "tasks": tuple(said.get("tasks", ()))}))
    return tuple(stages)


def _target(layers: int, to_layers: int | None) -> int:
    if to_layers is None or to_layers <= layers:
        raise RequestError(f"say how deep the model ends, deeper than its {layers} layers: --to-layers N")
    return to_layers


def _doublings(layers: int, to_layers: int | None) -> list[int]:
    depths = [layers]
    while depths[-1] < _target(layers, to_layers):
        depths.append(min(2 * depths[-1], _target(layers, to_layers)))
    return depths


def _shares(steps: int, weights: list[float]) -> list[int]:
    """Steps divided in proportion, whole numbers."""
    return [int(steps * weight / sum(weights)) for weight in weights] if weights else []
