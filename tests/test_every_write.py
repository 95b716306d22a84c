"""A disk that is full from some moment on, whichever that is: one sentence, and nothing is left."""

import errno
import os
import sys
from itertools import count
from pathlib import Path

import fuzz_world
import pytest
from refusing import run, tree

EVENTS = ("os.mkdir", "os.rename", "os.truncate", "os.link", "os.symlink")
CALLS = ("pwrite", "posix_fallocate", "fsync", "copy_file_range")
COMMANDS = {
    "init": "init src -o out",
    "tokenize": "tokenize text.txt --tokenizer src --workers 1 -o out",
    "a new tokenizer": "tokenize text.jsonl --train-tokenizer 300 --workers 1 -o out",
    "widen": "widen src --hidden 32 --no-verify -o deep/out",
    "merge": "merge tuned --base src -o out",
    "a stored delta": "delta src tuned --save out --drop 0.5",
    "an adapter": "delta src tuned --save out --rank 2",
    "report": "report run run2 -o out",
}


class FullDisk:
    """Fails every change of a file below the current folder that takes room, from the so-many-th on; None: never."""

    def __init__(self):
        self.number, self.seen = None, 0
        sys.addaudithook(self.audit)  # which stays, and then does nothing

    def change(self) -> None:
        if self.number is None:
            return
        self.seen += 1
        if self.seen >= self.number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def audit(self, event, arguments):
        if self.number is None or (event != "open" and event not in EVENTS):
            return
        writes = event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes and isinstance(arguments[0], str | Path) and Path(arguments[0]).absolute().is_relative_to(Path.cwd()):
            self.change()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fuzz_world.make_world(folder)
    return folder


@pytest.fixture(scope="module")
def full_disk():
    return FullDisk()


@pytest.mark.parametrize("case", COMMANDS)
def test_a_disk_that_is_full_from_any_moment_on(world, full_disk, monkeypatch, case):
    monkeypatch.chdir(world)
    for name in CALLS:
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, real=real: (full_disk.change(), real(*args))[1])
    before = tree()
    for number in count(1):
        full_disk.number, full_disk.seen = number, 0
        try:
            result = run(*COMMANDS[case].split())
        finally:
            full_disk.number = None
        if result.exit_code == 0:
            break
        (sentence,) = (line for line in result.stderr.splitlines() if line.startswith("growkit: "))
        assert result.exit_code == 2 and isinstance(result.exception, SystemExit), (number, result.exception)
        assert "No space left on device" in sentence, (number, sentence)
        assert {str(path) for path in Path().rglob("*")} == before.keys(), number
    assert full_disk.seen <= number > 5  # it failed at each but the last, when the result is there already
    made = Path(COMMANDS[case].split()[-1] if " -o " in COMMANDS[case] else "out")
    assert made.is_dir() and tree().items() >= before.items()
    made.rename(f"made-by-{case}")
