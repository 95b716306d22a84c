"""What one operating system has and another lacks: Linux has all of it, macOS less. Knows system calls; ignorant of their use."""

import os

PIECE = 1 << 24  # bytes read at once where they are copied


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def reserve(descriptor: int, size: int) -> None:
    """Give a file its size in bytes before it is written, so that a full disk shows now where the system can say so."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)


def read_at(descriptor: int, target: memoryview, offset: int) -> int:
    """Read from a place in a file into memory; returns how many bytes came, 0 at the end of the file."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [target], offset)
    found = os.pread(descriptor, min(len(target), PIECE), offset)
    target[: len(found)] = found
    return len(found)
