"""Files of which nothing is believed: opened only where they are plain files, read only up to a size, and parsed to
values that are bounded. Knows files and JSON; ignorant of what they say.
"""

import json
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from growkit.errors import CheckpointError

LARGEST = 256 << 20  # bytes of a file that is read whole; the largest tokenizers have some 40 MB
DEEPEST = 200  # lists and objects in one another; a growkit.json holds its sources' within it
DIGITS = 100  # of a whole number; transformers writes 10^30 for "no limit"
POINTER = b"version https://git-lfs"  # what Git leaves in the place of a large file that was not fetched
KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name the file that cannot be read, where the system says no more than why."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"cannot read {str(path)!r}: {error.strerror or error}") from None


def open_descriptor(path: Path) -> int:
    """A descriptor of a plain file, for reading.

    Raises CheckpointError for a pipe, which would wait for ever, a device, which may never end, and what cannot be
    opened.
    """
    with reading(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe without a writer would wait here
        mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise CheckpointError(
            f"{str(path)!r} is {KINDS.get(stat.S_IFMT(mode), 'something else')} and no file; give a file"
        )
    return descriptor


def real_path(path: Path) -> Path:
    """Where a path leads once links are followed, also where nothing is there. Links in a circle lead to themselves:
    Path.resolve raises RuntimeError for them before Python 3.13.
    """
    return Path(os.path.realpath(path))


def check_inside(path: Path, within: Path | None = None) -> None:
    """Refuse a link that leaves its folder: what is copied into a result, or told of, is of the checkpoint alone.
    within: the folder that it may not leave; None: the one it lies in.

    The hub cache's links, from a snapshot into the blobs of the same repository, stay. Raises CheckpointError.
    """
    if not path.is_symlink():
        return
    target, folder = real_path(path), real_path(within or path.parent)
    if target.is_symlink():
        raise CheckpointError(f"{str(path)!r} is a link that leads back to itself; put the file there")
    repository = next((place.parent for place in (folder, *folder.parents) if place.name == "snapshots"), None)
    cached = (
        repository is not None and repository.name.startswith("models--") and repository / "blobs" in target.parents
    )
    if folder not in target.parents and not cached:
        raise CheckpointError(
            f"{str(path)!r} is a link out of its folder, to {str(target)!r}; put a copy of the file there if it belongs to"
            " the model"
        )


def open_plain(path: Path) -> BufferedReader:
    """A plain file, opened for reading. Raises CheckpointError as open_descriptor does."""
    return open(open_descriptor(path), "rb")


def check_fetched(path: Path, start: bytes) -> None:
    """Refuse what stands for a file: its first bytes are those of a pointer of Git LFS. Raises CheckpointError."""
    if start.startswith(POINTER):
        raise CheckpointError(
            f"{str(path)!r} is a pointer of Git LFS, not the file itself; fetch it with git lfs pull, or from the hub"
        )


def read_bytes(path: Path, largest: int = LARGEST) -> bytes:
    """A small file whole. Raises CheckpointError for one that is no plain file, or has more than `largest` bytes."""
    with open_plain(path) as file, reading(path):
        content = file.read(min(os.fstat(file.fileno()).st_size, largest) + 1)  # room is made for as much as is asked
    if len(content) > largest:
        raise CheckpointError(
            f"{str(path)!r} has more than {largest:,} bytes, the most that such a file is read of; is it the right file?"
        )
    check_fetched(path, content)
    return content


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises CheckpointError where it is missing or is none."""
    content = read_json_value(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{str(path)!r} should hold a JSON object, not a {type(content).__name__}")
    return content


def read_json_value(path: Path) -> Any:
    """Any JSON value from a file. Raises CheckpointError where there is none that parse_json takes."""
    try:
        return parse_json(read_bytes(path))
    except ValueError as error:
        raise CheckpointError(f"{str(path)!r} is no valid JSON ({error}); fetch it again") from None


def parse_json(text: bytes | str, twice: bool = True) -> Any:
    """A JSON value of bounded depth, whose whole numbers are bounded too, and whose text is whole characters.

    twice: whether an object may have one key twice; the last one counts. Raises ValueError, in words, for others.
    """
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        value = json.loads(text, parse_int=_whole, object_pairs_hook=None if twice else _unique)
    except RecursionError:
        raise ValueError(f"nested more than {DEEPEST} deep") from None
    check_nested(value)
    if "\\ud" in text or "\\uD" in text:  # an escape that may be half a character, which no file can hold again
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("half a character: a lone surrogate") from None
    return value


def check_nested(value: Any, most: int | None = None) -> None:
    """Refuse lists and objects nested too deep for what is done with them later. most: how many values they may hold,
    keys among them, each counted as often as it is used; None: any number. Raises ValueError.
    """
    level, total = [value], 0
    for _ in range(DEEPEST + 1):
        inside: list[Any] = []
        for outer in level:
            values = _values(outer)
            total += len(values) * (2 if isinstance(outer, dict) else 1)
            if most is not None and total > most:
                raise ValueError(f"more than {most:,} values")
            inside += [inner for inner in values if isinstance(inner, dict | list)]
        level = inside
        if not level:
            return
    raise ValueError(f"nested more than {DEEPEST} deep")


def _values(value: Any) -> Collection[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for key, value in pairs:
        if key in entries:
            raise ValueError(f"key {key!r} stands there twice")
        entries[key] = value
    return entries


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)
