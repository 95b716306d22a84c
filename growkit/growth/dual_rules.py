"""How gradients grow when weights do, and what AdamW must be told of it. Knows roles and amplitudes; ignorant of how
optimizer state is stored.

The roles change places: what is written is multiplied by its read amplitude, what is read by its write amplitude (by
the chain rule; a gain with multiplier w has write * read / w). Entries that carry nothing of the source have no
history: first moments 0, second moments the mean of the axis, so that their first steps are bounded.
"""

from dataclasses import replace
from math import prod

import numpy as np

from growkit.growth.rules import (
    Growth,
    Shape,
    before_head_factor,
    dimension_map,
    is_embedding,
    is_placed,
    selection,
    tensor_rule,
)
from growkit.maps.axis import ABSENT, GATHER, MEAN
from growkit.maps.notation import GAIN, READ, SHIFT, WRITE, Dimension
from growkit.operators.rule import Rule, Selection, flat


def dual_rule(name: str, shape: Shape, growth: Growth, power: int) -> Rule:
    """How gradients of a tensor grow when its weights grow by tensor_rule, to a power (1: first moments, 2: second)."""
    return growth.for_kind(("dual", power), name, shape, lambda: _dual_rule(name, shape, growth, power))


def _dual_rule(name: str, shape: Shape, growth: Growth, power: int) -> Rule:
    rule, dimensions = tensor_rule(name, shape, growth), growth.dimensions(name, len(shape))
    placed = growth.share != 1.0 and is_placed(dimensions, shape, growth)
    selections = []
    for place, (dimension, size) in enumerate(zip(dimensions, shape)):
        # as in tensor_rule, only the last dimension of an embedding is the hidden one
        scale = growth.embedding_scale if is_embedding(name, growth) and place == len(shape) - 1 else 1.0
        selections.append(_dual_selection(dimension, size, growth, scale, power, placed))
    if growth.share != 1.0:
        scale = _share(selections, growth, power, placed)
        selections[0] = replace(selections[0], amplitude=selections[0].amplitude * scale)
    plain = flat(selections, [dimension.role for dimension in dimensions])
    rows, columns = (plain[0], rule.columns) if len(shape) == 1 else plain[:: -1 if rule.transposed else 1]
    return replace(rule, rows=rows, columns=columns, role=WRITE, offset=0.0, noise=0.0)


def _dual_selection(
    dimension: Dimension, size: int, growth: Growth, scale: float, power: int, placed: bool
) -> Selection:
    """One dimension of a dual rule. scale: of an embedding; placed: whether the member writes a place of its own."""
    forward = selection(dimension, size, growth)
    amplitude = _dual_amplitude(dimension, size, growth, scale)
    carried = _has_history(dimension, size, growth) & np.isfinite(amplitude) & (amplitude != 0)
    amplitude = np.where(carried, amplitude, 1.0 if power == 2 else 0.0) ** power
    mode = np.where(carried, GATHER, MEAN if power == 2 else GATHER)
    # what a member reads of others starts at 0 but learns: it has no history, where the member writes a place of its
    # own
    learns = dimension.role == READ and power == 2 and placed
    mode = np.where(forward.mode == ABSENT, MEAN if learns else ABSENT, mode).astype(np.int8)
    return replace(forward, amplitude=amplitude, mode=mode)


def _dual_amplitude(dimension: Dimension, size: int, growth: Growth, scale: float) -> np.ndarray:
    """What the chain rule multiplies each new index by; not finite where weights carry an amplitude of 0."""
    axis = dimension_map(dimension, size, growth)
    write, read, gain = (axis.sides[role].amplitude for role in (WRITE, READ, GAIN))
    factor = before_head_factor(axis, growth) if dimension.before_head else 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        return {WRITE: read / scale, READ: write, GAIN: write * read / (gain * factor), SHIFT: read / factor}[
            dimension.role
        ]


def _has_history(dimension: Dimension, size: int, growth: Growth) -> np.ndarray:
    """Which entries inherit history: only what is written and read as its source is.

    A filler's gain, or a copy that nothing reads, gets gradients of its own, and a second moment of 0 would make its
    first steps huge.
    """
    axis = dimension_map(dimension, size, growth)
    plain = (axis.sides[WRITE].mode == GATHER) & (axis.sides[READ].mode == GATHER)
    return selection(dimension, size, growth).carried & plain


def _share(selections: list[Selection], growth: Growth, power: int, placed: bool) -> float:
    """What a member's share makes of its moments: by the chain rule through the logits, which are a mean; what all
    members write has the mean of their histories."""
    meets = all(chosen.everywhere for chosen in selections)
    return growth.share**power if placed else growth.share if meets else 1.0


def rate_multipliers(name: str, shape: Shape, growth: Growth) -> tuple[float, float]:
    """(weight, gradient) multipliers of a tensor as a whole: root mean square of its amplitudes over carried
    entries.
    """

    def multipliers() -> tuple[float, float]:
        rules = tensor_rule(name, shape, growth), dual_rule(name, shape, growth, 1)
        weight, gradient = (prod(_rms(chosen) for chosen in (rule.rows, rule.columns)) for rule in rules)
        return weight, gradient

    return growth.for_kind("rates", name, shape, multipliers)


def _rms(chosen: Selection) -> float:
    carried = chosen.amplitude[chosen.carried]
    return float(np.sqrt(np.mean(carried**2))) if len(carried) else 1.0
