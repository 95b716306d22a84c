"""Families of models: planned before anything is made, made as by hand, gone on with wherever they were stopped."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import tiny
import torch
from processes import pair
from refusing import refused, run, tree
from tiny_runs import same, weights

import growkit

SHARED = "seq_len = 16\nbatch_size = 4\nlr = 1e-3\neval_every = 2\neval_tokens = 160\nsave_every = 2\nsteps = 4\n"
SIZES = f"""
init = "llama"
{SHARED}
[[size]]
name = "small"
steps = 6
[[size]]
name = "medium"
hidden = 48
teacher_steps = 3
[[size]]
name = "large"
layers = 2
lr = 5e-4
teacher = "none"
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, world):
    monkeypatch.chdir(tmp_path)
    Path("data").symlink_to(world / "data")
    tiny.make("llama", dtype=torch.float32, num_hidden_layers=1).save_pretrained("llama")
    Path("sizes.toml").write_text(SIZES)


def asked(*more: str, sizes: str = "sizes.toml") -> list[str]:
    return ["chain", sizes, "--data", "data", "--out", "family", *more]


def test_a_chain_is_what_its_steps_are_by_hand():
    """init, pretrain, grow, pretrain with a teacher, grow, pretrain; and the same sizes alone."""
    done = run(*asked("--alone", "--json"))
    assert done.exit_code == 0, done.output
    usual = dict(seq_len=16, batch_size=4, eval_every=2, eval_tokens=160, save_every=2)
    growkit.init("llama", "one", seed=0)
    growkit.pretrain("one", "data", "run1", steps=6, lr=1e-3, seed=0, **usual)
    state = "optimizer/optimizer.safetensors"
    growkit.grow("run1/final", "two", hidden=48, seed=1, optimizer=f"run1/final/{state}")
    taught = dict(teacher="run1/final", teacher_steps=3)
    growkit.pretrain("two", "data", "run2", steps=4, lr=1e-3, seed=1, **taught, **usual)
    growkit.grow("run2/final", "three", layers=2, seed=2, optimizer=f"run2/final/{state}")
    growkit.pretrain("three", "data", "run3", steps=4, lr=5e-4, seed=2, **usual)
    growkit.init("three", "bare", seed=2, dtype="float32")
    growkit.pretrain("bare", "data", "alone3", steps=4, lr=5e-4, seed=2, **usual)
    for made, by_hand in (("small", "run1"), ("medium", "run2"), ("large", "run3"), ("large-alone", "alone3")):
        assert same(weights(f"family/{made}/final"), weights(f"{by_hand}/final")), made
    said = json.loads(Path("family/report/report.json").read_text())
    assert said == json.loads(done.stdout)["report"] and said["command"] == "chain"
    costs = {name: growkit.report(f"family/{name}", f"of-{name}").runs[0] for name in ("small", "medium", "large")}
    assert said["spent"]["flops"] == sum(cost.flops for cost in costs.values())
    assert [size["loss"] for size in said["sizes"]] == [cost.final_loss for cost in costs.values()]
    alone = [
        growkit.report(f"family/{name}", f"of-{name}").runs[0] for name in ("small", "medium-alone", "large-alone")
    ]
    assert said["alone"]["flops"] == sum(cost.flops for cost in alone)
    assert [size["alone_loss"] for size in said["sizes"]] == [cost.final_loss for cost in alone]
    page = Path("family/report/report.md").read_text()
    assert "| the family |" in page and "| medium |" in page
    shown = run(*asked("--alone", "--resume", "auto"))
    assert shown.exit_code == 0 and "Beside the same sizes trained alone" in shown.stdout


class Stopped(Exception):
    pass


