"""What a gate goes by, found from texts: the range in which a skill's own texts lie, and in which direction they differ
from general ones. Knows vectors; ignorant of thresholds and of what they promise.

If texts of each skill and general ones were normal, of one covariance C about means m_s and m_0, the logarithm of how
much likelier x is as one of the skill's would be (x - (m_s + m_0) / 2) C^-1 (m_s - m_0): Fisher's linear discriminant.
"""

import math
from collections.abc import Sequence

import torch

from growkit.skills.gates.gate import OwnRange
from growkit.skills.gates.own_texts import OwnTexts, mean_and_spread
from growkit.skills.gates.shrunk_metric import shrunk_metric

BEYOND = 0.02  # of own texts may lie beyond their range


def own_range(skill: OwnTexts) -> OwnRange:
    """The range of a skill's own texts: its limit is split-conformal, of the texts that were held out. A further own
    text lies beyond with a probability of at most BEYOND, or 1 in m + 1 of fewer, m, than that takes."""
    metric = shrunk_metric([skill.spread], skill.freedom)
    lengths = metric.squared(skill.held - skill.mean).sort().values
    order = min(len(lengths), math.ceil((len(lengths) + 1) * (1 - BEYOND)))
    return OwnRange(mean=skill.mean, metric=metric, limit=float(lengths[order - 1]))


def told_apart(skills: Sequence[OwnTexts], general: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(directions (skills, hidden), offsets (skills,)), float64, of skills that read one layer. general: (texts,
    hidden), states of general texts, which must have no part in the thresholds. The covariance is the mean of those of
    every skill and of general texts."""
    mean, spread = mean_and_spread(general)
    freedom = max(1, len(general) - 1) + sum(skill.freedom for skill in skills)
    metric = shrunk_metric([spread, *(skill.spread for skill in skills)], freedom)
    means = torch.stack([skill.mean for skill in skills]).double()
    directions = metric.inverse(means - mean)
    return directions, (directions * (means + mean) / 2).sum(1)
