"""Processes that work beside this one and know nothing of the program around it. Knows multiprocessing; ignorant of
what the work is.

Left to itself, a new process of Python's imports the main module of the program that started it, so that a script
without a guard runs once more in each; and it finds its first modules in the current folder, whatever lies there under
their names. These do neither. Ctrl-C is the parent's to answer, and when the parent is gone they go too.

Each process has a pipe of its own, through which one piece of work goes at a time, and nothing is shared beside it:
no lock that whoever is interrupted or dies might keep, and no thread. So the parent may be interrupted anywhere, a
process may die anywhere, and at the end all are killed.
"""

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe, resource_tracker, spawn, util
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from growkit.errors import GrowkitError

_STARTING = threading.Lock()


class WorkerPool:
    """Processes that work can be given to."""

    def __init__(self, count: int, begin: Callable[..., None], args: tuple[Any, ...]):
        self._processes: dict[Connection, _Apart] = {}
        self._at_work: dict[Connection, int | None] = {}  # the number of what each does; None: it begins
        self._idle: list[Connection] = []
        self._waiting: deque[tuple[int, Callable[..., Any], tuple[Any, ...]]] = deque()
        self._answers: dict[int, Any] = {}
        self._given = 0
        try:
            with uninterrupted(), _without_current_folder():
                for _ in range(count):
                    here, there = Pipe()
                    process = _Apart(target=_work, args=(there, begin, args), daemon=True)
                    process.start()
                    there.close()  # so that whoever waits at our end hears when the process is gone
                    self._processes[here], self._at_work[here] = process, None
        except OSError as error:
            self.end()
            raise GrowkitError(f"no processes can be started here ({error}); use one worker") from None

    def submit(self, work: Callable[..., Any], *args: Any) -> int:
        """Give work away; returns the number to ask for with `result`."""
        self._given += 1
        self._waiting.append((self._given, work, args))
        self._hand_out(0)
        return self._given

    def result(self, number: int) -> Any:
        """What came of work, once. Raises what it raised, and GrowkitError where a process died."""
        while number not in self._answers:
            self._hand_out(None)
        answer = self._answers.pop(number)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def end(self) -> None:
        """End them, whatever they do."""
        with uninterrupted():
            for process in self._processes.values():
                process.kill()
            for connection, process in self._processes.items():
                process.join()
                connection.close()

    def _hand_out(self, seconds: float | None) -> None:
        """Take what has been answered, waiting so long for it, and give work to those who have none."""
        for connection in wait([*self._at_work], seconds):
            assert isinstance(connection, Connection)
            with self._told(connection):
                answer = connection.recv()
            number = self._at_work.pop(connection)
            self._idle.append(connection)
            if number is not None:
                self._answers[number] = answer
        while self._idle and self._waiting:
            connection, (number, *work) = self._idle.pop(), self._waiting.popleft()
            with self._told(connection):
                connection.send(work)
            self._at_work[connection] = number

    @contextmanager
    def _told(self, connection: Connection) -> Iterator[None]:
        """Say that a process died, where the other end of its pipe is gone."""
        try:
            yield
        except (EOFError, OSError):
            process = self._processes[connection]
            process.join()
            raise GrowkitError(
                f"a process that encodes text ended (exit code {process.exitcode}); try fewer --workers"
            ) from None


@contextmanager
def worker_pool(count: int, begin: Callable[..., None], *args: Any) -> Iterator[WorkerPool]:
    """`count` processes, in each of which begin(*args) has run before any work; they end with the block.

    `begin` and the work are functions of modules, not of the main one. Raises GrowkitError where processes cannot be
    had or one of them dies.
    """
    pool = WorkerPool(count, begin, args)
    try:
        yield pool
    finally:
        pool.end()


def _work(connection: Connection, begin: Callable[..., None], args: tuple[Any, ...]) -> None:
    """Do what comes through a pipe, until its other end is gone."""
    begin(*args)
    answer = None
    try:
        while True:
            connection.send(answer)
            work, given = connection.recv()
            try:
                answer = work(*given)
            except Exception as error:
                answer = error
    except (EOFError, OSError):
        os._exit(1)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait until the block is done. Only the main thread ever hears it."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    heard: list[Any] = []
    signal.signal(signal.SIGINT, lambda *said: heard.append(said))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if heard:
            before(*heard[0])


class _Apart(SpawnProcess):
    """A process that takes over neither the main module nor Ctrl-C."""

    def start(self) -> None:
        """Start it, while this thread hears no Ctrl-C: what a thread does not hear, its new processes never do."""
        with _STARTING:
            resource_tracker.ensure_running()  # which would let this thread hear it again
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
