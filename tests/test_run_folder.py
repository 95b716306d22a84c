"""The folder of a run: where it may be, who is at it, and that its result stands or does not exist."""

import json
import os
import re
import resource
import shutil
import signal
import sys
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import torch
from processes import KILL, child, ended, pair
from refusing import refused, run, tree
from safetensors.torch import save_file
from tiny_runs import ask, curve, line, tokenizer

from growkit.checkpoint import stream
from growkit.errors import RequestError
from growkit.training import pretrain, ready, run_folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# ---------------------------------------------------------------- where it may be

PLACES = {  # --out, and what it would hurt
    "the model": ("world/model", "is or contains the checkpoint, '"),
    "around the model": ("world", "is or contains the checkpoint, '"),
    "around everything": ("/", "is or contains the checkpoint, '"),
    "in the model": ("world/model/run", "is inside the checkpoint, '"),
    "a link to the model": ("link", "is or contains the checkpoint, '"),
    "the data": ("data", "is or contains the data, '"),
    "in the data": ("data/deep/run", "is inside the data, '"),
    "around the teacher": ("theirs", "is or contains the teacher, 'theirs/teacher'"),
}


@pytest.mark.parametrize("case", PLACES)
def test_no_run_lies_in_or_around_what_it_reads(world, case):
    out, says = PLACES[case]
    shutil.copytree(world / "gpt2", "world/model")
    shutil.copytree(world / "teacher", "theirs/teacher")
    shutil.copytree(world / "data", "data")
    Path("link").symlink_to("world/model")
    asked = line(world, "--data", "data", "--teacher", "theirs/teacher", model=Path("world/model").resolve(), out=out)
    for more in ([], ["--dry-run"], ["--resume", "auto"]):
        refused(*asked, *more, says=says)


@pytest.mark.parametrize(
    "name", ["final", "checkpoints", "stages", "metrics.jsonl", "tensorboard", "wandb", "wandb.json"]
)
def test_what_no_run_made_is_not_taken_for_a_runs(world, name):
    """It would be deleted, or gone on with."""
    Path("run", name, "thesis").mkdir(parents=True)
    for more in ([], ["--dry-run"], ["--resume", "auto"]):
        refused(*line(world, *more), says=f"'run/{name}' is there, but no run.json")
    shutil.rmtree(Path("run", name))
    Path("run/log.txt").write_text("mine")  # as where a shell writes down what is said
    assert run(*line(world, "--tokens", "64")).exit_code == 0 and Path("run/log.txt").read_text() == "mine"


# ---------------------------------------------------------------- one growkit at a time


def test_two_runs_are_not_in_one_folder(world):
    """The second is told so, and is let in when the first has ended, however it did."""
    s = ask(world, "run", steps=2, save_every=1)

    def second():
        with pytest.raises(RequestError, match=r"another growkit is at work in 'run'; wait .*--out"):
            pretrain.pretrain(s, True)

    def fails(told):
        if told["kind"] == "save":
            second()
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        pretrain.pretrain(s, watch=fails)
    going = pretrain.open_run(s, True)
    second()
    killed = child(lambda: pretrain.open_run(ask(world, "killed")) and os.kill(os.getpid(), KILL))
    assert ended(killed) == -KILL
    assert pretrain.pretrain(ask(world, "killed"), True).step == 12
    assert pretrain.carry_through(going, True).step == 2
    assert pretrain.pretrain(s, True).step == 2


def test_a_run_that_begins_between_a_look_and_the_lock(world, monkeypatch):
    """Two that both saw no run: the one that comes second does not begin it anew."""
    s, look = ask(world, "run", steps=1), run_folder.look

    def late(settings, resume):
        standing = look(settings, resume)
        monkeypatch.setattr(ready, "look", look)
        pretrain.pretrain(s)
        return standing

    monkeypatch.setattr(ready, "look", late)
    with pytest.raises(RequestError, match="another growkit was in 'run' just now"):
        pretrain.pretrain(s)
    assert pretrain.pretrain(s, True).step == 1


def test_the_first_process_alone_looks(world):
    """Were each to look, the run that the first has begun would seem another's to the last."""

    def forbidden(*_):
        raise AssertionError("this process looks too")

    def blind():
        ready.look = run_folder.Held.take = forbidden

    s = ask(world, "run", model="llama", steps=2)
    assert pair(lambda: pretrain.pretrain(s).step - 2, blind) == [0, 0]


# ---------------------------------------------------------------- small files

