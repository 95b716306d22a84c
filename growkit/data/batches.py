"""Which tokens a step sees: a pure function of (seed, step), whatever the number of processes. Knows windows and masks;
ignorant of models and files.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch

from growkit.errors import RequestError
from growkit.operators.seeds import stable_seed

IGNORED = -100  # the label of a position that is not predicted
MASKED_SHARE, KEPT_SHARE, RANDOM_SHARE = (
    0.15,
    0.1,
    0.1,
)  # BERT: 15 %, of which 80 % hidden, 10 % random, 10 % as they are


@dataclass
class Batches:
    """Windows of a token array in an order that is drawn anew for each epoch.

    tokens: (tokens,). length: of a window. size: windows in a step, over all processes. masked: the mask token and the
    vocabulary size for masked-language modelling, None for causal. Raises RequestError for too few tokens.
    """

    tokens: np.ndarray
    length: int
    size: int
    seed: int = 0
    masked: tuple[int, int] | None = None
    _orders: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.windows < 1:
            raise RequestError(
                f"{len(self.tokens)} tokens make no window of {self.length}; give more text or a smaller --seq-len"
            )

    @property
    def predicted(self) -> int:
        """Predicted positions in a window, the same in all of them."""
        return self.length if self.masked is None else masked_count(self.length)

    @property
    def windows(self) -> int:
        """How many whole windows there are; a causal one needs a token more than it is long."""
        return (len(self.tokens) - (self.masked is None)) // self.length

    def places(self, step: int, first: int, count: int) -> list[int]:
        """Which windows rows first .. first + count of a step's batch are."""
        assert first >= 0 and first + count <= self.size, "rows of another step's batch"
        found = []
        for row in range(step * self.size + first, step * self.size + first + count):
            epoch, place = divmod(row, self.windows)
            found.append(int(self._order(epoch)[place]))
        return found

    def rows(self, step: int, first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(inputs, labels), each (count, length) int64, of rows of a step's batch; labels of -100 are not predicted."""
        inputs = np.empty((count, self.length), np.int64)
        labels = np.empty((count, self.length), np.int64)
        for row, window in enumerate(self.places(step, first, count)):
            inputs[row], labels[row] = self.window(window, step * self.size + first + row)
        return torch.from_numpy(inputs), torch.from_numpy(labels)

    def window(self, number: int, row: int) -> tuple[np.ndarray, np.ndarray]:
        """(input, labels) of one window; `row` of all rows ever seen decides what is masked."""
        start = number * self.length
        piece = self.tokens[start : start + self.length + (self.masked is None)].astype(np.int64)
        if self.masked is None:
            return piece[:-1], piece[1:]
        return masked_window(piece, *self.masked, stable_seed(self.seed, f"mask {row}"))

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            draws = np.random.Generator(np.random.PCG64(stable_seed(self.seed, f"order of epoch {epoch}")))
            self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1}  # a step may span two
            self._orders[epoch] = draws.permutation(self.windows)
        return self._orders[epoch]


class Ahead:
    """Batches of one process, each read while the step before it computes. first, count: its rows of a step's batch."""

    def __init__(self, batches: Batches, first: int, count: int, pinned: bool = False):
        self._read = lambda step: tuple(t.pin_memory() if pinned else t for t in batches.rows(step, first, count))
        self._pool = ThreadPoolExecutor(1)
        self._next: dict[int, Future[tuple[torch.Tensor, ...]]] = {}

    def rows(self, step: int) -> tuple[torch.Tensor, ...]:
        """(inputs, labels), each (count, length) int64, of a step; the next one's are begun."""
        now = self._next.pop(step, None) or self._pool.submit(self._read, step)
        self._next = {step + 1: self._pool.submit(self._read, step + 1)}
        return now.result()

    def close(self) -> None:
        """End the thread that reads."""
        self._pool.shutdown(cancel_futures=True)


def masked_count(length: int) -> int:
    """How many positions of a window are predicted in masked-language modelling."""
    return max(1, round(MASKED_SHARE * length))


def masked_window(piece: np.ndarray, mask: int, vocabulary: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(input, labels) of masked-language modelling for the tokens of one window, (length,) int64.

    Exactly as many positions are chosen in every window of a length: shapes stay the same, and so does what a loss is a
    mean over.
    """
    draws = np.random.Generator(np.random.PCG64(seed))
    chosen = draws.permutation(len(piece))[: masked_count(len(piece))]
    labels = np.full(len(piece), IGNORED, dtype=np.int64)
    labels[chosen] = piece[chosen]
    kinds = draws.random(len(chosen))
    random = draws.integers(0, vocabulary, len(chosen))
    hidden = np.where(kinds < KEPT_SHARE + RANDOM_SHARE, random, mask)
    inputs = piece.copy()
    inputs[chosen] = np.where(kinds < KEPT_SHARE, piece[chosen], hidden)
    return inputs, labels
