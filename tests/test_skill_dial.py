"""A skill turned like a dial: at each strength the loss of the model with that strength plugged in."""

import json
from pathlib import Path

import pytest
import tiny
import tiny_runs
import torch
from panels import plain_panel
from refusing import cases, refused, run
from skills import skill_on

import growkit

USUAL = dict(context=16, limit=64)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.make("llama", dtype=torch.float32).save_pretrained("base")
    plain_panel(Path("base"), Path("panel"))
    skill_on("panel", "skill", adapter=1, seed=1, strength=0.1)
    tiny_runs.dataset(Path("walk"), 1000)
    tiny_runs.tagged_dataset(Path("tagged"))


def test_a_loss_is_that_of_the_model_with_so_much_plugged_in(bench):
    seen = growkit.skill_dial("base", "skill", ["walk=walk", "tagged=tagged"], points=3, **USUAL)
    assert seen.strengths == (-0.5, 0.0, 0.5, 1.0, 1.5) and seen.losses.keys() == {"walk", "tagged/a", "tagged/b"}
    for strength, loss in zip(seen.strengths, seen.losses["walk"]):
        growkit.skill_plug("base", [("skill", strength)], f"at{strength}")
        plugged = growkit.evaluate(f"at{strength}", "walk", **USUAL).loss
        assert loss == pytest.approx(plugged, abs=1e-5)
        assert strength or loss == growkit.evaluate("base", "walk", **USUAL).loss == plugged
    assert len({*seen.losses["walk"]}) == 5
    assert seen.losses["walk"][seen.strengths.index(seen.best("walk"))] == min(seen.losses["walk"])


def test_it_is_shown_and_drawn(bench):
    line = [
        "skill",
        "dial",
        "base",
        "skill",
        "--data",
        "walk=walk",
        "--points",
        "2",
        "--context",
        "16",
        "--limit",
        "64",
    ]
    told = run(*line, "--picture", "dial.svg")
    assert told.exit_code == 0 and "+1.50" in told.stdout and "wrote dial.svg" in told.stdout
    assert Path("dial.svg").read_text().lstrip().startswith("<?xml")
    said = json.loads(run(*line, "--json").stdout)
    assert said["strengths"] == [-0.5, 0.0, 1.0, 1.5] and len(said["losses"]["walk"]) == 4
    refused(*line, "--picture", "dial.svg", says="--picture 'dial.svg' exists; choose another name")


NO = [
    ("base skill --data walk", "--data 'walk' should be NAME=DATA, each name once"),
    ("other skill --data a=walk", "was made for 'base', weights of SHA-256"),
    ("base panel --data a=walk", "is no skill: it has no skill.json"),
    ("base skill --data a=nothing", "'nothing'"),
    ("base skill --data a=walk --picture dial.txt", "should end in .svg, .png or .pdf"),
]


@pytest.mark.parametrize(("words", "says"), cases(NO))
def test_what_has_no_dial(bench, words, says):
    tiny.make("llama", dtype=torch.float32, seed=5).save_pretrained("other")
    refused("skill", "dial", *words.split(), says=says)
