"""Models of which one has a tied head and another has not: the result has a head of its own, and the same values."""

import json
from itertools import product
from pathlib import Path

import pytest
import tiny
import torch
from comparing import logits
from covering import cover, kind
from on_disk import edit_config, state
from safetensors.torch import save_file

import growkit

FAMILIES = ["llama", "gpt2", "qwen3", "gemma2", "bert", "roberta", "distilbert", "gpt_neox", "qwen3_moe"]


def make(name: str, family: str, tied: bool, seed: int = 0):
    tiny.make(family, seed=seed, tie_word_embeddings=tied).save_pretrained(name)
    return name


def loaded(name: str):
    kind = json.loads(Path(name, "config.json").read_text())["architectures"][0]
    model, info = getattr(tiny.transformers, kind).from_pretrained(name, dtype=torch.float64, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    return tiny.one_by_one(model).eval()


def said(plan):
    notes = [note for note in plan.notes if "has a tied head" in note]
    assert len(notes) == 1
    return notes[0]


@pytest.mark.parametrize(
    ("family", "tied"), cover(product(FAMILIES, (True, False)), lambda row: {row[0], (kind(row[0]), row[1])})
)
def test_a_merge_of_one_member_is_that_member(tmp_path, monkeypatch, family, tied):
    monkeypatch.chdir(tmp_path)
    make("base", family, tied)
    make("a", family, not tied, seed=1)
    merged = growkit.merge(["a"], "out", base="base", method="task-arithmetic")
    assert said(merged.plan).startswith("'base' has" if tied else "'a' has")
    assert json.loads(Path("out/config.json").read_text())["tie_word_embeddings"] is False
    assert tiny.relative(logits(loaded("a"), tiny.tokens()), logits(loaded("out"), tiny.tokens())) < 1e-12
    growkit.delta("base", "a", "delta")
    growkit.apply("base", ["delta"], "again")
    assert tiny.relative(logits(loaded("a"), tiny.tokens()), logits(loaded("again"), tiny.tokens())) < 1e-12


@pytest.mark.parametrize(
    ("family", "command"),
    [
        ("gpt2", "fuse"),
        ("gpt2", "stack"),
        ("qwen3", "fpi"),
        ("qwen3", "fuse"),
        ("mistral", "stack"),
        ("mistral", "upcycle"),
    ],
)
def test_growth_of_both_is_that_of_both_untied(tmp_path, monkeypatch, family, command):
    monkeypatch.chdir(tmp_path)
    make("tied", family, True)
    make("other", family, False, seed=1)
    config = json.loads(Path("tied/config.json").read_text())
    Path("own").mkdir()
    Path("own/config.json").write_text(json.dumps(config))
    edit_config(Path("own"), tie_word_embeddings=False)
    tensors = state("tied")
    name = "transformer.wte.weight" if family == "gpt2" else "model.embed_tokens.weight"
    save_file({**tensors, "lm_head.weight": tensors[name].clone()}, "own/model.safetensors", {"format": "pt"})
    for first in ("tied", "own"):
        call = {
            "fuse": lambda pair, out: growkit.fuse(pair, out),
            "fpi": lambda pair, out: growkit.fuse(pair, out, mode="fpi"),
            "stack": lambda pair, out: growkit.stack(pair, out),
            "upcycle": lambda pair, out: growkit.upcycle(pair, out, experts=2),
        }[command]
        result = call([first, "other"], f"{first}-out")
        assert (first == "own") or said(result.plan)
    one, two = state("tied-out"), state("own-out")
    assert {*one} == {*two} and all(torch.equal(one[name], two[name]) for name in one)
    configs = [json.loads(Path(f"{first}-out/config.json").read_text()) for first in ("tied", "own")]
    assert configs[0] == configs[1] and configs[0]["tie_word_embeddings"] is False
    loaded("tied-out")


def test_a_tied_base_with_a_delta_on_it(tmp_path, monkeypatch):
    """What a delta changes of the embedding it changes of the head, which is untied for another member."""
    monkeypatch.chdir(tmp_path)
    make("base", "llama", True)
    make("a", "llama", True, seed=1)
    make("b", "llama", False, seed=2)
    growkit.delta("base", "a", "delta")
    growkit.merge(["base+delta", "b"], "out", method="average")
    out, a, b = state("out"), state("a"), state("b")
    for name in b:
        ours = a[name.replace("lm_head", "model.embed_tokens")]
        assert torch.allclose(out[name], (ours + b[name]) / 2, rtol=0, atol=1e-12), name
