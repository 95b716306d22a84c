"""Commands in another process that halt at a place of the test's choice and say so: no clock decides what is caught."""

import gc
import os
import select
import signal
import struct
import subprocess
import sys
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


@contextmanager
def halted(patch, *command):
    """A growkit command, caught where `patch`, Python that runs before it, calls halt(); ended with the block."""
    here, there = os.pipe()
    code = [sys.executable, "-c", HALT + patch + RUN, str(there), *map(str, command)]
    process = subprocess.Popen(
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
