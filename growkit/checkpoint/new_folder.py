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

from growkit.errors import RequestError

UNFINISHED = "UNFINISHED"  # in a folder that growkit is making, or was when it was stopped
RUST_SAYS = re.compile(r"([^:()\"{}]+) \(os error \d+\)")


@contextmanager
def new_folder(out: Path, replace: bool = False) -> Iterator[Path]:
    """Yield OUT.partial to fill; when the block ends well it becomes OUT, else it goes.

    replace: whether what lies there now may give way; what comes to lie there meanwhile never does. Raises RequestError
    where that happens, where another process is writing the same output or the disk fails.
    """
    out = out.resolve()
    partial, replaced = _work_folders(out)
    missing_parents = [parent for parent in out.parents if not parent.exists()]  # innermost first
    try:
        with _locked(out):
            there = _stamp(out)
            try:
                if there is not None and not replace:
                    raise _taken(out)
                _clear(partial)  # what a stopped run left
                _remove(replaced)
                (partial / UNFINISHED).write_text("growkit was stopped while it made this folder: delete it\n")
                yield partial
                for path in partial.rglob("*"):
                    sync(path)
                (partial / UNFINISHED).unlink()
                sync(partial)
                if _stamp(out) != there:
                    raise _taken(out)
                if there is not None:
                    os.rename(out, replaced)
                os.rename(partial, out)  # fails where one that holds something came just now
            except BaseException:
                if replaced.exists() and not out.exists():
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


def _stamp(out: Path) -> tuple[int, int, int] | None:
    """What tells a folder from another, and from itself once something came into it; None for none or an empty one."""
    if not out.is_dir() or not any(out.iterdir()):
        return None
    status = out.stat()
    return status.st_dev, status.st_ino, status.st_mtime_ns


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
