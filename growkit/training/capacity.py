"""A limit on how many tokens an expert takes while it trains. Knows routers of stock models; ignorant of steps and of
losses.

Of T tokens that each take k of N experts, an expert serves at most cap = ceil(C T k / N) pairs of token and slot: the
most probable ones by the router; the others get the weight 0, and a token that loses all its experts goes on with the
residual alone (Switch, arXiv 2101.03961 section 2.2; least probable first as in V-MoE, arXiv 2106.05974 section 4).
Weights of those that stay are not raised. What rows are filled up with is no token: it takes no place and loses none.
"""

import math
from typing import Any

import torch

from growkit.models.live_layers import sparse_parts


def within_capacity(logits: torch.Tensor, taken: torch.Tensor, factor: float) -> torch.Tensor:
    """(T, k) bool, which pairs stay, of router logits (T, N) and the experts taken (T, k). Of equally probable ones the
    first stay."""
    experts, pairs = logits.shape[-1], taken.flatten()
    most = math.ceil(factor * pairs.numel() / experts)
    chances = torch.softmax(logits.detach().float(), -1).gather(-1, taken).flatten()
    order = chances.argsort(descending=True, stable=True)
    order = order[pairs[order].argsort(stable=True)]  # expert by expert, the most probable pair first
    counts = torch.bincount(pairs, minlength=experts)
    places = torch.arange(len(pairs), device=pairs.device) - (counts.cumsum(0) - counts)[pairs[order]]
    return torch.empty_like(pairs, dtype=torch.bool).scatter_(0, order, places < most).view_as(taken)


class Capacity:
    """The limit on a model's experts, for good: in training, never in validation. It counts what it drops. held: which
    positions hold tokens, as the batch says it that is learned from now on."""

    def __init__(self, model: Any, factor: float):
        self.factor = factor
        self._dropped: list[torch.Tensor] = []
        self._pairs = 0
        self.held: torch.Tensor | None = None
        for _, router in sparse_parts(model, experts=False):
            router.register_forward_hook(self._limit)

    def _limit(self, router: Any, _: Any, output: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        """What a router says, with weights of 0 behind the limit; recomputed activations come here twice."""
        if not router.training:
            return None
        logits, weights, taken = output
        held = slice(None) if self.held is None else self.held.to(taken.device)
        kept = torch.ones_like(taken, dtype=torch.bool)
        kept[held] = within_capacity(logits[held], taken[held], self.factor)
        self._dropped.append((~kept).sum())
        self._pairs += taken[held].numel()
        return logits, weights * kept, taken

    def tally(self) -> tuple[float, float]:
        """(pairs dropped, all pairs) since it was last asked, in this process."""
        dropped, pairs = sum(count.item() for count in self._dropped), self._pairs
        self._dropped, self._pairs = [], 0
        return float(dropped), float(pairs)
