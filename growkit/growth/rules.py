"""From a tensor's axes and the maps of those axes to its rule. Knows roles and what a tied head needs; ignorant of values
and of why a map was chosen.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from math import prod

import numpy as np

from growkit.errors import CheckpointError
from growkit.families import Family
from growkit.maps.axis import ABSENT, GATHER, MEAN, AxisMap, concatenate, identity, outer
from growkit.maps.notation import GAIN, QKV, READ, SHIFT, UNSIZED, WRITE, Dimension, base, parse
from growkit.operators.rule import Rule, Selection, rule_of, select

Maps = Mapping[str, AxisMap]


@dataclass(frozen=True)
class Growth:
    """The maps of all axes of one source, with the facts about the model that a rule depends on.

    share: what this source contributes where several meet, such as in the logits of models side by side: 1 / their number.
    """

    family: Family
    maps: Maps
    tied: bool
    noise: float
    architecture: str = ""
    share: float = 1.0

    def dimensions(self, name: str) -> tuple[Dimension, ...]:
        """The dimensions of a stored tensor; a stored copy of a tied embedding has the embedding's."""
        if is_tied_head(name, self):
            return parse(self.family.tensors[self.family.embedding])
        return self.family.axes_of(name, self.architecture)

    @property
    def embedding_scale(self) -> float:
        """What embeddings are multiplied by so that the model's own sqrt(hidden) comes out as before (Gemma)."""
        hidden = self.maps["hidden"]
        return float(np.sqrt(hidden.old / hidden.new)) if self.family.embedding_scaled else 1.0


def composite(axes: tuple[str, ...], maps: Maps) -> AxisMap:
    """The map of a composite dimension. A fused qkv is three blocks whose slots grow by their own rules."""
    if QKV in axes:
        place = axes.index(QKV)
        after = axes[place + 1 :]
        roles = ("query_dim", "key_dim", "value_dim")
        parts = [composite(tuple(role if a == "head_dim" else a for a in after), maps) for role in roles]
        block = concatenate(parts)
        return outer(composite(axes[:place], maps), block) if place else block
    return reduce(outer, (maps[axis] for axis in axes))


def dimension_map(dimension: Dimension, size: int, maps: Maps) -> AxisMap:
    """The map of one dimension of one tensor; axes without a size of their own stay as they are."""
    if dimension.axes[0] in UNSIZED:
        return identity(size)
    return composite(dimension.axes, maps)


def check_shape(name: str, shape: tuple[int, ...], growth: Growth) -> None:
    """Raises CheckpointError where a stored shape is not what the config says it should be, or is more than a matrix."""
    dimensions = growth.dimensions(name)
    if len(shape) > 2:
        raise CheckpointError(
            f"tensor {name!r} has {len(shape)} dimensions, {list(shape)}; growkit grows vectors and matrices"
        )
    expected = [dimension_map(d, size, growth.maps).old for d, size in zip(dimensions, shape)]
    if len(dimensions) != len(shape) or expected != list(shape):
        axes = " x ".join("*".join(base(axis) for axis in d.axes) for d in dimensions)
        wanted = expected if len(dimensions) == len(shape) else f"{len(dimensions)} dimensions"
        raise CheckpointError(
            f"tensor {name!r} has shape {list(shape)} but config.json says {wanted} ({axes}); one of them is wrong"
        )


def tensor_rule(name: str, shape: tuple[int, ...], growth: Growth) -> Rule:
    """How one tensor grows: the one rule of growth, W'[i, j] = write[i] * read[j] * W[s(i), s(j)]."""
    dimensions = growth.dimensions(name)
    selections = [_selection(d, size, growth) for d, size in zip(dimensions, shape)]
    if growth.family.stem(name) == growth.family.embedding or is_tied_head(name, growth):
        selections[-1] = replace(selections[-1], amplitude=selections[-1].amplitude * growth.embedding_scale)
    if growth.share != 1.0 and not _is_placed(dimensions, shape, growth):
        selections[0] = replace(selections[0], amplitude=selections[0].amplitude * growth.share)
    roles = [dimension.role for dimension in dimensions]
    offset = growth.family.norms.gain_offset if roles[0] == GAIN else 0.0
    # a router whose rows are equal (finer experts) must keep them so to the last bit: which experts go together is a tie
    noise = 0.0 if dimensions[0].axes == ("expert",) else growth.noise
    return rule_of(selections, roles, offset, noise)


def _is_placed(dimensions: tuple[Dimension, ...], shape: tuple[int, ...], growth: Growth) -> bool:
    """Whether models side by side each have a place of their own in what this tensor writes; else they meet in it."""
    return any(
        (dimension_map(d, size, growth.maps).sides[d.role].mode == ABSENT).any()
        for d, size in zip(dimensions, shape)
        if d.role != READ
    )