RATES = {  # lr_multipliers.json beside the checkpoint, and what is said of it
    "a list": ([], "a JSON object"),
    "nothing": ({}, "lacks 'multipliers'"),
    "numbers": ({"multipliers": 5}, "multipliers as an object"),
    "a number for a parameter": ({"multipliers": {"a": 2.0}}, "multipliers.'a' as an object, not 2.0"),
    "text": ({"multipliers": {"a": {"lr": "2"}}}, "multipliers.'a'.lr as a finite number from 0 to 1e+09, not '2'"),
    "below 0": ({"multipliers": {"a": {"eps": -1}}}, "eps as a finite number from 0"),
    "not a number": ({"multipliers": {"a": {"weight_decay": float("nan")}}}, "weight_decay as a finite number"),
    "too large": ({"multipliers": {"a": {"lr": 10**60}}}, "lr as a finite number from 0"),
}


@pytest.mark.parametrize("case", RATES)
def test_multipliers_that_cannot_be(world, case):
    """By a run and by a growth, which leave nothing."""
    content, says = RATES[case]
    shutil.copytree(world / "llama", "model")
    Path("model/optimizer").mkdir()
    save_file({}, "model/optimizer/optimizer.safetensors")
    Path("model/lr_multipliers.json").write_text(json.dumps(content))
    refused(*line(world, model=Path("model").resolve()), says=says)
    state = "model/optimizer/optimizer.safetensors"
    refused("widen", "model", "--hidden", "48", "--optimizer", state, "-o", "out", says=says)


BEGINNINGS = {  # run.json
    "a list": ([], "a JSON object"),
    "nothing": ({}, "lacks 'settings'"),
    "settings of text": ({"settings": "all"}, "settings as an object, not 'all'"),
    "no settings": ({"settings": {}}, "lr 0.001 (was None)"),
    "long settings": ({"settings": {"lr": "x" * 10**6}}, "lr 0.001 (was 'xxx"),
    "hashes of text": ({"settings": {"hashes": "abc"}}, "other bytes in checkpoint, data, val"),
}


@pytest.mark.parametrize("case", BEGINNINGS)
def test_a_beginning_that_cannot_be(world, case):
    content, says = BEGINNINGS[case]
    Path("run").mkdir()
    Path("run/run.json").write_text(json.dumps(content))
    assert len(refused(*line(world, "--resume", "auto"), says=says)) < 3000


def test_other_data_and_other_multipliers_are_other_runs(world):
    shutil.copytree(world / "llama", "model")
    shutil.copytree(world / "data", "data")
    asked = line(world, "--data", "data", "--tokens", "128", model=Path("model").resolve())
    rates = {"multipliers": {"model.norm.weight": {"lr": 2.0}}}
    Path("model/lr_multipliers.json").write_text(json.dumps(rates))
    assert run(*asked).exit_code == 0
    rates["multipliers"]["model.norm.weight"]["lr"] = 3.0
    Path("model/lr_multipliers.json").write_text(json.dumps(rates))
    refused(*asked, "--resume", "auto", says="other settings: other bytes in multipliers; give")
    with open("data/train.bin", "r+b") as file:
        file.write(b"\x3c")
    refused(*asked, "--resume", "auto", says="other bytes in data, multipliers; give")


def test_a_run_that_cannot_begin_leaves_no_folder(world):
    """What only shows when the model is made: the same line, mended, begins it."""
    model = Path(shutil.copytree(world / "llama", "model")).resolve()
    for name, value, says in (
        ("model.norm.weight.exp_avg", torch.ones(4, 6), "shape [4, 6]"),
        ("nobody.exp_avg", torch.ones(4), "no state of a parameter"),
    ):
        save_file({name: value}, model / "optimizer.safetensors")
        refused(*line(world, model=model), says=says)
    Path("run").mkdir()
    Path("run/log.txt").write_text("mine")
    refused(*line(world, model=model), says="no state of a parameter")
    (model / "optimizer.safetensors").unlink()
    assert run(*line(world, "--tokens", "64", model=model)).exit_code == 0


# ---------------------------------------------------------------- the result


def test_a_result_that_is_there_stays_as_it_is(world):
    """With what somebody put beside it, and though checkpoints are gone."""
    s, lines = ask(world, "run", steps=2), []
    loss = pretrain.pretrain(s).loss
    assert loss is not None
    Path("run/final/notes.txt").write_text("mine")
    shutil.rmtree("run/checkpoints")
    before = tree()
    again = pretrain.pretrain(s, True, lines.append)
    assert (again.folder, again.step, tree()) == (Path("run/final"), 2, before)
    assert [said["text"] for said in lines] == ["'run/final' is there already; take it away to have it made again"]
    first = tree("run/final")
    os.rename("run/final", "mine")
    pretrain.pretrain(s, True)
    assert tree("run/final") == {name: said for name, said in first.items() if "notes" not in name}


