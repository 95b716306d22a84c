"""Which weights of a checkpoint a panel controls, and which of them read one input. Knows families' tables; ignorant of
values.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from growkit.errors import RequestError
from growkit.families import Family
from growkit.models.small.targets import linears_among

MLP, ATTENTION, ALL = "mlp", "attention", "all"
MODULES = (MLP, ATTENTION, ALL)
INPUT = "input"  # the last word of a group's name


@dataclass(frozen=True, kw_only=True)
class ControlledWeight:
    """A linear weight by its name in the checkpoint, (out, in) as its layer computes with it. across: it is stored (in,
    out)."""

    name: str
    out: int
    width: int
    across: bool


@dataclass(frozen=True, kw_only=True)
class InputGroup:
    """The weights that read one input. name: of what they have in common, and "input". layer: counted from 0."""

    name: str
    layer: int
    weights: tuple[ControlledWeight, ...]

    @property
    def width(self) -> int:
        """Of the input."""
        return self.weights[0].width

    def rank(self, asked: int) -> int:
        """How many directions of its input a panel of the rank asked for has."""
        return min(asked, self.width, sum(weight.out for weight in self.weights))


def input_groups(
    family: Family,
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    layers: Collection[int],
    modules: str,
) -> list[InputGroup]:
    """The groups of some layers, layer by layer, of a checkpoint whose tensors have these shapes. modules: mlp,
    attention or all.

    Queries, keys and values read one input, and the gate and the first matrix of a feed-forward layer. Raises
    RequestError where nothing is left.
    """
    if family.stacks:
        raise RequestError(
            f"a {family.model_type} has attention from one stack of layers to another, whose inputs no panel tells apart"
        )
    sets: dict[tuple[int, bool, tuple[str, ...], str], list[ControlledWeight]] = {}
    for linear in linears_among(family, config, shapes):
        name = f"{linear.module}.weight"
        layer, kind = family.layer_of(name), MLP if linear.feed_forward else ATTENTION
        if layer not in layers or modules not in (kind, ALL):
            continue
        assert layer is not None
        out, width = shapes[name][::-1] if linear.across else shapes[name]
        weight = ControlledWeight(name=name, out=out, width=width, across=linear.across)
        home = linear.module.rpartition(".")[0]
        sets.setdefault((layer, linear.feed_forward, linear.reads, home), []).append(weight)
    if not sets:
        raise RequestError(f"no linear weight is left for --modules {modules}: what experts have is none of them")
    groups = [
        InputGroup(name=_common([weight.name for weight in weights]), layer=layer, weights=tuple(weights))
        for (layer, *_), weights in ((key, sorted(own, key=lambda one: one.name)) for key, own in sets.items())
    ]
    return sorted(groups, key=lambda group: (group.layer, group.name))  # whatever the order of the file


def _common(names: list[str]) -> str:
    """What the names of a group have in common, module by module, and "input"."""
    parts = [name.removesuffix(".weight").split(".") for name in names]
    same = [words[0] for words in zip(*parts) if len({*words}) == 1]
    return ".".join([*same, INPUT])
