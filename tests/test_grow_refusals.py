"""Requests for depth that cannot be: exit code 2, one sentence, nothing written. Every line is one way to get it wrong
and a part of the sentence that must come back.
"""

import shutil

import pytest
import tiny
import torch
from on_disk import edit_config, saved
from refusing import cases, refused

import growkit

REFUSED = [  # command, part of the sentence
    ("stack src", "say how deep: --layers N"),
    ("stack src --layers 2", "--layers 2 is fewer than the source's 3; growkit only grows: to leave layers out"),
    ("stack src --layers 9999", "more than growkit plans for"),
    ("stack src --layers 6 --method magic", "--method 'magic' is not one of stack, interleave"),
    ("stack src --layers 6 --every 2", "--every is for --method identity or interleave, not for --method stack"),
    ("stack src --layers 6 --method solar --after 1", "--after is for --method identity"),
    ("stack src --layers 6 --overlap 1", "--overlap is for --method solar"),
    ("stack src --layers 6 --method identity --block 1", "--block is for --method top or middle"),
    ("stack src --method identity --after 1 --every 1", "--after, --every and --where each say"),
    ("stack src --method identity --after 4", "--after 4 should be a layer of the source, from 1 to 3"),
    ("stack src --method identity --after 1;2", "--after '1;2' should be layer numbers such as"),
    ("stack src --method identity --every 4", "--every 4 should be from 1"),
    ("stack src --method identity --after 1 --layers 6", "--layers 6 contradicts the other options, which make 4"),
    ("stack src --method top --layers 6 --block 4", "--block 4 should be from 1"),
    ("stack src --method solar --layers 5", "an even number from 4 to 6, not 5"),
    ("stack src --method solar --layers 8", "an even number from 4 to 6, not 8"),
    ("stack src --method solar --overlap 2", "--overlap 2 should be from 0 to half"),
    ("stack src --method solar --overlap 1 --layers 6", "--layers 6 contradicts the other options, which make 4"),
    ("stack src --slices 1-4", "the source's layers are 1 to 3"),
    ("stack src --slices 3-1", "lower first"),
    ("stack src --slices 0-2", "the source's layers are 1 to 3"),
    ("stack src --slices 1..2", "which is no run of layers"),
    ("stack src --slices B:1-2", "--slices has 'B:1-2'"),
    ("stack src --slices 1-2 --layers 4", "--layers 4 contradicts the other options, which make 2"),
    ("stack src --slices 1-2 --every 1", "--every is for --method identity or interleave, not for --slices"),
    ("stack src --slices 1-2 --method solar", "--slices "),  # it says all that a method would
    ("stack src src --slices 1-2", "--slices has '1-2', which is no run of layers; write for example --slices A:1-8"),
    ("stack src src --layers 8 --method identity", "takes one source; stack several with stack or interleave"),
    ("stack src src --layers 5", "fewer than the source"),
    ("stack src bert", "only models of one family become one"),
    ("stack src words", "'words' "),
    ("stack src tokenized", "tokenizer.json' is no valid JSON"),
    ("stack src nosuch --layers 6", "'nosuch' does not exist"),
    ("stack src src --optimizer src/adam.safetensors", "1 optimizer states for 2 sources; give one for each"),
    ("stack src --layers 6 -o src/deep", "output 'src/deep' is inside the source 'src'"),
    ("stack src src -o src", "output 'src' is or contains the source 'src'"),
    ("grow src", "nothing to grow: give at least one of --hidden"),
    ("grow src --depth solar", "--depth solar says how to deepen, but not how far"),
    ("grow src --hidden 48 --layers 2", "--layers 2 is fewer than the source's 3"),
    ("grow src --hidden 50 --layers 6", "--hidden 50 in proportion gives 8.33 heads"),
    ("grow src --layers 6 --every 1", "--every is for --depth identity"),
    ("grow src --layers 6 --depth magic", "--depth 'magic' is not one of stack, interleave"),
    ("grow src --like bert-base", "'bert-base' is a bert and the source a llama; a model keeps its family"),
    ("grow src --like bert", "'bert' is a bert and the source a llama"),
    ("grow src --like words", "'words' has a vocabulary of 40, the source of 61"),
    ("grow src --like small", "--layers 1 is fewer than the source's 3"),
    ("grow src --like src --hidden 48", "--like 'src' says all sizes, --hidden says one again"),
    ("grow src --like src --kv-heads 4", "--like 'src' says all sizes, --kv-heads says one again"),
    ("grow src --like nosuch", "'nosuch' does not exist"),
    ("grow src --like nosuch.json", "nosuch.json"),
]  # fmt: skip


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    folder = tmp_path_factory.mktemp("others")
    saved("llama", folder / "src")
    saved("bert", folder / "bert")
    saved("llama", folder / "words", vocab_size=40)
    saved("llama", folder / "small", num_hidden_layers=1)
    shutil.copytree(folder / "src", folder / "tokenized")
    for name in ("src", "tokenized"):
        (folder / name / "tokenizer.json").write_text(name)
    return folder


@pytest.mark.parametrize("command, says", cases(REFUSED))
def test_requests_that_cannot_be(others, monkeypatch, command, says):
    monkeypatch.chdir(others)
    refused(*command.split(), says=says)


def test_a_config_that_depth_cannot_follow(others, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(others / "src", "src")
    edit_config(tmp_path / "src", layer_types=["full_attention"] * 2)
    refused("stack", "src", "--layers", "6", says="should list 3 entries under 'layer_types'")
    refused("grow", "src", "--layers", "6", "--hidden", "48", says="should list 3 entries under 'layer_types'")


@pytest.mark.parametrize("request_", [dict(layers=6.0), dict(layers="6"), dict(method="identity", after=["1"])])
def test_numbers_that_are_none(request_, tmp_path):
    tiny.make("llama", dtype=torch.float32).save_pretrained(tmp_path)
    with pytest.raises(growkit.RequestError, match="whole number"):
        growkit.stack(tmp_path, tmp_path.parent / "out", dry_run=True, **request_)


def test_no_source_at_all():
    for dry_run in (True, False):
        with pytest.raises(growkit.RequestError):
            growkit.stack([], "out", layers=6, dry_run=dry_run)