def test_a_chain_goes_on_where_it_was_stopped():
    """After any step of any run, and between them; what comes out is what comes of one that was never stopped."""
    growkit.chain("sizes.toml", "data", "whole", alone=True)

    def stop(at: int, **how):
        seen = 0

        def watch(line) -> None:
            nonlocal seen
            seen += line["kind"] == "train"
            if seen == at:
                raise Stopped

        with pytest.raises(Stopped):
            growkit.chain("sizes.toml", "data", "family", alone=True, watch=watch, **how)

    def doing(what: str) -> None:
        if what.startswith("large: grown"):
            raise Stopped

    stop(3)  # of small
    stop(6, resume="auto")  # of medium, which never had a checkpoint
    stop(3, resume="auto")
    with pytest.raises(Stopped):
        growkit.chain("sizes.toml", "data", "family", alone=True, doing=doing, resume="auto")
    stop(5, resume="auto")  # of large alone
    begun = growkit.chain("sizes.toml", "data", "family", alone=True, resume="auto")
    assert list(begun.finals) == ["small", "medium", "large"] and begun.stopped is None
    for name in ("small", "medium", "large", "medium-alone", "large-alone"):
        assert same(weights(f"family/{name}/final"), weights(f"whole/{name}/final")), name
    before = tree()
    again = growkit.chain("sizes.toml", "data", "family", alone=True, resume="auto")
    assert again.report.to_json() == begun.report.to_json() and tree().keys() == before.keys()


