"""The promise of a bundle: from the scores of general texts to thresholds, and what fresh text says of them. Knows
scores; ignorant of models and of files.

Of general texts, in the order they come in, a part sets the thresholds and the other, as large where there are enough,
confirms them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from growkit.skills.gates.conformal import clopper_pearson, conformal_thresholds, order_of, texts_needed
from growkit.skills.gates.gate import Gate
from growkit.skills.gates.own_texts import OwnTexts
from growkit.skills.gates.shared_metric import shared_metric


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What thresholds promise, and by what: P(any skill opens) <= alpha for the next text. calibration, fresh: (n,
    skills) float64, scores of each text that set them, or confirms them."""

    alpha: float
    calibration: torch.Tensor
    fresh: torch.Tensor

    @property
    def thresholds(self) -> torch.Tensor:
        """(skills,) float64, the score above which each may open."""
        return conformal_thresholds(self.calibration, self.alpha)

    @property
    def order(self) -> int:
        """Which of the calibration scores of a skill its threshold is, from the smallest."""
        return order_of(len(self.calibration), self.alpha, self.calibration.shape[1])

    @property
    def hits(self) -> int:
        """How many fresh texts open a skill."""
        return int((self.fresh > self.thresholds).any(1).sum())

    @property
    def bound(self) -> float | None:
        """What share of such texts opens a skill at most, with 95 % confidence; None without fresh texts."""
        return clopper_pearson(self.hits, len(self.fresh)) if len(self.fresh) else None


def promise(scores: torch.Tensor, alpha: float) -> Promise:
    """The promise that scores (texts, skills), float64, of exchangeable texts give.

    Raises RequestError for fewer texts than that takes.
    """
    texts, skills = scores.shape
    order_of(texts, alpha, skills)  # which refuses too few
    fresh = min(texts - texts_needed(alpha, skills), texts // 2)
    return Promise(alpha=alpha, calibration=scores[: texts - fresh], fresh=scores[texts - fresh :])


def certified(
    skills: Mapping[str, OwnTexts], general: torch.Tensor, alpha: float, together: Sequence[tuple[str, str]] = ()
) -> tuple[Gate, Promise]:
    """The gate of skills that read one layer, and its promise. general: (texts, hidden) states of general texts, whose
    order means nothing. together: pairs of skills that may open at once. Raises RequestError for too few texts."""
    names, first = tuple(skills), next(iter(skills.values()))
    pairs = ((names.index(one), names.index(other)) for one, other in together)
    gate = Gate(
        layer=first.layer,
        pooling=first.pooling,
        names=names,
        centroids=tuple(skill.centroids for skill in skills.values()),
        metric=shared_metric([*skills.values()]),
        thresholds=torch.zeros(len(names), dtype=torch.float64),
        together=frozenset((min(pair), max(pair)) for pair in pairs),
    )
    made = promise(gate.scores(general), alpha)
    return replace(gate, thresholds=made.thresholds), made
