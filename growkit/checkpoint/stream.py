"""Blocks of tensors computed and put in their place, a few at a time. Knows streams, threads and files; ignorant of what is computed.

Two threads work on blocks, each a pure function of its place, so the bytes do not depend on their order. Memory holds a few
blocks however large the model.
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

from growkit.checkpoint.system import reserve
from growkit.checkpoint.writer import Slot

WORKERS = 2


Progress = Callable[[int], None]  # called with the number of bytes just written


# (first element, function that computes the block), in any order; blocks are independent of one another
Blocks = Iterable[tuple[int, Callable[[], torch.Tensor]]]


class Source(Protocol):
    """Anything rows of tensors can be read from: a checkpoint on disk or a state dict in memory."""

    def rows(self, name: str, rows: np.ndarray, columns_as_rows: bool = False) -> torch.Tensor: ...


@dataclass(frozen=True)
class StateSource:
    """A state dict as a source."""

    state: Mapping[str, torch.Tensor]

    def rows(self, name: str, rows: np.ndarray, columns_as_rows: bool = False) -> torch.Tensor:
        """Rows of a tensor seen as (rows, rest), or of its transpose."""
        tensor = self.state[name].detach().cpu()
        matrix = tensor.reshape(tensor.shape[0], -1)
        return (matrix.T if columns_as_rows else matrix)[torch.from_numpy(rows)]


def write_blocks(
    work: Iterable[tuple[Sequence[tuple[str, int]], Blocks]],
    folder: Path,
    headers: Mapping[str, bytes],
    slots: Mapping[str, Slot],
    sizes: Mapping[str, int],
    progress: Progress = lambda _: None,
) -> None:
    """Compute blocks and put them where the headers say, a few at a time. Raises what a block raises, OSError for the disk.

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


def _put(places: list[tuple[int, int]], compute: Callable[[], torch.Tensor]) -> int:
    """Compute a block and write it at each (descriptor, offset); returns the number of bytes written."""
    data = compute()
    view = memoryview(data.flatten().view(torch.uint8).numpy())  # type: ignore[arg-type]
    for descriptor, offset in places:
        written = 0
        while written < len(view):
            written += os.pwrite(descriptor, view[written:], offset + written)
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
    # a sum is one cheap pass and finite unless something is wrong or very large; only then look at every element
    return not block.numel() or bool(torch.isfinite(block.sum(dtype=torch.float32)) or torch.isfinite(block).all())


def kind_of(block: torch.Tensor) -> str:
    """What a block that is not finite holds, in a word."""
    return "NaN" if torch.isnan(block).any() else "Inf"
