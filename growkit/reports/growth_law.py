"""How loss falls with tokens, for models from scratch and for grown ones, as a law fitted to pilots. Knows numbers;
ignorant of runs, of files and of torch.

Scratch: L = E + A0 D^-a0. Grown from a base that had D1 tokens, after D2 of its own: L = E + A D1^-a1 D2^(-a2 + a3 ln
D1) (Reusing overtrained language models saturates, arXiv 2510.06548); E, what no tokens take away, is of both.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from growkit.errors import RequestError
from growkit.operators.seeds import stable_seed

FLOORS = 1.0 - np.logspace(-3, 0, 200)  # E as shares of the lowest loss, down to none
DRAWS = 200
HORIZON = 1000.0  # times the longest pilot: what lies beyond is called never


class Pilot(NamedTuple):
    """A loss in nats, after so many tokens of the large model's own. base: tokens of the small one before it was grown,
    0 where nobody knows; None: from scratch."""

    base: float | None
    tokens: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class GrowthLaw:
    """floor: E. scratch: (ln A0, -a0). grown: (ln A, -a2) of one base, or (ln A, -a1, -a2, a3) of several."""

    floor: float
    scratch: tuple[float, ...]
    grown: tuple[float, ...]

    def loss(self, base: float | None, tokens: float) -> float:
        """The loss, in nats, after so many tokens. base: as Pilot's."""
        return float(self.losses(base, np.array([tokens]))[0])

    def losses(self, base: float | None, tokens: np.ndarray) -> np.ndarray:
        """The same of several numbers of tokens (n,)."""
        power = self.scratch if base is None else self.grown
        with np.errstate(over="ignore"):
            return self.floor + np.exp(_features(base, tokens, len(power)) @ np.array(power))

    def exponent(self, base: float | None) -> float:
        """The power of tokens that the part of the loss above the floor goes with: below 0 where it falls."""
        if base is None or len(self.grown) == 2:
            return self.scratch[1] if base is None else self.grown[1]
        return self.grown[2] + self.grown[3] * math.log(base)

    def tokens_to(self, base: float, loss: float) -> float:
        """Tokens after which a grown model comes down to a loss; infinite where it never does."""
        falls = self.exponent(base)
        if loss <= self.floor or falls >= 0:
            return math.inf
        above = self.loss(base, 1.0) - self.floor
        return math.exp(min((math.log(loss - self.floor) - math.log(above)) / falls, 700.0))

    def passed(self, base: float, first: float, last: float, before: float = 0.0) -> float:
        """Tokens of its own after which scratch is ahead of a grown model for good, from `first` on; `first` where it
        is from there on, infinite where it is not until `last`.

        before: tokens that scratch learns beforehand, such as those that the base cost.
        """
        begin, end = first, last
        for _ in range(2):  # the second time between two places of the first
            places = np.geomspace(begin, end, 2000)
            behind = np.flatnonzero(self.losses(None, places + before) > self.losses(base, places))
            if not behind.size:
                return begin
            if behind[-1] == len(places) - 1:
                return math.inf
            begin, end = float(places[behind[-1]]), float(places[behind[-1] + 1])
        return end


@dataclass(frozen=True, kw_only=True)
class FittedLaw:
    """A law, the same fitted to losses redrawn from its residuals, and the largest residual, in nats."""

    law: GrowthLaw
    draws: tuple[GrowthLaw, ...]
    worst: float


def fit(pilots: Sequence[Pilot], seed: int = 0) -> FittedLaw:
    """The law of pilots by least squares in ln L, log-linear once the floor is chosen, and an interval by the bootstrap
    of residuals, widened for the degrees of freedom that the fit took.

    Raises RequestError for too few pilots, saying how many more, and for losses that do not fall.
    """
    check_enough(pilots)
    several = len({pilot.base for pilot in pilots if pilot.base is not None}) > 1
    groups = [[p for p in pilots if p.base is None], [p for p in pilots if p.base is not None]]
    rows = [_rows(groups[0], 2), _rows(groups[1], 4 if several else 2)]
    ordered = [*groups[0], *groups[1]]
    losses = np.array([pilot.loss for pilot in ordered])
    law = _least(rows, losses)
    for base, name in ((None, "scratch"), *((pilot.base, "grown") for pilot in groups[1])):
        if law.exponent(base) >= 0:
            raise RequestError(
                f"the losses of the {name} pilots do not fall with tokens, so no law says where they go; add longer runs"
            )
    fitted = np.array([law.loss(pilot.base, pilot.tokens) for pilot in ordered])
    residuals = np.log(losses / fitted)
    taken = 1 + sum(row.shape[1] for row in rows)
    residuals = (residuals - residuals.mean()) * math.sqrt(len(ordered) / (len(ordered) - taken))
    generator = np.random.default_rng(stable_seed(seed, "forecast"))
    redrawn = fitted * np.exp(generator.choice(residuals, (DRAWS, len(ordered))))
    draws = tuple(_least(rows, each) for each in redrawn)
    return FittedLaw(law=law, draws=draws, worst=float(np.abs(losses - fitted).max()))


