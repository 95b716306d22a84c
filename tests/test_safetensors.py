"""Checkpoints as they lie on disk: a damaged file, index or folder is refused by name, a sound one is read as the
safetensors library reads it, and what growkit lays out that library reads back.
"""

import errno
import hashlib
import json
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from refusing import cases, do_what_it_says, refused, run
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from growkit.checkpoint import companions, source
from growkit.checkpoint.headers import DTYPES
from growkit.checkpoint.source import open_checkpoint
from growkit.checkpoint.writer import layout, write_index
from growkit.errors import CheckpointError


def pack(header, data=b"", length=None):
    """A file of a header (an object, or its text) and data; `length` to lie about the header's."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(begin, end, dtype="F32", shape=None):
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


A, B = entry(0, 8), entry(8, 16)
TWICE = f'{{"a":{json.dumps(A)},"a":{json.dumps(B)}}}'.encode()
DAMAGED = [  # the file, part of the sentence
    (b"", "it has 0 bytes, too few for a header"),
    (b"1234567", "it has 7 bytes, too few for a header"),
    (pack({}, length=2**63), "should have 9223372036854775808 bytes, where 100000000 is the most allowed"),
    (pack({"a": A}, bytes(8), length=5000), "its header should have 5000 bytes but the file has 77; it is truncated"),
    (pack(b"{'a': 1}"), "its header is no valid JSON"),
    (pack(b"\xff\xfe{}"), "its header is no valid JSON ('utf-8' codec can't decode"),
    (pack(b'{"a":' + b"[" * 100_000), "its header is no valid JSON (nested more than"),
    (pack([A]), "its header is no JSON object"),
    (pack(TWICE, bytes(16)), "key 'a' stands there twice"),
    (pack({"a": A, "b": B}, bytes(15)), "its tensors end at byte 147 but the file has 146; it is truncated"),
    (pack({"a": A}, bytes(9)), "followed by bytes that belong to no tensor"),
    (pack({"a": A, "b": entry(4, 12)}, bytes(12)), "tensor 'b' at byte 4 overlaps the one before"),
    (pack({"a": A, "b": entry(12, 20)}, bytes(20)), "tensor 'b' at byte 12 leaves a hole after the one before"),
    (pack({"b": B}, bytes(16)), "tensor 'b' at byte 8 leaves a hole after the one before"),
    (pack({"a": entry(0, 1, "U8", [1]), "b": entry(1, 5)}, bytes(5)), "'b' is misaligned: byte 1 is no multiple of 4"),
    (pack({"a": entry(0, 8, "F4")}, bytes(8)), "has dtype 'F4'; growkit reads BOOL, U8"),
    (pack({"a": entry(0, 8, ["F32"])}, bytes(8)), "tensor 'a' has no valid dtype, shape and data_offsets"),
    (pack({"a": entry(0, 8, shape="")}, bytes(8)), "tensor 'a' has no valid dtype, shape and data_offsets"),
    (pack({"a": entry(0, 8, shape=[-2])}, bytes(8)), "tensor 'a' has no valid dtype, shape and data_offsets"),
    (pack({"a": entry(0, 8, shape=[2.0])}, bytes(8)), "tensor 'a' has no valid dtype, shape and data_offsets"),
    (pack({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)), "tensor 'a' has no valid dtype, shape and data_offsets"),
    (pack({"a": 7}, bytes(8)), "tensor 'a' has no valid dtype, shape and data_offsets"),
    (pack({"a": entry(0, 8, shape=[3])}, bytes(8)), "tensor 'a' of shape [3] and dtype F32 needs 12 bytes, not 8"),
    (pack({"a": entry(8, 0, shape=[2])}, bytes(8)), "needs 8 bytes, not -8"),
    (pack({"a": entry(0, 8, shape=[2**62, 2**62])}, bytes(8)), "needs 85070591730234615865843651857942052864 bytes"),
]


@pytest.mark.parametrize("content, says", cases(DAMAGED))
def test_damaged_file_is_refused(tmp_path, monkeypatch, content, says):
    monkeypatch.chdir(tmp_path)
    Path("bad.safetensors").write_bytes(content)
    refused("widen", "bad.safetensors", "--hidden", "48", says=says)
    assert "'bad.safetensors'" in refused("inspect", "bad.safetensors", says=says)
    if "misaligned" not in says:  # the library reads such files; growkit never writes them and torch cannot view them
        with pytest.raises(SafetensorError), safe_open("bad.safetensors", "pt"):
            pass


def random_tensor(generator, dtype, shape):
    raw = torch.randint(0, 2 if dtype == torch.bool else 120, (*shape, dtype.itemsize), generator=generator)
    return raw.to(torch.uint8).view(dtype).reshape(shape)


def sample(seed):
    """Tensors of every dtype and many shapes, among them scalars and empty ones."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(), (1,), (7,), (0,), (3, 5), (4, 0, 2), (2, 3, 4)]
    return {
        f"{'zyxw'[i % 4]}.{i}": random_tensor(generator, dtype, shapes[(i + seed) % len(shapes)])
        for i, dtype in enumerate(DTYPES.values())
    }


