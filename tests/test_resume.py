"""Runs that are stopped, that go on, that many processes share: nothing of it changes what is computed."""

import errno
import io
import json
import os
import pickle
import re
import shutil
import signal
import threading
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from processes import GUARD, KILL, blocked_until, child, ended, killing, pair, port, said
from refusing import refused, run
from safetensors.torch import load_file, save_file
from tiny_runs import ask, curve, kept_moments, line, losses_of, same, tokenizer, weights
from torch.distributed import run as torchrun

import growkit.__main__
from growkit.checkpoint.headers import read_header
from growkit.errors import CheckpointError, RequestError
from growkit.reports import runs
from growkit.training import checkpoints as state
from growkit.training import loop, pretrain, saved, step
from growkit.training.settings import Settings
from growkit.training.state_files import read_plan


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# ---------------------------------------------------------------- stopped and gone on


def train(settings: Settings, resume: bool = False, signals=(None, 0)) -> int:
    """A run. signals: (number, step): it sends one to itself after that step."""
    kind, step = signals
    watch = lambda line: os.kill(os.getpid(), kind) if kind and line.get("step") == step else None  # noqa: E731
    pretrain.pretrain(settings, resume, watch)
    return 0


def started(s: Settings, arm=lambda: None, signals=(None, 0)) -> int:
    return child(lambda: train(s, True, signals), arm)


MOMENTS = {
    "in the first steps": dict(arm=killing(step, "learn", 3)),
    "in a save": dict(arm=killing(state, "own_share", after=True)),
    "at its end": dict(arm=killing(os, "rename", 2)),
    "in stage 1": dict(signals=(KILL, 4)),
    "in an export": dict(arm=killing(saved, "write_moments")),
    "after a growth": dict(arm=killing(pretrain, "grow_stage", after=True)),
    "politely": dict(signals=(signal.SIGTERM, 8)),
    "in the last export": dict(arm=killing(pretrain, "_record")),
}


@pytest.mark.parametrize(("schedule", "moments"), {"two-stage": "01236", "stackbert": "4567", "mslt": "453"}.items())
def test_killed_at_any_moment(world, schedule, moments):
    """Started again and again with the same line, the same run comes out, bitwise."""
    pretrain.pretrain(ask(world, "whole", schedule))
    s, chosen = ask(world, "run", schedule), [list(MOMENTS.values())[int(number)] for number in moments]
    codes = [ended(started(s, **moment)) for moment in chosen]
    assert codes == [0 if moment is MOMENTS["politely"] else -KILL for moment in chosen]
    pretrain.pretrain(s, True)
    assert curve("run") == curve("whole") and len(curve("run")) == 12
    assert same(weights("run/final"), weights("whole/final"))
    assert same(
        load_file("run/final/optimizer/optimizer.safetensors"), load_file("whole/final/optimizer/optimizer.safetensors")
    )


def test_what_a_killed_growth_left_is_not_in_the_way(world):
    """As where a run is killed while it clears away the stage that it has just made anew."""
    s = ask(world, "run", "stackbert")
    pretrain.pretrain(ask(world, "whole", "stackbert"))
    assert ended(started(s, arm=killing(pretrain, "grow_stage", after=True))) == -KILL
    for end in (".partial", ".replaced.partial"):
        Path(f"run/stages/1{end}").mkdir()
        Path(f"run/stages/1{end}/half").touch()
    pretrain.pretrain(s, True)
    assert curve("run") == curve("whole") and not list(Path("run/stages").glob("*.partial"))


def test_a_result_is_whole_before_it_has_its_name(world, monkeypatch):
    """The last that is said of it is said inside the unfinished folder; where that fails, nothing of the name is
    there."""
    there, said = [], pretrain._record

    def noting(settings):
        there.append({path.name: sorted(file.name for file in path.iterdir()) for path in Path("run").glob("final*")})
        return said(settings)

    def failing(settings):
        raise OSError(28, "No space left on device")

    s = ask(world, "run")
    monkeypatch.setattr(pretrain, "_record", failing)
    with pytest.raises(RequestError, match=r"could not write .*run/final': No space left on device; nothing was kept"):
        pretrain.pretrain(s)
    assert not list(Path("run").glob("final*"))
    monkeypatch.setattr(pretrain, "_record", noting)
    Path("run/final.partial").mkdir()  # as where it is killed just before it names it, all being there
    Path("run/final.partial/half").touch()
    pretrain.pretrain(s, True)
    (folders,) = there
    assert list(folders) == ["final.partial"], "nobody sees a part of it under the name"
    whole = {path.name for path in Path("run/final").iterdir()}
    assert {*folders["final.partial"]} == whole - {"growkit.json", "README.md"} | {"UNFINISHED"}
    assert {"optimizer", "lr_multipliers.json", "growkit.json", "config.json"} < whole


