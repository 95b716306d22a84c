"""A teacher on disk: written once, whatever stops it and however many write; and what trains from it."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from processes import KILL, child, ended, killing, pair
from refusing import refused, run, tree
from tiny_runs import Stopped, ask, curve, dataset, losses_of, same, stops_at, tagged_dataset, tokenizer, weights

import growkit
from growkit.data import word_store
from growkit.data.batches import IGNORED
from growkit.data.word_store import StoredWords
from growkit.errors import CheckpointError, RequestError
from growkit.training import pretrain
from growkit.training.machine import this_machine
from growkit.training.objective import WholeWord
from growkit.training.stages import SCHEDULES
from growkit.training.teachers import teach
from growkit.training.teachers.stored_teacher import entries_of
from growkit.training.teachers.teacher import LiveTeacher, open_teacher

TAUGHT = dict(
    temperature=1.0,
    teacher_estimate="head+sampled",
    teacher_steps=6,
    teacher_schedule="constant",
    teacher_until="steps",
)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def stores(world, tmp_path_factory):
    """Teachers, one of which fills in masks, and what they say of the data: some of it, and all of it."""
    folder = tmp_path_factory.mktemp("stores")
    for family in ("llama", "bert"):
        tiny.make(family, dtype=torch.float32, seed=5).save_pretrained(folder / family)
        if family == "bert":
            tokenizer().save_pretrained(folder / family)
        for name, kept in (("some", dict(head=8, tail=8)), ("all", dict(head=61))):
            growkit.teach(folder / family, world / "data", folder / f"{family}-{name}", seq_len=16, **kept)
    return folder


def write(stores, world, out, resume="never", **more):
    return growkit.teach(stores / "llama", world / "data", out, seq_len=16, head=8, tail=8, resume=resume, **more)


# ---------------------------------------------------------------- written


def test_what_is_written_is_what_the_teacher_says(stores, world):
    """Record by record, by the place of the token; ids and log-probabilities of the head, and the rest's mass."""
    header = word_store.open_header(stores / "llama-some")
    assert header.record.itemsize == 2 * 16 + 2 * 8 + 2 * 2 and header.windows == 249
    records = StoredWords(stores / "llama-some").at(np.arange(header.windows * 16))
    model = tiny.make("llama", dtype=torch.float32, seed=5)
    ids = torch.from_numpy(np.fromfile(world / "data" / "train.bin", "<u2").astype(np.int64))
    with torch.no_grad():
        said = torch.log_softmax(model(input_ids=ids[: 249 * 16].view(249, 16)).logits.flatten(0, 1), -1)
    largest = said.topk(8)
    assert (records["ids"][:, :8] == largest.indices.numpy()).mean() > 0.999
    assert np.allclose(records["head"], largest.values, atol=4e-3, rtol=1e-3)
    rest = said.scatter(1, largest.indices, -torch.inf).logsumexp(1)
    assert np.allclose(records["tail"], rest, atol=4e-3, rtol=1e-3)
    assert not (records["ids"][:, 8:, None] == records["ids"][:, None, :8]).any()


def test_a_hundred_bytes_a_token():
    sizes = {vocabulary: word_store.record_of(vocabulary, 16, 16).itemsize for vocabulary in (61, 65_536, 65_537)}
    assert sizes == {61: 100, 65_536: 100, 65_537: 164}


