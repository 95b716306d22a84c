"""The windows that text is measured in, in order. Knows places and masks; ignorant of models.

Causal: the text is one stream, documents following each other as in training. A window of `context` tokens predicts the
token after each of its own; the next one starts `stride` later and only what was not predicted yet counts. So every
token but the first counts once; the last window is moved back until it is whole. Masked: windows side by side, 15 % of
each chosen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from growkit.data.batches import IGNORED, Batch, batch_of, masked_window
from growkit.data.domains import Domains
from growkit.data.stored_ids import StoredIds
from growkit.operators.seeds import stable_seed

MASK_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Windows:
    """The windows of a text: each is context tokens of input, and of what they predict the last ones count. masked: the
    mask token and the vocabulary size for masked-language modelling, None for causal."""

    ids: np.ndarray | StoredIds
    context: int
    stride: int
    masked: tuple[int, int] | None = None
    domains: Domains | None = None

    @property
    def windows(self) -> int:
        """How many there are."""
        if self.masked is not None:
            return len(self.ids) // self.context
        return 1 + math.ceil((len(self.ids) - 1 - self.context) / self.stride)

    def place(self, number: int) -> tuple[int, int]:
        """(first token, how many positions at the end count) of a window."""
        if self.masked is not None:
            return number * self.context, self.context
        end = min(self.context + number * self.stride, len(self.ids) - 1)
        before = self.context + (number - 1) * self.stride if number else 0
        return end - self.context, end - before

    def at(self, numbers: Sequence[int]) -> Batch:
        """Windows by their numbers, which decide what is masked in them."""
        inputs, labels = (torch.from_numpy(np.stack(side)) for side in zip(*map(self._window, numbers)))
        places = np.array([self.place(number)[0] for number in numbers])[:, None] + np.arange(self.context)
        kinds = None
        if self.domains is not None:
            kinds = torch.from_numpy(self.domains.of(places + (self.masked is None)))
        return batch_of(inputs, labels, torch.from_numpy(places), kinds)

    def _window(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """(input, labels), (context,) int64."""
        start, count = self.place(number)
        piece = self.ids[start : start + self.context + (self.masked is None)].astype(np.int64)
        if self.masked is not None:
            return masked_window(piece, *self.masked, stable_seed(MASK_SEED, f"mask {number}"))
        labels = piece[1:].copy()
        labels[: self.context - count] = IGNORED
        return piece[:-1], labels
