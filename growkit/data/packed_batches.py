"""Rows of conversations, of which the assistant's turns are predicted: a pure function of (seed, step), whatever the
number of processes. Knows a chat dataset and how rows are filled; ignorant of models.

Conversations share a row without seeing each other: the positions of each begin anew, by which stock transformers knows
them apart where no attention mask is given. For a model that does not, each has a row of its own; what is padded on the
right is never seen from the left.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from growkit.data.batches import IGNORED, Batch, batch_of
from growkit.data.packing import Mixing, draw_even, draw_mixed, pack
from growkit.data.tokens import Tokens
from growkit.errors import RequestError

FILLER = 0  # the id that fills a row up; nothing sees it
WORTH_TELLING = 0.05  # share of answers cut away


@dataclass(frozen=True, kw_only=True)
class RowCounts:
    """What became of a split in rows of a length. answers_cut, tokens_cut: beyond that length. dropped: conversations
    of which nothing is left to learn. padded: positions of rows that hold nothing, of an epoch."""

    conversations: int
    tokens: int
    answers: int
    answers_cut: int
    tokens_cut: int
    dropped: int
    rows: int
    padded: int

    def to_json(self) -> dict[str, int]:
        """The counts as plain data."""
        return asdict(self)


class PackedBatches:
    """Rows of `length` tokens, `size` of them in a step over all processes. tokens: a split of a chat dataset. packs:
    whether conversations may share a row. mixing: how often each task is drawn.

    Conversations longer than a row are cut on the right, and one of which nothing is left to learn is dropped. Raises
    RequestError where none is left, or tasks cannot be mixed so; CheckpointError where the files are damaged.
    """

    def __init__(
        self,
        tokens: Tokens,
        *,
        length: int,
        size: int,
        seed: int = 0,
        packs: bool = True,
        mixing: Mixing = Mixing(),  # noqa: B008 - a value
    ):
        self.tokens, self.length, self.size, self.seed, self.packs = tokens, length, size, seed, packs
        self.domains, self._learned = tokens.domains, tokens.learned
        starts = self._learned.starts
        firsts, ends = starts[:-1], starts[1:]
        lasts = np.minimum(ends, firsts + length + 1)  # a row predicts a token more than it shows
        # the first token of a conversation is predicted by nothing
        told, begun = self._learned.counts(np.tile(firsts + 1, 2), np.concatenate([ends, lasts]))
        kept, (answers, answers_kept) = told[len(firsts) :], begun.reshape(2, -1).sum(1).tolist()
        own = np.flatnonzero(kept)
        if not len(own):
            raise RequestError(
                f"{str(tokens.path)!r} has no answer that begins within the {length} tokens of a row; make rows longer"
            )
        self._firsts, self._lengths, self._predicted = firsts[own], (lasts - firsts)[own] - 1, kept[own]
        self._tasks = None if self.domains is None else self.domains.of(self._firsts)
        self._shares = None if mixing.even else self._mixed(mixing)
        self._fixed = self._filled(draw_even(len(own), 0, 0))
        self._epochs: dict[int, _Rows] = {}
        self._ends = [0]  # how many rows there are before each epoch
        self._lock = threading.Lock()  # the next step is read while this one is computed
        cut = ends - lasts
        self.counts = RowCounts(
            conversations=len(firsts),
            tokens=len(tokens),
            answers=answers,
            answers_cut=answers - answers_kept,
            tokens_cut=int(cut.sum()),
            dropped=len(firsts) - len(own),
            rows=self.windows,
            padded=self.windows * length - int(self._lengths.sum()),
        )

    def notes(self, setting: str) -> Iterator[str]:
        """What a person should know of the counts. setting: the option that says how long rows are, with its value."""
        cut, answers = self.counts.answers_cut, self.counts.answers
        if cut > WORTH_TELLING * answers:
            yield (
                f"{cut:,} of {answers:,} answers begin beyond {setting} and are cut away, with {self.counts.dropped:,} whole"
                " conversations; a larger one keeps more"
            )

    @property
    def windows(self) -> int:
        """How many rows hold every conversation once."""
        return len(self._fixed)

    def rows(self, step: int, first: int, count: int) -> Batch:
        """The batch of rows first .. first + count of a step."""
        assert first >= 0 and first + count <= self.size, "rows of another step's batch"
        return self._batch(self.drawn(step, first, count))

    def at(self, numbers: Sequence[int]) -> Batch:
        """Rows by their numbers, of an order that is the same for every seed, in which tasks are mixed."""
        return self._batch([self._fixed.row(number) for number in numbers])

    def predicted(self, step: int) -> int:
        """How many tokens a step predicts, over all processes."""
        return int(sum(self._predicted[row].sum() for row in self.drawn(step, 0, self.size)))

    def drawn(self, step: int, first: int, count: int) -> list[np.ndarray]:
        """Which conversations, by their numbers among those that are learned, lie in rows of a step's batch."""
        numbers = range(step * self.size + first, step * self.size + first + count)
        with self._lock:
            return [self._row(number) for number in numbers]

    def _row(self, number: int) -> np.ndarray:
        """A row by its number among all rows ever seen; epochs have different numbers of them."""
        while self._ends[-1] <= number:
            epoch = len(self._ends) - 1
            self._ends.append(self._ends[-1] + len(self._epoch(epoch)))
        epoch = int(np.searchsorted(self._ends, number, side="right")) - 1
        return self._epoch(epoch).row(number - self._ends[epoch])

    def _epoch(self, number: int) -> "_Rows":
        if number not in self._epochs:
            self._epochs = {e: rows for e, rows in self._epochs.items() if e == number - 1}  # a step may span two
            if self._shares is None or self._tasks is None:
                order = draw_even(len(self._firsts), self.seed, number)
            else:
                order = draw_mixed(self._tasks, self._shares, self.seed, number)
            self._epochs[number] = self._filled(order)
        return self._epochs[number]

    def _mixed(self, mixing: Mixing) -> np.ndarray:
        if self.domains is None or self._tasks is None:
            return mixing.shares((), ())
        names = self.domains.names
        return mixing.shares(names, np.bincount(self._tasks, minlength=len(names)).tolist())

    def _filled(self, order: np.ndarray) -> "_Rows":
        """Rows of conversations that come in an order."""
        if not self.packs:
            return _Rows(np.arange(len(order) + 1), order)
        starts, places = pack(self._lengths[order], self.length)
        return _Rows(starts, order[places])

    def _batch(self, rows: Sequence[np.ndarray]) -> Batch:
        shape = (len(rows), self.length)
        inputs, labels = np.full(shape, FILLER, np.int64), np.full(shape, IGNORED, np.int64)
        places, positions = np.full(shape, -1, np.int64), np.zeros(shape, np.int64)
        for number, row in enumerate(rows):
            end = 0
            for first, length in zip(self._firsts[row].tolist(), self._lengths[row].tolist()):
                span, end = slice(end, end + length), end + length
                ids = self.tokens.ids[first : first + length + 1].astype(np.int64)
                told = self._learned.marks[first + 1 : first + length + 1] == 1
                inputs[number, span], labels[number, span] = ids[:-1], np.where(told, ids[1:], IGNORED)
                places[number, span] = np.arange(first, first + length)
                positions[number, span] = np.arange(length)
            positions[number, end:] = np.arange(self.length - end)
        kinds = None if self.domains is None else torch.from_numpy(self.domains.of(places + 1))
        return batch_of(
            torch.from_numpy(inputs),
            torch.from_numpy(labels),
            torch.from_numpy(places),
            kinds,
            positions=torch.from_numpy(positions) if self.packs else None,
        )


@dataclass(frozen=True)
class _Rows:
    """Rows of conversations: where those of each begin, and their numbers, row after row."""

    starts: np.ndarray
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, place: int) -> np.ndarray:
        """The conversations of one row."""
        return self.numbers[self.starts[place] : self.starts[place + 1]]