@pytest.mark.parametrize(
    "arm",
    [
        killing(word_store.StoreWriter, "settle", 2),
        killing(word_store.StoreWriter, "write", 3, after=True),
        killing(word_store, "reserve", 2),
        killing(word_store, "finish"),
        killing(os, "replace", 2, after=True),
    ],
    ids=["before a mark", "after a batch", "while it begins", "before its name", "after its name"],
)
def test_a_store_is_the_same_whatever_killed_it(stores, world, arm, monkeypatch):
    """kill -9, then the same line again; what is unfinished is no teacher before."""
    monkeypatch.setattr(teach, "TOKENS", 16 * 60)
    monkeypatch.setattr(teach, "PATIENCE", 0.0)
    write(stores, world, "whole")
    assert ended(child(lambda: write(stores, world, "killed") and 0, arm)) == -KILL
    finished = Path("killed/store.json").exists()
    if not finished and Path("killed/store.unfinished.json").exists():
        with pytest.raises(
            RequestError, match="'killed' is unfinished: growkit is at it, or was stopped; go on with growkit teach"
        ):
            pretrain.pretrain(ask(world, "run", model="llama", teacher="killed", **TAUGHT))
        with pytest.raises(RequestError, match="holds an unfinished store; go on with it by --resume auto"):
            write(stores, world, "killed")
    write(stores, world, "killed", resume="auto")
    one, other = ({path[path.index("/") :]: sha for path, sha in tree(name).items()} for name in ("whole", "killed"))
    assert one == other and len(one) == 3


def test_two_processes_write_one_store(stores, world, monkeypatch):
    """Each its own places; what one began another goes on with."""
    monkeypatch.setattr(teach, "TOKENS", 16 * 60)
    write(stores, world, "one")
    assert pair(lambda: write(stores, world, "two") and 0) == [0, 0]
    assert [*tree("one").values()] == [*tree("two").values()]


def test_draws_do_not_depend_on_batches(stores, world, monkeypatch):
    """Nor does anything else, but for the rounding of products of another shape."""
    monkeypatch.setattr(teach, "TOKENS", 16 * 7)
    write(stores, world, "small")
    places = np.arange(249 * 16)
    one, other = (StoredWords(folder).at(places)["ids"] for folder in (stores / "llama-some", Path("small")))
    assert (one == other).mean() > 0.999


# ---------------------------------------------------------------- what it says of a batch


def teacher_of(run):
    """The only one of a run."""
    (teacher,) = run.lessons._teachers.values()
    return teacher


def words_of(world, spec, family, **more):
    """(batch, the word of a teacher on all that it predicts), in a run that has computed nothing yet."""
    going = pretrain.open_run(ask(world, Path(spec).name, model=family, teacher=str(spec), **{**TAUGHT, **more}))
    batch = going.train.rows(3, 0, 4)
    return batch, teacher_of(going).says(batch)(slice(None))


@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize("estimate", ["head+sampled", "bucket", "top-k"])
def test_a_store_of_all_entries_is_the_live_teacher(stores, world, family, estimate):
    """Value and gradient: of its log-probabilities in half precision to float32 rounding, and of itself to theirs."""
    batch, stored = words_of(world, stores / f"{family}-all", family, teacher_estimate=estimate)
    live = LiveTeacher(str(stores / family), ask(world, "live", **TAUGHT), this_machine("cpu", "auto"))
    whole = live.says(batch)(slice(None))
    student = torch.randn(batch.predicted, 61, generator=torch.Generator().manual_seed(0), requires_grad=True)
    halved = torch.log_softmax(whole.theirs, -1).half().float()
    for word, rounding in ((WholeWord(halved, 1.0), 2e-6), (whole, 4e-3)):
        value, wanted = stored.nats(student), word.nats(student)
        assert value.item() == pytest.approx(wanted.item(), rel=10 * rounding)
        slopes = [torch.autograd.grad(each, student)[0] for each in (value, wanted)]
        assert torch.allclose(*slopes, atol=rounding)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_a_teacher_tells_its_own_loss(stores, world, family):
    """Of as many windows as are asked for, without a model: as the live one measures it."""
    for tokens in (160, 480):
        asked = ask(world, "x", model=family, eval_tokens=tokens, teacher=str(stores / f"{family}-some"), **TAUGHT)
        going = pretrain.open_run(asked)
        live = LiveTeacher(str(stores / family), asked, going.machine)
        assert teacher_of(going).validation_loss(going.val) == pytest.approx(live.validation_loss(going.val), rel=1e-5)
        going.release()
        shutil.rmtree("x")


