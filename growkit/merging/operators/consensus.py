"""Several deltas into one. Knows tensors and weights; ignorant of models and of how deltas were made.

All take (weight, delta) pairs of one shape, one after another, and may use up the deltas' memory.
"""

from collections.abc import Iterable

import torch

Weighted = Iterable[tuple[float, torch.Tensor]]


def weighted_sum(deltas: Weighted) -> torch.Tensor:
    """sum of w * d: task arithmetic (arXiv 2212.04089), DARE."""
    total: torch.Tensor | None = None
    for weight, delta in deltas:
        total = delta.mul_(weight) if total is None else total.add_(delta, alpha=weight)
    assert total is not None, "a tensor without members is the base's, and nobody asks for a consensus"
    return total


def weighted_mean(deltas: Weighted) -> torch.Tensor:
    """sum of w * d / sum of w: averaging."""
    weights: list[float] = []

    def counted() -> Weighted:
        for weight, delta in deltas:
            weights.append(weight)
            yield weight, delta

    return weighted_sum(counted()).div_(sum(weights))


def elect(deltas: Weighted) -> torch.Tensor:
    """TIES (arXiv 2306.01708): the sign that has the larger weighted sum, then the mean over those that have it.

    Where the sum is exactly 0 nobody is elected and the result is 0.
    """
    total, weights = _elected(deltas)
    return total.div_(weights.clamp_(min=torch.finfo(weights.dtype).tiny))


def elect_sum(deltas: Weighted) -> torch.Tensor:
    """As elect, with the sum of those that have the elected sign in place of their mean."""
    return _elected(deltas)[0]


def _elected(deltas: Weighted) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of those that have the elected sign, and of their weights."""
    weighted = [(abs(weight), delta.mul_(weight)) for weight, delta in deltas]
    sign = torch.stack([delta for _, delta in weighted]).sum(dim=0).sign_()
    total, weights = torch.zeros_like(sign), torch.zeros_like(sign)
    for weight, delta in weighted:
        agrees = (delta * sign > 0).to(delta.dtype)
        total.addcmul_(delta, agrees)
        weights.add_(agrees, alpha=weight)
    return total, weights
