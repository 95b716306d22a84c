"""Bad input gets one sentence, exit code 2, nothing written and an untouched source; a result is there whole or not at
all. Every line of a table is one way to get it wrong and a part of the sentence that must come back.
"""

import errno
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import tiny
import torch
from filelock import lock_descriptor
from halting import ended, halted
from on_disk import checkpoint, edit_config, edit_weights, thesis
from refusing import cases, refused, run, tree
from safetensors.torch import load_file, save_file

from growkit.checkpoint import new_folder

UP = "model.layers.1.mlp.up_proj.weight"
WIDEN = ["widen", "src", "--hidden", "48", "--no-verify"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "llama"
    tiny.make("llama", dtype=torch.float32).save_pretrained(folder)
    return folder


@pytest.fixture
def src(llama, tmp_path, monkeypatch):
    """A fresh copy of a tiny model as `src` in the current folder."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(llama, "src"))


CONFIGS = [  # changes (KeyError: left out), part of the sentence
    ({"model_type": "yeti"}, "model_type 'yeti' is not a family growkit knows; it knows "),
    ({"model_type": KeyError}, "model_type None is not a family"),
    ({"model_type": ["llama"]}, "model_type ['llama'] is not a family"),
    ({"hidden_size": "24"}, "should give 'hidden_size' as a positive whole number, not '24'"),
    ({"hidden_size": None}, "should give 'hidden_size' as a positive whole number, not None"),
    ({"vocab_size": KeyError}, "has shape [61, 24] but config.json says [32000, 24]"),  # as transformers would have it
    ({"num_hidden_layers": KeyError}, "config.json says 32 layers but 'src' has tensors of 3"),
    ({"hidden_size": 24.0}, "'hidden_size' as a positive whole number, not 24.0"),
    ({"num_hidden_layers": True}, "num_hidden_layers as a whole number from 1 to 10000, or null, not True"),
    ({"num_attention_heads": 0}, "'num_attention_heads' as a positive whole number, not 0"),
    ({"num_attention_heads": 3}, "3 heads for 2 kv heads, which does not divide"),
    ({"num_hidden_layers": 4}, "says 4 layers but 'src' has tensors of 3"),
    ({"num_hidden_layers": 2}, "says 2 layers but 'src' has tensors of 3"),
    ({"intermediate_size": 44}, "down_proj.weight' has shape [24, 40] but config.json says [24, 44] (hidden x ffn)"),
    ({"vocab_size": 60}, "has shape [61, 24] but config.json says [60, 24] (vocab x hidden); one of them is wrong"),
    ({"quantization_config": {"quant_method": "gptq"}}, "is quantised (gptq); grow the full-precision one"),
    ({"per_layer_config": {"0": {"sliding_window": 4}}}, "config.json has per_layer_config, settings of single layers"),
    ({"quantization_config": True}, "is quantised (quantised); grow the full-precision one"),
]


@pytest.mark.parametrize("changes, says", cases(CONFIGS))
def test_config_that_does_not_fit(src, changes, says):
    edit_config(src, **changes)
    refused(*WIDEN, says=says)
    refused("widen", "src", "--hidden", "48", "--dry-run", says=says)


NONSENSE = [
    ({"rope_parameters": "x"}, "rope_parameters"),
    ({"rope_parameters": {"rope_type": "default", "rope_theta": "x"}}, "rope_theta"),
    ({"partial_rotary_factor": "x"}, "partial_rotary_factor"),
    ({"architectures": [5], "tie_word_embeddings": True}, "architectures"),
    ({"vocab_size": 10**30}, "vocab_size"),
]


@pytest.mark.parametrize("changes, says", cases(NONSENSE))
def test_config_that_is_nonsense(src, changes, says):
    edit_config(src, **changes)
    refused("widen", "src", "--head-dim", "8", says=says)


NUMBERS = [
    ({"partial_rotary_factor": -1.0}, "partial_rotary_factor"),
    ({"partial_rotary_factor": float("nan")}, "partial_rotary_factor"),
]


@pytest.mark.parametrize("changes, says", cases(NUMBERS))
def test_config_with_numbers_that_cannot_be(src, changes, says):
    edit_config(src, **changes)
    refused("widen", "src", "--head-dim", "8", says=says)


def put(**tensors):
    return lambda state: state.update({name.replace("__", "."): tensor for name, tensor in tensors.items()})


WEIGHTS = [  # change of the state dict, options, part of the sentence
    (put(model__surprise=torch.ones(3)), [], "tensor 'model.surprise' is not one of the llama family's"),
    (put(model__norm__weight=torch.ones(25)), [], "'model.norm.weight' has shape [25] but config.json says [24]"),
    (put(model__norm__weight=torch.ones(2, 24)), [], "has shape [2, 24] but config.json says 1 dimensions (hidden)"),
    (put(**{UP: torch.ones(40, 24, dtype=torch.int8)}), [], f"tensor '{UP}' has dtype int8, which is no full-prec"),
    (put(**{UP: torch.ones(40, 24).to(torch.float8_e4m3fn)}), [], f"tensor '{UP}' has dtype float8_e4m3fn"),
]
VALUES = [
    (lambda state: state[UP][3].fill_(torch.nan), [], f"'{UP}' holds NaN: pass --allow-nonfinite"),
    (lambda state: state[UP][39, 23].fill_(torch.inf), [], f"'{UP}' holds Inf: pass --allow-nonfinite"),
    (lambda state: state["model.norm.weight"][0].fill_(-torch.inf), [], "'model.norm.weight' holds Inf"),
    (lambda state: state[UP][0, 0].fill_(1e5), ["--dtype", "float16"], "float16; choose another --dtype"),
]


@pytest.mark.parametrize("change, options, says", cases(WEIGHTS + VALUES))
def test_weights_that_cannot_be_grown(src, change, options, says):
    edit_weights(src, change)
    refused(*WIDEN, *options, says=says, plan_shown=(change, options, says) in VALUES)


@pytest.mark.parametrize("name", [UP, "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"])
def test_weights_that_are_not_there(src, name):
    edit_weights(src, lambda state: state.pop(name))
    refused(*WIDEN, says=name)


def test_tied_head_without_dimensions(src):
    edit_config(src, tie_word_embeddings=True)
    edit_weights(src, put(model__embed_tokens__weight=torch.ones(()), lm_head__weight=torch.ones(())))
    refused(*WIDEN, says="but config.json says")


def test_weights_that_are_not_finite_can_be_grown_on_request(src):
    edit_weights(src, VALUES[0][0])
    assert run(*WIDEN, "--allow-nonfinite", "-o", "out").exit_code == 0
    broken = {name: int(t.isnan().sum()) for name, t in load_file("out/model.safetensors").items() if t.isnan().any()}
    assert broken == {UP: 2 * 48}, "one row of NaN has two copies and reaches no other tensor"


OUTPUTS = [  # what is there, output and options, part of the sentence
    (lambda: checkpoint("out"), "out", "output 'out' exists; choose another with -o, or replace it with --force"),
    (lambda: thesis("out"), "out --force", "output 'out' is no checkpoint, so --force will not delete it"),
    (lambda: (thesis("out"), Path("out/config.json").touch()), "out --force", "output 'out' is no checkpoint"),
    (lambda: None, "src", "output 'src' is or contains the source 'src'"),
    (lambda: None, "src --force", "output 'src' is or contains the source 'src'"),
    (lambda: Path("loop").symlink_to("src"), "loop/../src --force", "is or contains the source 'src'"),
    (lambda: None, ". --force", "output '.' is or contains the source 'src'"),
    (lambda: None, "/ --force", "output '/' is or contains the source 'src'"),
    (lambda: None, "src/out", "output 'src/out' is inside the source 'src'; choose another with -o"),
    (lambda: None, "src/a/b/out", "output 'src/a/b/out' is inside the source 'src'"),
    (lambda: Path("loop").symlink_to("src"), "loop/out", "output 'loop/out' is inside the source 'src'"),
    (lambda: checkpoint("src/2_Dense"), "src/2_Dense --force", "output 'src/2_Dense' is inside the source 'src'"),
    (lambda: Path("out").touch(), "out --force", "output 'out' exists and is no folder"),
    (lambda: (checkpoint("old"), Path("out").symlink_to("old")), "out --force", "output 'out' exists and is no folder"),
    (lambda: Path("out").symlink_to("nowhere"), "out", "output 'out' exists and is no folder"),
    (lambda: Path("file").touch(), "file/out", "cannot write 'file/out': Not a directory"),
    (lambda: None, "x" * 300, "File name too long; choose another with -o"),
    (lambda: None, "x" * 250, "File name too long"),  # its work folder's
    (lambda: thesis("out.partial"), "out", "out.partial' is in the way and may hold something of yours; move it"),
    (lambda: thesis("out.replaced.partial"), "out", "out.replaced.partial' is in the way and may hold something"),
    (lambda: (thesis("home"), Path("out.partial").symlink_to("home")), "out", "out.partial' is in the way"),
    (lambda: Path("out.partial").touch(), "out", "out.partial' is in the way"),
]


@pytest.mark.parametrize("prepare, output, says", cases(OUTPUTS))
def test_output_that_would_hurt(src, prepare, output, says):
    prepare()
    refused(*WIDEN, "-o", *output.split(), says=says)


@pytest.mark.parametrize("name", ["out.partial", "out.replaced.partial"])
def test_source_that_has_the_name_of_a_work_folder(src, name):
    src.rename(name)
    widen = ["widen", name, "--hidden", "48", "-o", "out"]
    refused(*widen, says=f"{name}' is in the way")
    (Path(name) / "UNFINISHED").touch()  # marked as left by a run that was stopped
    refused(*widen, says=f"'{name}' is unfinished: growkit is at it, or was stopped")
    shutil.move(shutil.copytree(name, "moved"), f"{name}/inside")
    os.remove(f"{name}/inside/UNFINISHED")
    refused("widen", f"{name}/inside", *widen[2:], says=f"{name}' is in the way")


def test_force_does_not_delete_the_folder_one_stands_in(src, monkeypatch):
    checkpoint("here")
    monkeypatch.chdir("here")
    refused("widen", "../src", "--hidden", "48", "-o", ".", "--force", says="is or contains the current folder")


def test_output_that_holds_the_optimizer_state(src):
    checkpoint("out")
    save_file({"model.norm.weight.exp_avg": torch.ones(24)}, "out/adam.safetensors")
    refused(*WIDEN, "--optimizer", "out/adam.safetensors", "-o", "out", "--force", says="out/adam.safetensors")


def test_place_that_may_not_be_written(src, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as root, permission bits would stop nobody
    refused(*WIDEN, "-o", "out", says="cannot write in ")


def test_disk_that_is_too_small(src, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    refused(*WIDEN, "-o", "out", says="1 MB free; make room or choose another disk with -o", plan_shown=True)


@pytest.mark.parametrize("writes", [0, 1, 7])
@pytest.mark.parametrize("force", [False, True])
def test_disk_that_is_full_in_mid_run(src, monkeypatch, writes, force):
    if force:
        checkpoint("a/b/out")
    real, left = os.pwrite, iter(range(writes))

    def pwrite(*args):
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args)

    monkeypatch.setattr(os, "pwrite", pwrite)
    options = ["--force"] if force else []
    says = "out': No space left on device; nothing was kept"
    refused(*WIDEN, "-o", "a/b/out", *options, says=says, plan_shown=True)  # what was there still is, byte for byte


def test_replaced_folder_comes_back_when_the_new_one_cannot_take_its_name(src, monkeypatch):
    checkpoint("out")
    real = os.rename

    def rename(old, new):
        if str(old).endswith("out.partial"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(old, new)

    monkeypatch.setattr(os, "rename", rename)
    refused(*WIDEN, "-o", "out", "--force", says="Input/output error; nothing was kept", plan_shown=True)


def test_what_appears_under_the_name_while_work_goes_on_is_not_deleted(src, monkeypatch):
    real = os.posix_fallocate
    monkeypatch.setattr(os, "posix_fallocate", lambda *args: (Path("out").exists() or thesis("out"), real(*args)))
    result = run(*WIDEN, "-o", "out")
    assert result.exit_code == 2 and "made or changed by somebody else meanwhile" in result.stderr
    assert os.listdir("out") == ["thesis.txt"] and not Path("out.partial").exists()


@pytest.mark.parametrize("again", [False, True])
def test_a_folder_that_another_run_finishes_while_this_one_takes_its_lock(src, monkeypatch, again):
    def lock_late(descriptor, blocking):
        os.rename("out.partial", "out")
        if again:  # and a third one has begun
            thesis("out.partial")
        return lock_descriptor(descriptor, blocking=blocking)

    monkeypatch.setattr(new_folder, "lock_descriptor", lock_late)
    result = run(*WIDEN, "-o", "out")
    assert result.exit_code == 2 and "another growkit is writing" in result.stderr
    assert not os.listdir("out") and Path("out.partial/thesis.txt").exists() == again


def test_file_system_without_locks(src, monkeypatch):
    def lockless(descriptor, blocking):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(new_folder, "lock_descriptor", lockless)
    refused(*WIDEN, "-o", "out", says="out': No locks available; nothing was kept", plan_shown=True)


def test_force_replaces_a_checkpoint_whole(src):
    checkpoint("out")
    Path("out/stale.safetensors").write_text("from a longer model")
    assert run(*WIDEN, "-o", "out", "--force").exit_code == 0
    assert run(*WIDEN, "-o", "fresh").exit_code == 0
    assert list(tree("out").values()) == list(tree("fresh").values())
    assert sorted(os.listdir()) == ["fresh", "out", "src"]


CAUGHT = """
write = os.pwrite

def write_later(*args):
    if threading.current_thread() is not threading.main_thread():  # which writes headers
        halt()
    return write(*args)

os.pwrite = write_later
"""


def caught(start):
    """A growth in another process, caught while it writes."""
    return halted(CAUGHT, *WIDEN, "-o", "out", start=start)


def test_interrupted_run_leaves_nothing(src):
    before = tree("src")
    with caught(subprocess.Popen) as process:
        said = ended(process, signal.SIGINT)
    assert process.returncode == 130 and said.strip() == "growkit: interrupted; nothing was kept"
    assert os.listdir() == ["src"] and tree("src") == before


def test_killed_run_leaves_what_the_next_run_clears_away(src):
    before = tree("src")
    with caught(subprocess.Popen) as process:
        result = run(*WIDEN, "-o", "out")  # meanwhile, a second one
        assert result.exit_code == 2 and "another growkit is writing" in result.stderr
        ended(process, signal.SIGKILL)
    assert sorted(os.listdir()) == ["out.partial", "src"] and "UNFINISHED" in os.listdir("out.partial")
    assert "config.json" not in os.listdir("out.partial")
    for leftover in ("out.partial", "out.partial/model.safetensors"):
        refused(
            "inspect",
            leftover,
            "--family",
            "llama",
            "--source-heads",
            "4",
            says=f"'{leftover}' is unfinished: growkit is at it, or was stopped",
        )
    thesis("out.partial/1_Pooling")  # as a run with other options may have left it
    assert run(*WIDEN, "-o", "out").exit_code == 0
    assert run(*WIDEN, "-o", "fresh").exit_code == 0
    assert list(tree("out").values()) == list(tree("fresh").values())
    assert sorted(os.listdir()) == ["fresh", "out", "src"] and tree("src") == before
