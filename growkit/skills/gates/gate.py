"""The gate of a bundle: of every sequence, which skills it opens. Knows vectors and thresholds; ignorant of models and
of files.

    score_s(x) = max(0, x . direction_s - offset_s) where x lies within the range of skill s, else 0

It says how much likelier x is as a text of skill s than as a general text. The range, of the skill's own texts alone,
keeps out what is like neither, of which that says nothing. Skill s may open where score_s > threshold_s. Each has a
threshold of its own, for a common one would be set by the skill that general text comes nearest to. The likeliest skill
opens; others with it only where the bundle lets the pair.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from growkit.skills.gates.shrunk_metric import ShrunkMetric

Opened = tuple[int, ...]  # numbers of skills, in the bundle's order; () is the base


@dataclass(frozen=True, kw_only=True)
class OwnRange:
    """Where a skill's own texts lie: no further from their mean (hidden,) than the squared length limit, in the metric
    of their covariance."""

    mean: torch.Tensor
    metric: ShrunkMetric
    limit: float

    def holds(self, state: torch.Tensor) -> bool:
        """Whether a state (hidden,) lies there."""
        return bool(self.metric.squared(state.double() - self.mean.double()) <= self.limit)


@dataclass(frozen=True, kw_only=True)
class Gate:
    """layer: what pooled_states is asked for. names: of the skills. ranges: of each. directions: (skills,
    hidden), offsets: (skills,), thresholds: (skills,), float64. together: pairs of skills, lesser number first, that
    may be open at once."""

    layer: int
    names: tuple[str, ...]
    ranges: tuple[OwnRange, ...]
    directions: torch.Tensor
    offsets: torch.Tensor
    thresholds: torch.Tensor
    together: frozenset[tuple[int, int]] = frozenset()

    def scores(self, states: torch.Tensor) -> torch.Tensor:
        """(sequences, skills) float64, 0 at least, of states (sequences, hidden), each sequence's computed by itself,
        to the last bit whatever the others are."""
        return torch.stack([self._scores(state.double()) for state in states])

    def opened(self, states: torch.Tensor) -> list[Opened]:
        """Which skills each of (sequences, hidden) opens."""
        return [self.chosen(scores.tolist()) for scores in self.scores(states)]

    def chosen(self, scores: Sequence[float]) -> Opened:
        """Which skills a sequence of these scores opens."""
        limits = self.thresholds.tolist()
        above = [skill for skill, (score, limit) in enumerate(zip(scores, limits)) if score > limit]
        chosen: list[int] = []
        for skill in sorted(above, key=lambda skill: -scores[skill]):
            if all((min(skill, other), max(skill, other)) in self.together for other in chosen):
                chosen.append(skill)
        return tuple(sorted(chosen))

    def _scores(self, state: torch.Tensor) -> torch.Tensor:
        likelier = (self.directions @ state - self.offsets).clamp(min=0)
        return likelier * torch.tensor([own.holds(state) for own in self.ranges], dtype=torch.float64)
