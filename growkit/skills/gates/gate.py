"""The gate of a bundle: of every sequence, which skills it opens. Knows vectors and thresholds; ignorant of models and
of files.

    score_s(x) = max over the centroids c of skill s of -|x - c|^2 in the shared metric

Skill s may open where score_s > threshold_s. Each has a threshold of its own, for how near general text comes differs
by orders of magnitude from skill to skill: a common one would be set by the skill that general text comes nearest to.
The best skill opens, which is the one whose distance is the least part of what its threshold allows; others with it
only where the bundle lets the pair.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from growkit.skills.gates.shared_metric import SharedMetric

Opened = tuple[int, ...]  # numbers of skills, in the bundle's order; () is the base


@dataclass(frozen=True, kw_only=True)
class Gate:
    """layer, pooling: what pooled_states is asked for. names: of the skills. centroids: (c, hidden) of each.
    thresholds: (skills,) float64. together: pairs of skills, lesser number first, that may be open at once."""

    layer: int
    pooling: str
    names: tuple[str, ...]
    centroids: tuple[torch.Tensor, ...]
    metric: SharedMetric
    thresholds: torch.Tensor
    together: frozenset[tuple[int, int]] = frozenset()

    def scores(self, states: torch.Tensor) -> torch.Tensor:
        """(sequences, skills) float64, 0 at most, of states (sequences, hidden), each sequence's computed by itself, to
        the last bit whatever the others are."""
        return torch.stack([self._scores(state.double()) for state in states])

    def opened(self, states: torch.Tensor) -> list[Opened]:
        """Which skills each of (sequences, hidden) opens."""
        return [self.chosen(scores.tolist()) for scores in self.scores(states)]

    def chosen(self, scores: Sequence[float]) -> Opened:
        """Which skills a sequence of these scores opens."""
        limits = self.thresholds.tolist()
        above = [skill for skill, (score, limit) in enumerate(zip(scores, limits)) if score > limit]
        chosen: list[int] = []
        for skill in sorted(above, key=lambda skill: scores[skill] / limits[skill]):  # both below 0
            if all((min(skill, other), max(skill, other)) in self.together for other in chosen):
                chosen.append(skill)
        return tuple(sorted(chosen))

    def _scores(self, state: torch.Tensor) -> torch.Tensor:
        nearest = [self.metric.squared(state - own.double()).min() for own in self.centroids]
        return -torch.stack(nearest).clamp(min=0)
