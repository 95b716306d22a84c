"""A folder that is there whole or not at all. Knows files, locks and what a stopped run leaves; ignorant of what is
written.

Work happens in OUT.partial beside OUT, held by a lock. Everything is on disk before the folder gets its name, so a run
that is killed leaves at most a folder that says what it is, by a file UNFINISHED in it, and that the next run clears
away. A folder of that name without that file is somebody's own and stays.
"""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import lock_descriptor

from growkit.checkpoint.small_files import real_path
from growkit.errors import RequestError

Contents = frozenset[tuple[str | int, ...]]
NOTHING: Contents = frozenset()
UNFINISHED = "UNFINISHED"  # in a folder that growkit is making, or was when it was stopped
RUST_SAYS = re.compile(r"([^:()\"{}]+) \(os error \d+\)")


@contextmanager
def new_folder(out: Path, replaces: Contents = NOTHING) -> Iterator[Path]:
    """Yield OUT.partial to fill; when the block ends well it becomes OUT, else it goes.

    replaces: what lay there when somebody decided that it may give way; whatever has come or changed since never does.
    Raises RequestError where that happened, where another process is writing the same output or the disk fails.
    """
    out = real_path(out)
    partial, replaced = _work_folders(out)
    moved = False
    missing_parents = [parent for parent in out.parents if not parent.exists()]  # innermost first
    try:
        with _locked(out):
            try:
                if contents(out) - replaces:
                    raise _taken(out)
                _clear(partial)  # what a stopped run left
                _remove(replaced)
                (partial / UNFINISHED).write_text("growkit was stopped while it made this folder: delete it\n")
                yield partial
                for path in partial.rglob("*"):
                    sync(path)
                (partial / UNFINISHED).unlink()
                sync(partial)
                if replaces and os.path.lexists(out):
                    os.rename(out, replaced)
                    moved = True
                    _check_unchanged(replaced, out, replaces)  # here nobody who knows its name changes it any more
                _take_name(partial, out)
            except BaseException:
                if moved and not os.path.lexists(out):
                    os.rename(replaced, out)
                _remove(partial)
                raise
            with suppress(OSError):  # the result is there: what is left is tidying
                sync(out.parent)
                if replaced.exists():
                    (replaced / UNFINISHED).write_text(
                        "growkit has put a newer folder in the place of this: delete it\n"
                    )
                    _remove(replaced)
    except BaseException as error:
        for parent in missing_parents:
            with suppress(OSError):  # not empty: somebody uses it
                parent.rmdir()
        reason = _of_the_disk(error)
        if reason:
            raise RequestError(f"could not write {str(out)!r}: {reason}; nothing was kept") from None
        raise


def contents(folder: Path) -> Contents:
    """What tells a folder from every other, and from itself once it has changed: its files, their sizes and times.
    Nothing for what is not there or is empty. Raises OSError.
    """
    entries: set[tuple[str | int, ...]] = set()
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            state = os.lstat(os.path.join(place, name))
            times = () if name in folders else (state.st_size, state.st_mtime_ns)
            entries.add((os.path.relpath(os.path.join(place, name), folder), state.st_dev, state.st_ino, *times))
    return frozenset(entries)


def _check_unchanged(folder: Path, out: Path, replaces: Contents) -> None:
    """Refuse to replace what nobody looked at. folder: where it lies; out: what it is called."""
    if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir() or contents(folder) - replaces):
        raise _taken(out)


def _take_name(partial: Path, out: Path) -> None:
    """Raises RequestError where something has come just now: the system replaces nothing but an empty folder."""
    try:
        os.rename(partial, out)
    except OSError:
        if os.path.lexists(out):
            raise _taken(out) from None
        raise


def _taken(out: Path) -> RequestError:
    return RequestError(
        f"{str(out)!r} was made or changed by somebody else meanwhile; nothing was replaced: choose another with -o"
    )


def _of_the_disk(error: BaseException) -> str:
    """What the system says of a write that failed, also through a library that writes in Rust; "" for other errors."""
    if isinstance(error, OSError):
        return str(error.strerror or error)
    said = RUST_SAYS.search(str(error)) if isinstance(error, Exception) else None
    return said[1] if said else ""


def _work_folders(out: Path) -> tuple[Path, Path]:
    """Where a result is made, and where what it replaces waits until it is there."""
    return out.with_name(f"{out.name}.partial"), out.with_name(f"{out.name}.replaced.partial")


def check_work_folders(out: Path, sources: Sequence[Path] = ()) -> None:
    """Refuse to clear a folder that only looks like what a stopped run leaves, or that the source is in."""
    for folder in _work_folders(out):
        try:
            os.lstat(folder)
        except FileNotFoundError:
            continue
        plain = folder.is_dir() and not folder.is_symlink()
        marked = plain and ((folder / UNFINISHED).exists() or not any(folder.iterdir()))
        if not marked or any(folder in (source.resolve(), *source.resolve().parents) for source in sources):
            raise RequestError(
                f"{str(folder)!r} is in the way and may hold something of yours; move it, or choose another output with -o"
            )


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Make the folder to work in and hold it against other processes; the lock ends with the process."""
    partial, _ = _work_folders(out)
    check_work_folders(out)
    partial.mkdir(parents=True, exist_ok=True)
    lock = os.open(partial, os.O_RDONLY)
    try:
        try:
            mine = lock_descriptor(lock, blocking=False) and os.path.samestat(os.fstat(lock), os.stat(partial))
        except FileNotFoundError:
            mine = False  # finished by another since it was opened
        except OSError:  # a file system without locks
            with suppress(OSError):  # what holds something was there before
                partial.rmdir()
            raise
        if not mine:
            raise RequestError(f"another growkit is writing {str(out)!r}; wait for it or choose another with -o")
        yield
    finally:
        os.close(lock)


def _clear(folder: Path) -> None:
    """Empty a folder but for the mark that says what it is, which whoever is killed meanwhile leaves."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != UNFINISHED:
            path.unlink()


def _remove(folder: Path) -> None:
    if folder.exists():
        with suppress(OSError):
            _clear(folder)
        shutil.rmtree(folder, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file or a folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
