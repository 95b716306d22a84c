"""What one operating system has and another lacks: Linux has all of it, macOS less. Knows system calls; ignorant of
their use.
"""

import errno
import os

PIECE = 1 << 24  # bytes read at once where they are copied
# bytes written at once: the kernel holds larger writes in larger pages, and took up to five times as long to find them
WRITTEN = 1 << 18
COPIED = 1 << 26  # bytes that the kernel copies in one call
# what a kernel or a file system says that cannot copy between these two files
NO_COPY = (errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.ETXTBSY)


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
    data = os.pread(descriptor, min(len(target), PIECE), offset)
    target[: len(data)] = data
    return len(data)


def write_at(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all of some bytes to a place in a file. Raises OSError."""
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written : written + WRITTEN], offset + written)


def copy_between(source: int, start: int, target: int, offset: int, size: int) -> None:
    """Copy bytes from a place in one file to a place in another, in the kernel where it can. Raises OSError, EOFError
    where the source is too short.

    Systems without copy_file_range, and file systems that refuse it, get the bytes through memory.
    """
    done = 0
    while done < size and hasattr(os, "copy_file_range"):
        try:
            copied = os.copy_file_range(source, target, min(COPIED, size - done), start + done, offset + done)
        except OSError as error:
            if error.errno not in NO_COPY:
                raise
            break
        if not copied:
            raise EOFError
        done += copied
    buffer = memoryview(bytearray(min(WRITTEN, size - done)))
    while done < size:
        piece = buffer[: min(len(buffer), size - done)]
        got = read_at(source, piece, start + done)
        if not got:
            raise EOFError
        write_at(target, piece[:got], offset + done)
        done += got
