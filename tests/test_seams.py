"""What a run may be given instead of what it has: other batches, another teacher, other learners, another result."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from processes import pair
from refusing import refused, run
from safetensors.torch import load_file
from tiny_runs import Stopped, ask, curve, line, losses_of, same, stops_at, tokenizer, weights

from growkit.checkpoint.writer import layout
from growkit.data.batches import IGNORED, batch_of
from growkit.errors import RequestError
from growkit.models.live_layers import layers_of
from growkit.reports import runs
from growkit.training import checkpoints as state
from growkit.training import pretrain
from growkit.training.objective import WholeWord
from growkit.training.prefix import submodel
from growkit.training.saved import write_together
from growkit.training.sharing import write_tensors
from growkit.training.state_files import read_plan
from growkit.training.teachers import teacher
from growkit.training.validation import own_batches


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# ---------------------------------------------------------------- batches


class Answers:
    """Windows of which only a last part is predicted, another number of tokens in each row, in some rows none."""

    def __init__(self, windows):
        self.all, self.size, self.windows, self.domains = windows, windows.size, windows.windows, None

    def rows(self, step, first, count):
        return self._some(self.all.rows(step, first, count))

    def at(self, numbers):
        return self._some(self.all.at(numbers))

    def predicted(self, step):
        return self.rows(step, 0, self.size).predicted

    def _some(self, batch):
        labels = batch.labels.clone()
        for row, place in enumerate(batch.places[:, 0].tolist()):
            labels[row, : labels.shape[1] - (place // 16 * 7) % 13] = IGNORED
        return batch_of(batch.inputs, labels, batch.places, batch.domains)


def answering(settings):
    going = pretrain.open_run(settings)
    going.train, going.val = Answers(going.train), Answers(going.val)
    return pretrain.carry_through(going)


@pytest.mark.parametrize("model", ["llama", "still"])
def test_rows_that_predict_different_numbers_of_tokens(world, model):
    """A loss is a mean over the step's predictions, however its rows are spread over parts and processes."""
    still = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)  # it is drawn by each process for itself
    tiny.make("bert", dtype=torch.float32, **still).save_pretrained("still")
    tokenizer().save_pretrained("still")
    tiny.make("llama", dtype=torch.float32, seed=4).save_pretrained("other")
    taught = dict(teacher="other", teacher_steps=3, teacher_until="steps") if model == "llama" else {}
    where = Path(model).resolve() if model == "still" else model
    usual = dict(model=where, steps=4, eval_every=2, **taught)
    one = answering(ask(world, "one", **usual)).run
    counts = {one.train.rows(0, row, 1).predicted for row in range(4)} | {one.train.predicted(s) for s in range(4)}
    assert len(counts) > 3 and losses_of("one")[-1] < losses_of("one")[0]
    answering(ask(world, "parts", grad_accum=2, **usual))
    assert pair(lambda: answering(ask(world, "two", grad_accum=2, **usual)) and 0) == [0, 0]
    batch = one.train.rows(0, 0, 4)
    plain = pretrain.open_run(ask(world, "first", **usual))
    plain.begin()
    with torch.no_grad():
        logits = plain.student.model.eval()(input_ids=batch.inputs).logits.flatten(0, 1)
    by_hand = torch.nn.functional.cross_entropy(logits, batch.labels.flatten())  # leaves IGNORED out of its mean
    assert losses_of("one")[0] == pytest.approx(by_hand.item(), abs=1e-5)
    for other in ("parts", "two"):
        assert losses_of(other) == pytest.approx(losses_of("one"), abs=1e-5)
        norms = [[said[2] for said in curve(name).values()] for name in (other, "one")]
        assert norms[0] == pytest.approx(norms[1], rel=1e-3)
        val = [[point.loss for point in runs.read_run(name).val] for name in (other, "one")]
        assert val[0] == pytest.approx(val[1], abs=1e-5) and len(val[0]) == 2


# ---------------------------------------------------------------- a teacher