def check_enough(pilots: Sequence[Pilot]) -> None:
    """Refuse too few pilots, saying how many more are needed and of which kind. Raises RequestError."""
    scratch = {pilot.tokens for pilot in pilots if pilot.base is None}
    grown = {(pilot.base, pilot.tokens) for pilot in pilots if pilot.base is not None}
    bases = {base for base, _ in grown}
    short = []
    if len(scratch) < 3:
        short.append(f"{3 - len(scratch)} more from scratch, of other lengths")
    least = 5 if len(bases) > 1 else 3
    if len(grown) < least:
        short.append(f"{least - len(grown)} more grown, of other lengths")
    elif len(bases) > 1 and np.linalg.matrix_rank(_rows([Pilot(*one, 1.0) for one in grown], 4)) < 4:
        short.append("one more grown, so that two bases have two lengths each")
    if short:
        had = f"{len(scratch)} from scratch and {len(grown)} grown from {len(bases)} base{'s' * (len(bases) != 1)}"
        raise RequestError(f"a forecast needs {' and '.join(short)}; there are {had}")


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Between which nine in ten of these lie."""
    low, high = np.quantile(np.array(values), (0.05, 0.95), method="nearest")
    return float(low), float(high)


def _rows(pilots: Sequence[Pilot], columns: int) -> np.ndarray:
    """Of each pilot (n, columns) what _features says."""
    return np.concatenate([_features(pilot.base, np.array([pilot.tokens]), columns) for pilot in pilots])


def _features(base: float | None, tokens: np.ndarray, columns: int) -> np.ndarray:
    """Rows (n, columns) whose product with a law's powers is the logarithm of the loss above the floor."""
    own = np.log(tokens)
    one = np.ones_like(own)
    if columns == 2:
        return np.stack([one, own], axis=1)
    before = math.log(base or 1.0)
    return np.stack([one, before * one, own, before * own], axis=1)


def _least(rows: Sequence[np.ndarray], losses: np.ndarray) -> GrowthLaw:
    """The law nearest to losses in their logarithms: the best of some floors, then of some around that one."""
    lowest = float(losses.min())
    floors = FLOORS
    for _ in range(2):
        error, powers = _by_floor(rows, losses, lowest * floors)
        at = int(error.argmin())
        best = float(floors[at]), powers[at]
        floors = np.linspace(floors[max(at - 1, 0)], floors[min(at + 1, len(floors) - 1)], 40)
    first = rows[0].shape[1]
    return GrowthLaw(
        floor=lowest * best[0], scratch=tuple(best[1][:first].tolist()), grown=tuple(best[1][first:].tolist())
    )


def _by_floor(rows: Sequence[np.ndarray], losses: np.ndarray, floors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(sum of squared errors of ln L, powers) at each floor. An error of ln (L - E) counts as it moves ln L."""
    above = losses[None] - floors[:, None]
    weights = above / losses[None]
    error, powers, place = np.zeros(len(floors)), [], 0
    for row in rows:
        part = slice(place, place + len(row))
        place += len(row)
        weighted = weights[:, part, None] * row[None]
        wanted = (weights[:, part] * np.log(above[:, part]))[:, :, None]
        power = np.linalg.pinv(weighted) @ wanted
        found = np.exp((row[None] @ power)[:, :, 0]) + floors[:, None]
        error += (np.log(found / losses[None, part]) ** 2).sum(axis=1)
        powers.append(power[:, :, 0])
    return error, np.concatenate(powers, axis=1)
