"""Tuning on conversations: answers alone are learned, tasks are mixed, validated each, and named by stages."""

import json
import math
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import pair
from refusing import cases, refused, run
from tiny_runs import NAMES, SIZES, Stopped, ask, conversations, curve, losses_of, same, stops_at, weights

import growkit
from growkit.data.batches import IGNORED
from growkit.data.packing import Mixing
from growkit.errors import RequestError
from growkit.reports import runs
from growkit.training import pretrain
from growkit.training.run_batches import asked_mix


@pytest.fixture(scope="module")
def talks(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("talks")
    conversations(folder / "tasks")
    conversations(folder / "untagged", names=())
    conversations(folder / "long", longest=60)
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def tuned(world, talks, out, resume=False, watch=lambda _: None, **more):
    usual = dict(model="llama", command="tune", data=str(talks / "tasks"), seq_len=24, steps=6, eval_tokens=2400)
    return pretrain.pretrain(ask(world, out, **{**usual, **more}), resume, watch)


def told(out, kind):
    return [
        line for line in map(json.loads, Path(out, "metrics.jsonl").read_text().splitlines()) if line["kind"] == kind
    ]


def test_the_loss_is_of_answers_alone_however_they_lie_in_rows_and_processes(world, talks):
    """By hand: each conversation of the first step by itself, the mean over all their answer tokens."""
    one = tuned(world, talks, "one").run
    plain = pretrain.open_run(ask(world, "plain", model="llama", command="tune", data=str(talks / "tasks"), seq_len=24))
    plain.begin()
    plain.release()
    nats = count = 0
    with torch.no_grad():
        for row in plain.train.drawn(0, 0, 4):
            for number in row:
                first, length = plain.train._firsts[number], plain.train._lengths[number]
                ids = torch.from_numpy(plain.train.tokens.ids[first : first + length + 1].astype(int))[None]
                logits = plain.student.model.eval()(input_ids=ids[:, :-1]).logits[0]
                answers = torch.where(torch.arange(1, length + 1) > 2, ids[0, 1:], IGNORED)
                nats += torch.nn.functional.cross_entropy(logits, answers, reduction="sum").item()
                count += int((answers != IGNORED).sum())
    assert count == one.train.predicted(0) < 4 * 24
    assert losses_of("one")[0] == pytest.approx(nats / count, abs=1e-5) and losses_of("one")[-1] < losses_of("one")[0]
    tuned(world, talks, "parts", grad_accum=2)
    assert pair(lambda: tuned(world, talks, "two", grad_accum=2) and 0) == [0, 0]
    for other in ("parts", "two"):
        assert losses_of(other) == pytest.approx(losses_of("one"), abs=1e-5)
        val = [[point.loss for point in runs.read_run(name).val] for name in (other, "one")]
        assert val[0] == pytest.approx(val[1], abs=1e-5) and val[0]


def test_each_task_is_validated_and_the_whole_is_their_mean(world, talks):
    tuned(world, talks, "run", steps=40, lr=3e-3, eval_every=20)
    first, *_, last = told("run", "val")
    assert list(last["domains"]) == list(NAMES)
    assert min(last["domains"].values()) < last["loss"] < max(last["domains"].values())
    assert all(last["domains"][name] < first["domains"][name] for name in NAMES)


def shares(source, steps):
    """Of the conversations that steps see, those of each task."""
    seen = np.concatenate([np.concatenate(source.drawn(step, 0, source.size)) for step in steps])
    return np.bincount(source._tasks[seen], minlength=3) / len(seen)


def test_tasks_are_drawn_as_asked(world, talks):
    for mix, wanted in (
        (None, (0.6, 0.3, 0.1)),
        (1e9, (1 / 3,) * 3),
        ({"ask": 1.0, "copy": 0.0, "sum": 3.0}, (0.25, 0, 0.75)),
    ):
        going = pretrain.open_run(
            ask(world, "run", model="llama", command="tune", data=str(talks / "tasks"), seq_len=24, mix=mix)
        )
        going.release()
        going.forget()
        assert shares(going.train, range(60)) == pytest.approx(wanted, abs=0.04)


REGIMES = """[[stage]]
name = "all tasks"
steps = 5

[[stage]]
name = "one task"
steps = 5
tasks = ["sum"]
lr = 0.5
"""


def test_stages_name_their_tasks_and_go_on_bit_for_bit(world, talks):
    Path("regimes.toml").write_text(REGIMES)
    usual = dict(data=talks / "tasks", stages="regimes.toml", seq_len=24, batch_size=4, lr=1e-3, save_every=3, mix="2")
    whole = growkit.tune(world / "llama", out="whole", **usual).run
    for step in range(10):
        batch = whole.train.rows(step, 0, 4)
        assert (set(batch.of.tolist()) == {2}) == (step >= 5) and batch.predicted == whole.train.predicted(step)
    assert [line["stage"] for line in told("whole", "train")] == ["all tasks"] * 5 + ["one task"] * 5
    assert list(told("whole", "val")[-1]["domains"]) == list(NAMES)  # validation is of all

    with pytest.raises(Stopped):
        growkit.tune(world / "llama", out="part", watch=stops_at(7), **usual)
    growkit.tune(world / "llama", out="part", resume="auto", **usual)
    assert curve("part") == curve("whole") and same(weights("part/final"), weights("whole/final"))
    again = dict(usual, stages=REGIMES.replace('"sum"', '"copy"'))
    Path("other.toml").write_text(again["stages"])
    with pytest.raises(RequestError, match="other stages"):
        growkit.tune(world / "llama", out="part", resume="auto", **{**usual, "stages": "other.toml"})


def test_an_epoch_is_all_rows_once(world, talks):
    done = growkit.tune(world / "llama", talks / "tasks", "run", seq_len=24, batch_size=4, epochs=2, dry_run=True)
    going = pretrain.open_run(ask(world, "run", model="llama", command="tune", data=str(talks / "tasks"), seq_len=24))
    going.release()
    assert done.outlook.sequences // 4 == math.ceil(2 * going.train.windows / 4)
    assert 2 <= done.outlook.passes < 2.2 and not done.outlook.notes
    (note,) = growkit.tune(world / "llama", talks / "tasks", "few", seq_len=24, dry_run=True).outlook.notes
    assert note.startswith(f"all conversations lie in {going.train.windows} rows, of which a step takes 32: ")


def test_answers_that_are_cut_away_are_told_of(world, talks):
    done = growkit.tune(world / "llama", talks / "long", "run", seq_len=4, batch_size=4, steps=1, dry_run=True)
    assert not done.outlook.notes
    conversations(Path("late"), longest=60)
    marks = np.fromfile("late/train.learned", np.uint8)
    starts = np.load("late/train.idx.npy")
    for first, last in pairwise(starts):
        marks[first:last] = np.arange(last - first) >= (last - first) // 2
    marks.tofile("late/train.learned")
    shown = run(
        "tune", world / "llama", "--data", "late", "--out", "run", "--seq-len", "16", "--steps", "1", "--dry-run"
    )
    assert shown.exit_code == 0 and "answers begin beyond --seq-len 16" in shown.output.replace("\n", " ")


def test_the_plan_tells_what_becomes_of_conversations(world, talks):
    line = ["tune", world / "llama", "--data", talks / "tasks", "--out", "run", "--seq-len", "12", "--dry-run"]
    rows = json.loads(run(*line, "--json").stdout)["rows"]
    assert rows["conversations"] == sum(SIZES) == rows["answers"] and rows["dropped"] == 0 < rows["tokens_cut"]
    assert rows["rows"] * 12 == rows["padded"] + rows["tokens"] - rows["tokens_cut"] - rows["conversations"]
    shown = " ".join(run(*line).stdout.split())
    assert f"100 conversations in {rows['rows']} rows: {rows['padded']} places padded" in shown


def test_the_template_that_the_data_was_made_with_goes_along(world, talks):
    for name, source in (("llama", world / "llama"), ("talks", talks / "tasks")):
        shutil.copytree(source, name)
    Path("llama/chat_template.jinja").write_text("its own")
    usual = dict(seq_len=24, batch_size=4, steps=1)
    growkit.tune("llama", "talks", "plain", **usual)
    assert Path("plain/final/chat_template.jinja").read_text() == "its own"
    Path("talks/chat_template.jinja").write_text("another")
    growkit.tune("llama", "talks", "run", **usual)
    assert Path("run/final/chat_template.jinja").read_text() == "another"


def test_what_is_learned_is_part_of_what_a_run_goes_on_with(world, talks):
    conversations(Path("data"))
    usual = dict(seq_len=24, batch_size=4, steps=2)
    growkit.tune(world / "llama", "data", "run", **usual)
    marks = np.fromfile("data/train.learned", np.uint8)
    marks[-1] = 0
    marks.tofile("data/train.learned")
    with pytest.raises(RequestError, match="other bytes in learned"):
        growkit.tune(world / "llama", "data", "run", resume="auto", **usual)


REFUSED = [  # command, model, data, options, what is said
    ("pretrain", "llama", "tasks", "", "of which answers alone are learned; growkit tune does that"),
    ("tune", "bert", "tasks", "", "conversations are learned by models that predict the next token, not by bert"),
    ("tune", "llama", "data", "--mix 2", "--mix mixes tasks, which are those of conversations"),
    ("tune", "llama", "data", "--stages regimes.toml", "stage 'one task' names tasks, which are those of conversations"),
    ("tune", "llama", "untagged", "--stages regimes.toml", "stage 'one task' names tasks, and the conversations of"),
    ("tune", "llama", "untagged", "--mix 2", "tasks are mixed where conversations are tagged with them"),
    ("tune", "llama", "tasks", "--stages other.toml", "task 'sing' is no task of the data, which has ask, copy, sum"),
    ("tune", "llama", "tasks", "--mix ask=1 --mix copy=1", "task 'sum' has no weight"),
    ("tune", "llama", "tasks", "--mix ask", "--mix 'ask' should be a temperature such as 2, or name=weight"),
    ("tune", "llama", "tasks", "--mix 0", "the temperature 0.0 that tasks are mixed at should be more than 0"),
    ("tune", "llama", "tasks", "--mix ask=1 --mix ask=2", "should be a temperature such as 2, or name=weight"),
    ("tune", "llama", "tasks", "--stages regimes.toml --mix ask=1 --mix copy=1 --mix sum=0", "the tasks sum are 0"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "model", "data", "options", "says"), cases(REFUSED))
def test_refusals(world, talks, command, model, data, options, says):
    Path("regimes.toml").write_text(REGIMES)
    Path("other.toml").write_text(REGIMES.replace('"sum"', '"sing"'))
    where = (world if data == "data" else talks) / data
    length = [] if "--stages" in options else ["--steps", "2"]
    refused(
        command, world / model, "--data", where, "--out", "run", "--seq-len", "16", *length, *options.split(), says=says
    )


def test_mixes_as_people_write_them():
    assert asked_mix(["ask=0.5", "sum=2"]) == {"ask": 0.5, "sum": 2.0}
    assert asked_mix("2") == asked_mix(["2"]) == asked_mix(2) == 2 and asked_mix(None) is None
    assert Mixing(only=("sum",)).shares(NAMES, SIZES).tolist() == [0, 0, 1]
    assert Mixing(only=("copy", "sum")).shares(NAMES, SIZES).tolist() == pytest.approx([0, 0.75, 0.25])
