"""The metric in which all skills of a bundle measure how far a sequence lies from their centroids: the covariance of
their own texts, shrunk. Knows vectors; ignorant of models and of thresholds.

Each entry is divided by its deviation first, for hidden states have a few entries a hundred times as large as the rest.
Of few texts in many dimensions the sample correlation R is far too uneven; (1 - g) R + g I with the g of oracle
approximating shrinkage (Chen, Wiesel, Eldar, Hero, IEEE Transactions on Signal Processing 58, 2010) is the better
guess, and has an inverse.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from growkit.skills.gates.own_texts import OwnTexts

LEAST_SHRINKAGE = 1e-3  # so that no direction counts a million times as much as another
LEAST_SCALE = 1e-3  # of an entry, over the root mean square of all


@dataclass(frozen=True, kw_only=True)
class SharedMetric:
    """A squared length: (|y|^2 - sum_k shares_k (directions_k y)^2) / shrinkage of y = x / scale, which is y times the
    inverse of the shrunk correlation times y.

    scale: (hidden,). directions: (k, hidden), orthonormal. shares: (k,), 0 to below 1.
    """

    scale: torch.Tensor
    directions: torch.Tensor
    shares: torch.Tensor
    shrinkage: float

    def squared(self, differences: torch.Tensor) -> torch.Tensor:
        """(n,) squared lengths of (n, hidden), float64."""
        scaled = differences.double() / self.scale.double()
        along = scaled @ self.directions.double().T
        return (scaled.square().sum(-1) - (along.square() * self.shares.double()).sum(-1)) / self.shrinkage


def shared_metric(skills: Sequence[OwnTexts]) -> SharedMetric:
    """The metric of skills that read one layer, whose texts count alike."""
    freedom = [max(1, skill.texts - len(skill.held) - len(skill.centroids)) for skill in skills]
    total = sum(freedom)
    rows = torch.cat([skill.spread.double() * (free / total) ** 0.5 for skill, free in zip(skills, freedom)])
    variances = rows.square().sum(0)
    least = LEAST_SCALE * max(float(variances.mean()) ** 0.5, 1e-12)
    scale = variances.sqrt().clamp(min=least)
    _, values, directions = torch.linalg.svd(rows / scale, full_matrices=False)
    hidden, eigenvalues = rows.shape[1], values.square()
    shrinkage = _shrinkage(eigenvalues, hidden, total)
    shares = (1 - shrinkage) * eigenvalues / (shrinkage + (1 - shrinkage) * eigenvalues)
    return SharedMetric(scale=scale.float(), directions=directions.float(), shares=shares.float(), shrinkage=shrinkage)


def _shrinkage(eigenvalues: torch.Tensor, hidden: int, texts: int) -> float:
    """Oracle approximating shrinkage, formula 23, towards I: the correlation's trace is `hidden` but for entries that
    do not vary."""
    square, trace = float(eigenvalues.square().sum()), float(eigenvalues.sum())
    above = (1 - 2 / hidden) * square + trace**2
    below = (texts + 1 - 2 / hidden) * (square - trace**2 / hidden)
    found = 1.0 if below <= 0 else min(1.0, above / below)
    return max(LEAST_SHRINKAGE, found)