def test_damaged_checkpoints_and_a_torn_line(world):
    """Each falls back to the one before, with a note, and growkit's own reader understands what metrics.jsonl says."""
    s, lines = ask(world, "run", "two-stage"), []
    pretrain.pretrain(s)
    whole, last = curve("run"), sorted(Path("run/checkpoints").iterdir())
    (last[3] / "trainer.json").write_text("{")
    shard = next(last[2].glob("*.safetensors"))
    os.truncate(shard, shard.stat().st_size // 2)
    (last[1] / "plan.json").unlink()
    shutil.rmtree("run/final")
    pretrain.pretrain(s, True, lines.append)
    notes = [line["text"] for line in lines if line["kind"] == "note"]
    assert [note.split()[0] for note in notes[:3]] == [path.name for path in reversed(last[1:])]
    assert notes[3] == "resumed at step 3" and curve("run") == whole
    shutil.rmtree("run/checkpoints/step-00000012")
    shutil.rmtree("run/final")
    os.truncate("run/metrics.jsonl", os.path.getsize("run/metrics.jsonl") - 30)
    pretrain.pretrain(s, True)
    assert [point.loss for point in runs.read_run("run").train] == [said[0] for said in whole.values()]


class Planted:
    """What leaves a file behind where it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("executed").resolve(),)


@pytest.mark.parametrize("format", ["pickle", "torch"])
def test_what_lies_in_a_checkpoint_never_runs(world, format):
    """Whichever of its files somebody made a pickle; and none of its files is one."""
    planted = io.BytesIO()
    pickle.dump(Planted(), planted) if format == "pickle" else torch.save({"model": Planted()}, planted)
    s, lines = ask(world, "run", model="llama", steps=2, save_every=1), []
    pretrain.pretrain(s)
    first, second = state.checkpoints_in(Path("run/checkpoints"))
    names = sorted(path.name for path in second.iterdir())
    assert names == ["part-00001-of-00001.safetensors", "plan.json", "trainer.json"]
    assert read_header(second / names[0]).keys() == read_plan(second).keys()
    for name in names:
        (second / ".metadata").write_bytes(planted.getvalue())  # beside what it needs
        shutil.rmtree("run/final", ignore_errors=True)
        whole = (second / name).read_bytes()
        (second / name).write_bytes(planted.getvalue())
        pretrain.pretrain(s, True, lines.append)
        assert lines[-1]["kind"] == "save" and lines.pop(0)["text"].startswith("step-00000002 cannot be used")
        (second / name).write_bytes(whole)
        lines.clear()
    (first / "plan.json").unlink()
    (second / "plan.json").unlink()
    shutil.rmtree("run/final")
    for name in (".metadata", "__0_0.distcp"):
        (second / name).write_bytes(planted.getvalue())
    with pytest.raises(RequestError, match=r"step-00000002' holds pickles.*before 0\.3.*another --out"):
        pretrain.pretrain(s, True)
    with pytest.raises(RequestError, match="holds pickles"):  # not passed by in favour of an older one
        state.trainer_of(second)
    assert not Path("executed").exists()
    (torch.load(planted, weights_only=False) if not planted.seek(0) and format == "torch" else pickle.load(planted))
    assert Path("executed").exists()


def _edited(name, change):
    def edit(checkpoint):
        content = json.loads((checkpoint / name).read_text())
        (checkpoint / name).write_text(json.dumps(change(content)))

    return edit


def _moved(checkpoint):
    (checkpoint / "part-00001-of-00001.safetensors").rename(checkpoint / "part-00001-of-00002.safetensors")


NORM = "model.model.norm.weight"
PARTS = {"part-00001-of-00001.safetensors": 1}
DAMAGED = {
    "another format": (_edited("plan.json", lambda plan: plan | {"format": 2}), "format as one of 1, not 2"),
    "no tensors": (_edited("plan.json", lambda plan: plan | {"tensors": []}), "tensors as an object"),
    "a tensor less": (_edited("plan.json", lambda p: p | {"tensors": _without(p["tensors"])}), "lacks"),
    "a tensor more": (
        _edited("plan.json", lambda p: p | {"tensors": p["tensors"] | {"x": _at()}}),
        "beyond what learns",
    ),
    "another shape": (_edited("plan.json", lambda p: _with(p, _at(shape=[23]))), r"shape \[23\], not \[24\]"),
    "rows elsewhere": (_edited("plan.json", lambda p: _with(p, _at(parts=PARTS))), "from row 1 on"),
    "rows nowhere": (_edited("plan.json", lambda p: _with(p, _at(parts={}))), "0 rows"),
    "a row below 0": (
        _edited("plan.json", lambda p: _with(p, _at(parts=dict.fromkeys(PARTS, -1)))),
        "a whole number from 0, not -1",
    ),
    "another folder": (
        _edited("plan.json", lambda p: _with(p, _at(parts={"../x.safetensors": 0}))),
        "names '../x.safetensors', which",
    ),
    "another file": (_moved, "does not exist"),
}


def _at(shape=(24,), parts=None):
    return {"shape": list(shape), "parts": dict.fromkeys(PARTS, 0) if parts is None else parts}


def _with(plan, entry):
    return plan | {"tensors": plan["tensors"] | {NORM: entry}}


def _without(tensors):
    return {name: entry for name, entry in tensors.items() if name != NORM}


def test_a_checkpoint_holds_what_is_asked_for_and_nothing_else(world):
    going = pretrain.open_run(ask(world, "run", model="llama", steps=1))
    learner = pretrain.carry_through(going).run.student
    (whole,) = state.checkpoints_in(Path("run/checkpoints"))
    for number, (damage, says) in enumerate(DAMAGED.values()):
        checkpoint = Path(shutil.copytree(whole, f"copy-{number}"))
        damage(checkpoint)
        with pytest.raises(CheckpointError, match=f"copy-{number}' is damaged: .*{says}"):
            state.load(checkpoint, learner.model, learner.optimizer)
    (state_files,) = whole.glob("*.safetensors")
    tensors = load_file(state_files)
    for changed in (tensors[NORM].double(), tensors[NORM][:23].clone(), tensors[NORM][None].clone()):
        save_file(tensors | {NORM: changed}, state_files)
        with pytest.raises(CheckpointError, match="norm"):
            state.load(whole, learner.model, learner.optimizer)


SAYS_OF_ITS_STEP = {  # trainer.json: what it should not say
    "a step of text": ({"step": "3"}, "step as a whole number from 0, not '3'"),
    "a step below 0": ({"step": -3}, "step as a whole number"),
    "a step like 1e40": ({"step": 10**40}, "step as a whole number"),
    "another step": ({"step": 2}, "is of step 2, not of step-00000003"),
    "a stage of a longer run": ({"stage": 9}, "of a longer run"),
    "no stage": ({"stage": KeyError}, "lacks 'stage'"),
    "a flag that is a number": (
        {"teachers": {"": {"overtaken": 1, "loss": None}}},
        "teachers.''.overtaken as true or false, not 1",
    ),
    "flops that are none": ({"flops": float("nan")}, "flops as a finite number from 0, not nan"),
    "seconds without end": ({"elapsed_s": float("inf")}, "elapsed_s as a finite number from 0, not inf"),
    "tokens in a list": ({"tokens": [1]}, r"tokens as a whole number from 0, not \[1\]"),
    "nothing but text": ("[" * 3000, "no valid JSON"),
    "a list": ([], "a JSON object"),
}


def test_what_a_checkpoint_should_not_say_of_its_step(world):
    """It is passed by with the reason in a note, for the one before."""
    s = ask(world, "run", model="llama", steps=3, save_every=1)
    pretrain.pretrain(s)
    said = Path("run/checkpoints/step-00000003/trainer.json")
    whole = json.loads(said.read_text())
    for change, says in SAYS_OF_ITS_STEP.values():
        if isinstance(change, dict):
            changed = {key: value for key, value in (whole | change).items() if value is not KeyError}
        said.write_text(change if isinstance(change, str) else json.dumps(changed if isinstance(change, dict) else []))
        shutil.rmtree("run/final")
        lines = []
        pretrain.pretrain(s, True, lines.append)
        assert re.search(f"^step-00000003 cannot be used, trying the one before: .*{says}", lines[0]["text"]), lines[0]
        assert lines[1]["text"] == "resumed at step 2"


@pytest.mark.parametrize("shard", ["all", "none"])
def test_a_checkpoint_of_one_process_goes_through_two_unchanged(world, shard):
    """Read by two, saved by two, read by one: bit for bit, tied weights, rows that do not divide, and steps."""
    tiny.make("llama", dtype=torch.float32, intermediate_size=41, tie_word_embeddings=True).save_pretrained("model")
    s = ask(world, "one", model=Path("model").resolve(), steps=3, save_every=3)
    learner = pretrain.pretrain(s).run.student
    (saved_by_one,) = state.checkpoints_in(Path("one/checkpoints"))
    then = kept_moments(learner) | {name: t.clone() for name, t in learner.model.state_dict().items()}

    def work():
        going = pretrain.open_run(replace(s, out="two", shard=shard))
        going.begin()
        state.load(saved_by_one, going.student.model, going.student.optimizer)
        going.saver.begin(3, going.student.model, going.student.optimizer, {})
        going.saver.settle(wait=True)
        return 0

    assert pair(work) == [0, 0]
    (saved_by_two,) = state.checkpoints_in(Path("two/checkpoints"))
    sizes = [sum(t.bytes for t in read_header(part).values()) for part in sorted(saved_by_two.glob("*.safetensors"))]
    assert len(sizes) == 2 and sizes[1] > 0.4 * sizes[0], "each writes its part"
    fresh = pretrain.open_run(replace(s, out="three"))
    fresh.begin()
    state.load(saved_by_two, fresh.student.model, fresh.student.optimizer)
    now = kept_moments(fresh.student) | {name: t.clone() for name, t in fresh.student.model.state_dict().items()}
    assert same(now, then)


def test_a_process_that_cannot_read_stops_all(world):
    """None goes on from a checkpoint that another takes for damaged."""
    s = ask(world, "one", model="llama", steps=1)
    pretrain.pretrain(s)
    (checkpoint,) = state.checkpoints_in(Path("one/checkpoints"))

    def work():
        going = pretrain.open_run(replace(s, out="two", shard="all"))
        going.begin()
        with pytest.raises(CheckpointError, match="is damaged: the second cannot"):
            state.load(checkpoint, going.student.model, going.student.optimizer)
        return 0

    def unreadable(*_):
        raise CheckpointError("the second cannot")

    assert pair(work, lambda: setattr(state, "read_state", unreadable)) == [0, 0]


def test_stopped_by_a_signal_and_gone_on_with_the_same_line(world):
    """Ctrl-C: the command saves and exits with 0; what is computed may not change, what is said and kept may."""
    started, (reading, writing) = line(world, "--steps", "300", model="bert"), os.pipe()

    def waits_at_step_three(step=loop.Run._one_step):
        def steps(self):
            step(self)
            if self.step == 3:
                os.write(writing, b"3")
                blocked_until(lambda: self.told)

        loop.Run._one_step = steps

    def work():
        result = run(*started)
        Path("said").write_text(result.stderr)
        return result.exit_code

    process = child(work, waits_at_step_three)
    os.close(writing)
    assert os.read(reading, 1) == b"3"  # nothing comes where the process has ended
    os.kill(process, signal.SIGINT)
    assert ended(process) == 0 and "--resume auto goes on" in Path("said").read_text()
    done = len(curve("run"))
    assert done < 300 and state.checkpoints_in(Path("run/checkpoints"))[-1].name == f"step-{done:08d}"
    refused(*started, says="--resume auto")
    says = "batch_size 8 (was 4); lr 0.5 (was 0.001)"
    more = ("--save-every", "9", "--resume", "auto")
    assert "save_every" not in refused(*started, "--batch-size", "8", "--lr", "0.5", *more, says=says)
    shorter = refused(*started, "--steps", "301", *more, says="steps 301 (was 300)")
    assert "other stages" in shorter


def test_data_that_becomes_shorter_under_a_run(world):
    """One sentence, not the end of the process; with the data back the run goes on."""
    data = Path(shutil.copytree(world / "data", "data"), "train.bin")
    asked, kept = line(world, "--data", "data", "--tokens", 12 * 64, "--save-every", "3"), data.read_bytes()
    assert run(*asked, "--out", "whole").exit_code == 0

    def shortened(step=loop.Run._one_step):
        def steps(self):
            step(self)
            if self.step == 5:
                os.truncate(data, 100)

        loop.Run._one_step = steps

    def work():
        result = run(*asked)
        Path("said").write_text(result.stderr)
        return result.exit_code

    assert ended(child(work, shortened)) == 2
    sentence = Path("said").read_text().strip().splitlines()[-1]
    assert "train.bin' became shorter while it was read" in sentence and not Path("run/final").exists()
    refused(*asked, "--resume", "auto", says="train.bin")
    data.write_bytes(kept)
    assert run(*asked, "--resume", "auto").exit_code == 0 and curve("run") == curve("whole")


# ---------------------------------------------------------------- saved while training goes on


def test_a_checkpoint_is_of_its_step_though_it_is_written_later(world, monkeypatch):
    """Bitwise what the model and the optimizer were; until it is written it has no name."""
    then, writing = {}, threading.Event()
    write = state.write_share
    monkeypatch.setattr(state, "write_share", lambda *a: writing.wait(GUARD) and write(*a))

    def now():
        learner = going.student
        return {**kept_moments(learner), **{name: t.clone() for name, t in learner.model.state_dict().items()}}

    def watch(line):
        if line["kind"] == "save" and line["step"] == 3:
            then.update(now())
        if line["kind"] == "train" and line["step"] > 3:
            assert not state.checkpoints_in(Path("run/checkpoints"))
        if line["kind"] == "train" and line["step"] == 5:
            writing.set()

    going = pretrain.open_run(ask(world, "run", steps=5, eval_every=99), watch=watch)
    pretrain.carry_through(going)
    last, learner = now(), going.student
    assert not any(torch.equal(then[name], last[name]) for name in then if name.endswith("exp_avg"))
    first, final = state.checkpoints_in(Path("run/checkpoints"))
    state.load(first, learner.model, learner.optimizer)
    assert state.trainer_of(first)["step"] == 3 and same(now(), then)
    state.load(final, learner.model, learner.optimizer)
    assert same(now(), last)


def _no_space(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


FAILING = {  # what fails
    "begun": (Path, "mkdir"),
    "later": (state, "write_share"),
    "the plan": (state, "write_plan"),
    "named": (state, "write_json"),
}


def test_a_checkpoint_that_cannot_be_written(world, monkeypatch):
    """One sentence with folder, reason and the last good checkpoint, exit code 1; with room the run goes on."""
    asked = line(world, "--tokens", 6 * 4 * 16, "--save-every", "2")
    assert run(*asked, "--out", "whole").exit_code == 0
    for owner, name in FAILING.values():
        does = getattr(owner, name)

        def sometimes(place, *args, does=does, **keywords):
            return (_no_space if "step-00000006" in str(place) else does)(place, *args, **keywords)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, sometimes)
            result = run(*asked)
        assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.output
        (sentence,) = (text for text in result.stderr.splitlines() if text.startswith("growkit: "))
        assert result.stderr.strip().endswith(sentence)
        for part in ("'run/checkpoints'", "No space left on device", "is step-00000004;", "--resume auto"):
            assert part in sentence, sentence
        assert [path.name for path in state.checkpoints_in(Path("run/checkpoints"))] == [
            "step-00000002",
            "step-00000004",
        ]
        assert run(*asked, "--resume", "auto").exit_code == 0
        assert curve("run") == curve("whole") and not list(Path("run/checkpoints").glob("*.partial"))
        shutil.rmtree("run")


def test_a_disk_without_room(world, monkeypatch, tmp_path):
    """What a run leaves is no more than what it asks for; with less it is refused before it begins."""
    large = tiny.make("llama", dtype=torch.float32, hidden_size=128, intermediate_size=384, num_hidden_layers=2)
    large.save_pretrained("large")  # in a smaller one names take more room than numbers
    asked = line(world, "--schedule", "stackbert", "--to-layers", "4", "--keep", "1", model=Path("large").resolve())
    needed = json.loads(run(*asked, "--dry-run", "--json").stdout)["disk"]
    usage = lambda free: lambda _: shutil._ntuple_diskusage(2 * needed, needed, free)  # noqa: E731
    monkeypatch.setattr(shutil, "disk_usage", usage(needed - 1))
    refused(*asked, says="--keep")
    refused(*asked, "--dry-run", says="--keep")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert run(*asked).exit_code == 0
    left = sum(path.stat().st_size for path in Path("run").rglob("*") if path.is_file())
    assert 0.5 * needed < left <= needed
    shutil.rmtree("run/final")
    monkeypatch.setattr(shutil, "disk_usage", usage(0))
    assert run(*asked, "--resume", "auto").exit_code == 0  # its checkpoints are there


# ---------------------------------------------------------------- many processes


SHARED = {  # layers of a tied llama, or what else is trained, and options: what two processes divide among them
    "prefixes": (2, "--schedule two-stage --sub-layers 1 --sub-steps 4 --shard all --grad-accum 2"),
    "growth": (1, "--schedule stackbert --to-layers 2 --shard all"),
    "masked": ("still", "--shard all --grad-accum 2"),
    "replicated": (2, "--schedule two-stage --sub-layers 1 --sub-steps 4 --shard none --grad-accum 2"),
}


@pytest.mark.parametrize("case", SHARED)
def test_two_processes_are_one_and_a_run_of_two_goes_on_with_one(world, case):
    model, options = SHARED[case]
    if model == "still":  # dropout is drawn by each process for itself
        still = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_hidden_layers=2)
        tiny.make("bert", dtype=torch.float32, **still).save_pretrained("model")
        tokenizer().save_pretrained("model")
    else:
        small = tiny.make("llama", dtype=torch.float32, num_hidden_layers=model, tie_word_embeddings=True)
        small.save_pretrained("model")
    asked = dict(model=Path("model").resolve())
    more = [
        *options.split(),
        *["--device", "cpu", "--tokens", "512", "--eval-every", "5", "--eval-tokens", "144"],
    ]  # 8 steps, 9 windows
    if case == "replicated":  # on two machines, as a person begins it there; the other's process is a fork of this one
        master, words = ("--nnodes", "2", "--master-port", port()), line(world, *more, **asked)
        forked = ("--run-path", "--start-method", "fork", growkit.__main__.__file__)
        nodes = [
            child(lambda: torchrun.main([*master, "--node-rank", n, *does, *words]) or 0, OMP_NUM_THREADS="1")
            for n, does in (("0", ("-m", "growkit")), ("1", forked))
        ]
        assert [ended(node) for node in nodes] == [0, 0]
    else:
        assert pair(lambda: said(run(*line(world, *more, **asked)))) == [0, 0]
    assert run(*line(world, *more, out="one", **asked)).exit_code == 0
    assert losses_of("run") == pytest.approx(losses_of("one"), abs=1e-5) and len(losses_of("run")) == 8
    norms = [[said[2] for said in curve(name).values()] for name in ("run", "one")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
    val = [[(p.step, p.loss) for p in runs.read_run(name).val] for name in ("run", "one")]
    assert [step for step, _ in val[0]] == [5, 8]
    assert [loss for _, loss in val[0]] == pytest.approx([loss for _, loss in val[1]], abs=1e-5)
    shutil.rmtree("run/checkpoints/step-00000008")
    shutil.rmtree("run/final")
    os.rename("run/metrics.jsonl", "two.jsonl")
    again = run(*line(world, *more, "--resume", "auto", **asked))
    assert again.exit_code == 0 and "resumed at step 4" in again.stderr, again.stderr
    assert sorted(curve("run")) == [5, 6, 7, 8]
    assert losses_of("run") == pytest.approx(losses_of("one")[4:], abs=1e-5)


def test_processes_need_not_write_equally_fast(world):
    """The first knows at its next step that a checkpoint is written, the second only when it waits for it."""
    s = ask(world, "run", model="llama", steps=4, save_every=2)

    def work(begin=state.Saver.begin):
        def uneven(self, *args):
            path = begin(self, *args)
            writing = self._pending[0]
            writing.done = lambda: os.environ["RANK"] == "0" and bool(wait([writing]))
            return path

        state.Saver.begin = uneven
        return train(s)

    assert pair(work) == [0, 0]
    assert [path.name for path in state.checkpoints_in(Path("run/checkpoints"))] == ["step-00000002", "step-00000004"]


def test_processes_stop_together(world):
    """Whichever was told to."""
    s = ask(world, "run", model="llama")
    assert pair(lambda: train(s), first=lambda: train(s, signals=(signal.SIGTERM, 4))) == [0, 0]
    assert [path.name for path in state.checkpoints_in(Path("run/checkpoints"))][-1] in (
        "step-00000004",
        "step-00000005",
    )
