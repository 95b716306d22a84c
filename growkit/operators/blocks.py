"""Grow one tensor along its axes. Knows tensors and selections; ignorant of names, families, files and what axes mean.

Everything works on a matrix (rows, columns); a vector is a matrix of one column. A tensor is grown in blocks of rows, each
a pure function of (source, rule, first row), so that a file can be streamed, in any order and by several threads, with
the bytes that growing it whole in memory would give.

The perturbation that lets copies part is a split of the read side: two copies of a column that should each carry W/2
carry W*(1+e)/2 and W*(1-e)/2, which of them the larger being one random bit per element. Bits are cheap where normal
deviates for billions of weights are not; the larger half is rounded first and the smaller is what is left, and that
subtraction is exact in the stored dtype whenever W itself is (Sterbenz), so the sum is W even in bfloat16.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from growkit.axes import READ
from growkit.maps import BALANCED, FREE, GATHER, MEAN, AxisMap, Side, copy_rank

BLOCK_ELEMENTS = 1 << 20  # grown elements per block: small enough for cache and memory, large enough for speed

Rows = Callable[[np.ndarray], torch.Tensor]  # source row numbers -> (len(rows), source columns)


@dataclass(frozen=True)
class Selection:
    """One dimension of a rule: source, amplitude and mode per new index, and which are first copies (for a donor)."""

    old: int
    index: np.ndarray
    amplitude: np.ndarray
    mode: np.ndarray
    first: np.ndarray

    @property
    def new(self) -> int:
        return len(self.index)

    @cached_property
    def carried(self) -> np.ndarray:
        """Which new indices carry something of their source."""
        return (self.mode == GATHER) & (self.amplitude != 0)

    @cached_property
    def rank(self) -> np.ndarray:
        """The place of each carrying new index among the copies of its source; 0 where nothing is carried."""
        rank = np.zeros(self.new, dtype=np.int64)
        rank[self.carried] = copy_rank(self.index[self.carried])
        return rank

    @cached_property
    def source_amplitude(self) -> np.ndarray:
        """(old,) the amplitude of each source index: all copies of one source carry the same."""
        amplitude = np.zeros(self.old)
        amplitude[self.index[self.carried]] = self.amplitude[self.carried]
        assert (amplitude[self.index] == self.amplitude)[self.carried].all(), "copies of one source differ in amplitude"
        return amplitude


def select(axis: AxisMap, role: str) -> Selection:
    """The part of a map that one role of one tensor needs."""
    side: Side = axis.sides[role]
    return Selection(axis.old, axis.index, side.amplitude, side.mode, copy_rank(axis.index) == 0)


@dataclass(frozen=True)
class Rule:
    """How one matrix grows.

    rows, columns: what happens to its two dimensions. role: the columns' role (only read columns are split).
    offset: gains are stored as gain - offset (Gemma's 1 + w has offset 1). noise: relative size of the split, 0 for
    equal parts. transposed: the file holds (columns, rows), as GPT-2's Conv1D does; rows here always are what it writes.
    """

    rows: Selection
    columns: Selection
    role: str = READ
    offset: float = 0.0
    noise: float = 0.0
    transposed: bool = False

    @property
    def block_rows(self) -> int:
        # a transposed tensor has its rows scattered over the file, so it is grown whole
        return self.rows.new if self.transposed else max(1, BLOCK_ELEMENTS // max(1, self.columns.new))

    @property
    def splits(self) -> bool:
        return self.noise > 0 and self.role == READ and bool(self.columns.rank.any())


def random_bits(shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Independent fair bits as bool (rows, columns), from 64 at a time."""
    count = shape[0] * shape[1]
    words = torch.empty(-(-count // 64), dtype=torch.int64)
    words.random_(-(2**63), None, generator=generator)
    bits = np.unpackbits(words.numpy().view(np.uint8), count=count)
    return torch.from_numpy(bits).view(shape).bool()


def expand_block(
    own: Rows,
    rule: Rule,
    start: int,
    dtype: torch.dtype,
    generator: torch.Generator,
    donor: Rows | None = None,
    row_mean: torch.Tensor | None = None,
) -> torch.Tensor:
    """Grown rows [start, start + rule.block_rows) of a matrix, as (rows, new columns) in `dtype`.

    own, donor: read source rows by number; rows that are no first copies come from the donor where there is one
    (AKI, bert2BERT section 3.3: only the produced axis mixes layers). row_mean: (source columns,), needed where rows are
    filled with their mean. Arithmetic is float32, or float64 where the source or `dtype` is; one cast at the end.
    """
    rows = slice(start, min(start + rule.block_rows, rule.rows.new))
    index, mode = rule.rows.index[rows], rule.rows.mode[rows]
    block = own(index)
    compute = torch.float64 if torch.float64 in (block.dtype, dtype) else torch.float32
    block = block.to(compute)
    if donor is not None:
        block = _mix(block, donor, index, rule, rows)
    if row_mean is not None and (mode == MEAN).any():
        block[torch.from_numpy(mode == MEAN)] = row_mean.to(compute)
    if rule.offset:
        block = block + rule.offset
    amplitude = rule.rows.amplitude[rows]
    if (amplitude != 1).any():
        block = block * torch.from_numpy(amplitude).to(compute)[:, None]
    if (mode == FREE).any():
        free = torch.from_numpy(np.flatnonzero(mode == FREE))
        block[free] = _random_signs(block[free], generator)
    if rule.offset:
        block = block - rule.offset
    return _expand_columns(block, rule, dtype, generator)


def _mix(block: torch.Tensor, donor: Rows, index: np.ndarray, rule: Rule, rows: slice) -> torch.Tensor:
    """Replace what is not a first copy by the donor's entries."""
    later = torch.from_numpy(np.flatnonzero(~rule.rows.first[rows]))
    if len(later):
        block[later] = donor(index[later.numpy()]).to(block.dtype)
    return block


def _random_signs(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.where(random_bits(values.shape, generator), values, -values)


def _expand_columns(block: torch.Tensor, rule: Rule, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Grow (rows, old columns) to (rows, new columns) and cast to `dtype`."""
    columns = rule.columns
    unscaled = block
    if (columns.source_amplitude != 1).any():
        block = block * torch.from_numpy(columns.source_amplitude).to(block.dtype)
    variants = _split(block, rule, dtype, generator) if rule.splits else [block.to(dtype)]
    variant = columns.rank if rule.splits else 0
    grown = _take(variants, columns.index + columns.old * variant)
    silent = columns.mode[~columns.carried]
    if len(silent):
        chosen = np.flatnonzero(~columns.carried)
        mean, free, balanced = (chosen[silent == mode] for mode in (MEAN, FREE, BALANCED))
        grown[:, chosen] = 0
        scale = torch.from_numpy(columns.amplitude[mean]).to(block.dtype)
        grown[:, mean] = (unscaled.mean(dim=1, keepdim=True) * scale).to(dtype)
        grown[:, free] = _random_signs(block[:, columns.index[free]], generator).to(dtype)
        if len(balanced):
            values = _random_signs(block[:, columns.index[balanced]], generator)
            grown[:, balanced] = (values - values.mean(dim=1, keepdim=True)).to(dtype)
    return grown


def _integers(tensor: torch.Tensor) -> torch.Tensor:
    """The same bits as integers of the same width, which numpy and bitwise operations understand for every dtype."""
    return tensor.view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])


def _take(variants: list[torch.Tensor], position: np.ndarray) -> torch.Tensor:
    """Columns of the variants laid side by side, by position."""
    joined = variants[0] if len(variants) == 1 else torch.cat(variants, dim=1)
    # numpy's take is several times as fast here as torch's index_select
    return torch.from_numpy(np.take(_integers(joined).numpy(), position, axis=1)).view(joined.dtype)


def _split(block: torch.Tensor, rule: Rule, dtype: torch.dtype, generator: torch.Generator) -> list[torch.Tensor]:
    """Variants of the block, one per copy rank, whose sum over the copies of a column is copies * block."""
    carried = rule.columns.carried
    copies = np.bincount(rule.columns.index[carried], minlength=rule.columns.old)
    equal = block.to(dtype)
    variants = []
    for rank in range(0, copies.max() - 1, 2):
        larger = (block * (1 + rule.noise)).to(dtype)
        smaller = (2 * block - larger.to(block.dtype)).to(dtype)
        bits = -random_bits(block.shape, generator).to(_integers(larger).dtype)
        difference = (_integers(larger) ^ _integers(smaller)) & bits
        pair = [(_integers(half) ^ difference).view(dtype) for half in (larger, smaller)]
        if (copies < rank + 2).any():
            paired = torch.from_numpy(copies >= rank + 2)
            pair = [torch.where(paired, half, equal) for half in pair]
        variants += pair
    return variants if copies.max() % 2 == 0 else [*variants, equal]
