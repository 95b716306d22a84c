"""Carry a plan out: read rows, grow them, put them in their place. Knows streams and threads; ignorant of what axes
mean.

Two threads work on blocks of rows, each a pure function of its place, so the bytes do not depend on their order. Memory
holds a few blocks however large the model.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from growkit.checkpoint.source import Stretch
from growkit.checkpoint.stream import Block, Progress, Source, is_finite, kind_of, write_blocks
from growkit.checkpoint.writer import Slot
from growkit.errors import CheckpointError
from growkit.growth.plan import Part, TensorPlan
from growkit.maps.axis import MEAN
from growkit.operators.blocks import assemble, expand_rows
from growkit.operators.draws import Fill, Given
from growkit.operators.rule import Rule
from growkit.operators.seeds import generator


def grow_blocks(
    tensor: TensorPlan, sources: Sequence[Source], seed: int, allow_nonfinite: bool = False
) -> Iterator[tuple[int, Callable[[], Block]]]:
    """(first element, function that computes the block, or finds it as it lies) for each block of a target tensor;
    blocks are independent.

    A block is contiguous in the target, flat from its first element. What is drawn depends on the seed, the name of the
    first part and the block, so copies in other layers are equal; a tensor with a draw of its own has its own name.
    Raises CheckpointError from the function for weights that are not finite, before or after the cast.
    """
    if isinstance(tensor.draw, Fill | Given):
        fill = tensor.draw
        yield 0, lambda: fill.values(seed, tensor.name, tensor.dtype)
        return
    rules = [part.rule for part in tensor.parts]
    rule, key = rules[0], tensor.parts[0].name

    def reader(part: Part) -> Callable[[np.ndarray], torch.Tensor]:
        if rule.each:
            return lambda rows: _rows_of_stack(sources[part.source], part, rows)
        return lambda rows: sources[part.source].rows(part.name, rows, rule.transposed)

    readers = [reader(part) for part in tensor.parts]
    means = [_row_mean(read, r) if (r.rows.mode == MEAN).any() else None for read, r in zip(readers, rules)]

    def assembled(start: int, wanted: torch.dtype) -> torch.Tensor:
        def expand(number: int, rows: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
            draws = generator(seed, f"{key}/{start}/{number}" if number else f"{key}/{start}")
            return expand_rows(readers[number], rules[number], rows, dtype, draws, means[number])

        return assemble(rules, expand, start, wanted)

    starts = range(0, rule.rows.new, rule.block_rows)
    wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    whole = ((start, assembled(start, wide)) for start in starts)
    filling = tensor.draw.filling(whole, seed, tensor.name) if tensor.draw else None

    def block(start: int) -> Block:
        stored = _as_stored(tensor, sources, start)
        if stored is not None:  # is read to be checked, but its bytes go from file to file
            kept = None if allow_nonfinite else readers[0](rule.rows.index[start : start + rule.block_rows])
            if kept is not None and not is_finite(kept):
                raise _not_finite(kept, tensor, readers, start)
            return stored
        if filling is None:
            grown = assembled(start, tensor.dtype)
        else:
            grown = filling(assembled(start, wide), start).to(tensor.dtype)
        if not allow_nonfinite and not is_finite(grown):
            raise _not_finite(grown, tensor, readers, start)
        return (grown.T if rule.transposed else grown).contiguous()

    for start in starts:
        yield start * rule.columns.new, lambda start=start: block(start)  # type: ignore[misc]


def _rows_of_stack(source: Source, part: Part, rows: np.ndarray) -> torch.Tensor:
    """Rows of a stack of matrices seen as one matrix; whole slices are read, since they are what a source gives."""
    rule = part.rule
    if rule.transposed:
        slices = np.arange(rule.columns.old // rule.each)
        return source.rows(part.name, slices).reshape(rule.columns.old, -1)[:, torch.from_numpy(rows)].T
    wanted, place = np.unique(rows // rule.each, return_inverse=True)
    matrix = source.rows(part.name, wanted).reshape(len(wanted) * rule.each, -1)
    return matrix[torch.from_numpy(place * rule.each + rows % rule.each)]


def _as_stored(tensor: TensorPlan, sources: Sequence[Source], start: int) -> Stretch | None:
    """Where the block that begins at a row lies in a source's file as it is; None for what has to be computed."""
    if len(tensor.parts) > 1 or tensor.draw is not None:
        return None
    (part,), rule = tensor.parts, tensor.parts[0].rule
    if rule.transposed:  # one block
        return sources[part.source].stretch(part.name, 0, tensor.shape[0], tensor.dtype) if rule.is_copy else None
    rows = slice(start, start + rule.block_rows)
    index = rule.rows.index[rows]
    plain = rule.among is None and rule.columns.unchanged and rule.offset == 0 and (np.diff(index) == 1).all()
    if not rule.is_copy and not (plain and rule.rows.keeps(rows)):
        return None
    if rule.each:
        whole = sources[part.source].stretch(part.name, 0, rule.rows.old // rule.each, tensor.dtype)
        width = rule.columns.old * tensor.dtype.itemsize
        place = int(index[0]) * width
        return whole and replace(whole, offset=whole.offset + place, bytes=len(index) * width)
    return sources[part.source].stretch(part.name, int(index[0]), len(index), tensor.dtype)


def grow_tensor(
    tensor: TensorPlan, sources: Sequence[Source], seed: int, allow_nonfinite: bool = False
) -> torch.Tensor:
    """One target tensor whole, in its target shape."""
    blocks = [compute() for _, compute in grow_blocks(tensor, sources, seed, allow_nonfinite)]
    whole = [block.flatten() for block in blocks if isinstance(block, torch.Tensor)]
    assert len(whole) == len(blocks), "what is held in memory lies in no file"
    return torch.cat(whole).view(tensor.shape) if whole else torch.empty(tensor.shape, dtype=tensor.dtype)


def write_tensors(
    tensors: tuple[TensorPlan, ...],
    sources: Sequence[Source],
    folder: Path,
    headers: Mapping[str, bytes],
    slots: Mapping[str, Slot],
    sizes: Mapping[str, int],
    seed: int,
    allow_nonfinite: bool = False,
    progress: Progress = lambda _: None,
) -> None:
    """Grow tensors into safetensors files laid out beforehand; copies of one another are grown once.

    Raises CheckpointError for weights that are not finite and OSError where the disk fails.
    """
    work = (
        ([(t.name, t.dtype.itemsize) for t in copies], grow_blocks(copies[0], sources, seed, allow_nonfinite))
        for copies in _copies(tensors)
    )
    write_blocks(work, folder, headers, slots, sizes, progress)


def _copies(tensors: tuple[TensorPlan, ...]) -> list[list[TensorPlan]]:
    """Tensors that hold the same bytes together: those that share their parts."""
    groups: dict[tuple[int, torch.dtype, str], list[TensorPlan]] = {}
    for tensor in tensors:
        own = tensor.name if tensor.draw is not None else ""
        groups.setdefault((id(tensor.parts), tensor.dtype, own), []).append(tensor)
    return list(groups.values())


def _row_mean(own: Callable[[np.ndarray], torch.Tensor], rule: Rule) -> torch.Tensor:
    """(source columns,) mean over the old rows, in float64, read in pieces."""
    total = torch.zeros(rule.columns.old, dtype=torch.float64)
    for start in range(0, rule.rows.old, rule.block_rows):
        total += own(np.arange(start, min(start + rule.block_rows, rule.rows.old))).double().sum(dim=0)
    return total / rule.rows.old


def _not_finite(
    grown: torch.Tensor, tensor: TensorPlan, readers: Sequence[Callable[[np.ndarray], torch.Tensor]], start: int
) -> CheckpointError:
    """Whose fault it is that a grown block holds NaN or Inf: a source's, or the dtype's."""
    for part, read in zip(tensor.parts, readers):
        block = read(part.rule.rows.index[start : start + part.rule.block_rows])
        if not is_finite(block):
            return CheckpointError(
                f"tensor {part.name!r} holds {kind_of(block)}: pass --allow-nonfinite to grow it as it is"
            )
    dtype = str(tensor.dtype).removeprefix("torch.")
    return CheckpointError(
        f"tensor {tensor.name!r} holds {kind_of(grown)}: its values do not fit {dtype}; choose another --dtype"
    )