def test_masks_are_those_of_the_store(stores, world):
    """In every epoch, and each position finds its record; a part of a batch finds its own."""
    header = word_store.open_header(stores / "bert-some")
    asked = ask(world, "x", model="bert", teacher=str(stores / "bert-some"), seed=9, **TAUGHT)
    train = pretrain.open_run(asked).train
    seen: dict[int, torch.Tensor] = {}
    for step in range(130):  # over the end of an epoch
        batch = train.rows(step, 0, 4)
        for row, place in enumerate(batch.places[:, 0].tolist()):
            assert torch.equal(seen.setdefault(place, batch.inputs[row]), batch.inputs[row])
    assert len(seen) == train.windows == 250
    chosen = batch.labels != IGNORED
    entries = entries_of(header, batch.places[chosen].numpy())
    windows = batch.places[:, 0].numpy() // 16
    assert entries.tolist() == (windows[:, None] * 2 + np.arange(2)).flatten().tolist()
    assert entries_of(header, batch.places[chosen].numpy()[::3]).tolist() == entries[::3].tolist()


# ---------------------------------------------------------------- trained from


@pytest.mark.parametrize("estimate", ["head+sampled", "bucket", "sampled", "top-k"])
def test_every_estimate_trains(stores, world, estimate):
    usual = dict(model="llama", steps=6, warmup=0, **{**TAUGHT, "teacher_estimate": estimate})
    pretrain.pretrain(ask(world, "live", **{**usual, "teacher": str(stores / "llama"), "teacher_estimate": None}))
    pretrain.pretrain(ask(world, "run", teacher=str(stores / "llama-some"), **usual))
    assert losses_of("run") == pytest.approx(losses_of("live"), abs=0.02) and losses_of("run") != losses_of("live")


def test_runs_of_a_store_stop_grow_and_go_on(stores, world):
    """Parts and processes give the same losses; a run that was stopped goes on bit for bit, over a growth too."""
    tiny.make("llama", dtype=torch.float32, num_hidden_layers=1).save_pretrained("small")
    doubled = SCHEDULES["stackbert"](8, 1, sub_layers=1, sub_steps=6, to_layers=2, jump_at=None)
    staged = dict(model=Path("small").resolve(), steps=8, save_every=3, stages=doubled)
    usual = dict(teacher=str(stores / "llama-some"), **staged, **{**TAUGHT, "teacher_steps": 7})
    pretrain.pretrain(ask(world, "run", **usual))

    with pytest.raises(Stopped):
        pretrain.pretrain(ask(world, "part", **usual), watch=stops_at(5))
    pretrain.pretrain(ask(world, "part", **usual), True)
    assert curve("part") == curve("run") and same(weights("part/final"), weights("run/final"))
    assert pair(lambda: pretrain.pretrain(ask(world, "two", grad_accum=2, **usual)) and 0) == [0, 0]
    assert losses_of("two") == pytest.approx(losses_of("run"), abs=1e-5)


def test_a_masked_model_trains_from_a_store(stores, world):
    usual = dict(model="bert", steps=4, grad_accum=2, eval_every=2, lr=1e-2)
    pretrain.pretrain(
        ask(world, "run", teacher=str(stores / "bert-some"), **usual, **{**TAUGHT, "teacher_until": "overtaken"})
    )
    told = [line for line in map(json.loads, Path("run/metrics.jsonl").read_text().splitlines()) if "kd_loss" in line]
    assert len(told) >= 2 and all(0.0 < line["kd_loss"] < 10.0 for line in told)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_stores_teach_by_domain(stores, world, family):
    """Each its own positions, as the live ones do; a domain's part of a masked window finds its records."""
    tagged_dataset(Path("data"))
    growkit.teach(stores / family, "data", "store", seq_len=16, head=61)
    usual = dict(model=family, data="data", steps=3, warmup=0, eval_every=3, grad_accum=2)
    pretrain.pretrain(ask(world, "run", teacher={"a": "store", "b": "store"}, **usual, **TAUGHT))
    live = dict(teacher={name: str(stores / family) for name in "ab"}, **{**TAUGHT, "teacher_estimate": None})
    pretrain.pretrain(ask(world, "live", **usual, **live))
    if family == "llama":  # whose batches are the same, as there are no masks
        assert losses_of("run") == pytest.approx(losses_of("live"), abs=1e-3)