def same(a, b):
    """Equal to the bit, whatever the bits mean."""
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(bits(a), bits(b))


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


@pytest.mark.parametrize("seed", range(7))
def test_sound_file_is_read_as_the_library_reads_it(tmp_path, seed):
    tensors = sample(seed)
    save_file(tensors, tmp_path / "any.safetensors", {"format": "pt", "note": "kept out of the tensors"})
    checkpoint = open_checkpoint(tmp_path / "any.safetensors")
    assert checkpoint.tensors.keys() == tensors.keys()
    picked = np.random.Generator(np.random.PCG64(seed))
    for name, tensor in tensors.items():
        stored = checkpoint.tensors[name]
        assert (stored.shape, stored.dtype, stored.bytes) == (tuple(tensor.shape), tensor.dtype, tensor.nbytes)
        count = tensor.shape[0] if tensor.dim() else 1
        matrix = tensor.reshape(count, -1) if tensor.numel() else torch.empty(count, 0, dtype=tensor.dtype)
        rows = picked.integers(0, count, 9) if count else np.arange(0)
        assert same(checkpoint.rows(name, rows), matrix[torch.from_numpy(rows)])
        columns = picked.integers(0, max(1, matrix.shape[1]), 5)
        if matrix.numel():
            assert same(checkpoint.rows(name, columns, columns_as_rows=True), matrix.T[torch.from_numpy(columns)])
    checkpoint.close()


def test_odd_but_sound_headers_are_read(tmp_path):
    data = torch.arange(4, dtype=torch.float32)
    halves = {"b": entry(8, 16), "empty": entry(8, 8, shape=[0]), "a": A}
    for header in (halves, json.dumps(halves).encode() + b"     ", {"__metadata__": {"a": "b"}, **halves}):
        (tmp_path / "odd.safetensors").write_bytes(pack(header, bits(data).numpy().tobytes()))
        checkpoint = open_checkpoint(tmp_path / "odd.safetensors")
        assert list(checkpoint.tensors) == ["a", "empty", "b"], "in the order of their bytes"
        assert checkpoint.rows("b", np.arange(2)).flatten().tolist() == [2.0, 3.0]
        assert load_file(tmp_path / "odd.safetensors")["b"].tolist() == [2.0, 3.0]


@pytest.mark.parametrize("seed", range(7))
@pytest.mark.parametrize("shard_bytes", [1, 40, 100, 10**9])
def test_library_reads_what_is_laid_out_here(tmp_path, seed, shard_bytes):
    tensors = sample(seed)
    headers, slots, sizes = layout([(n, t.dtype, tuple(t.shape)) for n, t in tensors.items()], shard_bytes)
    for file, header in headers.items():
        (tmp_path / file).write_bytes(header.ljust(sizes[file], b"\0"))
    for name, tensor in tensors.items():
        assert slots[name].offset % tensor.dtype.itemsize == 0, "aligned, whatever the mix"
        with open(tmp_path / slots[name].file, "r+b") as file:
            file.seek(slots[name].offset)
            file.write(bits(tensor).numpy().tobytes())
    write_index(tmp_path, slots, sum(tensor.nbytes for tensor in tensors.values()))
    read = {name: tensor for file in headers for name, tensor in load_file(tmp_path / file).items()}
    assert read.keys() == tensors.keys() and all(same(read[name], tensors[name]) for name in tensors)
    for file in headers:
        held = [tensors[name].nbytes for name, slot in slots.items() if slot.file == file]
        assert sum(held) <= shard_bytes or len([size for size in held if size]) == 1
    assert open_checkpoint(tmp_path).tensors.keys() == tensors.keys()


