"""Which conversations lie together in a row, and in which order they come: a pure function of the seed and the epoch.
Knows lengths, tasks and shares; ignorant of tokens.
"""

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from growkit.errors import RequestError
from growkit.operators.seeds import stable_seed

OPEN_ROWS = 64  # that still take conversations; the fullest is closed where there are more


@dataclass(frozen=True)
class Mixing:
    """How often each task is drawn. temperature T: in proportion to sizes^(1/T), so that 1 draws every conversation
    equally often and a larger one favours small tasks (arXiv 1910.10683, section 3.5.2); or weights by the tasks'
    names. only: the tasks that are drawn at all; none named: each."""

    temperature: float = 1.0
    weights: Mapping[str, float] = field(default_factory=dict)
    only: tuple[str, ...] = ()

    @property
    def even(self) -> bool:
        """Whether every conversation is drawn equally often."""
        return self.temperature == 1.0 and not self.weights and not self.only

    def shares(self, names: Sequence[str], sizes: Sequence[int]) -> np.ndarray:
        """The share of draws of each task (tasks,) float64. sizes: conversations of each.

        Raises RequestError for weights of tasks that are not there, and for a task without conversations.
        """
        if not names:
            raise RequestError(
                "tasks are mixed where conversations are tagged with them: growkit tokenize --chat name=PATH ..."
            )
        if not self.temperature > 0:
            raise RequestError(f"the temperature {self.temperature} that tasks are mixed at should be more than 0")
        for name in sorted(set(self.weights) ^ set(names)) if self.weights else ():
            has = "is no task of the data" if name in self.weights else "has no weight"
            raise RequestError(f"task {name!r} {has}; give a weight for each of {', '.join(names)}")
        for name in self.only:
            if name not in names:
                raise RequestError(f"task {name!r} is no task of the data, which has {', '.join(names)}")
        raw = [self.weights[name] for name in names] if self.weights else [float(size > 0) for size in sizes]
        for name, weight, size in zip(names, raw, sizes):
            if not 0 <= weight < float("inf") or (weight and not size):
                why = (
                    "should be a finite number from 0 on"
                    if size
                    else "should be 0: none of its conversations can be learned"
                )
                raise RequestError(f"the weight {weight} of task {name!r} {why}")
        if not self.weights:
            raw = [weight * max(1, size) ** (1 / self.temperature) for weight, size in zip(raw, sizes)]
        if self.only:
            raw = [weight if name in self.only else 0.0 for name, weight in zip(names, raw)]
        if not sum(raw):
            which = f"the tasks {', '.join(self.only)}" if self.only else "all tasks"
            raise RequestError(f"the weights of {which} are 0; give one more than that")
        return np.asarray(raw, np.float64) / sum(raw)


def draw_even(count: int, seed: int, epoch: int) -> np.ndarray:
    """Every conversation once, in the order of an epoch, (count,) int64."""
    return _generator(seed, f"order of epoch {epoch}").permutation(count)


def draw_mixed(tasks: np.ndarray, shares: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The conversations of an epoch in order, about as many as there are. tasks: (conversations,), which one each is
    of.

    A task's own come each once before any comes again, from epoch to epoch.
    """
    drawn = []
    for task, share in enumerate(shares.tolist()):
        own = np.flatnonzero(tasks == task)
        first, last = (int(at * len(tasks) * share) for at in (epoch, epoch + 1))
        assert len(own) or not share, "a task without conversations has no share"
        place = first
        while place < last:
            lap, at = divmod(place, len(own))
            order = _generator(seed, f"task {task} lap {lap}").permutation(len(own))
            drawn.append(own[order[at : at + last - place]])
            place += len(drawn[-1])
    together = np.concatenate(drawn) if drawn else np.empty(0, np.int64)
    return together[_generator(seed, f"order of epoch {epoch}").permutation(len(together))]


def pack(lengths: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of conversations, each as full as it gets: (where each row's begin, and the end of the last (rows + 1,); the
    places of conversations in `lengths`, row after row).

    Each goes where it leaves least space, among the rows that are open. room: of a row; no length is more.
    """
    rows: list[list[int]] = []
    spaces: list[tuple[int, int]] = []  # (space, row) of the open ones, the fullest first
    for number, length in enumerate(lengths.tolist()):
        place = bisect_left(spaces, (length, 0))
        if place < len(spaces):
            space, row = spaces.pop(place)
            rows[row].append(number)
        else:
            space, row = room, len(rows)
            rows.append([number])
        if space > length:
            insort(spaces, (space - length, row))
        if len(spaces) > OPEN_ROWS:
            del spaces[0]
    starts = np.cumsum([0, *map(len, rows)])
    return starts, np.fromiter((number for row in rows for number in row), np.int64, int(starts[-1]))


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(stable_seed(seed, name)))
