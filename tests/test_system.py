"""Where the system lacks what Linux has, growkit does the same with what there is."""

import os
from pathlib import Path

import pytest
import tiny
import torch
from refusing import run, tree

from growkit.checkpoint import system


@pytest.fixture
def lacking(monkeypatch):
    """A system without the calls that only some have."""
    for name in ("sched_getaffinity", "posix_fallocate", "preadv", "copy_file_range"):
        monkeypatch.delattr(os, name)


def test_everything_works_without_what_only_linux_has(tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    tiny.make("llama", dtype=torch.float32).save_pretrained("src")
    widen = ["widen", "src", "--hidden", "48", "--no-verify", "-o"]
    assert run(*widen, "out").exit_code == 0
    request.getfixturevalue("lacking")
    monkeypatch.setattr(system, "PIECE", 100)  # so that reads come in pieces
    assert run(*widen, "again").exit_code == 0
    assert run("stack", "src", "--layers", "6", "-o", "deep").exit_code == 0
    assert list(tree("out").values()) == list(tree("again").values())


def test_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7})
    assert system.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert system.cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert system.cores() == 1


@pytest.mark.parametrize("system_has_it", [True, False])
def test_a_file_has_its_size_and_is_read_by_place(tmp_path, request, system_has_it):
    if not system_has_it:
        request.getfixturevalue("lacking")
    path = Path(tmp_path / "file")
    path.write_bytes(b"growing")
    descriptor = os.open(path, os.O_RDWR)
    try:
        system.reserve(descriptor, 12)
        target = bytearray(9)
        assert system.read_at(descriptor, memoryview(target), 3) == 9 and target == b"wing" + bytes(5)
        assert system.read_at(descriptor, memoryview(target), 12) == 0
    finally:
        os.close(descriptor)
    assert path.read_bytes() == b"growing" + bytes(5)