def test_file_that_becomes_shorter_or_goes_while_it_is_read(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(100, 100)}, path)
    checkpoint, other = open_checkpoint(path), open_checkpoint(path)
    os.truncate(path, 1000)
    with pytest.raises(CheckpointError, match=r"a\.safetensors' became shorter while it was read; fetch it again"):
        checkpoint.rows("a", np.arange(100))
    checkpoint.close()
    path.unlink()
    with pytest.raises(CheckpointError, match=r"cannot read .*a\.safetensors': No such file or directory"):
        other.rows("a", np.arange(100))
    with pytest.raises(CheckpointError, match=r"cannot read .*a\.safetensors': No such file or directory"):
        other.hashes()


def test_a_file_is_hashed_once_and_what_was_given_up_is_not_remembered(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(100, 100)}, path)
    checkpoint, whole = open_checkpoint(path), {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    assert checkpoint.hashes(lambda: True) != whole and checkpoint.hashes() == whole
    path.unlink()
    assert checkpoint.hashes() == whole


@pytest.fixture
def src(tmp_path, monkeypatch):
    """A model in shards, as `src` in the current folder."""
    monkeypatch.chdir(tmp_path)
    tiny.make("gpt2", dtype=torch.float32).save_pretrained("src", max_shard_size="40KB")
    assert len(list(Path("src").glob("model-*.safetensors"))) > 2
    return Path("src")


def index(change):
    """A change of the index's weight_map."""

    def prepare(src):
        path = src / "model.safetensors.index.json"
        content = json.loads(path.read_text())
        change(content["weight_map"])
        path.write_text(json.dumps(content))

    return prepare


def first_shard(src):
    return sorted(src.glob("model-*.safetensors"))[0]


def twice(src):
    """A tensor of the first shard once more in the last."""
    last = sorted(src.glob("model-*.safetensors"))[-1]
    name, tensor = next(iter(load_file(first_shard(src)).items()))
    save_file({**load_file(last), name: tensor}, last)


def only(*names):
    """A folder with these empty files and nothing else."""

    def prepare(src):
        shutil.rmtree(src)
        src.mkdir()
        for name in names:
            (src / name).touch()

    return prepare


def text(name, content):
    return lambda src: (src / name).write_bytes(content)


LN = "transformer.h.0.ln_1.weight"
INDEX = "model.safetensors.index.json"
FOLDERS = [  # what is done to src, part of the sentence
    (lambda src: first_shard(src).unlink(), "names 'model-00001-of-00003.safetensors', which is not there; fetch the"),
    (lambda src: os.truncate(first_shard(src), 5000), "model-00001-of-00003.safetensors' is no sound safetensors file"),
    (index(lambda m: m.update({LN: "../model.safetensors"})), "points outside its folder, to '../model.safetensors'"),
    (index(lambda m: m.update({LN: "/etc/passwd"})), "points outside its folder, to '/etc/passwd'; refusing to follow"),
    (index(lambda m: m.update({LN: ".."})), "points outside its folder, to '..'"),
    (index(lambda m: m.update({LN: ""})), "points outside its folder, to ''"),
    (index(lambda m: m.update({LN: "model-00003-of-00003.safetensors"})), f"tensor '{LN}' is in 'model-0000"),
    (index(lambda m: m.pop(LN)), f"tensor '{LN}' is in 'model-00001-of-00003.safetensors' but the index says None"),
    (
        index(lambda m: m.update(ghost=m[LN])),
        "the index says 'ghost' is in 'model-00001-of-00003.safetensors', but it is",
    ),
    (index(lambda m: m.update({LN: 7})), f"{INDEX}' should have weight_map.'{LN}' as the name of a file, not 7"),
    (twice, "stands in 'model-00001-of-00003.safetensors' and again in 'model-00003-of-00003.safetensors'"),
    (text(INDEX, b"{"), f"{INDEX}' is no valid JSON"),
    (text(INDEX, b"{}"), f"{INDEX}' lacks 'weight_map'"),
    (text("config.json", b"{"), "config.json' is no valid JSON (Expecting property name"),
    (text("config.json", b"\xff"), "config.json' is no valid JSON ('utf-8' codec can't decode"),
    (text("config.json", b"[" * 100_000), "config.json' is no valid JSON (nested more than"),
    (text("config.json", b'["llama"]'), "config.json' should hold a JSON object, not a list"),
    (
        lambda src: ((src / "config.json").unlink(), (src / "config.json").mkdir()),
        "config.json' is a folder and no file",
    ),
    (only(), "'src' holds no checkpoint: expected model.safetensors or model.safetensors.index.json"),
    (only("a.safetensors", "b.safetensors"), "'src' has 2 safetensors files but neither model.safetensors nor"),
    (
        only("pytorch_model.bin"),
        "'src/pytorch_model.bin' is a pickle, which can run code when it is read",
    ),
    (text("modules.json", b'[{"type": "x.Pooling", "path": "../away"}]'), "has a Pooling module in '../away'"),
    (text("modules.json", b'[{"type": "x.Pooling", "path": ".."}]'), "has a Pooling module in '..'"),
    (text("modules.json", b'[{"type": "x.LSTM", "path": "1_LSTM"}]'), "has a LSTM module in '1_LSTM'; growkit carries"),
    (text("modules.json", b"{"), "modules.json' is no valid JSON"),
    (text("modules.json", b"7"), "modules.json' is no list of modules with 'type' and 'path'"),
]


@pytest.mark.parametrize("prepare, says", cases(FOLDERS))
def test_folder_that_is_no_sound_checkpoint(src, prepare, says):
    prepare(src)
    refused("widen", "src", "--hidden", "48", says=says, plan_shown="modules" in says or "module in" in says)


def test_pickle_is_refused_with_a_command_that_converts_it(src):
    tiny.make("gpt2", dtype=torch.float32).save_pretrained("good")
    only()(src)
    shutil.copyfile("good/config.json", "src/config.json")
    torch.save(load_file("good/model.safetensors"), "src/pytorch_model.bin")
    sentence = refused(
        "widen", "src/pytorch_model.bin", "--hidden", "48", says="convert it once where you trust it: python"
    )
    do_what_it_says(sentence.replace("NEW_FOLDER", "new"))
    assert "transformer.wte.weight" in load_file("new/model.safetensors"), "with its head, not as a base model"
    assert run("verify", "good", "new").exit_code == 0


PATHS = [
    ("nosuch", "'nosuch' does not exist; give a folder, a .safetensors file or a hub id such as org/name"),
    ("./no/such", "'./no/such' does not exist"),
    ("/no/such", "'/no/such' does not exist"),
    ("no/such.safetensors", "'no/such.safetensors' does not exist"),
    ("../no", "'../no' does not exist"),
    ("", "'' does not exist"),
    ("src/config.json", "'src/config.json' is no sound safetensors file"),
    ("x" * 300, "File name too long"),
    ("org/model-v1.5", "'org/model-v1.5' is no path here and could not be fetched from the hub (LocalEntryNotFound"),
]


@pytest.mark.parametrize("path, says", cases(PATHS))
def test_path_that_is_no_checkpoint(src, path, says):
    refused("inspect", path, says=says)


def test_folder_that_may_not_be_read(src, monkeypatch):
    real = Path.is_dir

    def is_dir(path):  # as root, permission bits would stop nobody
        if path.name == "src":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path)

    monkeypatch.setattr(Path, "is_dir", is_dir)
    refused("inspect", "src", says="cannot read 'src': Permission denied")


def test_companion_that_cannot_be_read_is_named(src, monkeypatch):
    Path("src/tokenizer.json").touch()
    monkeypatch.setattr(companions, "companion_files", lambda folder: [folder / "tokenizer.json", folder / "gone.json"])
    refused("widen", "src", "--hidden", "48", says="cannot read 'src/gone.json': No such file", plan_shown=True)


def test_model_from_the_hub_goes_by_its_name(src, monkeypatch):
    monkeypatch.setattr(source, "from_hub", lambda name: "src" if name == "org/tiny-2.5" else None)
    assert run("widen", "org/tiny-2.5", "--hidden", "48").exit_code == 0
    assert "# tiny-2.5, widened" in Path("tiny-2.5-h48/README.md").read_text()
