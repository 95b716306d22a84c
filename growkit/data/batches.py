"""Which tokens a step sees: a pure function of (seed, step), whatever the number of processes. Knows windows and masks;
ignorant of models and files.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Protocol

import numpy as np
import torch

from growkit.data.domains import NOWHERE, Domains
from growkit.data.stored_ids import StoredIds
from growkit.errors import RequestError
from growkit.operators.seeds import stable_seed

IGNORED = -100  # the label of a position that is not predicted
MASKED_SHARE, KEPT_SHARE, RANDOM_SHARE = (
    0.15,
    0.1,
    0.1,
)  # BERT: 15 %, of which 80 % hidden, 10 % random, 10 % as they are


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of tokens and what is to be said of them. Masked, causal and answer-only batches differ in their labels
    alone.

    inputs: (rows, length) int64. labels: (rows, length) int64, IGNORED where nothing is predicted, as many as there
    are. places: (rows, length) int64, where in its file each input token lies, -1 where a row is filled up. domains:
    (rows, length) uint8, which one the document of each label is of, NOWHERE where nothing is predicted; None of
    untagged text. These two stay in the main memory. positions: (rows, length) int64, where a row holds several texts
    that do not see each other: the place of each token in its own; None where a row is one. predicted: how many labels
    are not IGNORED.
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    places: torch.Tensor
    domains: torch.Tensor | None
    predicted: int
    positions: torch.Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The batch with inputs, labels and positions on a device."""
        return self._moved(lambda side: side.to(device, non_blocking=True))

    def pinned(self) -> "Batch":
        """The batch in memory that a GPU can copy from while it computes."""
        return self._moved(torch.Tensor.pin_memory)

    def _moved(self, move: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        positions = None if self.positions is None else move(self.positions)
        return replace(self, inputs=move(self.inputs), labels=move(self.labels), positions=positions)

    def parts(self, number: int) -> list["Batch"]:
        """The rows in so many parts, each with its own number of predictions; counted here, so while in main memory."""
        sides = (self.inputs.chunk(number), self.labels.chunk(number), self.places.chunk(number))
        more = [repeat(None) if side is None else side.chunk(number) for side in (self.domains, self.positions)]
        return [batch_of(*part) for part in zip(*sides, *more)]

    @property
    def held(self) -> torch.Tensor | None:
        """(n,) int64, in the main memory: which positions hold a token, counted row by row, where rows are filled up;
        None where all do."""
        filled = self.places.flatten() < 0
        return (~filled).nonzero().squeeze(1) if filled.any() else None

    @property
    def of(self) -> torch.Tensor:
        """(predicted,) uint8, the domain of each position that is predicted, in their order; of tagged text alone."""
        assert self.domains is not None, "untagged text has no domains"
        return self.domains[self.domains != NOWHERE]

    def only(self, domain: int) -> "Batch":
        """The rows that predict something of a domain, and of these rows what is of it; there may be none."""
        assert self.domains is not None, "untagged text has no domains"
        own = self.domains == domain
        rows = own.any(1)
        device = self.labels.device
        kept = rows.to(device)
        return Batch(
            inputs=self.inputs[kept],
            labels=self.labels[kept].masked_fill(~own[rows].to(device), IGNORED),
            places=self.places[rows],
            domains=self.domains[rows].masked_fill(~own[rows], NOWHERE),
            predicted=int(own.sum()),
            positions=None if self.positions is None else self.positions[kept],
        )


def batch_of(
    inputs: torch.Tensor,
    labels: torch.Tensor,
    places: torch.Tensor | None = None,
    domains: torch.Tensor | None = None,
    positions: torch.Tensor | None = None,
) -> Batch:
    """A batch of tensors (rows, length), its predictions counted. places None: of no file, 0 each. domains: of all
    labels, those that are IGNORED too."""
    ignored = labels == IGNORED
    places = torch.zeros(inputs.shape, dtype=torch.int64) if places is None else places
    domains = None if domains is None else domains.masked_fill(ignored, NOWHERE)
    predicted = ignored.numel() - int(ignored.sum())
    return Batch(inputs=inputs, labels=labels, places=places, domains=domains, predicted=predicted, positions=positions)


class BatchSource(Protocol):
    """Where a run's batches come from: a pure function of the step and the rows. size: rows of a step, over all
    processes. domains: of their text, where it is tagged.
    """

    size: int
    domains: Domains | None

    @property
    def windows(self) -> int:
        """How many rows there are before they come again."""

    def rows(self, step: int, first: int, count: int) -> Batch:
        """Rows first .. first + count of a step's batch."""

    def at(self, numbers: Sequence[int]) -> Batch:
        """Rows by their numbers, each the same whenever it is asked for."""

    def predicted(self, step: int) -> int:
        """How many tokens a whole step predicts, over all processes: what its losses are divided by."""


@dataclass(kw_only=True)
class Batches:
    """Windows of a token array in an order that is drawn anew for each epoch.

    tokens: (tokens,), in memory or in a file. length: of a window. size: windows in a step, over all processes. masked:
    the mask token and the vocabulary size for masked-language modelling, None for causal. mask_seed: masks are those of
    this seed, the same whenever a window comes; None: drawn anew each time. domains: of the tokens, where they are
    tagged. Raises RequestError for too few tokens.
    """

    tokens: np.ndarray | StoredIds
    length: int
    size: int
    seed: int = 0
    masked: tuple[int, int] | None = None
    mask_seed: int | None = None
    domains: Domains | None = None
    _orders: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.windows < 1:
            raise RequestError(
                f"{len(self.tokens)} tokens make no window of {self.length}; give more text or a smaller --seq-len"
            )

    def predicted(self, step: int) -> int:
        """How many tokens a step predicts, over all processes: the same in every step."""
        return self.size * (self.length if self.masked is None else masked_count(self.length))

    @property
    def windows(self) -> int:
        """How many whole windows there are; a causal one needs a token more than it is long."""
        return (len(self.tokens) - (self.masked is None)) // self.length

    def drawn(self, step: int, first: int, count: int) -> list[int]:
        """Which windows rows first .. first + count of a step's batch are."""
        assert first >= 0 and first + count <= self.size, "rows of another step's batch"
        window_numbers = []
        for row in range(step * self.size + first, step * self.size + first + count):
            epoch, place = divmod(row, self.windows)
            window_numbers.append(int(self._order(epoch)[place]))
        return window_numbers

    def rows(self, step: int, first: int, count: int) -> Batch:
        """The batch of rows first .. first + count of a step."""
        before = step * self.size + first
        return self._batch(self.drawn(step, first, count), range(before, before + count))

    def at(self, numbers: Sequence[int]) -> Batch:
        """Windows by their numbers, which decide what is masked in them."""
        return self._batch(numbers, numbers)

    def _batch(self, windows: Sequence[int], rows: Sequence[int]) -> Batch:
        """windows, and the place of each among all rows ever seen, which decides what is masked."""
        inputs = np.empty((len(windows), self.length), np.int64)
        labels = np.empty((len(windows), self.length), np.int64)
        for number, (window, row) in enumerate(zip(windows, rows)):
            inputs[number], labels[number] = self._window(window, row)
        places = np.asarray(windows, np.int64)[:, None] * self.length + np.arange(self.length)
        kinds = None
        if self.domains is not None:
            kinds = torch.from_numpy(self.domains.of(places + (self.masked is None)))
        return batch_of(torch.from_numpy(inputs), torch.from_numpy(labels), torch.from_numpy(places), kinds)

    def _window(self, number: int, row: int) -> tuple[np.ndarray, np.ndarray]:
        """(input, labels) of one window; `row` of all rows ever seen decides what is masked."""
        start = number * self.length
        piece = self.tokens[start : start + self.length + (self.masked is None)].astype(np.int64)
        if self.masked is None:
            return piece[:-1], piece[1:]
        if self.mask_seed is not None:
            return masked_window(piece, *self.masked, seed_of_mask(self.mask_seed, number))
        return masked_window(piece, *self.masked, seed_of_mask(self.seed, row))

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            draws = np.random.Generator(np.random.PCG64(stable_seed(self.seed, f"order of epoch {epoch}")))
            self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1}  # a step may span two
            self._orders[epoch] = draws.permutation(self.windows)
        return self._orders[epoch]


