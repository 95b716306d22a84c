"""One member's thinned delta as a sparse file, written in one pass. Knows which of two forms of a tensor is smaller and
where both wait until all sizes are known; ignorant of how a delta is read and of how it is measured.

A safetensors file begins with the sizes of everything in it, and how many values a thinned tensor has is known when the
last of them was seen. So blocks are appended to spools, files without a name in the work folder, and go from there into
the file in the kernel. Memory holds blocks, and numbers of values in the rows of one tensor.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType

import numpy as np
import torch

from growkit.checkpoint.source import Stretch
from growkit.checkpoint.stream import write_blocks
from growkit.checkpoint.system import write_at
from growkit.checkpoint.writer import Shape, layout
from growkit.merging.merged_tensor import MergedTensor
from growkit.merging.merger import Merger, thin
from growkit.merging.stored_deltas import SPARSE

COLUMN_BYTES, ROW_BYTES = 4, 8  # of a column's number, and of the number of values up to a row


@dataclass
class Spool:
    """A file without a name that grows at its end. Setting `end` back forgets what was written after it."""

    folder: Path
    descriptor: int
    end: int = 0

    def append(self, values: torch.Tensor) -> None:
        """Add the bytes of a tensor. Raises OSError where the disk fails."""
        view = memoryview(values.flatten().view(torch.uint8).numpy())  # type: ignore[arg-type]
        write_at(self.descriptor, view, self.end)
        self.end += len(view)

    def since(self, start: int) -> Stretch:
        """What was added since the end was there."""
        return Stretch(self.folder, self.descriptor, start, self.end - start)


@dataclass(kw_only=True)
class SparseFile:
    """DELTA/delta.safetensors while it comes to be: every block is added once, in order, and then it is finished.

    To be used in a `with`, which gives the spools' room back. Its methods raise OSError where the disk fails.
    """

    merger: Merger
    folder: Path
    _opened: ExitStack = field(default_factory=ExitStack)
    _parts: list[tuple[str, torch.dtype, Shape, Stretch]] = field(default_factory=list)  # of tensors that are whole
    _counts: list[np.ndarray] = field(default_factory=list)  # values in each row of the tensor that is not

    def __enter__(self) -> "SparseFile":
        with self._opened:  # where one of them cannot be opened the others are closed
            self._dense, self._ends, self._columns, self._values = (self._spool() for _ in range(4))
            self._opened = self._opened.pop_all()
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def add(self, tensor: MergedTensor, start: int, delta: torch.Tensor) -> None:
        """Thin a block of rows [start, start + rows), in place, and spool it."""
        plan = self.merger.plan
        delta = thin(delta, tensor, plan.members[0].key, start, plan.request, tensor.options[0], ())
        stored = delta.to(tensor.dtype)
        self._dense.append(stored)  # as it is: zeros may be -0.0, which a sparse form could not give back
        if len(tensor.shape) > 1:
            self._counts.append((delta != 0).sum(dim=1).numpy())
            self._total += int(self._counts[-1].sum())
            if self._is_sparse(tensor):
                rows, columns = torch.nonzero(delta, as_tuple=True)
                self._columns.append(columns.to(torch.int32))
                self._values.append(stored[rows, columns])
        if start + len(delta) >= tensor.height:
            self._end(tensor)
            self._begin()

    def finish(self) -> None:
        """Lay the file out and copy what was spooled into its place."""
        headers, slots, sizes = layout([part[:3] for part in self._parts], 1 << 62, SPARSE)
        work = (
            ([(name, dtype.itemsize)], [(0, lambda stretch=stretch: stretch)])
            for name, dtype, _, stretch in self._parts
        )
        write_blocks(work, self.folder, headers, slots, sizes)

    def _spool(self) -> Spool:
        return Spool(self.folder, self._opened.enter_context(TemporaryFile(dir=self.folder, buffering=0)).fileno())

    def _begin(self) -> None:
        """Remember where the next tensor begins."""
        self._total = 0
        self._counts.clear()
        self._began = tuple(spool.end for spool in (self._dense, self._ends, self._columns, self._values))

    def _is_sparse(self, tensor: MergedTensor) -> bool:
        """Whether what was seen of a tensor is fewer bytes with columns than with the zeros they leave out."""
        each = tensor.dtype.itemsize
        sparse = self._total * (COLUMN_BYTES + each) + ROW_BYTES * tensor.height
        return len(tensor.shape) > 1 and sparse < tensor.height * tensor.width * each

    def _end(self, tensor: MergedTensor) -> None:
        """Keep the smaller form of a tensor that is whole and forget the other."""
        dense, ends, columns, values = self._began
        if self._is_sparse(tensor):
            self._dense.end = dense
            self._ends.append(torch.from_numpy(np.concatenate(self._counts).cumsum()))
            self._parts += [
                (f"{tensor.stem}.row_ends", torch.int64, (tensor.height,), self._ends.since(ends)),
                (f"{tensor.stem}.columns", torch.int32, (self._total,), self._columns.since(columns)),
                (f"{tensor.stem}.values", tensor.dtype, (self._total,), self._values.since(values)),
            ]
        else:
            self._columns.end, self._values.end = columns, values
            shape = (tensor.height, tensor.width) if len(tensor.shape) > 1 else tensor.shape
            self._parts.append((f"{tensor.stem}.dense", tensor.dtype, shape, self._dense.since(dense)))