# ---------------------------------------------------------------- refused


def test_what_a_store_is_not_for(stores, world, tmp_path):
    """With both values; nothing is written."""
    store, options = str(stores / "llama-some"), ["--seq-len", "16", "--batch-size", "4", "--steps", "3"]
    dataset(tmp_path / "other", 3000)
    small = dict(vocab_size=55, dtype=torch.float32)
    tiny.make("llama", **small).save_pretrained("small")

    def no(*more, says, model="llama", data=world / "data", teacher=store):
        line = ["pretrain", world / model, "--data", data, "--out", "run", "--teacher", teacher, *options]
        refused(*line, *more, says=says)

    no("--seq-len", "8", says="is of --seq-len 16, the run of 8")
    no("--temperature", "2", says="is of --temperature 1, the run of 2")
    no(data="other", says="is of other data: its file's SHA-256 is ")
    no(model="bert", says="do not predict alike")
    no(model=Path("small").resolve(), data="other", says="is of a vocabulary of 61, the model of 55")
    no("--teacher-estimate", "bucket", teacher=stores / "llama", says="--teacher-estimate is for a teacher's store")
    shutil.copytree(store, "cut")
    with open("cut/train.words", "r+b") as file:
        file.truncate(1000)
    no(teacher="cut", says="has 1,000 bytes, its header says 207,168: the store was cut short")
    shutil.copytree(store, "bare")
    header = json.loads(Path("bare/store.json").read_text()) | {"tail": 0}
    Path("bare/store.json").write_text(json.dumps(header))
    os.truncate("bare/train.words", 249 * 16 * 36)
    no(teacher="bare", says="has nothing drawn (--tail 0), so --teacher-estimate head+sampled cannot be")
    spoiled = bytearray(Path(store, "train.words").read_bytes())
    spoiled[::52] = b"\xff" * len(spoiled[::52])
    spoiled[1::52] = b"\xff" * len(spoiled[::52])
    shutil.copytree(store, "spoiled")
    Path("spoiled/train.words").write_bytes(spoiled)
    with pytest.raises(CheckpointError, match="damaged: it holds what no teacher says"):
        pretrain.pretrain(ask(world, "run", model="llama", teacher="spoiled", **TAUGHT))


def test_a_teacher_that_changed_while_a_run_was_stopped(stores, world):
    shutil.copytree(stores / "llama-some", "store")
    usual = dict(model="llama", steps=4, teacher="store", **TAUGHT)
    pretrain.pretrain(ask(world, "run", **usual))
    shutil.rmtree("store")
    write(stores, world, "store", seed=1)
    with pytest.raises(RequestError, match="begun with other settings: other bytes in store"):
        pretrain.pretrain(ask(world, "run", **usual), True)


