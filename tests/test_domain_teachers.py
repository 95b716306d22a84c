"""Teachers by domain: each speaks for its own positions alone, what nobody speaks for is learned as if there were none, and
each is let go when the model overtakes it on its own domain."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from processes import pair
from refusing import cases, refused
from tiny_runs import ask, curve, line, losses_of, same, tagged_dataset, tokenizer, weights, without_tags

import growkit
from growkit.data.batches import IGNORED
from growkit.training import pretrain
from growkit.training.objective import Predicted, WholeWord, learn
from growkit.training.teachers import teacher
from growkit.training.teachers.domain_teachers import DomainWindows
from growkit.training.validation import validate


@pytest.fixture(autouse=True)
def here(world, tmp_path, monkeypatch):
    """Tagged text, and two teachers."""
    monkeypatch.chdir(tmp_path)
    tagged_dataset(Path("data"))
    for seed in (4, 5):
        tiny.make("llama", dtype=torch.float32, seed=seed, num_hidden_layers=1).save_pretrained(f"small{seed}")
    still = dict(dtype=torch.float32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    tiny.make("bert", **still).save_pretrained("still")
    tiny.make("bert", seed=3, **still).save_pretrained("still3")
    for name in ("still", "still3"):
        tokenizer().save_pretrained(name)


A, B = {"a": "small4"}, {"b": "small5"}


def taught(world, out="run", teachers=A, model="llama", **more):
    usual = dict(data="data", steps=4, eval_every=2, teacher_until="steps", teacher_schedule="constant", warmup=0)
    model = str(Path(model).resolve()) if model == "still" else model
    return ask(world, out, model=model, teacher=teachers, teacher_steps=4, **{**usual, **more})


def lesson(going, batch, alpha=0.5):
    """(gradient of the hidden states, sums) of a batch with a run's teachers."""
    student = going.student.model
    student.zero_grad()
    return learn(Predicted(student.eval(), batch), 1.0, going.lessons.teacher.says(batch), alpha)


def begun(world, out, **more):
    going = pretrain.open_run(taught(world, out, **more))
    going.begin()
    return going


@pytest.mark.parametrize("model", ["llama", "still"])
def test_each_speaks_for_its_own_positions_alone(world, model, monkeypatch):
    """And two teach what each teaches: gradients are exactly theirs where they speak, exactly the text's elsewhere."""
    monkeypatch.setitem(learn.__globals__["LOGITS"], "cpu", 61 * 10)  # pieces that a domain begins and ends in
    names = ("small4", "small5") if model == "llama" else ("still3", "still")
    pairs = {"a": names[0]}, {"b": names[1]}, {"a": names[0], "b": names[1]}
    runs = [begun(world, f"run{n}", model=model, teachers=teachers) for n, teachers in enumerate(pairs)]
    batch = runs[0].train.rows(0, 0, 4)
    assert set(batch.of.tolist()) == {0, 1}
    (of_a, sums_a), (of_b, sums_b), (both, sums) = (lesson(going, batch) for going in runs)
    alone, own = learn(Predicted(runs[0].student.model.eval(), batch), 1.0)
    in_a = batch.of == 0
    assert torch.equal(of_a[~in_a], alone[~in_a]) and torch.equal(of_b[in_a], alone[in_a])
    assert not torch.equal(of_a[in_a], alone[in_a]) and not torch.equal(of_b[~in_a], alone[~in_a])
    assert torch.allclose(both[in_a], of_a[in_a], atol=1e-6) and torch.allclose(both[~in_a], of_b[~in_a], atol=1e-6)
    assert sums_a[0] == own[0] and (sums_a + sums_b)[1].item() == pytest.approx(sums[1].item(), rel=1e-6)
    for going in runs:
        going.batches.close()
        going.saver.end()
        going.release()


def test_one_teacher_for_each_domain_is_one_for_everything(world):
    pretrain.pretrain(taught(world, "one", teachers="small4"))
    pretrain.pretrain(taught(world, "each", teachers={"a": "small4", "b": "small4"}))
    assert losses_of("each") == pytest.approx(losses_of("one"), abs=1e-5)
    taught_losses = [[entry["kd_loss"] for entry in entries("train", out)] for out in ("one", "each")]
    assert taught_losses[1] == pytest.approx(taught_losses[0], rel=1e-4)


def test_a_store_teaches_a_domain(world):
    """As the model does that it was written of, beside a live one, and its loss there is that model's."""
    growkit.teach("small4", "data", "store", seq_len=16, head=61, tail=0, temperature=2.0)
    usual = dict(teacher_estimate="bucket", teacher_until="overtaken", eval_tokens=4000)
    for out, of_a in (("stored", "store"), ("live", "small4")):
        pretrain.pretrain(taught(world, out, teachers={"a": of_a, "b": "small5"}, **usual))
    assert losses_of("stored") == pytest.approx(losses_of("live"), abs=1e-4)
    said = [json.loads(Path(out, "checkpoints/step-00000004/trainer.json").read_text()) for out in ("stored", "live")]
    theirs = [one["teachers"]["a"] for one in said]
    assert theirs[0]["loss"] == pytest.approx(theirs[1]["loss"], abs=1e-4) and theirs[0]["loss"] is not None


