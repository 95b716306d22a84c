"""The promise of a bundle: from the scores of general texts to thresholds, and what fresh text says of them. Knows
scores; ignorant of models and of files.

Of general texts, in the order they come in, a first part says what general text is like, a second sets the thresholds
and the rest, as large where there are enough, confirms them. Thresholds of texts that the scores have already seen
would promise too much, for these score as the next text does not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from growkit.errors import RequestError
from growkit.skills.gates.conformal import clopper_pearson, conformal_thresholds, order_of, texts_needed
from growkit.skills.gates.gate import Gate
from growkit.skills.gates.own_texts import OwnTexts
from growkit.skills.gates.told_apart import own_range, told_apart

LEAST_CONTRAST = 20  # general texts that skills are told apart from
CONTRAST = 4  # one of so many general texts is for that, where there are enough


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
    """The promise that scores (texts, skills), float64, of exchangeable texts give, of texts_needed or more."""
    texts, skills = scores.shape
    fresh = min(texts - texts_needed(alpha, skills), texts // 2)
    return Promise(alpha=alpha, calibration=scores[: texts - fresh], fresh=scores[texts - fresh :])


def contrast_of(texts: int, alpha: float, skills: int) -> int:
    """How many of so many general texts say what general text is like. Raises RequestError for fewer than a gate
    takes."""
    needed = texts_needed(alpha, skills)
    if texts < LEAST_CONTRAST + needed:
        each = "" if skills == 1 else f", which {skills} skills share,"
        raise RequestError(
            f"--alpha {alpha:g}{each} needs {LEAST_CONTRAST + needed:,} general texts, {LEAST_CONTRAST} to tell skills apart"
            f" from and {needed:,} to set thresholds by, and there are {texts:,}; give more (--text, --texts), or a larger"
            " --alpha"
        )
    return max(LEAST_CONTRAST, min(texts // CONTRAST, texts - needed))


def certified(
    skills: Mapping[str, OwnTexts], general: torch.Tensor, alpha: float, together: Sequence[tuple[str, str]] = ()
) -> tuple[Gate, Promise]:
    """The gate of skills that read one layer, and its promise. general: (texts, hidden) states of general texts, whose
    order means nothing. together: pairs of skills that may open at once. Raises RequestError for too few texts."""
    names, first = tuple(skills), next(iter(skills.values()))
    contrast = contrast_of(len(general), alpha, len(names))
    pairs = ((names.index(one), names.index(other)) for one, other in together)
    directions, offsets = told_apart([*skills.values()], general[:contrast])
    gate = Gate(
        layer=first.layer,
        names=names,
        ranges=tuple(own_range(skill) for skill in skills.values()),
        directions=directions,
        offsets=offsets,
        thresholds=torch.zeros(len(names), dtype=torch.float64),
        together=frozenset((min(pair), max(pair)) for pair in pairs),
    )
    made = promise(gate.scores(general[contrast:]), alpha)
    return replace(gate, thresholds=made.thresholds), made
