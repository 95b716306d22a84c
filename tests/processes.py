"""Processes of their own, for tests of runs that are stopped, killed or shared. They wait for events; the one limit is
a guard against those that hang, long enough for any machine.
"""

import os
import signal
import socket
import sys
import time
import traceback

KILL, GUARD = signal.SIGKILL, 600.0


def killing(owner, name: str, call: int = 1, after: bool = False):
    """A saboteur: kill -9 at the given call of a function, before or after it."""

    def arm():
        original, calls = getattr(owner, name), []

        def deadly(*args, **keywords):
            calls.append(name)
            if len(calls) == call and not after:
                os.kill(os.getpid(), KILL)
            result = original(*args, **keywords)
            if len(calls) == call:
                os.kill(os.getpid(), KILL)
            return result

        setattr(owner, name, deadly)

    return arm


def child(work, arm=lambda: None, **environment: str) -> int:
    """The process id of work() in a process of its own, which ends with what it returns."""
    process = os.fork()
    if process:
        return process
    try:
        os.environ.update(environment)
        arm()
        os._exit(work())
    except BaseException as error:
        print(repr(error), file=sys.__stderr__, flush=True)
        os._exit(9)


def ended(process: int, seconds: float = GUARD) -> int:
    """How a process ended: its exit code, or minus its signal; -99 where it hung, and then it is killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(process, KILL)
    os.waitpid(process, 0)
    return -99


def said(result) -> int:
    """Its exit code; what went wrong goes where it can be read."""
    if result.exit_code:
        print(result.stderr, *traceback.format_exception(result.exception), file=sys.__stderr__, flush=True)
    return result.exit_code


def blocked_until(happened) -> None:
    """Wait for an event that another process or a signal brings about."""
    end = time.monotonic() + GUARD
    while not happened():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def port() -> str:
    """A port of this machine that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def pair(work, second=lambda: None, first=None) -> list[int]:
    """How two processes of one run end. work: what both do. second: what the second does before. first: what the first
    does instead."""
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port()}
    processes = [
        child(does, arm, RANK=str(n), LOCAL_RANK=str(n), **place)
        for n, (does, arm) in enumerate(((first or work, lambda: None), (work, second)))
    ]
    return [ended(process) for process in processes]
