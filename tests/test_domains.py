"""Tags of text: the domain of each document is kept and looked up by place, changes nothing else, and losses are told by
it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from refusing import cases, refused, run
from texts import EXCERPT, TOKENIZERS, put, wrap
from tiny_runs import ask, curve, numbers_of, tagged_dataset, without_tags

import growkit
from growkit.data import domains as kept
from growkit.data.batches import IGNORED, Batches
from growkit.data.domains import NOWHERE, DomainLosses
from growkit.data.tokens import TokenWriter, open_tokens
from growkit.errors import CheckpointError
from growkit.training import pretrain
from growkit.training.machine import this_machine
from growkit.training.validation import own_batches


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a tokenizer, books and code."""
    monkeypatch.chdir(tmp_path)
    wrap(TOKENIZERS["gpt2"], eos_token="<end>").save_pretrained("tok")
    words = EXCERPT.read_text("utf-8")
    for number in range(8):
        put(f"{'books' if number < 5 else 'code'}/{number}.txt", words[number * 3000 : (number + 1) * 3000])
    return tmp_path


def tokenize(*inputs, out="data", **more):
    return growkit.tokenize(list(inputs), out, "tok", **more)


def bytes_of(folder, *but):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name not in but}


def test_tags_by_hand(here):
    made = tokenize(
        "books=books/0.txt", "code=code", "books=books/[12].txt", val=["code=books/3.txt", "new=books/4.txt"]
    )
    meta = json.loads(Path("data/meta.json").read_text())
    assert meta == made.meta and meta["domains"] == ["books", "code", "new"] and meta["format"] == 1
    assert np.fromfile("data/train.domains", "u1").tolist() == [0, 0, 0, 1, 1, 1]
    assert np.fromfile("data/val.domains", "u1").tolist() == [1, 2]
    starts, counts = np.load("data/train.idx.npy"), meta["splits"]["train"]
    assert counts["domains"]["books"]["tokens"] == starts[3] and counts["domains"]["books"]["documents"] == 3
    assert counts["domains"].keys() == {"books", "code"} and meta["splits"]["val"]["domains"].keys() == {"code", "new"}
    for key in ("tokens", "documents", "text_bytes"):
        assert counts[key] == sum(own[key] for own in counts["domains"].values()), key
    assert [source["domain"] for source in meta["sources"]["train"]] == ["books"] * 3 + ["code"] * 3
    tokens = open_tokens("data")
    assert tokens.domains.of(np.arange(len(tokens))).tolist() == numbers_of().tolist()
    assert tokens.domains.tokens(len(tokens)) == [starts[3], len(tokens) - starts[3], 0]
    assert run("tokenize", "books", "--tokenizer", "tok", "-o", "data", "--force").exit_code == 0, "a dataset of ours"
    assert not Path("data/train.domains").exists() and open_tokens("data").domains is None


def test_tags_change_nothing_else(here):
    tokenize("books", "code", out="plain")
    tokenize("a=books", "b=code", out="tagged")
    assert bytes_of("plain", "meta.json") == bytes_of("tagged", "meta.json", "train.domains")
    plain, tagged = (json.loads(Path(name, "meta.json").read_text()) for name in ("plain", "tagged"))
    assert tagged.pop("domains") == ["a", "b"] and tagged["splits"]["train"].pop("domains")
    assert [source.pop("domain") for source in tagged["sources"]["train"]] == ["a"] * 5 + ["b"] * 3
    assert plain == tagged


def test_a_path_of_that_name_is_a_path(here):
    shutil.copytree("code", "x=code")
    shutil.copytree("books", "code/books")
    tokenize("x=code", out="path")
    tokenize("x=code/5*", out="pattern")
    tokenize("y=code/5*", out="tag")
    metas = [json.loads(Path(name, "meta.json").read_text()) for name in ("path", "pattern", "tag")]
    assert ["domains" in meta for meta in metas] == [False, False, True]
    assert [meta["splits"]["train"]["documents"] for meta in metas] == [3, 1, 1]


