"""How a teacher teaches where nothing is said: the weight it begins with, and when it is let go."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from refusing import refused, run
from tiny_runs import ask, curve, line, same, weights

import growkit
from growkit.training import pretrain
from growkit.training.teachers.teaching import measured_weight


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def said(out, kind: str) -> list[dict]:
    return [one for one in map(json.loads, Path(out, "metrics.jsonl").read_text().splitlines()) if one["kind"] == kind]


def test_the_weight_begins_where_the_teacher_has_something_to_say(world):
    """A half for a student that was grown exactly from this very teacher, at once or through another; for others what
    both losses say."""
    llama = world / "llama3"
    growkit.widen(llama, "wide", hidden=48)
    growkit.stack("wide", "deep", layers=6, method="identity")
    growkit.widen(llama, "aki", hidden=48, method="aki")
    growkit.widen("aki", "wider", hidden=72)
    shutil.copytree("wide", "elsewhere")
    tiny.make("llama", dtype=torch.float32, seed=9).save_pretrained("other")
    for student, teacher, more, weight in (
        ("wide", llama, [], 0.5),
        ("elsewhere", llama, [], 0.5),
        ("deep", llama, [], 0.5),
        ("deep", "wide", [], 0.5),
        ("aki", llama, [], None),
        ("wider", "aki", [], 0.5),
        ("wider", llama, [], None),
        ("wide", "other", [], None),
        (llama, llama, [], None),
        (llama, "wide", [], None),
        ("wide", llama, ["--teacher-weight", "0.9"], 0.9),
        ("aki", llama, ["--teacher-schedule", "constant"], 0.5),
    ):
        told = run(*line(world, "--teacher", teacher, *more, "--dry-run", "--json", model=Path(student).absolute()))
        assert told.exit_code == 0, told.output
        (note,) = json.loads(told.stdout)["notes"]
        begins = "0 to 1 for a teacher" if weight is None else f"{weight:g} ("
        assert f"begins at {begins}" in note and ("grown exactly from this teacher: at 1" in note) == (
            weight == 0.5 and "constant" not in more
        )
        assert not Path("run").exists()
    begun = pretrain.open_run(ask(world, "run", checkpoint="wide", teacher=str(llama), teacher_steps=4))
    assert [begun.lessons.alpha(step) for step in range(5)] == [0.5, 0.375, 0.25, 0.125, 0.0]
    begun.release()


def test_a_teacher_that_is_worse_at_first_never_teaches(world):
    """It is measured once, before the first step, and then it is as if there were none."""
    trained = growkit.pretrain(world / "gpt2", world / "data", "better", steps=30, seq_len=16, batch_size=8, lr=3e-3)
    usual = dict(checkpoint=str(trained.folder), steps=6, eval_every=3)
    pretrain.pretrain(ask(world, "none", **usual))
    taught = pretrain.open_run(ask(world, "taught", teacher=str(world / "teacher"), teacher_steps=6, **usual))
    pretrain.carry_through(taught)
    assert curve("taught") == curve("none") and same(weights("taught/final"), weights("none/final"))
    assert taught.lessons.teacher is None and [one["step"] for one in said("taught", "val")] == [0, 3, 6]
    assert [one["step"] for one in said("none", "val")] == [3, 6] and not said("none", "note")
    assert "before the first step; it learns alone" in said("taught", "note")[1]["text"]


def test_where_nobody_can_tell(world):
    """Without a validation split a teacher teaches for its steps, and a note says so; to be asked for more is
    refused."""
    whole = str(world / "data" / "train.bin")
    usual = ["--data", whole, "--teacher", world / "llama3", "--teacher-steps", "2", "--steps", "4"]
    done = run(*line(world, *usual))
    assert done.exit_code == 0, done.output
    assert [one["alpha"] for one in said("run", "train")] == [1.0, 0.5, 0.0, 0.0]
    assert "no validation split" in said("run", "note")[1]["text"]
    refused(*line(world, *usual, "--teacher-until", "overtaken", out="other"), says="no validation split")
    for option in ("--teacher-weight 0.5", "--teacher-until steps", "--teacher-steps 3"):
        refused(*line(world, *option.split(), out="other"), says="add --teacher CKPT")


def test_a_teacher_that_became_another(world):
    """A run goes on with the bytes it began with."""
    shutil.copytree(world / "teacher", "teacher")
    asked = ask(world, "run", teacher="teacher", teacher_steps=6, teacher_until="steps", steps=6, save_every=3)
    pretrain.pretrain(asked)
    shutil.rmtree("run/final")
    tiny.make("gpt2", dtype=torch.float32, seed=5, n_layer=1).save_pretrained("teacher")
    with pytest.raises(growkit.RequestError, match="other bytes in teacher"):
        pretrain.pretrain(asked, True)


def test_a_weight_that_is_measured(world):
    """Where it begins follows from both losses before the first step, and a run that was stopped goes on from it."""
    taught = dict(model="llama3", teacher=str(world / "teacher"), teacher_steps=6, steps=8, save_every=2)
    growkit.pretrain(world / "teacher", world / "data", "better", steps=120, seq_len=16, batch_size=8, lr=6e-3)
    taught["teacher"] = "better/final"
    pretrain.pretrain(ask(world, "whole", **taught))
    first = said("whole", "val")[0]["loss"]
    model = pretrain.open_run(ask(world, "asked", **taught))
    share = 1.0 - model.lessons.teacher.validation_loss(model.val) / first
    model.release()
    alphas = [one["alpha"] for one in said("whole", "train")]
    weight = (share - 0.25) / 0.25
    assert 0.0 < weight < 1.0 and alphas == pytest.approx([weight * (1 - step / 6) for step in range(6)] + [0.0] * 2)
    assert f"begins at {weight:.3f}" in said("whole", "note")[1]["text"]

    def stop(line) -> None:
        if line["kind"] == "train" and line["step"] == 5:
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        pretrain.pretrain(ask(world, "part", **taught), watch=stop)
    pretrain.pretrain(ask(world, "part", **taught), True)
    assert curve("part") == curve("whole") and same(weights("part/final"), weights("whole/final"))
    assert [one["step"] for one in said("part", "val")] == [one["step"] for one in said("whole", "val")]


@pytest.mark.parametrize(("theirs", "weight"), [(4.0, 0.0), (3.0, 0.0), (2.5, 0.5), (2.0, 1.0), (1.0, 1.0), (9.0, 0.0)])
def test_what_a_teacher_takes_away_is_its_weight(theirs, weight):
    """A quarter of the model's loss or less: nothing; a half or more: all."""
    assert measured_weight(4.0, theirs) == pytest.approx(weight)


def test_a_weak_teacher_does_no_harm(world):
    """Nor does one that is better than the model ends: within 0.02 of alone or better, where held it costs a tenth and
    more."""
    usual = dict(seq_len=16, batch_size=8, lr=3e-3, eval_every=5, eval_tokens=480, save_every=100)
    tiny.make("llama", dtype=torch.float32, seed=4, num_hidden_layers=1).save_pretrained("small")

    def end(out: str, checkpoint=world / "llama3", steps=30, **more) -> float:
        return growkit.pretrain(checkpoint, world / "data", out, steps=steps, **{**usual, **more}).loss

    alone = end("alone")
    for steps in (12, 50):
        teacher = dict(teacher=f"teacher{steps}/final")
        end(f"teacher{steps}", "small", steps)
        assert end(f"taught{steps}", **teacher) <= alone + 0.02
        held = dict(teacher_until="steps", teacher_schedule="heaviside", teacher_steps=30)
        assert end(f"held{steps}", **teacher, **held) > alone + 0.1
