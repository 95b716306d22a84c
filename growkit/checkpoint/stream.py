"""Blocks of tensors computed and put in their place, a few at a time. Knows streams, threads and files; ignorant of
what is computed.

Two threads work on blocks, each a pure function of its place, so the bytes do not depend on their order. Memory holds a
few blocks however large the model.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from growkit.checkpoint.source import Stretch, shorter
from growkit.checkpoint.system import copy_between, reserve, write_at
from growkit.checkpoint.writer import Slot

WORKERS = 2

# dtype -> the integers that hold its bits, and Inf among them. As integers, floats of one sign are in their order, and
# Inf and NaN come last: signed, those above 0, and unsigned, those below. Two passes of numpy, which unlike a sum in
# torch take no memory
INFINITE = {
    torch.float16: (torch.int16, 0x7C00),
    torch.bfloat16: (torch.int16, 0x7F80),
    torch.float32: (torch.int32, 0x7F800000),
    torch.float64: (torch.int64, 0x7FF0000000000000),
}
Progress = Callable[[int], None]  # called with the number of bytes just written


# (first element, function that computes the block, or finds out where it lies as it is), in any order; blocks are
# independent of one another
Block = torch.Tensor | Stretch
Blocks = Iterable[tuple[int, Callable[[], Block]]]


class Source(Protocol):
    """Anything rows of tensors can be read from: a checkpoint on disk or a state dict in memory."""

    def rows(self, name: str, rows: np.ndarray, columns_as_rows: bool = False) -> torch.Tensor: ...

    def stretch(self, name: str, first: int, count: int, dtype: torch.dtype) -> Stretch | None: ...


@dataclass(frozen=True)
class StateSource:
    """A state dict as a source."""

    state: Mapping[str, torch.Tensor]

    def rows(self, name: str, rows: np.ndarray, columns_as_rows: bool = False) -> torch.Tensor:
        """Rows of a tensor seen as (rows, rest), or of its transpose."""
        tensor = self.state[name].detach().cpu()
        matrix = tensor.reshape(tensor.shape[0] if tensor.shape else 1, -1)
        return (matrix.T if columns_as_rows else matrix)[torch.from_numpy(rows)]

    def stretch(self, name: str, first: int, count: int, dtype: torch.dtype) -> Stretch | None:
        """None: it lies in no file."""
        return None


def write_blocks(
    work: Iterable[tuple[Sequence[tuple[str, int]], Blocks]],
    folder: Path,
    headers: Mapping[str, bytes],
    slots: Mapping[str, Slot],
    sizes: Mapping[str, int],
    progress: Progress = lambda _: None,
) -> None:
    """Compute blocks and put them where the headers say, a few at a time. Raises what a block raises, OSError for the
    disk.

    work: for each piece of data the tensors that hold it, as (name, bytes of an element), and its blocks.
    """
    with _files(folder, headers, sizes) as descriptors, _single_threaded(), ThreadPoolExecutor(WORKERS) as pool:
        pending: set[Future[int]] = set()
        try:
            for names, blocks in work:
                targets = [(descriptors[slots[name].file], slots[name].offset, itemsize) for name, itemsize in names]
                for first, compute in blocks:
                    places = [(descriptor, offset + first * itemsize) for descriptor, offset, itemsize in targets]
                    pending.add(pool.submit(_put, places, compute))
                    while len(pending) > WORKERS:
                        done, pending = wait(pending, return_when=FIRST_COMPLETED)
                        progress(sum(future.result() for future in done))
            for future in pending:
                progress(future.result())
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _put(places: list[tuple[int, int]], compute: Callable[[], Block]) -> int:
    """Compute a block and write it at each (descriptor, offset); returns the number of bytes written."""
    data = compute()
    if isinstance(data, Stretch):
        for descriptor, offset in places:
            try:
                copy_between(data.descriptor, data.offset, descriptor, offset, data.bytes)
            except EOFError:
                raise shorter(data.path) from None
        return data.bytes * len(places)
    view = memoryview(data.flatten().view(torch.uint8).numpy())  # type: ignore[arg-type]
    for descriptor, offset in places:
        write_at(descriptor, view, offset)
    return len(view) * len(places)


@contextmanager
def _files(folder: Path, headers: Mapping[str, bytes], sizes: Mapping[str, int]) -> Iterator[dict[str, int]]:
    descriptors: dict[str, int] = {}
    try:
        for file, header in headers.items():
            descriptors[file] = os.open(folder / file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            reserve(descriptors[file], sizes[file])  # a full disk shows now, not at the end
            os.pwrite(descriptors[file], header, 0)
        yield descriptors
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Blocks are small and run side by side: torch's own threads would only get in each other's way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def is_finite(block: torch.Tensor) -> bool:
    """Whether a block holds no NaN or Inf."""
    if block.dtype not in INFINITE:
        return bool(torch.isfinite(block).all())
    integer, infinity = INFINITE[block.dtype]
    bits = block.view(integer).numpy()
    unsigned = np.dtype(f"u{bits.dtype}")
    return not bits.size or bool(
        bits.max() < infinity and bits.view(unsigned).max() < infinity - np.iinfo(bits.dtype).min
    )


def kind_of(block: torch.Tensor) -> str:
    """What a block that is not finite holds, in a word."""
    return "NaN" if torch.isnan(block).any() else "Inf"
