"""Metrics on boards: what Weights & Biases gets of a run, by a fake that records its calls, and that training goes on
without any board. TensorBoard's files are read back in test_pretrain.py.
"""

import json
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from refusing import refused, run, tree
from tiny_runs import ask, line

from growkit.training import pretrain


class Halted(Exception):
    """What stops a run in a test."""


@pytest.fixture(autouse=True)
def wandb(tmp_path, monkeypatch):
    """A module that stands for wandb's. begun: what init was told each time; lines, ended: what became of the last."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_DIR", "WANDB_RUN_ID", "WANDB_NAME"):
        monkeypatch.delenv(name, raising=False)
    fake = SimpleNamespace(begun=[], lines=[], ended=[], axes=[], fails={})

    def asked(name, note, *values):
        if name in fake.fails:
            raise fake.fails[name]
        note(*values)

    def init(**how):
        asked("init", fake.begun.append, how)
        Path(how["dir"], "wandb").mkdir(exist_ok=True)
        return SimpleNamespace(
            define_metric=lambda name, step_metric: fake.axes.append((name, step_metric)),
            log=lambda scalars: asked("log", fake.lines.append, scalars),
            finish=lambda exit_code: asked("finish", fake.ended.append, exit_code),
        )

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    return fake


def said(kind="train"):
    lines = map(json.loads, Path("run/metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == kind]


def test_wandb_gets_what_metrics_jsonl_says(world, wandb):
    s = ask(world, "run", steps=4, eval_every=2, wandb=True)
    pretrain.pretrain(s)
    (how,) = wandb.begun
    assert how["dir"] == "run" and how["name"] == "run" and how["resume"] == "allow" and how["allow_val_change"]
    assert how["config"] == s.to_json() | {k: how["config"][k] for k in ("hashes", "precision")}
    assert how.keys() == {"dir", "id", "name", "config", "resume", "allow_val_change"}, "all else is wandb's to decide"
    assert wandb.axes == [("*", "step")] and wandb.ended == [0]
    for kind in ("train", "val"):
        wanted = [
            {
                "step": one["step"],
                **{f"{kind}/{k}": v for k, v in one.items() if type(v) in (int, float) and k != "step"},
            }
            for one in said(kind)
        ]
        assert [one for one in wandb.lines if f"{kind}/loss" in one] == wanted and len(wanted) == (
            4 if kind == "train" else 2
        )


def stopped_after(world, told, **asked):
    """A run that was told to stop after so many steps; returns how many it did."""

    def stop(line):
        if line.get("step") == told and line["kind"] == "train":
            signal.raise_signal(signal.SIGTERM)

    done = pretrain.pretrain(ask(world, "run", **asked), watch=stop)
    assert done.folder is None
    return done.step


def test_a_run_that_goes_on_is_the_same_run_there(world, wandb):
    asked = dict(steps=8, save_every=4, wandb=True)
    last = stopped_after(world, 5, **asked)
    shutil.rmtree(f"run/checkpoints/step-{last:08}")  # as where it was killed
    pretrain.pretrain(ask(world, "run", **asked), resume=True)
    first, second = wandb.begun
    assert first["id"] == second["id"] == json.loads(Path("run/wandb.json").read_text())["id"] and wandb.ended == [0, 0]
    assert [one["step"] for one in wandb.lines if "train/loss" in one] == [*range(1, last + 1), *range(5, 9)]
    pretrain.pretrain(ask(world, "run", **asked), resume=True)
    assert len(wandb.begun) == 2, "a run that is done shows nothing more"
    pretrain.pretrain(ask(world, "other", **asked))
    assert wandb.begun[-1]["id"] != first["id"]


def test_asked_for_only_when_it_goes_on(world, wandb):
    last = stopped_after(world, 3, steps=6)
    assert not wandb.begun and not Path("run/wandb.json").exists()
    pretrain.pretrain(ask(world, "run", steps=6, wandb=True), resume=True)
    assert [one["step"] for one in wandb.lines if "train/loss" in one] == [*range(last + 1, 7)] != []


def test_a_run_that_fails_is_shown_as_one(world, wandb):
    def halt(_):
        raise Halted

    with pytest.raises(Halted):
        pretrain.pretrain(ask(world, "run", steps=2, wandb=True), watch=halt)
    assert wandb.ended == [1]


def test_variables_of_wandbs_own_decide(world, wandb, monkeypatch):
    for name in ("WANDB_DIR", "WANDB_RUN_ID", "WANDB_NAME"):
        Path(f"my-{name}").mkdir()
        monkeypatch.setenv(name, f"my-{name}")
    pretrain.pretrain(ask(world, "run", steps=1, wandb=True))
    assert [wandb.begun[0][key] for key in ("dir", "id", "name")] == [
        "my-WANDB_DIR",
        "my-WANDB_RUN_ID",
        "my-WANDB_NAME",
    ]


@pytest.mark.parametrize("absent", [None, SimpleNamespace()], ids=["nothing", "a folder"])
def test_wandb_that_is_missing(world, monkeypatch, absent):
    monkeypatch.setitem(sys.modules, "wandb", absent)
    for more in ([], ["--dry-run"]):
        refused(*line(world, "--wandb", *more), says="--wandb needs an extra: pip install 'growkit[wandb]'")


def test_wandb_that_begins_no_run_leaves_none(world, wandb):
    wandb.fails["init"] = ValueError("No API key configured.\nmore")
    refused(*line(world, "--wandb"), says="No API key configured); log in with wandb login, or set WANDB_MODE=offline")
    assert not tree("run") and not Path("run").exists()


@pytest.mark.parametrize("content", ["{}", '{"id": "../x"}', "[1]", '{"id": 5}'])
def test_a_key_that_is_none(world, content):
    run(*line(world))
    Path("run/wandb.json").write_text(content)
    Path("run/final/growkit.json").parent.rename("gone")
    refused(*line(world, "--wandb", "--resume", "auto"), says="wandb.json")


@pytest.mark.parametrize("call", ["log", "finish"])
def test_training_goes_on_without_a_board_that_fails(world, wandb, call):
    wandb.fails[call] = RuntimeError("the service is gone")
    lines = []
    done = pretrain.pretrain(ask(world, "run", steps=3, wandb=True), watch=lines.append)
    notes = [one["text"] for one in lines if one["kind"] == "note"]
    assert notes == ["warning: --wandb has failed and gets no more lines: the service is gone"]
    assert done.folder is not None and len(said()) == 3 and len(wandb.lines) == (0 if call == "log" else 4)
