"""How Muon's rates follow a growth: one factor for each matrix, at any width, and for what AdamW keeps a factor for
each index. Knows roles and amplitudes; ignorant of how optimizer state is stored.

Where an axis is written by P with P^T P = k I (whole tiles: k copies; isometric copies: new / old), Muon's momentum
grows as M' = R_o M P_i^T with R parallel to P, and the odd polynomial of Newton and Schulz, which begins with
M' / |M'|, commutes with that: NS(M') = P_o NS(M) P_i^T / sqrt(k_o k_i). The weights should move by
P_o NS(M) P_i^T / k_i, so the rate is multiplied by sqrt(k_o / k_i), and by the ratio of what torch's
"match_rms_adamw" makes of the two shapes.

AdamW divides by each entry's own gradient, so that what is written with amplitude a_j must move a_j as far: with uneven
copies a rate for each index.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from growkit.families import Family
from growkit.growth.dual_rules import dual_rule
from growkit.growth.rules import Growth, Shape, dimension_map, grown_shape, tensor_rule
from growkit.maps.axis import GATHER
from growkit.maps.notation import READ, UNSIZED, WRITE

MUON, ADAMW = "Muon", "AdamW"
MOMENTUM = "momentum_buffer"
BY_INDEX = "by_index"
NOT_MUONS = ("vocab", "expert", *UNSIZED)  # axes of embeddings, heads and routers


def is_muons(family: Family, name: str) -> bool:
    """Whether Muon moves a tensor: a matrix that reads one axis and writes another. AdamW moves all others."""
    dimensions = family.axes_of(name)
    return {d.role for d in dimensions} == {READ, WRITE} and not any(
        axis in NOT_MUONS for dimension in dimensions for axis in dimension.axes
    )


def muon_rate(name: str, shape: Shape, growth: Growth) -> float:
    """The factor on Muon's rate of a grown matrix; exact where what is written of both axes is isometric, and else for
    the mean over the axis."""

    def factor() -> float:
        copies = {}
        for dimension, size in zip(growth.dimensions(name, len(shape)), shape):
            axis = dimension_map(dimension, size, growth)
            written = axis.sides[WRITE]
            copies[dimension.role] = float((written.amplitude[written.mode == GATHER] ** 2).sum()) / axis.old
        shapes = max(shape) / max(grown_shape(name, shape, growth))
        return float(np.sqrt(copies[WRITE] / copies[READ] * shapes))

    return growth.for_kind("muon", name, shape, factor)


def rates_by_index(name: str, shape: Shape, growth: Growth, before: Mapping[str, Any]) -> dict[str, list[Any]] | None:
    """AdamW's factors on rate and eps along the last dimension of a grown tensor, as runs: `counts` entries have one
    value. None where all entries have the same.

    before: what the source trains with, "lr", "eps" and perhaps runs of its own.
    """
    rules = tensor_rule(name, shape, growth), dual_rule(name, shape, growth, 1)
    if rules[0].transposed:
        return None
    chosen = [rule.rows if len(shape) == 1 else rule.columns for rule in rules]
    along = {}
    for word, own, earlier in zip(("lr", "eps"), chosen, (spread(before, w, shape[-1]) for w in ("lr", "eps"))):
        values = own.amplitude * earlier[own.index]
        plain = np.sqrt(np.mean(values[own.carried] ** 2)) if own.carried.any() else 1.0
        along[word] = np.where(own.carried, values, plain)
    ends = np.flatnonzero(np.any([np.diff(values) != 0 for values in along.values()], axis=0))
    if not len(ends):
        return None
    firsts = np.r_[0, ends + 1]
    counts = np.diff(np.r_[firsts, len(along["lr"])]).tolist()
    return {"counts": counts, **{word: values[firsts].tolist() for word, values in along.items()}}


def spread(said: Mapping[str, Any], word: str, size: int) -> np.ndarray:
    """(size,) what multipliers say of each index: their runs, or the one number."""
    runs = said.get(BY_INDEX)
    if runs is None:
        return np.full(size, float(said.get(word, 1.0)))
    return np.repeat(np.asarray(runs[word], dtype=np.float64), runs["counts"])


def raised(said: Mapping[str, Any], exponent: float) -> dict[str, Any]:
    """Multipliers of one parameter to a power, their runs too."""
    powers: dict[str, Any] = {word: said[word] ** exponent for word in said if word != BY_INDEX}
    if (runs := said.get(BY_INDEX)) is None:
        return powers
    along = {word: [value**exponent for value in runs[word]] for word in ("lr", "eps")}
    return {**powers, BY_INDEX: {"counts": runs["counts"], **along}}
