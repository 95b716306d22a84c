"""The gate of a bundle: of every sequence, which skills it opens. Knows vectors and thresholds; ignorant of models and
of files.

    score_s(x) = max over the centroids c of skill s of -|x - c|^2 in the shared metric
    level_s(x) = (score_s(x) - centre_s) / width_s

Skill s may open where level_s > threshold, one number for all skills: the promise is for max_s level_s, so for the
whole bundle. With several skills centre and width are those of general text, so that each has an equal part in what is
opened by mistake, and a skill whose texts are like all others cannot raise the threshold for the rest. The best one
opens; others with it only where the bundle lets the pair.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from growkit.skills.gates.shared_metric import SharedMetric

Opened = tuple[int, ...]  # numbers of skills, in the bundle's order; () is the base


@dataclass(frozen=True, kw_only=True)
class Gate:
    """layer, pooling: what pooled_states is asked for. names: of the skills. centroids: (c, hidden) of each. centres,
    widths: (skills,) float64. together: pairs of skills, lesser number first, that may be open at once."""

    layer: int
    pooling: str
    names: tuple[str, ...]
    centroids: tuple[torch.Tensor, ...]
    metric: SharedMetric
    centres: torch.Tensor
    widths: torch.Tensor
    threshold: float
    together: frozenset[tuple[int, int]] = frozenset()

    def levels(self, states: torch.Tensor) -> torch.Tensor:
        """(sequences, skills) float64 of states (sequences, hidden), each sequence's computed by itself, to the last
        bit whatever the others are."""
        return (torch.stack([self.scores(state) for state in states]) - self.centres) / self.widths

    def scores(self, state: torch.Tensor) -> torch.Tensor:
        """(skills,) float64: how near one sequence (hidden,) is to each skill, at most about 0."""
        nearest = [self.metric.squared(state.double() - own.double()).min() for own in self.centroids]
        return -torch.stack(nearest)

    def opened(self, states: torch.Tensor) -> list[Opened]:
        """Which skills each of (sequences, hidden) opens."""
        return [self._chosen(levels.tolist()) for levels in self.levels(states)]

    def _chosen(self, levels: Sequence[float]) -> Opened:
        chosen: list[int] = []
        for skill in sorted(range(len(levels)), key=lambda skill: -levels[skill]):
            fits = all((min(skill, other), max(skill, other)) in self.together for other in chosen)
            if levels[skill] > self.threshold and fits:
                chosen.append(skill)
        return tuple(sorted(chosen))