class Table:
    """A teacher that was written down: logits (tokens, vocabulary) by the place of the token that was seen."""

    notes, masks = (), None

    def __init__(self, spec, settings, machine):
        self.settings, self.machine = settings, machine
        self.logits = {split: np.load(Path(spec, f"{split}.npy")) for split in ("train", "val")}

    def check(self, config, tokens):
        rows, entries = self.logits["train"].shape
        if (rows, entries) != (len(tokens), config["vocab_size"]):
            raise RequestError(f"the table is of {rows} tokens and {entries} words, not of this data and model")

    def says(self, batch, split="train"):
        places = batch.places[batch.labels != IGNORED]
        return lambda piece: WholeWord(
            torch.from_numpy(self.logits[split][places[piece].numpy()]), self.settings.temperature
        )

    def validation_loss(self, val):
        nats = count = 0
        for batch, counts in own_batches(val, self.settings, self.machine):
            labels = batch.labels[batch.labels != IGNORED]
            said = self.says(batch, "val")(slice(None)).theirs.double()
            nats += counts * torch.nn.functional.cross_entropy(said, labels, reduction="sum").item()
            count += int(counts) * batch.predicted
        nats, count = self.machine.total([nats, count])
        return nats / count

    def flops(self, tokens, length):
        return 5.0 * tokens

    def hashes(self):
        return {"train": str(self.logits["train"].sum())}


def table(folder, data, certainty, cut=None):
    """Logits that know the next token of every place, more or less."""
    Path(folder).mkdir()
    for split in ("train", "val"):
        ids = np.fromfile(data / f"{split}.bin", "<u2").astype(int)
        logits = np.random.default_rng(1).normal(size=(len(ids), 61)).astype(np.float32)
        logits[np.arange(len(ids) - 1), ids[1:]] += certainty
        np.save(Path(folder, f"{split}.npy"), logits[:cut])


@pytest.fixture
def tables(world, monkeypatch):
    """Folders with a table can teach; the others are models as ever."""

    def opener(spec, *more):
        return Table(spec, *more) if Path(spec, "train.npy").exists() else None

    monkeypatch.setattr(teacher, "OPENERS", [opener, *teacher.OPENERS])
    table("good", world / "data", 9.0)
    table("poor", world / "data", -99.0)
    table("short", world / "data", 1.0, cut=100)


@pytest.mark.parametrize("model", ["llama", "bert"])
def test_another_teacher_through_a_whole_run(world, tables, model):
    """Its word is that of the places that are predicted; its operations count; a run that was stopped goes on with
    it."""
    taught = dict(
        model=model,
        steps=6,
        warmup=0,
        grad_accum=2,
        teacher="good",
        teacher_steps=4,
        teacher_schedule="constant",
        teacher_until="steps",
    )
    going = pretrain.open_run(ask(world, "run", **taught))
    going.begin()
    batch, own = going.train.rows(0, 0, 4), going.student.model
    chosen = batch.labels != IGNORED
    if model == "llama":  # bert drops out
        with torch.no_grad():
            student = torch.log_softmax(own.eval()(input_ids=batch.inputs).logits[chosen].double() / 2, -1)
        logits = np.load("good/train.npy")[batch.places[chosen].numpy()]
        wanted = torch.log_softmax(torch.from_numpy(logits).double() / 2, -1)
        by_hand = 4 * (wanted.exp() * (wanted - student)).sum(-1).mean().item()
    pretrain.carry_through(going)
    told = [said for said in map(json.loads, Path("run/metrics.jsonl").read_text().splitlines()) if "alpha" in said]
    assert [said["alpha"] for said in told] == [0.5] * 4 + [0.0] * 2
    if model == "llama":
        assert told[0]["kd_loss"] == pytest.approx(by_hand, rel=1e-5)
    spent = np.diff([0.0] + [said["flops"] for said in told])
    assert spent[3] - spent[4] == pytest.approx(5.0 * 64)

    part = ask(world, "part", **taught)
    with pytest.raises(Stopped):
        pretrain.pretrain(part, watch=stops_at(4))
    pretrain.pretrain(part, True)
    assert curve("part") == curve("run") and same(weights("part/final"), weights("run/final"))


@pytest.mark.parametrize(("name", "ends"), [("good", False), ("poor", True)])
def test_another_teacher_tells_its_own_loss(world, tables, name, ends):
    taught = dict(teacher=name, teacher_steps=6, teacher_until="overtaken", teacher_schedule="constant", lr=1e-3)
    pretrain.pretrain(ask(world, "run", model="llama", steps=6, eval_every=2, **taught))
    told = [said for said in map(json.loads, Path("run/metrics.jsonl").read_text().splitlines()) if "alpha" in said]
    assert ({said["alpha"] for said in told[2:]} == {0.0}) == ends