class Ahead:
    """Batches of one process, each read while the step before it computes. first, count: its rows of a step's batch."""

    def __init__(self, batches: BatchSource, first: int, count: int, pinned: bool = False):
        def read(step: int) -> Batch:
            batch = batches.rows(step, first, count)
            return batch.pinned() if pinned else batch

        self._read = read
        self._pool = ThreadPoolExecutor(1)
        self._next: dict[int, Future[Batch]] = {}

    def rows(self, step: int) -> Batch:
        """This process's rows of a step; the next one's are begun."""
        now = self._next.pop(step, None) or self._pool.submit(self._read, step)
        self._next = {step + 1: self._pool.submit(self._read, step + 1)}
        return now.result()

    def close(self) -> None:
        """End the thread that reads."""
        self._pool.shutdown(cancel_futures=True)


def masked_count(length: int) -> int:
    """How many positions of a window are predicted in masked-language modelling."""
    return max(1, round(MASKED_SHARE * length))


def seed_of_mask(seed: int, row: int) -> int:
    """What decides what is masked in a row, of a run's seed."""
    return stable_seed(seed, f"mask {row}")


def masked_positions(length: int, seed: int) -> np.ndarray:
    """The positions that masked_window chooses, (masked_count(length),) in their order."""
    return np.sort(np.random.Generator(np.random.PCG64(seed)).permutation(length)[: masked_count(length)])


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
