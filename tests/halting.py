"""Commands in another process that halt at a place of the test's choice and say so: no clock decides what is caught."""

import gc
import os
import select
import signal
import struct
import subprocess
import sys
import traceback
from contextlib import contextmanager
from multiprocessing.connection import Connection

GUARD = 600  # seconds after which a process that never gets there has failed, on a machine however busy

HALT = f"""
import os, select, signal, sys, threading
announce, sys.argv = int(sys.argv[1]), ["growkit", *sys.argv[2:]]
interrupted, tell = os.pipe()  # and no event of threading's: its lock may be the one that is interrupted

def interrupt(*_):
    os.write(tell, b"!")
    raise KeyboardInterrupt

signal.signal(signal.SIGINT, interrupt)  # a shell in the background starts its children without

def halt():
    "Say that we are here, and wait for Ctrl-C; in any thread."
    os.write(announce, b"!")
    select.select([interrupted], [], [], {GUARD})

"""
RUN = """
from growkit.cli import main
main()
"""


class forked:
    """A process as subprocess.Popen makes one, which has all modules of this one already: a start costs nothing."""

    def __init__(self, command, pass_fds, **_):
        self.returncode, (here, there) = None, os.pipe()
        _, _, code, *words = command
        self.pid = os.fork()
        if not self.pid:
            os.setsid()
            for place in (1, 2):
                os.dup2(there, place)
            sys.stdout, sys.stderr, sys.argv = os.fdopen(1, "w"), os.fdopen(2, "w"), ["-c", *words]
            code_at_end = 1
            try:
                exec(compile(code, "<forked>", "exec"), {"__name__": "__main__"})
            except SystemExit as ends:
                code_at_end = ends.code or 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code_at_end)
        os.close(there)
        self.says = os.fdopen(here)

    def communicate(self, timeout=None):
        said = "" if self.says.closed else self.says.read()
        self.says.close()
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return "", said

    def send_signal(self, kind):
        if self.returncode is None:
            os.kill(self.pid, kind)

    def kill(self):
        self.send_signal(signal.SIGKILL)


@contextmanager
def halted(patch, *command, start=subprocess.Popen):
    """A growkit command, caught where `patch`, Python that runs before it, calls halt(); ended with the block."""
    here, there = os.pipe()
    code = [sys.executable, "-c", HALT + patch + RUN, str(there), *map(str, command)]
    process = start(
        code, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, pass_fds=[there], start_new_session=True
    )
    os.close(there)
    try:
        ready, _, _ = select.select([here], [], [], GUARD)
        assert ready and os.read(here, 1), process.communicate()[1]
        yield process
    finally:
        os.close(here)
        process.kill()
        process.communicate()


def ended(process, kind):
    """What a process says on its standard error when it gets a signal, together with its own, as from a terminal.

    Returns when nobody of them is there any more to say anything.
    """
    os.killpg(process.pid, kind) if kind == signal.SIGINT else process.send_signal(kind)
    return process.communicate(timeout=GUARD)[1]


def die_half_way(_):
    """Work for a process of a pool, which says that its answer has a thousand bytes, and ends after four of them."""
    (answers,) = [thing for thing in gc.get_objects() if isinstance(thing, Connection)]
    os.write(answers.fileno(), struct.pack("!i", 1000) + b"half")
    os._exit(7)
