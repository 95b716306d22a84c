"""Blocks that stay as they are go from file to file in the kernel: the same bytes as computing them, the same
refusals.
"""

import errno
import os
from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import growkit
from growkit.checkpoint.source import Checkpoint
from growkit.checkpoint.stream import is_finite
from growkit.checkpoint.system import copy_between
from growkit.errors import CheckpointError

GROWTHS = {
    "stack": ("llama", lambda out, **more: growkit.stack("src", out, layers=7, **more)),
    "identity": ("gemma2", lambda out, **more: growkit.stack("src", out, layers=6, method="identity", **more)),
    "conv1d": ("gpt2", lambda out, **more: growkit.stack("src", out, layers=6, **more)),
    "upcycle": ("qwen3", lambda out, **more: growkit.upcycle("src", out, experts=4, **more)),
    "random": ("bert", lambda out, **more: growkit.widen("src", out, ffn=57, mapping="random", noise=0, **more)),
}


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def dtype(request):
    return request.param


# each growth, in both dtypes where bytes are copied as they are
@pytest.fixture(params=[*((name, torch.float32) for name in GROWTHS), ("stack", torch.bfloat16)], ids=str)
def growth(request, tmp_path, monkeypatch):
    name, dtype = request.param
    family, make = GROWTHS[name]
    monkeypatch.chdir(tmp_path)
    tiny.make(family, dtype=dtype).save_pretrained("src")
    return make


def weights(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.safetensors")}


def counted(monkeypatch) -> list[int]:
    """How many bytes each call let the kernel copy."""
    sizes, copy = [], os.copy_file_range

    def counting(source, target, count, *places):
        sizes.append(copy(source, target, min(count, 1000), *places))  # never all that was asked for
        return sizes[-1]

    monkeypatch.setattr(os, "copy_file_range", counting)
    return sizes


@pytest.mark.skipif(not hasattr(os, "copy_file_range"), reason="this system has no copy_file_range")
def test_the_kernel_copies_what_computing_gives(growth, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "stretch", lambda *_: None)
        growth("computed")
    sizes = counted(monkeypatch)
    growth("copied")
    growth("sharded", shard_size=5000)
    assert sum(sizes) > 10_000
    assert weights("copied") == weights("computed")
    shards = [tensors for name in weights("sharded") for tensors in load_file(f"sharded/{name}").items()]
    whole = load_file("computed/model.safetensors")
    assert len(weights("sharded")) > 1 and len(shards) == len(whole)
    assert all(torch.equal(tensor, whole[name]) for name, tensor in shards)


@pytest.mark.parametrize("code", [None, errno.EXDEV, errno.ENOSYS, errno.EINVAL])
def test_without_the_kernel_bytes_go_through_memory(growth, monkeypatch, code):
    growth("copied")
    if code is None:
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    else:

        def refuse(*_):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    growth("through-memory")
    assert weights("through-memory") == weights("copied")


def test_a_full_disk_is_no_reason_to_try_another_way(growth, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", full, raising=False)
    with pytest.raises(growkit.RequestError, match="No space left on device; nothing was kept"):
        growth("out")
    assert sorted(os.listdir()) == ["src"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_only_copied_is_looked_at_all_the_same(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    tiny.make("llama", dtype=torch.bfloat16).save_pretrained("src")
    state = load_file("src/model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    state[name][5, 7] = value
    save_file(state, "src/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"tensor '{name}' holds (NaN|Inf): pass --allow-nonfinite"):
        growkit.stack("src", "out", layers=6)
    assert sorted(os.listdir()) == ["src"]
    growkit.stack("src", "out", layers=6, allow_nonfinite=True)
    grown = load_file("out/model.safetensors")[name.replace("1", "4")]
    assert torch.equal(grown.view(torch.int16), state[name].view(torch.int16))


def test_a_file_that_became_shorter(tmp_path):
    (tmp_path / "short").write_bytes(b"1234")
    source, target = os.open(tmp_path / "short", os.O_RDONLY), os.open(tmp_path / "to", os.O_RDWR | os.O_CREAT)
    try:
        with pytest.raises(EOFError):
            copy_between(source, 2, target, 0, 3)
        copy_between(source, 1, target, 2, 3)
        assert os.pread(target, 9, 0)[2:] == b"234"
    finally:
        os.close(source)
        os.close(target)


@given(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]), st.integers(0, 2**63 - 1))
def test_finite_is_what_torch_calls_finite(dtype, seed):
    draws = torch.Generator().manual_seed(seed)
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    limits = torch.iinfo(bits)
    block = torch.randint(limits.min, limits.max, (3, 4), generator=draws, dtype=bits).view(dtype)
    assert is_finite(block) == bool(torch.isfinite(block).all())
    for value in (float("inf"), -float("inf"), float("nan"), -float("nan")):
        one = torch.zeros(2, 3, dtype=dtype)
        assert is_finite(one - 1) and is_finite(one.T)
        one[1, 1] = value
        assert not is_finite(one) and not is_finite(-one)
