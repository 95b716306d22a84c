"""Tokenizers are compared by what they do, whatever files they are in; what cannot be compared is said."""

import json
from pathlib import Path

import pytest
import tiny
from on_disk import copied
from refusing import refused
from texts import TOKENIZERS, wrap

import growkit

ENTRIES = 400


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    for name, seed in (("base", 0), ("a", 1)):
        tiny.make("gpt2", seed=seed, vocab_size=ENTRIES).save_pretrained(folder / name)
        wrap(TOKENIZERS["gpt2"]).save_pretrained(folder / name)
    return folder


@pytest.fixture
def here(models, tmp_path, monkeypatch):
    """`base` and `a` with one tokenizer in the current folder."""
    copied(models, tmp_path, monkeypatch)


def content() -> dict:
    return json.loads(Path("a/tokenizer.json").read_text())


def write(changed: dict) -> None:
    Path("a/tokenizer.json").write_text(json.dumps(changed, indent=1))


COMMANDS = {
    "merge": lambda: growkit.merge(["a"], base="base", dry_run=True),
    "fuse": lambda: growkit.fuse(["base", "a"], dry_run=True),
    "stack": lambda: growkit.stack(["base", "a"], dry_run=True),
}


def notes() -> list[str]:
    """What every command says of the tokenizers, which must be the same."""
    said = [[note for note in call().plan.notes if "tokenizer" in note] for call in COMMANDS.values()]
    assert all(own == said[0] for own in said)
    return said[0]


def test_one_tokenizer_written_in_two_ways(here):
    write({**content(), "padding": None, "truncation": None})
    assert Path("a/tokenizer.json").read_bytes() != Path("base/tokenizer.json").read_bytes()
    assert notes() == []


def test_one_tokenizer_in_the_files_of_two_releases(here):
    """GPT-2's first files, vocab.json and merges.txt, against tokenizer.json."""
    model = content()["model"]
    Path("a/tokenizer.json").unlink()
    Path("a/tokenizer_config.json").unlink()
    Path("a/vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    Path("a/merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    assert notes() == []


def test_the_same_tokens_but_text_divided_differently(here):
    changed = content()
    changed["pre_tokenizer"]["add_prefix_space"] = True
    write(changed)
    (note,) = notes()
    assert "'base' and 'a' have the same tokens but divide text differently, such as" in note
    assert note.endswith("the result has the first's")


def test_other_tokens(here):
    changed = content()
    vocab = changed["model"]["vocab"]
    vocab["!"], vocab["a"] = vocab["a"], vocab["!"]
    write(changed)
    says = f"token id {min(vocab['!'], vocab['a'])} is"
    refused("fuse", "base", "a", "-o", "out", says=says)
    refused("stack", "base", "a", "-o", "out", says="; growkit joins models of one tokenizer")
    refused("merge", "a", "--base", "base", "-o", "out", says=says)


def test_what_cannot_be_compared_is_said(here):
    """A sentencepiece model that transformers cannot open, against tokenizer.json."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        Path("a", name).unlink()
    Path("a/tokenizer.model").write_bytes(b"\x0a\x00 no model")
    (note,) = notes()
    assert note.startswith("the tokenizers of 'base' and 'a' could not be compared: ")


def test_two_files_of_one_name_that_nobody_reads(here):
    for folder in ("base", "a"):
        for name in ("tokenizer.json", "tokenizer_config.json"):
            Path(folder, name).unlink()
        Path(folder, "tokenizer.model").write_bytes(folder.encode())
    refused("fuse", "base", "a", "-o", "out", says="'base' and 'a' have different tokenizer.model; growkit joins")
    refused("merge", "a", "--base", "base", "-o", "out", says="'base' and 'a' have different tokenizer.model")


def test_equal_files_ask_nobody(here, monkeypatch):
    from growkit.checkpoint import same_tokenizer

    monkeypatch.setattr(same_tokenizer, "stock_tokenizer", lambda _: pytest.fail("asked"))
    assert notes() == []
