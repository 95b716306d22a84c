"""Grow one tensor along its axes. Knows tensors and selections; ignorant of names, families, files and what axes mean.

Everything works on a matrix (rows, columns); a vector is a matrix of one column. A tensor is grown in blocks of rows,
each a pure function of (source, rule, first row), so that a file can be streamed, in any order and by several threads,
with the bytes that growing it whole in memory would give. Where several sources make one tensor (AKI's donor, fused
models) each is a part with a rule of its own, and the tensor is their sum.

The perturbation that lets copies part is a split of the read side: two copies of a column that should each carry W/2
carry W*(1+e)/2 and W*(1-e)/2, which of them the larger being one random bit per element. Bits are cheap where normal
deviates for billions of weights are not; the larger half is rounded first and the smaller is what is left, and that
subtraction is exact in the stored dtype whenever W itself is (Sterbenz), so the sum is W even in bfloat16.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from growkit.maps.axis import ABSENT, BALANCED, FREE, MEAN
from growkit.operators.rule import Rule

Rows = Callable[[np.ndarray], torch.Tensor]  # source row numbers -> (len(rows), source columns)


def random_bits(shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Independent fair bits as bool (rows, columns), from 64 at a time."""
    count = shape[0] * shape[1]
    words = torch.empty(-(-count // 64), dtype=torch.int64)
    words.random_(-(2**63), None, generator=generator)
    bits = np.unpackbits(words.numpy().view(np.uint8), count=count)
    return torch.from_numpy(bits).view(shape).bool()


def assemble(
    rules: Sequence[Rule],
    expand: Callable[[int, np.ndarray, torch.dtype], torch.Tensor],
    start: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Rows [start, start + block_rows) of a tensor that several parts make, as (rows, new columns) in `dtype`.

    expand(part, rows, dtype) gives rows of one part. Rows that are ABSENT from a part are not asked of it; where
    several parts have a row it is their sum, in a wider dtype than the result's, cast once.
    """
    stop = min(start + rules[0].block_rows, rules[0].rows.new)
    present = [start + np.flatnonzero(rule.rows.mode[start:stop] != ABSENT) for rule in rules]
    if len(rules) == 1 and len(present[0]) == stop - start:
        return expand(0, present[0], dtype)
    added = sum(len(rows) for rows in present) > stop - start
    # wide enough that the mean of equal values is that value to the last bit
    wide = (torch.float64 if dtype in (torch.float32, torch.float64) else torch.float32) if added else dtype
    block = torch.zeros(stop - start, rules[0].columns.new, dtype=wide)
    for part, rows in enumerate(present):
        if len(rows):
            block[torch.from_numpy(rows - start)] += rules[part].share * expand(part, rows, wide)
    return block.to(dtype)


def expand_rows(
    source: Rows,
    rule: Rule,
    rows: np.ndarray,
    dtype: torch.dtype,
    generator: torch.Generator,
    row_mean: torch.Tensor | None = None,
) -> torch.Tensor:
    """Some grown rows of a matrix, by number, as (rows, new columns) in `dtype`.

    source: reads source rows by number. row_mean: (source columns,), needed where rows are filled with their mean.
    Arithmetic is float32, or float64 where the source or `dtype` is; one cast at the end.
    """
    index, mode, amplitude = rule.rows.index[rows], rule.rows.mode[rows], rule.rows.amplitude[rows]
    block = source(index)
    if rule.is_copy:
        return block.to(dtype)
    compute = torch.float64 if torch.float64 in (block.dtype, dtype) else torch.float32
    block = block.to(compute)
    if row_mean is not None and (mode == MEAN).any():
        block[torch.from_numpy(mode == MEAN)] = row_mean.to(compute)
    if rule.offset:  # gains that stay as they are stay to the last bit
        offset = rule.offset * torch.from_numpy((amplitude != 1) | (mode == FREE)).to(compute)[:, None]
        block = block + offset
    if (amplitude != 1).any():
        block = block * torch.from_numpy(amplitude).to(compute)[:, None]
        block[torch.from_numpy(amplitude == 0)] = 0.0  # not -0, which a product may be
    if (mode == FREE).any():
        free = torch.from_numpy(np.flatnonzero(mode == FREE))
        block[free] = _random_signs(block[free], generator)
    if rule.offset:
        block = block - offset
    grown = _expand_columns(block, rule, dtype, generator)
    return grown if rule.among is None else _one_of(grown, rule.among, rule.noise, compute, generator)


def _one_of(
    block: torch.Tensor, among: tuple[int, int], noise: float, compute: torch.dtype, generator: torch.Generator
) -> torch.Tensor:
    """One of several tensors whose sum is so many times the block, in pairs of a larger and a smaller one by a bit for
    each entry, as in _split; the last of an odd number is the block itself.

    generator: in one state for all of them.
    """
    place, number = among
    if place == number - 1 and number % 2:
        return block
    for _ in range(place // 2 + 1):
        bits = random_bits(block.shape, generator)
    larger = (block.to(compute) * (1 + noise)).to(block.dtype)
    smaller = (2 * block.to(compute) - larger.to(compute)).to(block.dtype)
    return torch.where(bits if place % 2 == 0 else ~bits, larger, smaller)


def _random_signs(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.where(random_bits(values.shape, generator), values, -values)


def _expand_columns(block: torch.Tensor, rule: Rule, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Grow (rows, old columns) to (rows, new columns) and cast to `dtype`."""
    columns = rule.columns
    unscaled = block
    if columns.varies:  # gains of several heads, each in a row
        assert not rule.splits, "what is read is read alike by all copies"
        grown = (_take([block], columns.index) * torch.from_numpy(columns.amplitude).to(block.dtype)).to(dtype)
    else:
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