def test_each_domain_validates_its_share(here):
    made = tokenize("books=books", "code=code", val_fraction=0.4)
    documents = {
        split: {name: own["documents"] for name, own in said["domains"].items()}
        for split, said in made.meta["splits"].items()
    }
    assert documents == {"train": {"books": 3, "code": 2}, "val": {"books": 2, "code": 1}}
    shown = run("tokenize", "books=books", "code=code", "--val-fraction", "0.4", "--tokenizer", "tok", "-o", "again")
    rows = [line.split()[:2] for line in shown.stdout.splitlines()]
    assert ["books", "3"] in rows and ["code", "1"] in rows and ["train", "5"] in rows
    assert bytes_of("again") == bytes_of("data")


REFUSED = [
    ("a=books code", "'code' has no tag and others have (a); tag all inputs as name=PATH, those of --val too, or none"),
    ("a=books --val code", "'code' has no tag and others have (a)"),
    ("books --val a=code", "'books' has no tag and others have (a)"),
    ("a=books b=books/1.txt", "'books/1.txt' is in a and in b; leave it out of one"),
    ("a=books --val a=books/1.txt", "books/1.txt' is both for training and for validation"),
    ("a=nosuch", "'nosuch' does not exist"),
    ("=books", "'=books' does not exist"),
    ("a b=books", "'a b=books' does not exist"),
    ("a=books b=code/5.txt --val-fraction 0.3", "--val-fraction 0.3 of 1 documents of b leaves none for"),
    ("a=books -o books/data", "is inside the source 'books'"),
]


@pytest.mark.parametrize("args, says", cases(REFUSED))
def test_tags_that_cannot_be(here, args, says):
    words = ["a b=books"] if args.startswith("a b") else args.split()
    refused("tokenize", *words, *([] if "-o" in words else ["-o", "data"]), "--tokenizer", "tok", says=says)


def test_more_domains_than_a_byte_counts(here, monkeypatch):
    from growkit.data import tagged

    monkeypatch.setattr(tagged, "MOST", 2)
    line = ("tokenize", "a=books/0.txt", "b=books/1.txt", "c=books/2.txt", "--tokenizer", "tok", "-o", "data")
    refused(*line, says="3 domains are more than 2, the most that a dataset has")


def spoil(name, change):
    path = Path("data", name)
    path.write_bytes(change(path.read_bytes()))


DAMAGED = [
    (lambda: spoil("train.domains", lambda b: b[:-1]), "train.domains' has 7 entries where 8 should be; make the dataset again"),
    (lambda: spoil("train.domains", lambda b: b""), "train.domains' holds no whole number of uint8"),
    (lambda: spoil("train.domains", lambda b: b[:-1] + b"\2"), "has a document of domain 2, and meta.json names 2"),
    (lambda: Path("data/train.domains").unlink(), "cannot read 'data/train.domains': No such file"),
    (lambda: spoil("train.idx.npy", lambda b: b[:-8]), "train.idx.npy' has 8 entries where 9 should be"),
    (lambda: spoil("train.idx.npy", lambda b: b[:-1]), "train.idx.npy' holds no whole number of int64"),
    (lambda: spoil("train.idx.npy", lambda b: b[:9]), "train.idx.npy' is no NumPy file of int64 numbers"),
    (lambda: spoil("train.idx.npy", lambda b: b.replace(b"<i8", b"<i4")), "is no NumPy file of int64 numbers"),
    (lambda: np.save("data/train.idx.npy", np.arange(9)[::-1]), "has documents that start before the one before them"),
    (lambda: np.save("data/train.idx.npy", np.arange(9) + 1), "has documents that start before the one before them"),
    (lambda: np.save("data/train.idx.npy", np.arange(9)), "train.idx.npy' ends at token 8, the split at "),
    (lambda: spoil("meta.json", lambda b: b.replace(b'"b"\n', b'"a"\n')), "names a domain twice in a, a"),
    (lambda: spoil("meta.json", lambda b: b.replace(b'"b"\n', b'"b c"\n')), "should have domains[1] as a name, not 'b c'"),
    (lambda: spoil("meta.json", lambda b: b.replace(b'"b"\n', b'5\n')), "should have domains[1] as a name, not 5"),
]  # fmt: skip


@pytest.mark.parametrize("damage, says", cases(DAMAGED))
def test_damaged_domains(here, damage, says):
    tokenize("a=books", "b=code")
    damage()
    with pytest.raises(CheckpointError) as error:
        _ = open_tokens("data").domains
    assert says in str(error.value)


