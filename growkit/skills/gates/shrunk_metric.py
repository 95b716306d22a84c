"""How far vectors lie apart, by a covariance that is made of few of them: shrunk, so that it has an inverse. Knows
vectors; ignorant of models and of thresholds.

Each entry is divided by its deviation first, for hidden states have a few entries a hundred times as large as the rest.
Of few texts in many dimensions the sample correlation R is far too uneven; (1 - g) R + g I with the g of oracle
approximating shrinkage (Chen, Wiesel, Eldar, Hero, IEEE Transactions on Signal Processing 58, 2010) is the better
guess, and has an inverse.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

LEAST_SHRINKAGE = 1e-3  # so that no direction counts a million times as much as another
LEAST_SCALE = 1e-3  # of an entry, over the root mean square of all


@dataclass(frozen=True, kw_only=True)
class ShrunkMetric:
    """The inverse of a shrunk covariance, D^-1 (I - directions^T shares directions) D^-1 / shrinkage with D = scale.

    scale: (hidden,). directions: (k, hidden), orthonormal. shares: (k,), 0 to below 1.
    """

    scale: torch.Tensor
    directions: torch.Tensor
    shares: torch.Tensor
    shrinkage: float

    def inverse(self, rows: torch.Tensor) -> torch.Tensor:
        """(n, hidden) float64, the inverse times each of (n, hidden)."""
        scaled = rows.double() / self.scale.double()
        directions = self.directions.double()
        along = (scaled @ directions.T) * self.shares.double()
        return (scaled - along @ directions) / self.shrinkage / self.scale.double()

    def squared(self, differences: torch.Tensor) -> torch.Tensor:
        """(n,) float64, squared lengths of (n, hidden)."""
        scaled = differences.double() / self.scale.double()
        along = scaled @ self.directions.double().T
        return (scaled.square().sum(-1) - (along.square() * self.shares.double()).sum(-1)) / self.shrinkage


def shrunk_metric(spreads: Sequence[torch.Tensor], freedom: int) -> ShrunkMetric:
    """The metric of kinds of texts, which count alike. spreads: (k, hidden) of each, spread^T spread its covariance.
    freedom: how many texts these are of in all, less one for each mean."""
    rows = torch.cat([spread.double() for spread in spreads]) / len(spreads) ** 0.5
    least = LEAST_SCALE * max(float(rows.square().sum(0).mean()) ** 0.5, 1e-12)
    scale = rows.square().sum(0).sqrt().clamp(min=least)
    _, values, directions = torch.linalg.svd(rows / scale, full_matrices=False)
    hidden, eigenvalues = rows.shape[1], values.square()
    shrinkage = _shrinkage(eigenvalues, hidden, freedom)
    shares = (1 - shrinkage) * eigenvalues / (shrinkage + (1 - shrinkage) * eigenvalues)
    return ShrunkMetric(scale=scale.float(), directions=directions.float(), shares=shares.float(), shrinkage=shrinkage)


def _shrinkage(eigenvalues: torch.Tensor, hidden: int, texts: int) -> float:
    """Oracle approximating shrinkage, formula 23, towards I: the correlation's trace is `hidden` but for entries that
    do not vary."""
    square, trace = float(eigenvalues.square().sum()), float(eigenvalues.sum())
    above = (1 - 2 / hidden) * square + trace**2
    below = (texts + 1 - 2 / hidden) * (square - trace**2 / hidden)
    found = 1.0 if below <= 0 else min(1.0, above / below)
    return max(LEAST_SHRINKAGE, found)