def test_what_cannot_be_written_down(stores, world):
    line = ["teach", stores / "llama", "--data", world / "data", "--seq-len", "16"]
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    assert run(*line, "-o", "store", "--head", "4").exit_code == 0
    for more, says in (
        (["-o", "store"], "'store' was begun with something else: head 16 (was 4); give what it was, or another --out"),
        (["-o", "store", "--head", "4"], "'store' holds a store; take it away, or choose another --out"),
        (["-o", "mine"], "'mine' holds 'notes.txt' and is no store"),
        (["-o", "mine/notes.txt"], "exists and is no folder"),
        (["-o", "out", "--head", "62"], "--head 62 is more than the 61 entries of the teacher's vocabulary"),
        (["-o", "out", "--seq-len", "4000"], "4000 tokens make no window of 4000"),
        (["-o", world / "data" / "store"], "is inside the data"),
    ):
        refused(*line, *more, says=says)
    tiny.make("llama", dtype=torch.float32).save_pretrained("other")
    tokenizer().save_pretrained("other")
    dataset(Path("strange"), 400, tokenizer="0" * 64, tokenizer_source="gone")
    says = "'strange' was made by another tokenizer than 'other' has: 'gone', which made the data, is not here"
    refused("teach", "other", "--data", "strange", "--seq-len", "16", "-o", "out", says=says)
    dataset(Path("alike"), 400, tokenizer="0" * 64, tokenizer_source="other")
    assert run("teach", "other", "--data", "alike", "--seq-len", "16", "-o", "of-alike").exit_code == 0
    assert json.loads(run(*line, "-o", "store", "--head", "4", "--resume", "auto", "--json").stdout)["bytes_each"] == 52


# ---------------------------------------------------------------- a smaller vocabulary


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_a_teacher_with_the_beginning_of_the_vocabulary(world, family):
    """Live and stored: on what both have, where all that it sees is known to it; and it is said."""
    data = dataset(Path("data"), 2000)
    for split in ("train", "val"):
        ids = np.fromfile(data / f"{split}.bin", "<u2")
        ids[37::160] = 60  # that the teacher lacks
        ids.tofile(data / f"{split}.bin")
    tiny.make(family, dtype=torch.float32, seed=5, vocab_size=57).save_pretrained("small")
    if family == "bert":
        tokenizer().save_pretrained("small")
    growkit.teach("small", data, "store", seq_len=16, head=57)
    told = {}
    for teacher in ("small", "store"):
        notes = []
        asked = ask(world, f"run-{teacher}", model=family, steps=3, teacher=teacher, eval_every=1, **TAUGHT)
        asked = replace(asked, data=str(data), teacher_estimate=asked.teacher_estimate * (teacher == "store") or None)
        going = pretrain.open_run(asked, watch=notes.append)
        assert "vocabulary of 57 is the beginning of the model's 61" in teacher_of(going).notes[0]
        batches = [going.train.at([number]) for number in range(25)]
        words = [(batch, teacher_of(going).says(batch)(slice(None))) for batch in batches]
        told[teacher] = [word.rows for _, word in words], teacher_of(going).validation_loss(going.val)
        if teacher == "small":
            continue
        pretrain.carry_through(going)
        assert len(losses_of("run-store")) == 3
    rows = told["store"][0]
    assert any(row is not None for row in rows) and any(row is None for row in rows)
    if family == "llama":  # whose inputs are the same, as there are no masks
        for one, other in zip(*(told[teacher][0] for teacher in told)):
            assert (one is None and other is None) or torch.equal(one, other)
        seen = next(row for row in rows if row is not None)
        assert seen.tolist() == list(range(len(seen))) and len(seen) < 16
        assert told["small"][1] == pytest.approx(told["store"][1], rel=1e-5)


def test_a_vocabulary_that_is_not_the_beginning(world):
    for name, mask in (("small", 57), ("large", 61)):
        tiny.make("bert", dtype=torch.float32, vocab_size=mask).save_pretrained(name)
    words = tokenizer()
    words.save_pretrained("large")
    words.save_pretrained("small")
    text = Path("small/tokenizer.json").read_text().replace('"w40"', '"other"')
    Path("small/tokenizer.json").write_text(text)
    asked = ask(world, "run", model=Path("large").resolve(), teacher="small", **{**TAUGHT, "teacher_estimate": None})
    with pytest.raises(
        RequestError, match="not the beginning of the model's: token 'other' has id 40 in 'small' and is not"
    ):
        pretrain.pretrain(asked)
    teacher = open_teacher("small", asked, this_machine("cpu", "auto"))
    assert isinstance(teacher, LiveTeacher)