LENGTHS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2)), min_size=1, max_size=30)


@given(documents=LENGTHS, at_once=st.integers(1, 7))
def test_written_then_looked_up_is_equal(tmp_path_factory, documents, at_once):
    """However documents lie, empty ones among them, and however many are read at a time."""
    folder = tmp_path_factory.mktemp("data")
    writer = TokenWriter(folder, "train", np.dtype("<u2"), "abc")
    for length, domain in [*documents, (1, 0)]:
        writer.add([1] * length, length, domain)
    said = writer.close()
    before, kept.AT_ONCE = kept.AT_ONCE, at_once
    try:
        found = kept.read_domains(folder, "train", "abc", said["documents"], said["tokens"])
    finally:
        kept.AT_ONCE = before
    expected = [domain for length, domain in [*documents, (1, 0)] for _ in range(length)]
    assert found.of(np.arange(said["tokens"])).tolist() == expected
    assert found.tokens(said["tokens"]) == [expected.count(n) for n in range(3)]


@pytest.mark.parametrize("masked", [None, (3, 61)])
def test_a_batch_says_the_domain_of_each_label(tmp_path, masked):
    """Of the label's own document, where a window crosses from one to the next too."""
    tagged_dataset(tmp_path / "data")
    tokens, numbers = open_tokens(tmp_path / "data"), numbers_of(tmp_path / "data")
    usual = dict(tokens=tokens.ids, length=32, size=4, masked=masked)
    batches = Batches(**usual, domains=tokens.domains)
    for batch in (batches.rows(3, 0, 4), batches.rows(3, 1, 2)):
        places = batch.places.numpy() + (masked is None)
        predicted = batch.labels.numpy() != IGNORED
        assert np.array_equal(batch.domains.numpy(), np.where(predicted, numbers[places], NOWHERE))
        assert batch.of.tolist() == numbers[places[predicted]].tolist() and len(batch.of) == batch.predicted
    plain = Batches(**usual).rows(3, 0, 4)
    whole = batches.rows(3, 0, 4)
    assert plain.domains is None and all(
        torch.equal(getattr(plain, n), getattr(whole, n)) for n in ("inputs", "labels")
    )
    assert any(len(set(row.tolist()) - {NOWHERE}) == 2 for row in whole.domains), "no window crosses"
    parts = whole.parts(2)
    assert torch.equal(torch.cat([part.domains for part in parts]), whole.domains)


def test_the_rows_of_one_domain(tmp_path):
    tokens = open_tokens(tagged_dataset(tmp_path / "data"))
    batch = Batches(tokens=tokens.ids, length=32, size=6, domains=tokens.domains).rows(0, 0, 6)
    for domain in (0, 1):
        own = batch.only(domain)
        rows = [row for row in range(6) if (batch.domains[row] == domain).any()]
        assert torch.equal(own.inputs, batch.inputs[rows]) and torch.equal(own.places, batch.places[rows])
        assert own.labels[own.labels != IGNORED].tolist() == batch.labels[batch.domains == domain].tolist()
        assert own.predicted == (batch.domains == domain).sum() and set(own.of.tolist()) == {domain}
    assert batch.only(7).predicted == 0 and len(batch.only(7).inputs) == 0


# losses by domain


def test_losses_are_summed_by_domain():
    losses = DomainLosses("abc")
    losses.add(np.array([0, 2, 0], "u1"), np.array([1.0, 5.0, 2.0]))
    losses.add(np.array([2], "u1"), np.array([6.0]))
    assert losses.means() == {"a": 1.5, "c": 5.5}