def test_another_teacher_checks_itself(world, tables):
    """In the command, in its dry run, and in what that foretells."""
    options = ["--steps", "4", "--teacher-steps", "2", "--teacher"]
    for more in ([], ["--dry-run"]):
        refused(*line(world, *options, "short", *more), says="the table is of 100 tokens and 61 words")
    told = run(*line(world, *options, "good", "--dry-run", "--json"))
    assert json.loads(told.stdout)["teacher_flops"] == 2 * 5.0 * 64


# ---------------------------------------------------------------- who learns, and what is saved


class OneModule:
    """A second layer's feed-forward block alone learns."""

    def choose(self, model):
        model.requires_grad_(False)
        layers_of(model)[0].mlp.requires_grad_(True)

    def in_step(self, model, plan):
        return submodel(model, plan.depth, plan.trained)


class OnlyIt:
    """What learns, as one file."""

    def __init__(self, origin):
        self.origin = origin

    def export(self, student, folder, record=None):
        student.settle()
        learned = {name: p for name, p in student.model.named_parameters() if p.requires_grad}
        laid = layout([(name, p.dtype, tuple(p.shape)) for name, p in sorted(learned.items())], 1 << 40)
        fill = lambda place: write_tensors(student.machine, learned, place, *laid)  # noqa: E731
        write_together(student.machine, folder, fill, record=record)


PART = "model.layers.0.mlp."


def learning_in_part(settings, resume=False, watch=lambda _: None):
    going = pretrain.open_run(settings, resume, watch, OneModule(), OnlyIt)
    return pretrain.carry_through(going, resume)


def test_one_module_learns_and_is_saved(world):
    """What is frozen stays as it was, without state and outside checkpoints, which resume to the same run."""
    usual = dict(model="llama", steps=8, save_every=3)
    whole = learning_in_part(ask(world, "whole", **usual)).run.student
    before, after = weights(world / "llama"), weights("whole/final")
    assert after.keys() == {name for name in before if name.startswith(PART)} and len(after) > 3
    assert not any(torch.equal(after[name], before[name]) for name in after)
    named = dict(whole.model.named_parameters())
    assert all(torch.equal(named[name], before[name]) for name in before.keys() - after.keys())
    assert {id(p) for p in whole.optimizer.state} == {id(named[name]) for name in after}
    kept = read_plan(state.checkpoints_in(Path("whole/checkpoints"))[0])
    assert {key.removeprefix("model.") for key in kept if key.startswith("model.")} == after.keys()
    assert not [key for key in kept if "mlp" not in key and ".exp_avg" in key]

    with pytest.raises(Stopped):
        learning_in_part(ask(world, "run", **usual), watch=stops_at(5))
    learning_in_part(ask(world, "run", **usual), True)
    assert curve("run") == curve("whole") and same(weights("run/final"), weights("whole/final"))


def test_one_module_learns_in_two_processes(world):
    usual = dict(model="llama", steps=6, shard="all", warmup=0)
    assert pair(lambda: learning_in_part(ask(world, "two", **usual)) and 0) == [0, 0]
    learning_in_part(ask(world, "one", **usual))
    assert losses_of("two") == pytest.approx(losses_of("one"), abs=1e-5)
    one, two = load_file("one/final/model.safetensors"), load_file("two/final/model.safetensors")
    assert one.keys() == two.keys() and all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)


def test_a_state_of_the_whole_model_is_taken_over_in_part(world):
    """What learns goes on with its own moments; those of what does not are left where they are."""
    pretrain.pretrain(ask(world, "first", model="llama", steps=4))
    going = pretrain.open_run(ask(world, "run", model=Path("first/final").resolve(), steps=4), learners=OneModule())
    going.begin()
    given = load_file("first/final/optimizer/optimizer.safetensors")
    for name, parameter in going.student.model.named_parameters():
        state_of = going.student.optimizer.state.get(parameter, {})
        assert bool(state_of) == name.startswith(PART)
        assert all(torch.equal(value, given[f"{name}.{kind}"]) for kind, value in state_of.items())