OTHERS = {
    "no result": lambda world: Path("run/final").mkdir(),
    "a file": lambda world: Path("run/final").write_text("mine"),
    "a link": lambda world: Path("run/final").symlink_to(world / "llama"),
    "a model": lambda world: shutil.copytree(world / "llama", "run/final"),
    "another run's": lambda world: pretrain.pretrain(ask(world, "other", lr=0.5, steps=1)).folder.rename("run/final"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_folder_that_is_no_result_of_the_run_is_not_replaced(world, case):
    """Whether it is there when the run goes on, or comes while it trains."""
    s = ask(world, "run", steps=2, save_every=1)

    def comes(told):
        if told.get("step") == 2 and told["kind"] == "train":
            OTHERS[case](world)

    for watch in (comes, lambda _: None):  # the second time it is there before
        with pytest.raises(RequestError, match=r"'run/final' is there, and this run did not make it; move it away"):
            pretrain.pretrain(s, watch is not comes, watch)
        held = tree("run/final") if Path("run/final").is_dir() else Path("run/final").read_text()
        assert (held == {}) == (case == "no result") and not list(Path("run").glob("*.partial"))
    os.rename("run/final", "moved")
    assert pretrain.pretrain(s, True).step == 2 and Path("run/final/growkit.json").is_file()
    assert not Path("moved").is_symlink() or (world / "llama/model.safetensors").is_file()


FULL = {  # the largest file that the disk takes, as a share of the largest of a whole run; how it ends, in what
    "nothing": (0.0, 2, "cannot write into 'run'"),
    "no checkpoint": (0.3, 1, "cannot write a checkpoint into 'run/checkpoints'"),
    "no model": (0.64, 2, "could not write .*/run/stages/1'"),
    "no larger model": (0.99, 1, "cannot write a checkpoint into 'run/checkpoints'"),
}


GROWING = ("--schedule", "stackbert", "--to-layers", "2")


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """A run that grows, on a disk with room."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run(*line(world, *GROWING, out=out)).exit_code == 0
    return out


@pytest.mark.parametrize("case", FULL)
def test_a_full_disk(world, whole, case):
    """One sentence, no result and nothing half made; with room the run goes on to the same end."""
    share, code, says = FULL[case]
    asked = line(world, *GROWING)
    largest = max(path.stat().st_size for path in whole.rglob("*"))

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * largest),) * 2)
        result = run(*asked)
        (sentence,) = (text for text in result.stderr.splitlines() if text.startswith("growkit: "))
        found = re.search(f"{says}: File too large", sentence) and isinstance(result.exception, SystemExit)
        return result.exit_code if found else print(sentence, file=sys.__stderr__) or 9

    assert ended(child(work)) == code
    assert Path("run").exists() and not Path("run/final").exists() and not list(Path("run").rglob("*.partial"))
    assert run(*asked, "--resume", "auto").exit_code == 0 and curve("run") == curve(whole)


def dies_at(number):
    """A process that kills itself at its so-many-th change of files, counted from now."""
    seen = []

    def change(*_):
        seen.append(1)
        if len(seen) == number:
            os.kill(os.getpid(), KILL)

    def audit(event, arguments):
        flags = arguments[2] if event == "open" and isinstance(arguments[2], int) else 0
        changing = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree")
        if flags & (os.O_WRONLY | os.O_RDWR) or event in changing:
            change()

    def write(*arguments, write_at=stream.write_at):
        change()
        write_at(*arguments)

    stream.write_at = write
    sys.addaudithook(audit)


def test_a_result_is_whole_or_not_there_wherever_its_making_is_killed(world):
    """At each change of a file, each time with what the killed one before it left."""
    small = Path(shutil.copytree(world / "teacher", "small")).resolve()
    tokenizer().save_pretrained(small)
    pretrain.pretrain(ask(world, "whole", model=small, steps=1))
    whole = {name: said for name, said in tree("whole/final").items() if not name.endswith("growkit.json")}
    going = pretrain.open_run(ask(world, "run", model=small, steps=1))
    going.go()
    final = Path("run/final")
    for kills in count():
        code = ended(child(lambda: pretrain.carry_through(going).step - 1, partial(dies_at, kills + 1)))
        if final.exists():
            made = {name.replace("run", "whole", 1): said for name, said in tree(final).items()}
            assert json.loads((final / "growkit.json").read_text())["command"] == "pretrain"
            assert {name: made[name] for name in whole} == whole and len(made) == len(whole) + 1
            break
        assert code == -KILL
    assert kills > 40 and not list(Path("run").glob("*.partial"))
