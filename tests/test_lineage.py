"""Which checkpoint is meant when none is named: the one here, or the one growth below that nothing was grown from yet.
And `stack` and `grow` as people type them.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from on_disk import saved, written
from refusing import cases, refused, run, tree

import growkit
from growkit.checkpoint.lineage import current_checkpoint


@pytest.fixture
def src(tmp_path, monkeypatch):
    """A tiny model of 3 layers as `src` in the current folder."""
    monkeypatch.chdir(tmp_path)
    saved("llama", Path("src"))
    return Path("src")


def test_as_typed(src):
    """One file and its config in the current folder; no source named the second time."""
    os.rename("src/model.safetensors", "src.safetensors")
    os.rename("src/config.json", "config.json")
    shutil.rmtree("src")
    before = tree()
    widened, stacked = run("widen", "src.safetensors", "--hidden", "48"), run("stack", "--layers", "6")
    assert widened.exit_code == stacked.exit_code == 0, widened.output + stacked.output
    assert "same function" in widened.stdout and "1..3 1..3" in stacked.stdout
    assert sorted(os.listdir()) == ["config.json", "src-h48", "src-h48-l6", "src.safetensors"]
    assert {path: entry for path, entry in tree().items() if path in before} == before
    assert json.loads(Path("src-h48-l6/config.json").read_text())["num_hidden_layers"] == 6
    assert run("grow", "src.safetensors", "--hidden", "48", "--layers", "6", "--no-verify", "-o", "once").exit_code == 0
    assert written(Path("once")) == written(Path("src-h48-l6"))


def test_the_checkpoint_that_is_meant(src, monkeypatch):
    def means(expected):
        assert current_checkpoint(Path()) == Path(expected)

    growkit.widen("src", "b", hidden=48)
    means("b")
    growkit.stack(out="c", layers=4)
    means("c")
    growkit.widen("c", "deep/er/d", ffn=99)
    means("deep/er/d")
    os.rename("b", "renamed")  # a record goes by what it says, not by where it lies
    means("deep/er/d")
    Path("half").mkdir()
    shutil.copytree("deep/er/d", "half/e")
    edit_record("half/e", "seed")
    Path("half/UNFINISHED").touch()
    shutil.copytree("half/e", ".trash/e")
    means("deep/er/d")
    monkeypatch.chdir("renamed")  # in a checkpoint, that one; its result goes beside it
    means(".")
    result = run("stack", "--layers", "5", "--no-verify")
    assert result.exit_code == 0 and Path("../renamed-l5/config.json").exists(), result.output
    monkeypatch.chdir("../src")
    means(".")


def edit_record(folder, request):
    """Another growth's record."""
    path = Path(folder) / "growkit.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"request": request}))


def test_one_file_in_the_current_folder_is_meant_until_something_grew_from_it(src, monkeypatch):
    monkeypatch.chdir(src)
    os.remove("adam.safetensors")
    os.rename("model.safetensors", "mine.safetensors")
    assert current_checkpoint(Path()) == Path("mine.safetensors")
    growkit.stack(out="deeper", layers=4)
    assert current_checkpoint(Path()) == Path("deeper")


def fused_leaf():
    growkit.widen("src", "b", hidden=48)
    growkit.widen("src", "c", hidden=48, seed=1)
    growkit.stack(["b", "c"], "both")


def test_several_sources_of_one_result_are_all_used(src):
    fused_leaf()
    assert current_checkpoint(Path()) == Path("both")


LINEAGE = [  # what is there, part of the sentence
    (lambda: shutil.rmtree("src"), "no checkpoint in or below"),
    (lambda: None, "say which checkpoint you mean: src"),
    (lambda: shutil.copytree("src", "other"), "say which checkpoint you mean: other, src"),
    (
        lambda: [growkit.widen("src", n, hidden=h) for n, h in (("b", 48), ("c", 72))],
        "say which checkpoint you mean: b, c",
    ),
    (lambda: (growkit.widen("src", "b", hidden=48), growkit.widen("src", "x/y/c", ffn=99)), "you mean: b, x/y/c"),
    (lambda: (fused_leaf(), growkit.widen("b", "d", ffn=200)), "you mean: both, d"),
    (lambda: (growkit.widen("src", "b", hidden=48), other_here()), "you mean: other.safetensors, b"),
    (
        lambda: (growkit.widen("src", "b", hidden=48), Path("b/growkit.json").write_text("{")),
        "growkit.json' is no valid JSON",
    ),
]


def other_here():
    tiny.make("llama", seed=5, dtype=torch.float32).save_pretrained("o")
    os.rename("o/model.safetensors", "other.safetensors")
    os.rename("o/config.json", "config.json")
    shutil.rmtree("o")


@pytest.mark.parametrize("prepare, says", cases(LINEAGE))
def test_a_checkpoint_that_is_not_clear(src, prepare, says):
    prepare()
    refused("stack", "--layers", "400", says=says)


def test_what_is_shown_and_where_it_goes(src):
    before = tree()
    shown = run("grow", "src", "--hidden", "48", "--layers", "5", "--depth", "identity", "--dry-run")
    assert shown.exit_code == 0 and "identity: 1 2 (2) 3 (3)" in shown.stdout and "Dry run" in shown.stdout, (
        shown.output
    )
    plan = json.loads(run("stack", "src", "--method", "solar", "--overlap", "1", "--dry-run", "--json").stdout)
    assert (
        plan["command"] == "stack" and plan["exactness"] == "approximate" and plan["config"] == {"num_hidden_layers": 4}
    )
    assert plan["axes"][-1]["how"] == "solar: 1 2 2 3" and plan["request"]["depth"] == {
        "method": "solar",
        "overlap": 1,
    }
    assert tree() == before
    for args, name in [
        ("stack src --layers 6", "src-l6"),
        ("stack src --layers 5 --method top", "src-l5-top"),
        ("stack src src --slices A:1,B:2-3", "src+src-l3-slices"),
        ("grow src --hidden 48 --layers 4 --method aki", "src-h48-aki-l4"),
        ("grow src --like src-l6", "src-h24-heads4-kv2-d6-ffn40-l6"),
    ]:
        grown = json.loads(run(*args.split(), "--json", "--no-verify").stdout)
        assert grown["folder"] == name and Path(name, "config.json").exists() and grown["verify"] is None
    grown = json.loads(run("stack", "src", "--layers", "4", "--method", "identity", "--json").stdout)
    assert grown["verify"]["ok"] and grown["verify"]["exactness"] == "exact" and grown["folder"] == "src-l4-identity"
