"""The folder that a teacher's store is written in: whose it is, how far it is, and that one growkit at a time is at it.
Knows names of files; ignorant of what is written.
"""

import os
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from growkit.checkpoint.fields import shown
from growkit.checkpoint.writer import check_space
from growkit.data import word_store as stored
from growkit.data.word_store import HEADER, UNFINISHED_HEADER, StoreHeader
from growkit.errors import RequestError
from growkit.training.run_folder import hold

T = TypeVar("T")


class StoreFolder:
    """A store's folder, held against other growkits until it is released; the lock ends with the process."""

    def __init__(self, out: Path):
        self.out = out
        self._close: Callable[[], object] = lambda: None
        self._began = False

    def forget(self) -> None:
        """Take back what `take` began: there is no model to write down."""
        if self._began:
            for name in _own(self.out):
                (self.out / name).unlink()
            with suppress(OSError):  # it was there before
                self.out.rmdir()

    def release(self) -> None:
        """Let others into the folder."""
        self._close()

    def take(self, header: StoreHeader, resume: bool) -> bool:
        """Hold the folder, made where it is missing, and begin a store in it where there is none; returns whether it is
        finished already. Raises RequestError for what may not go on, is of something else or is not growkit's."""
        if os.path.lexists(self.out) and not self.out.is_dir():
            raise RequestError(f"--out {str(self.out)!r} exists and is no folder; choose another")
        new = not self.out.exists()
        if new:
            check_space(self.out, sum(header.sizes.values()))
        self.on_disk(lambda: self.out.mkdir(parents=True, exist_ok=True))
        descriptor = self.on_disk(lambda: hold(self.out))
        self._close = weakref.finalize(self, os.close, descriptor)
        there = next((name for name in (HEADER, UNFINISHED_HEADER) if (self.out / name).is_file()), None)
        if there is None:
            self._check_free()
            self._began = True
            try:
                self.on_disk(lambda: stored.begin(self.out, header))
            except RequestError:
                self.forget()
                raise
            return False
        self._check_same(stored.read_header(self.out / there), header)
        if not resume:
            what = "a store; take it away" if there == HEADER else "an unfinished store; go on with it by --resume auto"
            raise RequestError(f"{str(self.out)!r} holds {what}, or choose another --out")
        stored.check_sizes(self.out, header)
        if there == HEADER:
            self.on_disk(lambda: stored.tidy(self.out))
        return there == HEADER

    def on_disk(self, work: Callable[[], T]) -> T:
        """What work() returns. Raises RequestError where the disk fails; what was written stays."""
        try:
            return work()
        except OSError as error:
            raise RequestError(
                f"cannot write into {str(self.out)!r}: {error.strerror or error}; make room or choose another --out, and"
                " go on with --resume auto"
            ) from None

    def _check_free(self) -> None:
        """Refuse a folder that holds more than a store which was killed before it had its header."""
        strange = sorted({path.name for path in self.out.iterdir()} - _own(self.out))
        if strange:
            raise RequestError(f"{str(self.out)!r} holds {strange[0]!r} and is no store; choose another --out")

    def _check_same(self, before: StoreHeader, now: StoreHeader) -> None:
        """Refuse a store of something else, with the list of differences."""
        old, new = asdict(before), asdict(now)
        different = [f"{key} {shown(new[key])} (was {shown(old[key])})" for key in new if new[key] != old[key]]
        if different:
            raise RequestError(
                f"{str(self.out)!r} was begun with something else: {'; '.join(different)}; give what it was, or another"
                " --out"
            )


def _own(folder: Path) -> set[str]:
    """The names of what a store that has only begun has in its folder."""
    names = {stored.WORDS, stored.NATS, UNFINISHED_HEADER, f"{UNFINISHED_HEADER}.partial"}
    files = [path for path in folder.iterdir() if path.is_file()]
    return {path.name for path in files if path.name in names or path.match(stored.DONE)}
