"""Text that the library `datasets` reads: streamed or from the disk, the same documents as out of files; and one
sentence for what it cannot. Nothing is asked of the hub: a name there stands for a folder here.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from on_disk import copied
from refusing import cases, refused, run, tree
from texts import EXCERPT, TOKENIZERS, wrap

import growkit

datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install 'growkit[datasets]'")
ROWS = 30


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """A tokenizer, and the same documents in every form that the library reads."""
    folder = tmp_path_factory.mktemp("forms")
    text = EXCERPT.read_text("utf-8")
    texts = [text[at : at + 150] for at in range(0, 150 * ROWS, 150)]
    lines = "".join(json.dumps({"text": text, "n": 1}) + "\n" for text in texts)
    wrap(TOKENIZERS["gpt2"], eos_token="<end>").save_pretrained(folder / "tok")
    whole = datasets.Dataset.from_dict({"text": texts, "n": list(range(ROWS))})
    few = datasets.Dataset.from_dict({"text": texts[:3], "n": [0, 1, 2]})
    for name in ("parquet", "json", "csv", "two"):
        (folder / name).mkdir()
    whole.save_to_disk(folder / "saved")
    datasets.DatasetDict(train=whole, validation=few).save_to_disk(folder / "splits")
    whole.to_parquet(folder / "parquet/train-00000-of-00001.parquet")
    few.to_parquet(folder / "parquet/validation-00000-of-00001.parquet")
    whole.to_csv(folder / "csv/a.csv")
    card = "---\nconfigs:\n- config_name: all\n  data_files: a.jsonl\n- config_name: few\n  data_files: b.jsonl\n---\n"
    (folder / "two/README.md").write_text(card)
    (folder / "two/b.jsonl").write_text(json.dumps({"text": texts[0]}) + "\n")
    for name in ("json/a.jsonl", "two/a.jsonl", "lines.jsonl"):
        (folder / name).write_text(lines)
    return folder


@pytest.fixture
def here(forms, tmp_path, tmp_path_factory, monkeypatch):
    """Copies of them in a new current folder."""
    copied(forms, tmp_path, monkeypatch)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


FORMS = ["saved", "splits", "parquet", "json", "csv"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_tokens_of_files(here, form):
    growkit.tokenize("lines.jsonl", "files", "tok", val_fraction=0.2, workers=1)
    before = tree(form)
    made = growkit.tokenize(None, "data", "tok", dataset=form, val_fraction=0.2, workers=1)
    for name in ("train.bin", "train.idx.npy", "val.bin", "val.idx.npy"):
        assert Path("data", name).read_bytes() == Path("files", name).read_bytes()
    said = {"dataset": form, "split": "train"}
    assert made.meta["sources"] == {"train": [said if form in ("saved", "splits") else {**said, "config": "default"}]}
    assert tree(form) == before


def test_options_and_a_new_tokenizer(here):
    line = ["tokenize", "--workers", "1", "--force", "-o", "data"]
    assert run(*line, "--dataset", "two", "--config", "few", "--tokenizer", "tok").exit_code == 0
    assert len(np.load("data/train.idx.npy")) == 2
    split = ["--dataset", "splits", "--split", "validation", "--tokenizer", "tok"]
    assert run(*line, *split).exit_code == 0 and len(np.load("data/train.idx.npy")) == 4
    both = ["--dataset", "parquet", "--val-split", "validation", "--train-tokenizer", "300"]
    assert run(*line, *both).exit_code == 0
    meta = json.loads(Path("data/meta.json").read_text())
    assert meta["splits"]["train"]["documents"] == ROWS and meta["splits"]["val"]["documents"] == 3
    assert meta["sources"]["val"] == [{"dataset": "parquet", "config": "default", "split": "validation"}]
    growkit.tokenize("lines.jsonl", "files", train_tokenizer=300, workers=1)
    assert meta["tokenizer"] == json.loads(Path("files/meta.json").read_text())["tokenizer"]


def test_beside_files_and_by_domain(here):
    made = growkit.tokenize("files=lines.jsonl", "data", "tok", dataset=["two=saved", "files=json"], workers=1)
    assert made.meta["domains"] == ["files", "two"]
    assert {name: own["documents"] for name, own in made.meta["splits"]["train"]["domains"].items()} == {
        "files": 2 * ROWS, "two": ROWS,
    }  # fmt: skip
    assert [said["domain"] for said in made.meta["sources"]["train"]] == ["files", "two", "files"]
    refused("tokenize", "lines.jsonl", "--dataset", "a=saved", "--tokenizer", "tok", "-o", "out", says="has no tag")


def test_a_name_on_the_hub_is_streamed_with_its_revision(here, monkeypatch):
    asked, build = [], datasets.load_dataset_builder
    hub = "hf://datasets/org/name@abc123/"

    def builder(name, config=None):
        asked.append((name, config))
        made = build(os.path.abspath("parquet"))
        made.hash = "abc123"
        stream = made.as_streaming_dataset
        made.as_streaming_dataset = lambda split: (
            asked.append((split, made.config.columns)),
            local(made, stream, split),
        )[1]
        made.config.data_files = {s: [hub + Path(f).name for f in files] for s, files in made.config.data_files.items()}
        return made

    def local(made, stream, split):
        there = {
            s: [f.replace(hub, f"{os.path.abspath('parquet')}/") for f in files]
            for s, files in made.config.data_files.items()
        }
        made.config.data_files = there
        return stream(split=split)

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    made = growkit.tokenize(None, "data", "tok", dataset="org/name", config="x", workers=1)
    assert asked == [("org/name", "x"), ("train", None), ("train", ["text"])], "one column is fetched"
    said = {"dataset": "org/name", "config": "default", "split": "train", "revision": "abc123"}
    assert made.meta["sources"]["train"] == [said]
    refused("tokenize", "--dataset", "org/other", "--tokenizer", "tok", "-o", "out", says="none of its own files")


def script():
    Path("script").mkdir()
    Path("script/script.py").write_text("raise SystemExit(5)")


def elsewhere():
    Path("two/README.md").write_text("---\nconfigs:\n- config_name: all\n  data_files: ../lines.jsonl\n---\n")


def moved():
    state = json.loads(Path("saved/state.json").read_text())
    state["_data_files"] = [{"filename": f"../splits/train/{state['_data_files'][0]['filename']}"}]
    Path("saved/state.json").write_text(json.dumps(state))


def other(name, text):
    return lambda: Path(name).write_text(text)


LINES = cases([
    (None, "--dataset me/nosuch", "'me/nosuch' cannot be read by datasets"),
    (None, "--dataset me/nosuch", "hf auth login"),
    (None, "--dataset ./nosuch", "'./nosuch' is no folder, and no name on the hub"),
    (None, "--dataset a/b/c", "'a/b/c' is no folder, and no name on the hub"),
    (lambda: Path("json").rename("x"), "--dataset json", "'json' is a format and no name on the hub"),
    (None, "--dataset json/a.jsonl", "is a file; give files as INPUT"),
    (lambda: Path("empty").mkdir(), "--dataset empty", "'empty' cannot be read by datasets"),
    (script, "--dataset script", "Dataset scripts are no longer supported"),
    (elsewhere, "--dataset two", "none of its own files"),
    (moved, "--dataset saved", "none of its own files"),
    (None, "--dataset two", "available configs: ['all', 'few']; name one with --config"),
    (None, "--dataset two --config none", "Available: ['all', 'few']; name one with --config"),
    (None, "--dataset saved --config x", "'saved' was saved without any"),
    (None, "--dataset saved --split test", "holds one split, saved by itself; leave --split test out"),
    (None, "--dataset splits --split test", "has no split 'test'; name one of train, validation with --split"),
    (None, "--dataset csv --split test", "Available splits: ['train']; name one with --split"),
    (None, "--dataset splits --val-split train", "split 'train' is both for training and for validation"),
    (None, "--dataset splits --val-split validation --val-fraction 0.1", "both say what validates"),
    (None, "lines.jsonl --split train", "--split is of a --dataset, and none is given"),
    (None, "", "no text: name at least one file or folder, or a --dataset"),
    *((None, f"--dataset {form} --text-key body", "has no key 'body'; it has 'text', 'n'") for form in FORMS),
    *((None, f"--dataset {form} --text-key n", "has a int under 'n', not text") for form in FORMS),
    (other("json/a.jsonl", '{"text": "a"}\n{{'), "--dataset json", "JSON parse error"),
    (other("parquet/train-00000-of-00001.parquet", "x"), "--dataset parquet", "'parquet' cannot be read by datasets"),
    (other("saved/state.json", "{"), "--dataset saved", "'saved' cannot be read by datasets"),
    (other("json/a.jsonl", '{"text": " "}\n'), "--dataset json", "there is no text in json"),
])  # fmt: skip


@pytest.mark.parametrize("prepare, line, says", LINES)
def test_what_cannot_be_read_is_one_sentence(here, prepare, line, says):
    if prepare:
        prepare()
    refused("tokenize", *line.split(), "--tokenizer", "tok", "--workers", "1", "-o", "out", says=says)


def test_the_library_that_is_missing(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    line = ["tokenize", "--dataset", "saved", "--tokenizer", "tok", "-o", "out"]
    refused(*line, says="--dataset needs an extra: pip install 'growkit[datasets]'")
    assert run("tokenize", "lines.jsonl", "--tokenizer", "tok", "--workers", "1", "-o", "out").exit_code == 0


def test_nothing_of_it_is_held(here, monkeypatch):
    """Rows come a few at a time, whatever the file's own groups are."""
    many = datasets.Dataset.from_dict({"text": ["word " * 10] * 5000})
    many.to_parquet("parquet/train-00000-of-00001.parquet", batch_size=5000)
    largest = []
    read = datasets.IterableDataset.iter

    def counted(rows, size):
        for batch in read(rows, size):
            largest.append(len(batch["text"]))
            yield batch

    monkeypatch.setattr(datasets.IterableDataset, "iter", counted)
    growkit.tokenize(None, "data", "tok", dataset="parquet", workers=1)
    assert sum(largest) == 5000 and max(largest) <= 256
