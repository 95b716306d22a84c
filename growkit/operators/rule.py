"""The rule by which one tensor grows: a selection of source rows and one of source columns. Knows maps and roles;
ignorant of tensors, names and files.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce

import numpy as np

from growkit.maps.axis import ABSENT, GATHER, AxisMap, Side, copy_rank, identity
from growkit.maps.notation import READ, WRITE

BLOCK_ELEMENTS = 1 << 20  # grown elements per block: small enough for cache and memory, large enough for speed


@dataclass(frozen=True, eq=False)
class Selection:
    """One dimension of a rule: source, amplitude and mode per new index. Shared, and known by what it is, not by what
    it holds.
    """

    old: int
    index: np.ndarray
    amplitude: np.ndarray
    mode: np.ndarray

    @property
    def new(self) -> int:
        return len(self.index)

    @cached_property
    def carried(self) -> np.ndarray:
        """Which new indices carry something of their source."""
        return (self.mode == GATHER) & (self.amplitude != 0)

    @cached_property
    def unchanged(self) -> bool:
        """Whether this dimension stays as it is."""
        plain = (self.mode == GATHER).all() and (self.amplitude == 1).all()
        return bool(plain) and np.array_equal(self.index, np.arange(self.old))

    def keeps(self, places: slice) -> bool:
        """Whether some new indices have their sources' entries as they are."""
        return bool((self.mode[places] == GATHER).all() and (self.amplitude[places] == 1).all())

    @cached_property
    def rank(self) -> np.ndarray:
        """The place of each carrying new index among the copies of its source; 0 where nothing is carried."""
        rank = np.zeros(self.new, dtype=np.int64)
        rank[self.carried] = copy_rank(self.index[self.carried])
        return rank

    @cached_property
    def source_amplitude(self) -> np.ndarray:
        """(old,) the amplitude of each source index, where all copies of one carry the same."""
        amplitude = np.zeros(self.old)
        amplitude[self.index[self.carried]] = self.amplitude[self.carried]
        return amplitude

    @cached_property
    def varies(self) -> bool:
        """Whether copies of one source differ in amplitude."""
        return bool((self.source_amplitude[self.index] != self.amplitude)[self.carried].any())

    @cached_property
    def everywhere(self) -> bool:
        """Whether the source has a part in every new index."""
        return bool((self.mode != ABSENT).all())

    def only(self, present: np.ndarray) -> "Selection":
        """This selection with all but some new indices ABSENT."""
        return replace(self, mode=np.where(present, self.mode, ABSENT).astype(np.int8))


def select(axis: AxisMap, role: str) -> Selection:
    """The part of a map that one role of one tensor needs."""
    side: Side = axis.sides[role]
    return Selection(axis.old, axis.index, side.amplitude, side.mode)


@dataclass(frozen=True, kw_only=True, eq=False)
class Rule:
    """How one matrix grows. Shared by all tensors that grow alike, and known by what it is, not by what it holds.

    rows, columns: what happens to its two dimensions. role: the columns' role (only read columns are split). offset:
    gains are stored as gain - offset (Gemma's 1 + w has offset 1). noise: relative size of the split, 0 for equal
    parts. transposed: the file holds (columns, rows), as GPT-2's Conv1D does; rows here always are what it writes.
    """

    rows: Selection
    columns: Selection
    role: str = READ
    offset: float = 0.0
    noise: float = 0.0
    transposed: bool = False
    # of a tensor of three dimensions, such as all experts of a layer, the first two are one: so many are in each of it
    each: int = 0
    # (place, number): what this tensor is split into with others that are added to it, as copies of an expert are
    among: tuple[int, int] | None = None
    share: float = 1.0  # what of a sum of several parts this is

    @property
    def block_rows(self) -> int:
        # a transposed tensor has its rows scattered over the file, so it is grown whole
        return self.rows.new if self.transposed else max(1, BLOCK_ELEMENTS // max(1, self.columns.new))

    @property
    def splits(self) -> bool:
        return self.noise > 0 and self.role == READ and bool(self.columns.rank.any())

    @property
    def is_copy(self) -> bool:
        """Whether the tensor stays as it is."""
        return self.among is None and self.rows.unchanged and self.columns.unchanged

    @property
    def writes_nothing(self) -> bool:
        """Whether it is a rule that writes zeros."""
        return not self.rows.amplitude.any()

    @cached_property
    def silent(self) -> "Rule":
        """The rule that writes zeros (gains of 0 where gains are stored less an offset)."""
        return replace(self, rows=replace(self.rows, amplitude=np.zeros(self.rows.new)), noise=0.0, among=None)


def rule_of(selections: Sequence[Selection], roles: Sequence[str], offset: float = 0.0, noise: float = 0.0) -> Rule:
    """The rule of a tensor from one selection and role per stored dimension, of which there are one to three, or more
    in a convolution.
    """
    if not 1 <= len(selections) <= 3 and not _is_convolution(roles):
        raise ValueError(
            f"a rule is of a vector, of a matrix or of a stack of them, not of {len(selections)} dimensions"
        )
    each = selections[1].old if len(selections) > 2 and not _is_convolution(roles) else 0
    selections, roles = flat(selections, roles), roles[:2] if _is_convolution(roles) else roles[-2:]
    if len(selections) == 1:
        return Rule(rows=selections[0], columns=select(identity(1), WRITE), role=WRITE, offset=offset)
    if roles[0] == READ:
        return Rule(rows=selections[1], columns=selections[0], noise=noise, transposed=True, each=each)
    return Rule(rows=selections[0], columns=selections[1], role=roles[1], noise=noise, each=each)


def flat(selections: Sequence[Selection], roles: Sequence[str]) -> Sequence[Selection]:
    """Selections of a matrix for those of a stack of matrices, the rows of whose slices are one dimension, or for those
    of a convolution, all that it sums over being one."""
    if len(selections) < 3:
        return selections
    if _is_convolution(roles):
        return selections[0], reduce(_joined, selections[1:])
    first, second, last = selections
    return _joined(first, second), last


def _is_convolution(roles: Sequence[str]) -> bool:
    return len(roles) > 2 and all(role == READ for role in roles[1:])


def _joined(outer: Selection, inner: Selection) -> Selection:
    """The selection of two dimensions that are one, row-major."""
    index = (outer.index[:, None] * inner.old + inner.index).flatten()
    mode = np.maximum(outer.mode[:, None], inner.mode).flatten()
    amplitude = (outer.amplitude[:, None] * inner.amplitude).flatten()
    return Selection(outer.old * inner.old, index, amplitude, mode)


def by_turns(rule: Rule, count: int, columns: bool = False) -> list[Rule]:
    """Divide a rule among `count` sources: first copies to the first, later copies to the others in turn (in
    bert2BERT's AKI only the produced axis mixes layers). columns: by the columns' copies instead of the rows'.

    A single rule where that axis has no copies: then nothing is left for the others.
    """
    if count == 1:
        return [rule]
    divided = rule.columns if columns else rule.rows
    rank = copy_rank(divided.index)
    if not rank.any():
        return [rule]
    turn = np.where(rank == 0, 0, 1 + (rank - 1) % (count - 1))
    shares = [divided.only(turn == member) for member in range(min(count, turn.max() + 1))]
    return [replace(rule, columns=share) if columns else replace(rule, rows=share) for share in shares]
