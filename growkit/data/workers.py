"""Processes that work beside this one and know nothing of the program around it. Knows concurrent.futures; ignorant of
what the work is.

Left to itself, a new process of Python's imports the main module of the program that started it, so that a script
without a guard runs once more in each; and it finds its first modules in the current folder, whatever lies there under
their names. These do neither. Ctrl-C is the parent's to answer, and when the parent is gone they go too.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import parent_process, spawn, util
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from growkit.errors import GrowkitError

LOOK = 1.0  # seconds between two looks at the processes while one is waited for
_STARTING = threading.Lock()


class WorkerPool:
    """Processes that work can be given to."""

    def __init__(self, count: int, begin: Callable[..., None], args: tuple[Any, ...]):
        self._context = _Context()
        try:
            self._pool = ProcessPoolExecutor(count, self._context, _begin, (begin, args))
        except (OSError, ImportError, NotImplementedError) as error:  # a system without semaphores
            raise GrowkitError(f"no processes can be started here ({error}); use one worker") from None

    def submit(self, work: Callable[..., Any], *args: Any) -> "Future[Any]":
        """Give work away, to be asked for with `result`."""
        return self._pool.submit(work, *args)

    def result(self, future: "Future[Any]") -> Any:
        """What came of it. Raises BrokenProcessPool where a process died."""
        while not wait([future], LOOK).done:
            if any(process.exitcode for process in self._context.processes):
                self._hang_up()
        return future.result()

    def end(self) -> None:
        """Drop what has not begun, and wait for what has."""
        self._pool.shutdown(cancel_futures=True)

    def ended(self) -> GrowkitError:
        """What to say of a process that died; ends the others."""
        if sys.version_info < (3, 11, 5):  # whoever sends to a dead process waits for ever (CPython issue 94777)
            self._pool._call_queue._reader.close()  # type: ignore[attr-defined]
        self.end()
        codes = sorted((process.exitcode or 0 for process in self._context.processes), key=_says_little)
        return GrowkitError(f"a process that encodes text ended (exit code {codes[0]}); try fewer --workers")

    def _hang_up(self) -> None:
        """End what may be half an answer: the pool reads on, as long as anybody could write the rest of it."""
        for process in self._context.processes:
            process.terminate()
        self._pool._result_queue._writer.close()  # type: ignore[attr-defined]


@contextmanager
def worker_pool(count: int, begin: Callable[..., None], *args: Any) -> Iterator[WorkerPool]:
    """At most `count` processes, in each of which begin(*args) has run before any work; they end with the block.

    `begin` and the work are functions of modules, not of the main one. Where the block fails, work that has not begun
    is dropped. Raises GrowkitError where processes cannot be had or one of them dies.
    """
    with _without_current_folder():
        pool = WorkerPool(count, begin, args)
        try:
            yield pool
        except BrokenProcessPool:
            raise pool.ended() from None
        finally:
            pool.end()


def _says_little(code: int) -> bool:
    """Whether an exit code is what processes end with because another one died."""
    return code in (0, -signal.SIGTERM)


def _begin(begin: Callable[..., None], args: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    begin(*args)


def _end_with_the_parent() -> None:
    """Nobody else would tell: every process holds both ends of the pipe that work comes through."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class _Apart(SpawnProcess):
    """A process that takes over neither the main module nor Ctrl-C."""

    def start(self) -> None:
        """Start it, while this thread hears no Ctrl-C: what a thread does not hear, its new processes never do."""
        with _STARTING:
            heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            prepare = spawn.get_preparation_data
            spawn.get_preparation_data = lambda name: {
                key: value for key, value in prepare(name).items() if not key.startswith("init_main")
            }
            try:
                super().start()
            finally:
                spawn.get_preparation_data = prepare
                signal.pthread_sigmask(signal.SIG_SETMASK, heard)


class _Context(SpawnContext):
    """Makes such processes, and remembers them."""

    def __init__(self) -> None:
        self.processes: list[_Apart] = []

    def Process(self, *args: Any, **named: Any) -> _Apart:  # type: ignore[override]
        """A process that is not started yet."""
        self.processes.append(_Apart(*args, **named))
        return self.processes[-1]


@contextmanager
def _without_current_folder() -> Iterator[None]:
    """Let new Python processes look for modules everywhere but in the current folder."""
    if sys.version_info >= (3, 11):
        with environment(PYTHONSAFEPATH="1"):
            yield
        return
    launch: Any = util
    flags = launch._args_from_interpreter_flags  # before, only -I says so
    launch._args_from_interpreter_flags = lambda: [*flags(), "-I"]
    try:
        yield
    finally:
        launch._args_from_interpreter_flags = flags


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set environment variables for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
