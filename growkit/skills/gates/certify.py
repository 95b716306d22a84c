"""The promise of a bundle: from the scores of general texts to one threshold for all its skills, and what fresh text
says of it. Knows scores; ignorant of models and of files.

General texts are divided, in the order they come in: where there are several skills, the first give centre and width of
each one's scores; of the rest one part sets the threshold and the other, as large where there are enough, confirms it.
A text that has set centre and width may not set the threshold: its level is not exchangeable with the next text's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from growkit.errors import RequestError
from growkit.skills.gates.conformal import clopper_pearson, conformal_threshold, order_of, texts_needed
from growkit.skills.gates.gate import Gate
from growkit.skills.gates.own_texts import OwnTexts
from growkit.skills.gates.shared_metric import SharedMetric, shared_metric

LEAST_SCALED, SCALED = 32, 5  # texts that give centre and width: so many, or one of so many
UPPER = 0.9  # width is from the median to here: what matters is how far general scores reach upwards


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What a threshold promises, and by what. centres, widths: (skills,) float64. scaled: how many texts gave them.
    calibration, fresh: (n,) float64, the largest level of each text that set the threshold, or confirms it."""

    alpha: float
    centres: torch.Tensor
    widths: torch.Tensor
    scaled: int
    calibration: torch.Tensor
    fresh: torch.Tensor

    @property
    def threshold(self) -> float:
        """The level above which a skill may open."""
        return conformal_threshold(self.calibration, self.alpha)

    @property
    def order(self) -> int:
        """Which of the calibration levels the threshold is, from the smallest."""
        return order_of(len(self.calibration), self.alpha)

    @property
    def hits(self) -> int:
        """How many fresh texts open a skill."""
        return int((self.fresh > self.threshold).sum())

    @property
    def bound(self) -> float | None:
        """What share of such texts opens a skill at most, with 95 % confidence; None without fresh texts."""
        return clopper_pearson(self.hits, len(self.fresh)) if len(self.fresh) else None


def promise(scores: torch.Tensor, alpha: float) -> Promise:
    """The threshold of scores (texts, skills), float64, of exchangeable texts: P(a skill opens) <= alpha for the next.

    Raises RequestError for fewer texts than that takes.
    """
    texts, skills = scores.shape
    check_enough(texts, skills, alpha)
    scaled = 0
    centres, widths = torch.zeros(skills, dtype=torch.float64), torch.ones(skills, dtype=torch.float64)
    if skills > 1:
        scaled = min(max(LEAST_SCALED, texts // SCALED), texts - texts_needed(alpha))
        quantiles = torch.quantile(scores[:scaled], torch.tensor([0.5, UPPER], dtype=torch.float64), dim=0)
        centres = quantiles[0]
        widths = (quantiles[1] - centres).clamp(min=1e-9).maximum(1e-9 * centres.abs())
    levels = ((scores[scaled:] - centres) / widths).max(1).values
    fresh = min(len(levels) - texts_needed(alpha), len(levels) // 2)
    calibration = levels[: len(levels) - fresh]
    return Promise(
        alpha=alpha,
        centres=centres,
        widths=widths,
        scaled=scaled,
        calibration=calibration,
        fresh=levels[len(levels) - fresh :],
    )


def check_enough(texts: int, skills: int, alpha: float) -> None:
    """Refuse fewer general texts than so many skills take. Raises RequestError."""
    if skills == 1:
        order_of(texts, alpha)
    elif texts - LEAST_SCALED < texts_needed(alpha):
        raise RequestError(
            f"--alpha {alpha:g} with several skills needs {texts_needed(alpha) + LEAST_SCALED:,} general texts,"
            f" {LEAST_SCALED} of them to compare the skills by, and there are {texts:,}; give more with --text, or a larger"
            " --alpha"
        )


def certified(
    skills: Mapping[str, OwnTexts], general: torch.Tensor, alpha: float, together: Sequence[tuple[str, str]] = ()
) -> tuple[Gate, Promise]:
    """The gate of skills that read one layer, and its promise. general: (texts, hidden) states of general texts, whose
    order means nothing. together: pairs of skills that may open at once. Raises RequestError for too few texts."""
    names = tuple(skills)
    metric = shared_metric([*skills.values()])
    bare = _gate(skills, metric, torch.zeros(len(names)).double(), torch.ones(len(names)).double(), 0.0)
    made = promise(bare.levels(general), alpha)
    pairs = frozenset((min(pair), max(pair)) for pair in ((names.index(a), names.index(b)) for a, b in together))
    return _gate(skills, metric, made.centres, made.widths, made.threshold, pairs), made


def _gate(
    skills: Mapping[str, OwnTexts],
    metric: SharedMetric,
    centres: torch.Tensor,
    widths: torch.Tensor,
    threshold: float,
    together: frozenset[tuple[int, int]] = frozenset(),
) -> Gate:
    first = next(iter(skills.values()))
    return Gate(
        layer=first.layer,
        pooling=first.pooling,
        names=tuple(skills),
        centroids=tuple(skill.centroids for skill in skills.values()),
        metric=metric,
        centres=centres,
        widths=widths,
        threshold=threshold,
        together=together,
    )
