"""Token ids in a file, read by place. Knows bytes and offsets; ignorant of what lies beside the file.

They are read by system calls and not mapped into memory: of a mapped file that becomes shorter the system says so by
ending the process.
"""

import os
import weakref
from pathlib import Path

import numpy as np

from growkit.checkpoint.small_files import open_descriptor
from growkit.checkpoint.source import read_into
from growkit.errors import CheckpointError

AT_ONCE = 1 << 22  # ids that a pass over the whole file holds


class StoredIds:
    """Token ids as an array has them: len(ids) and ids[first:last], each time read from the file.

    offset: bytes before the first. Raises CheckpointError for a file that cannot be read, is empty or no whole number
    of ids, here, and where it became shorter, when it is read.
    """

    def __init__(self, path: Path, dtype: np.dtype, offset: int = 0):
        self.path, self.dtype, self._offset = path, dtype, offset
        self._descriptor = open_descriptor(path)
        weakref.finalize(self, os.close, self._descriptor)
        size = os.fstat(self._descriptor).st_size - offset
        if size <= 0 or size % dtype.itemsize:
            raise CheckpointError(f"{str(path)!r} holds no whole number of {dtype.name} tokens; make it again")
        self._length = size // dtype.itemsize

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, places: slice) -> np.ndarray:
        first, last, step = places.indices(self._length)
        assert step == 1, "ids are read in one piece"
        ids = np.empty(max(0, last - first), self.dtype)
        target: memoryview = memoryview(ids).cast("B")  # type: ignore[arg-type]
        read_into(target, self.path, self._descriptor, self._offset + first * self.dtype.itemsize)
        return ids

    def max(self) -> int:
        """The largest id, of all."""
        pieces = range(0, self._length, AT_ONCE)
        return max(int(self[first : first + AT_ONCE].max()) for first in pieces)