def test_a_masked_store_teaches_a_domain(world):
    """The masks of all domains are then the store's."""
    growkit.teach("still3", "data", "store", seq_len=16, head=61, tail=0, temperature=2.0, seed=7)
    usual = dict(model="still", teacher_estimate="bucket", steps=2)
    stored = pretrain.pretrain(taught(world, "stored", teachers={"a": "store"}, **usual)).run
    assert stored.train.mask_seed == 7 and min(entry["kd_loss"] for entry in entries("train", "stored")) > 0


def entries(kind, out="run"):
    lines = map(json.loads, Path(out, "metrics.jsonl").read_text().splitlines())
    return [entry for entry in lines if entry["kind"] == kind]


def test_a_body_runs_on_rows_of_its_domain_alone(world, monkeypatch):
    read = []

    def noted(model, batch):
        if model.config.num_hidden_layers == 1:
            read.append((len(batch.inputs), batch.predicted))
        return Predicted(model, batch)

    monkeypatch.setattr(teacher, "Predicted", noted)
    going = pretrain.open_run(taught(world, "run", batch_size=2, steps=6))
    batches = [going.train.rows(step, 0, 2) for step in range(6)]
    pretrain.carry_through(going)
    own = [((batch.domains == 0).any(1).sum().item(), (batch.of == 0).sum().item()) for batch in batches[:4]]
    assert read == [(rows, count) for rows, count in own if rows]
    assert len({rows for rows, _ in own}) > 1, "every batch is alike"


def test_operations_are_counted_by_the_share_of_the_text(world):
    going = pretrain.open_run(taught(world, "run", teachers={**A, **B}))
    whole = pretrain.open_run(taught(world, "whole", teachers="small4"))
    both, all_of_it = (each.lessons.teacher.flops(1000, 16) for each in (going, whole))
    assert both == pytest.approx(all_of_it)
    growkit.pretrain(world / "llama", "data", "dry", steps=3, seq_len=16, teacher=["a=small4"], dry_run=True)
    for each in (going, whole):
        each.release()


def test_parts_and_processes_change_nothing(world):
    usual = dict(teachers={**A, **B}, steps=2)
    pretrain.pretrain(taught(world, "one", **usual))
    pretrain.pretrain(taught(world, "parts", grad_accum=4, **usual))
    assert pair(lambda: pretrain.pretrain(taught(world, "two", **usual)) and 0) == [0, 0]
    for other in ("parts", "two"):
        assert losses_of(other) == pytest.approx(losses_of("one"), abs=1e-5)
        found, wanted = ([entry["kd_loss"] for entry in entries("train", out)] for out in (other, "one"))
        assert found == pytest.approx(wanted, rel=1e-4)
        found, wanted = ([entry["domains"] for entry in entries("val", out)] for out in (other, "one"))
        assert [list(each.values()) for each in found] == [
            pytest.approx(list(each.values()), abs=1e-5) for each in wanted
        ]


def test_a_domain_of_validation_windows(world):
    """What is left of them is what the whole says of that domain."""
    going = pretrain.open_run(taught(world, "run"))
    going.begin()
    model, val = going.student.model, going.val
    _, seen = validate(model, val, going.settings, going.machine)
    for number, name in enumerate("ab"):
        loss, own = validate(model, DomainWindows(val, number), going.settings, going.machine)
        assert loss == pytest.approx(seen["domains"][name], rel=1e-6) and own["domains"] == {name: pytest.approx(loss)}
    nothing = DomainWindows(val, 7).at([0, 1])
    assert nothing.predicted == 0 and len(nothing.inputs) == 1 and (nothing.labels == IGNORED).all()
    assert DomainWindows(going.train, 0).predicted(0) == (going.train.rows(0, 0, 4).of == 0).sum()
    going.batches.close()
    going.saver.end()
    going.release()


class Sure:
    """A teacher whose own validation loss is given by its name; it says that all tokens are as likely."""

    masks = None
    notes = ()

    def __init__(self, spec, settings, machine):
        self.spec, self.settings = spec, settings

    def check(self, config, tokens):
        pass

    def says(self, batch):
        return lambda piece: WholeWord(torch.zeros(len(range(batch.predicted)[piece]), 61), self.settings.temperature)

    def validation_loss(self, val):
        return float(self.spec.removeprefix("sure"))

    def flops(self, tokens, length):
        return 1.0 * tokens

    def hashes(self):
        return {}


@pytest.fixture
def sure(monkeypatch):
    monkeypatch.setattr(
        teacher, "OPENERS", [lambda spec, *more: Sure(spec, *more) if spec.startswith("sure") else None]
    )