@pytest.mark.parametrize("model", ["llama", "bert"])
def test_eval_tells_the_loss_of_each_domain(world, tmp_path, monkeypatch, model):
    """Weighted by how much each predicts they are the whole; the whole is what untagged text gives, bit for bit."""
    monkeypatch.chdir(tmp_path)
    data = tagged_dataset(Path("data"), mask_id=3) if model == "bert" else tagged_dataset(Path("data"))
    usual = dict(context=32, stride=24) if model == "llama" else dict(context=32)
    found = growkit.evaluate(world / model, data, **usual)
    plain = growkit.evaluate(world / model, without_tags(data, Path("plain")), **usual)
    assert found.loss == plain.loss and plain.domains is None and "domains" not in plain.to_json()
    assert found.domains.keys() == {"a", "b"} and found.to_json()["domains"] == found.domains
    if model == "llama":
        numbers, total = numbers_of("data", "val")[1:], len(open_tokens("data", "val")) - 1
        weighed = sum(found.domains[name] * (numbers == n).sum() for n, name in enumerate("ab"))
        assert weighed / total == pytest.approx(found.loss, rel=1e-12) and found.domains["a"] != found.domains["b"]
        shown = run("eval", world / model, "--data", "data", "--context", 32, "--stride", 24).stdout
        assert f"{found.domains['b']:.4f} nats per token" in shown


def test_validation_tells_the_loss_of_each_domain(world, tmp_path, monkeypatch, capsys):
    """And training on tagged text is training on the same text untagged, bit for bit."""
    monkeypatch.chdir(tmp_path)
    tagged = tagged_dataset(Path("data"))
    usual = dict(model="llama", steps=4, eval_every=2, eval_tokens=4000)
    pretrain.pretrain(ask(world, "run", data=str(tagged), **usual))
    pretrain.pretrain(ask(world, "plain", data=str(without_tags(tagged, Path("untagged"))), **usual))
    assert curve("run") == curve("plain")
    assert Path("run/final/model.safetensors").read_bytes() == Path("plain/final/model.safetensors").read_bytes()
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    val = [line for line in lines if line["kind"] == "val"]
    others = [json.loads(line) for line in Path("plain/metrics.jsonl").read_text().splitlines()]
    assert val[0]["step"] == 0, "tagged text is measured where it begins"
    assert [line["loss"] for line in val[1:]] == [line["loss"] for line in others if line["kind"] == "val"]
    assert not any("domains" in line for line in others)
    length = (len(open_tokens("data", "val")) - 1) // 16 * 16
    counts = np.bincount(numbers_of("data", "val")[1 : length + 1])
    for line in val:
        weighed = sum(line["domains"][name] * count for name, count in zip("ab", counts)) / counts.sum()
        assert weighed == pytest.approx(line["loss"], rel=1e-6)


def test_a_validation_of_few_tokens_sees_all_domains(tmp_path, world):
    """Which follow one another in the file."""
    data = tagged_dataset(tmp_path / "data", (600, 600))
    tokens = open_tokens(data, "val")
    val = Batches(tokens=tokens.ids, length=16, size=4, domains=tokens.domains)
    asked, machine = ask(world, "run", eval_tokens=96), this_machine("cpu", "float32")
    seen = [batch for batch, counts in own_batches(val, asked, machine) if counts]
    windows = [place // 16 for batch in seen for place in batch.places[:, 0].tolist()]
    assert len(windows) == 6 and windows[0] == 0 and windows[-1] == val.windows - 1 == 73
    assert set(np.diff(windows)) <= {14, 15} and {kind for batch in seen for kind in batch.of.tolist()} == {0, 1}
    val.domains = None
    first = [place for batch, _ in own_batches(val, asked, machine) for place in batch.places[:, 0].tolist()]
    assert first == [0, 16, 32, 48, 64, 80]


def test_tags_that_changed_since_are_told(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = tagged_dataset(Path("data"))
    line = [
        "pretrain",
        world / "llama",
        "--data",
        "data",
        "--out",
        "run",
        "--seq-len",
        16,
        "--batch-size",
        2,
        "--steps",
        1,
    ]
    assert run(*line).exit_code == 0
    numbers = np.fromfile(data / "train.domains", "u1")
    (1 - numbers).tofile(data / "train.domains")
    shutil.rmtree("run/final")
    refused(*line, "--resume", "auto", says="was begun with other settings: other bytes in domains")


def test_batches_of_tagged_text_are_one_for_any_number_of_processes(tmp_path):
    tokens = open_tokens(tagged_dataset(tmp_path / "data"))
    batches = Batches(tokens=tokens.ids, length=16, size=6, domains=tokens.domains)
    shares = torch.cat([batches.rows(5, first, 2).domains for first in (0, 2, 4)])
    assert torch.equal(shares, batches.rows(5, 0, 6).domains)