def test_a_chain_that_is_told_to_stop():
    """It says where, and the same line goes on."""

    def watch(line) -> None:
        if line["kind"] == "train" and line["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    stopped = growkit.chain("sizes.toml", "data", "family", watch=watch)
    name, step = stopped.stopped
    assert name == "small" and step in (3, 4) and not stopped.finals and stopped.report is None
    assert stopped.to_json()["stopped"] == {"run": "small", "step": step}
    assert run(*asked("--resume", "auto")).exit_code == 0 and Path("family/large/final").exists()


def test_a_plan_writes_nothing_and_says_why():
    before = tree()
    told, shown = run(*asked("--dry-run", "--json")), run(*asked("--dry-run"))
    assert told.exit_code == shown.exit_code == 0 and tree() == before, told.output + shown.output
    sizes = json.loads(told.stdout)["sizes"]
    assert [size["name"] for size in sizes] == ["small", "medium", "large"]
    assert [size["teacher"] for size in sizes] == ["none", "live", "none"]
    assert [size["run"]["lr"] for size in sizes] == [1e-3, 1e-3, 5e-4]
    assert [size["training"]["seed"] for size in sizes] == [0, 1, 2]
    assert [size["exactness"] for size in sizes] == [None, "exact", "approximate"]
    assert "begins at 0.5 (" in sizes[1]["run"]["notes"][0] and not sizes[2]["run"]["notes"]
    assert [size["run"]["warmup"] for size in sizes] == [1, 0, 0]  # AdamW's state comes along
    assert "hidden 24 to 48" in shown.stdout and "nothing was written" in shown.stdout
    made = growkit.chain("sizes.toml", "data", "family")
    for size, plan in zip(sizes, made.sizes):
        assert size["run"]["flops"] == plan.ahead.flops
        assert size["run"]["parameters"] == sum(tensor.numel() for tensor in weights(plan.place.final).values())


def test_a_chain_may_begin_with_a_model():
    """Which is grown from the first size on, or trained as it is; what it cost before is not in the report."""
    Path("on.toml").write_text(
        f'checkpoint = "llama"\n{SHARED}[[size]]\nname = "a"\n[[size]]\nname = "b"\nhidden = 48\n'
    )
    Path("grown.toml").write_text(f'checkpoint = "llama"\n{SHARED}[[size]]\nname = "b"\nhidden = 48\n')
    on = growkit.chain("on.toml", "data", "on")
    growkit.pretrain("llama", "data", "run", steps=4, lr=1e-3, seq_len=16, batch_size=4)
    assert same(weights("on/a/final"), weights("run/final")) and not Path("on/a-start").exists()
    grown = growkit.chain("grown.toml", "data", "grown")
    for made in (on, grown):
        assert made.report.notes[0] == "what llama had cost before is not in it"
    growkit.grow("llama", "wide", hidden=48)
    assert same(weights("grown/b-start"), weights("wide"))


def test_a_teacher_that_is_written_down():
    """growkit teach, then a run from the store; gone on with, it is not written again."""
    Path("sizes.toml").write_text(
        SIZES.split('[[size]]\nname = "large"')[0].replace("teacher_steps", 'teacher = "stored"\nteacher_steps')
    )
    growkit.chain("sizes.toml", "data", "family")
    growkit.teach("family/small/final", "data", "store", seq_len=16, seed=1)
    assert Path("store").is_dir() and {path.name for path in Path("store").iterdir()} == {
        path.name for path in Path("family/medium-teacher").iterdir()
    }
    usual = dict(seq_len=16, batch_size=4, eval_every=2, eval_tokens=160, lr=1e-3, seed=1)
    growkit.pretrain("family/medium-start", "data", "run", steps=4, teacher="store", teacher_steps=3, **usual)
    assert same(weights("family/medium/final"), weights("run/final"))
    shutil.rmtree("family/medium")
    before = tree()
    growkit.chain("sizes.toml", "data", "family", resume="auto")
    assert same(weights("family/medium/final"), weights("run/final"))
    assert {path: what for path, what in tree().items() if "medium-teacher" in path} == {
        path: what for path, what in before.items() if "medium-teacher" in path
    }


def test_the_file_on_the_page_is_one():
    page = Path(growkit.__file__).parents[1] / "docs" / "training.md"
    (text,) = re.findall(r"^```toml\n(init.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    Path("sizes.toml").write_text(text.replace("config.json", "llama").replace("20000", "4").replace("5000", "2"))
    for large, little in (("512", "48"), ("1024", "96"), ("layers = 24", "layers = 6")):
        text = Path("sizes.toml").read_text()
        Path("sizes.toml").write_text(text.replace(large, little))
    sizes = growkit.chain("sizes.toml", "data", "family", dry_run=True).sizes
    assert [size.size.teacher for size in sizes] == ["none", "live", "live"]


def with_(text: str) -> str:
    return SIZES.replace('name = "medium"\n', f'name = "medium"\n{text}\n')


REFUSED = {  # what the file says: what is said of it
    "a column that is none": (with_("width = 3"), "size 2: 'width' is none of name, "),
    "a shared column that is none": ("lr_max = 1\n" + SIZES, "'lr_max' is none of init, checkpoint"),
    "a size for all": ("hidden = 48\n" + SIZES, "'hidden' is none of .*it belongs into a"),
    "a size that shrinks": (SIZES.replace("hidden = 48", "hidden = 16"), "size 'medium': --hidden 16 is smaller than .* 24"),
    "layers that shrink": (SIZES.replace("hidden = 48", "layers = 3"), "size 'large': .*2"),
    "a size that cannot be": (SIZES.replace("hidden = 48", "hidden = 49"), "size 'medium': .*nearest"),
    "no size": (SIZES.replace("hidden = 48", ""), "size 'medium' says nothing of how it grows"),
    "a method that is none": (with_('method = "dream"'), "method as one of fpi, aki, shrink-perturb, direct-copy, auto, not 'dream'"),
    "a teacher that is none": (with_('teacher = "owl"'), "teacher as one of none, live, stored, not 'owl'"),
    "a first size that grows": (SIZES.replace("steps = 6", "hidden = 48"), "size 'small': the first size is the config's"),
    "a teacher of the first": (SIZES.replace("steps = 6", 'teacher = "live"'), "size 'small': .*take teacher out"),
    "nothing to begin with": (SIZES.replace("init =", "#"), "one of init, a config, and checkpoint"),
    "two to begin with": ('checkpoint = "llama"\n' + SIZES, "one of init, a config, and checkpoint"),
    "a config that is not there": (SIZES.replace('"llama"', '"nowhere"'), "size 'small': .*nowhere"),
    "no sizes": ('init = "llama"\n', "lacks 'size'"),
    "sizes in one table": ('init = "llama"\nsize = 3\n', "size as a list"),
    "no name": (SIZES.replace('name = "medium"', ""), "size 2 lacks 'name'"),
    "a name that leads away": (SIZES.replace('"medium"', '"../medium"'), "a name of at most 60 letters"),
    "a name twice": (SIZES.replace('"medium"', '"Small"'), "size 'Small' and size 'small' would share a folder"),
    "a name of another's folder": (SIZES.replace('"medium"', '"small-start"'), "would share a folder"),
    "the report's name": (SIZES.replace('"medium"', '"report"'), "size 'report' and the report"),
    "a number that cannot be": (with_("lr = -1.0"), "lr as a finite number from 0"),
    "steps of text": (with_('steps = "many"'), "steps as a whole number from 1"),
    "no steps": (SIZES.replace("steps = 4\n", ""), "size 'medium': say how long"),
    "two lengths": (with_("steps = 3\ntokens = 640"), "size 'medium': say how long"),
    "a batch that cannot be divided": (with_("grad_accum = 3"), "size 'medium': --batch-size 4"),
    "more than its positions": (with_("seq_len = 4096"), "size 'medium': --seq-len 4096"),
    "how a teacher ends that is none": (
        SIZES.replace('teacher = "none"', 'teacher = "none"\nteacher_steps = 2'), "size 'large': teacher_steps says how it is taught"
    ),
    "no TOML": ("[[size", "cannot read sizes from"),
    "nested": ("a = " + "[" * 9000, "cannot read sizes from"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refused_before_anything_is_made(what):
    text, says = REFUSED[what]
    Path("sizes.toml").write_text(text)
    for more in ([], ["--dry-run"]):
        assert re.search(says, refused(*asked(*more), says=""))


def test_folders_that_are_no_chains_or_of_another():
    Path("family").mkdir()
    Path("family/mine.txt").write_text("mine")
    refused(*asked(), says="no chain made it")
    shutil.rmtree("family")
    refused("chain", "sizes.toml", "--data", "data", "--out", "data/family", says="is inside the data")
    growkit.chain("sizes.toml", "data", "family")
    refused(*asked(), says="--resume auto")
    Path("sizes.toml").write_text(SIZES.replace("lr = 5e-4", "lr = 7e-4"))
    refused(*asked("--resume", "auto"), says="size 'large': 'family/large' was begun with other settings: lr 0.0007")
    Path("sizes.toml").write_text(SIZES)
    for name in ("large", "large-start"):
        shutil.rmtree(f"family/{name}")
    growkit.grow("family/small/final", "family/large-start", layers=2)
    refused(*asked("--resume", "auto"), says="is not what 'family/medium/final' grows to now")


def test_two_processes_make_one_chain():
    """Planned by each, grown by the first, trained by both."""
    short = SIZES.replace("steps = 6", "").replace("steps = 4", "steps = 2").split('[[size]]\nname = "large"')[0]
    Path("sizes.toml").write_text(short)
    growkit.chain("sizes.toml", "data", "one")
    assert pair(lambda: growkit.chain("sizes.toml", "data", "two") and 0) == [0, 0]
    one, two = (json.loads(Path(name, "report/report.json").read_text()) for name in ("one", "two"))
    assert [size["name"] for size in two["sizes"]] == ["small", "medium"] and two["alone"] is None
    assert [size["loss"] for size in two["sizes"]] == pytest.approx([size["loss"] for size in one["sizes"]], abs=1e-4)


def test_a_size_that_begins_in_a_corner_leaves_the_state_behind():
    Path("corner.toml").write_text(SIZES.replace("hidden = 48", 'hidden = 48\nmethod = "direct-copy"'))
    done = run(*asked(sizes="corner.toml"))
    assert done.exit_code == 0, done.output
    assert json.loads(Path("family", "medium-start", "growkit.json").read_text())["request"]["method"] == "direct-copy"
