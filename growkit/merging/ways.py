"""The ways to thin a delta and to make one of several, each with the functions that do it and what these must know.
Knows what the operators take; ignorant of methods, of models and of where numbers come from.

A way is a value: a new one needs no other line than its own.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from growkit.merging.operators.consensus import Weighted, elect, elect_sum, weighted_mean, weighted_sum
from growkit.merging.operators.sparsify import drop, drop_by_rank, keep_band, keep_top
from growkit.merging.operators.subspace import iso_c, slerp_weights, tsv

Options = Mapping[str, float]  # of a method, by name
Pairs = Iterable[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Known:
    """What a thinning knows beside the delta."""

    options: Options
    limits: Sequence[float] = ()  # the magnitudes at its ranks, in their order
    draws: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint32))  # (elements,) uniform uint32, if it draws


@dataclass(frozen=True, kw_only=True)
class Thinning:
    """A way to leave part of a delta out."""

    apply: Callable[[torch.Tensor, Known], torch.Tensor]  # a delta (rows, columns), in place; a vector is one row
    draws: bool = False  # chance decides what stays
    ranks: Callable[[int, Options], Sequence[int]] | None = (
        None  # of so many magnitudes, those it must know; 1 the largest
    )
    over_model: bool = False  # ranks are among all elements of a member, not of a tensor
    idle: Callable[[Options], bool] = lambda options: False  # with these options nothing is left out


@dataclass(frozen=True, kw_only=True)
class Consensus:
    """A way to make one delta of several."""

    join: Callable[[Weighted], torch.Tensor]  # blocks of rows
    join_whole: Callable[[Weighted, int], torch.Tensor] | None = (
        None  # whole matrices, and their number; None: as blocks
    )
    # of two deltas, all pieces of a tensor, and their weights: what each is multiplied by; such a way takes two members
    mix: Callable[[Pairs, Sequence[float]], tuple[float, float]] | None = None
    relative: bool = False  # only the weights' ratios count, so they must add up to more than 0


def _count(share: float, elements: int) -> int:
    return max(1, int(share * elements))


def _band(elements: int, options: Options) -> tuple[int, int]:
    """(the last that stays, the last outlier) by rank."""
    outliers = int(options["gamma"] * elements)
    return outliers + _count(options["density"], elements), outliers


DROP = Thinning(
    apply=lambda delta, known: drop(delta, known.options["drop"], known.draws),
    draws=True,
    idle=lambda options: options["drop"] == 0,
)
RANKED = Thinning(
    apply=lambda delta, known: drop_by_rank(delta, known.options["density"], known.options["epsilon"], known.draws),
    draws=True,
)
TOP = Thinning(  # one threshold for the whole model, as in the paper of TIES
    apply=lambda delta, known: keep_top(delta, known.limits[0]),
    ranks=lambda elements, options: [_count(options["density"], elements)],
    over_model=True,
    idle=lambda options: options["density"] == 1,
)
BAND = Thinning(apply=lambda delta, known: keep_band(delta, known.limits[0], known.limits[1]), ranks=_band)

SUM = Consensus(join=weighted_sum)
MEAN = Consensus(join=weighted_mean, relative=True)
ELECT = Consensus(join=elect)
ELECT_SUM = Consensus(join=elect_sum)
NORMALISED = ((SUM, MEAN), (ELECT_SUM, ELECT))  # of one way, as a sum and divided by the weights
SLERP = Consensus(join=weighted_sum, mix=slerp_weights, relative=True)
TSV = Consensus(join=weighted_mean, join_whole=tsv)
ISO = Consensus(join=weighted_mean, join_whole=lambda deltas, _: iso_c(deltas))