def is_tied_head(name: str, growth: Growth) -> bool:
    """Whether this is a stored copy of the embedding, which must stay equal to it."""
    return growth.tied and growth.family.stem(name) in growth.family.heads


def grown_shape(name: str, shape: tuple[int, ...], growth: Growth) -> tuple[int, ...]:
    """The target shape of a tensor."""
    return tuple(dimension_map(d, size, growth.maps).new for d, size in zip(growth.dimensions(name), shape))


def head_factor(axis: AxisMap, growth: Growth) -> np.ndarray:
    """What the last norm multiplies by for a head that is tied: its read amplitude, over what the embedding has.

    logits = sum over copies of embedding[j] * activation[j]; the embedding cannot carry the 1/copies, so this norm does.
    """
    read = growth.share * axis.sides[READ].amplitude
    return read / (growth.maps["hidden"].sides[WRITE].amplitude * growth.embedding_scale)


def _selection(dimension: Dimension, size: int, growth: Growth) -> Selection:
    axis = dimension_map(dimension, size, growth.maps)
    chosen = select(axis, dimension.role)
    if dimension.before_head and growth.tied and dimension.role in (GAIN, SHIFT):
        chosen = replace(chosen, amplitude=chosen.amplitude * head_factor(axis, growth))
    return chosen


def dual_rule(name: str, shape: tuple[int, ...], growth: Growth, power: int) -> Rule:
    """How gradients of a tensor grow when its weights grow by tensor_rule, to a power (1: first moments, 2: second).

    The roles change places: what is written is multiplied by its read amplitude, what is read by its write amplitude
    (by the chain rule; a gain with multiplier w has write * read / w). Entries that carry nothing of the
    source have no history: first moments 0, second moments the mean of the axis, so that their first steps are bounded.
    """
    rule = tensor_rule(name, shape, replace(growth, noise=0.0))
    dimensions = growth.dimensions(name)
    embedding = growth.family.stem(name) == growth.family.embedding or is_tied_head(name, growth)
    placed = growth.share != 1.0 and _is_placed(dimensions, shape, growth)
    selections = []
    for place, (dimension, size) in enumerate(zip(dimensions, shape)):
        axis = dimension_map(dimension, size, growth.maps)
        forward = _selection(dimension, size, growth)
        write, read = axis.sides[WRITE], axis.sides[READ]
        # as in tensor_rule, only the last dimension of an embedding is the hidden one
        scale = growth.embedding_scale if embedding and place == len(shape) - 1 else 1.0
        factor = head_factor(axis, growth) if dimension.before_head and growth.tied else 1.0
        with np.errstate(divide="ignore", invalid="ignore"):
            amplitude = {
                WRITE: read.amplitude / scale,
                READ: write.amplitude,
                GAIN: write.amplitude * read.amplitude / (axis.sides[GAIN].amplitude * factor),
                SHIFT: read.amplitude / factor,
            }[dimension.role]
        # an entry inherits history only if it is written and read as its source is: a filler's gain, or a copy that
        # nothing reads, gets gradients of its own, and a second moment of 0 would make its first steps huge
        carried = forward.carried & (write.mode == GATHER) & (read.mode == GATHER)
        carried &= np.isfinite(amplitude) & (amplitude != 0)
        amplitude = np.where(carried, amplitude, 1.0 if power == 2 else 0.0) ** power
        mode = np.where(carried, GATHER, MEAN if power == 2 else GATHER)
        # what a member reads of others starts at 0 but learns: it has no history, where the member writes a place of its own
        learns = dimension.role == READ and power == 2 and placed
        mode = np.where(forward.mode == ABSENT, MEAN if learns else ABSENT, mode).astype(np.int8)
        selections.append(replace(forward, amplitude=amplitude, mode=mode))
    if growth.share != 1.0:
        # by the chain rule through the logits, which are a mean; what all of them write has the mean of their histories
        meets = all((selection.mode != ABSENT).all() for selection in selections)
        scale = growth.share**power if placed else growth.share if meets else 1.0
        selections[0] = replace(selections[0], amplitude=selections[0].amplitude * scale)
    rows, columns = (selections[0], rule.columns) if len(shape) == 1 else selections[:: -1 if rule.transposed else 1]
    return replace(rule, rows=rows, columns=columns, role=WRITE, offset=0.0)


def rate_multipliers(name: str, shape: tuple[int, ...], growth: Growth) -> tuple[float, float]:
    """(weight, gradient) multipliers of a tensor as a whole: root mean square of its amplitudes over carried entries."""
    forward = tensor_rule(name, shape, replace(growth, noise=0.0))
    dual = dual_rule(name, shape, growth, 1)
    return tuple(prod(_rms(s) for s in (rule.rows, rule.columns)) for rule in (forward, dual))  # type: ignore[return-value]


def _rms(selection: Selection) -> float:
    carried = selection.amplitude[selection.carried]
    return float(np.sqrt(np.mean(carried**2))) if len(carried) else 1.0