def test_each_is_let_go_when_it_is_overtaken_on_its_own(world, sure):
    """One before the first step, one after some, one never; and a run that is taken up goes on so."""
    usual = dict(steps=8, eval_every=2, save_every=4, teacher_until="overtaken", lr=3e-3)
    first = pretrain.pretrain(taught(world, "first", teachers={"a": "sure0", "b": "sure999"}, **usual))
    notes = [entry["text"] for entry in entries("note", "first")][1:]
    assert len(notes) == 1 and "on b" in notes[0] and "before the first step; it learns alone on b" in notes[0]
    later = (entries("val", "first")[0]["domains"]["a"] + entries("val", "first")[1]["domains"]["a"]) / 2
    teachers = {"a": f"sure{later}", "b": "sure0"}
    pretrain.pretrain(taught(world, "whole", teachers=teachers, **usual))
    (note,) = [entry["text"] for entry in entries("note", "whole")][1:]
    assert "the model's validation loss on a" in note and f"its teacher's, {later:.4f}; it goes on alone on a" in note
    assert first.run.lessons.teacher is None, "its steps are over"
    shutil.copytree("whole", "half")
    for name in ("final", "checkpoints/step-00000008"):
        shutil.rmtree(Path("half", name))
    said = json.loads(Path("half/checkpoints/step-00000004/trainer.json").read_text())["teachers"]
    assert said == {"a": {"overtaken": True, "loss": later}, "b": {"overtaken": False, "loss": 0.0}}
    pretrain.pretrain(taught(world, "half", teachers=teachers, **usual), resume=True)
    assert same(weights("half/final"), weights("whole/final")) and curve("half") == curve("whole")


def test_a_domain_that_validation_lacks_cannot_be_overtaken(world, sure):
    meta = json.loads(Path("data/meta.json").read_text())
    meta["domains"].append("c")
    Path("data/meta.json").write_text(json.dumps(meta))
    numbers = Path("data/train.domains").read_bytes()
    Path("data/train.domains").write_bytes(b"\2" * 5 + numbers[5:])
    pretrain.pretrain(taught(world, "run", teachers={"c": "sure999"}, teacher_until="overtaken"))
    assert len(entries("note")) == 1 and [entry["alpha"] for entry in entries("train")] == [0.5] * 4
    assert entries("val")[0]["domains"].keys() == {"a", "b"}


REFUSED = [
    (["--teacher", "c=small4"], "--teacher c=... teaches a domain of which 'data/train.bin' has no text; it has a, b"),
    (
        ["--teacher", "a=small4", "--data", "plain"],
        "--teacher a=... teaches a domain, and 'plain' has none; tokenize with",
    ),
    (
        ["--teacher", "a=small4", "--teacher", "a=small5"],
        "--teacher a=... is given twice, 'small4' and 'small5'; give one",
    ),
    (
        ["--teacher", "a=small4", "--teacher", "small5"],
        "--teacher 'small5' is one of 2 and says no domain; write each as",
    ),
    (["--teacher", "small4", "--teacher", "small5"], "--teacher 'small4' is one of 2 and says no domain"),
    (["--teacher", "a=nosuch"], "--teacher: 'nosuch' does not exist"),
    (["--teacher", "a=still"], "the teacher 'still' and the model do not predict alike"),
    (["--teacher", "a=small4", "--out", "small4/run"], "is inside the teacher of a, 'small4'"),
]


@pytest.mark.parametrize("more, says", cases(REFUSED))
def test_teachers_that_cannot_be(world, more, says):
    without_tags(Path("data"), Path("plain"))
    asked = line(world, *more, *([] if "--data" in more else ["--data", "data"]))
    if more.count("--out"):
        asked = asked[: asked.index("--out")] + asked[asked.index("--out") + 2 :]
    refused(*asked, says=says)


def test_teachers_that_are_others_or_became_so(world):
    """Of a run that goes on."""
    pretrain.pretrain(taught(world, "run", teachers={**A, **B}))
    shutil.rmtree("run/final")
    for teachers in ("small4", A, {**A, "b": "small4"}):
        with pytest.raises(growkit.RequestError, match=r"was begun with other settings: .*teacher"):
            pretrain.pretrain(taught(world, "run", teachers=teachers), True)
    tiny.make("llama", dtype=torch.float32, seed=6, num_hidden_layers=1).save_pretrained("small5")
    with pytest.raises(growkit.RequestError, match="other bytes in teacher"):
        pretrain.pretrain(taught(world, "run", teachers={"b": "small5", "a": "small4"}), True)


def test_a_folder_of_that_name_teaches_everything(world):
    shutil.copytree("small4", "a=small4")
    made = growkit.pretrain(
        world / "llama", "data", "run", steps=2, seq_len=16, batch_size=2, teacher=["a=small4"], teacher_steps=1
    )
    assert made.run.settings.teacher == "a=small4"
