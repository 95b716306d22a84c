"""Muon grows along: the grown model takes the source's steps, at any width, with one rate for each matrix.

The law is exact in the arithmetic of the weights. torch's Newton-Schulz computes in bfloat16; here the very same code
runs in float64, its one cast taken out. Control: with the cast in, and with any one of the rates wrong, it is not exact.
"""

import json
from pathlib import Path
from unittest import mock

import pytest
import tiny
import torch
from comparing import loss_of
from safetensors.torch import load_file, save_file
from tiny_runs import Stopped, ask, curve, dataset, same, stops_at, weights

import growkit
from growkit.errors import CheckpointError, RequestError
from growkit.families import FAMILIES
from growkit.growth.muon_rules import is_muons
from growkit.growth.optimizer import read_rates
from growkit.training import pretrain
from growkit.training.muon import muon_and_adamw
from growkit.training.optim import load_state, moments, set_rate

torch.set_num_threads(1)

RESIDUAL = dict(hidden=36, heads=4, kv_heads=2, ffn=40)  # x1.5, the residual stream alone: 8 -> 12 in each of three
WHOLE = dict(hidden=48)
LAWS = [("llama", RESIDUAL, True), ("llama", RESIDUAL | dict(heads=12, ffn=80), False), ("gemma", RESIDUAL, True)]
LAWS += [("olmo2", RESIDUAL, False), ("bert", WHOLE, True), ("gpt2", WHOLE, True), ("qwen3", WHOLE, False)]


def in_double():
    """torch's Newton-Schulz without its cast to bfloat16."""
    return mock.patch.object(torch.Tensor, "bfloat16", lambda tensor: tensor)


def optimizer_of(family, model, multipliers):
    optimizer = muon_and_adamw(model, FAMILIES[family], 0.1, (0.9, 0.95), 1e-6, multipliers)
    set_rate(optimizer, 3e-3)
    return optimizer


def train(model, optimizer, seeds):
    for seed in seeds:
        optimizer.zero_grad()
        loss_of(model, seed).backward()
        optimizer.step()
    with torch.no_grad():
        return model(tiny.tokens(99)).logits


@pytest.mark.parametrize(("family", "sizes", "tied"), LAWS)
def test_the_grown_model_takes_the_sources_steps(family, sizes, tied, tmp_path):
    with tiny.float32_parts_in_double(), in_double():
        model = tiny.make(family, tie_word_embeddings=tied)
        optimizer = optimizer_of(family, model, {})
        train(model, optimizer, range(3))
        model.save_pretrained(tmp_path / "source")
        (tmp_path / "source/optimizer").mkdir()
        save_file(
            {name: v.clone() for name, v in moments(optimizer, model).items()},
            tmp_path / "source/optimizer/optimizer.safetensors",
        )
        growkit.widen(tmp_path / "source", tmp_path / "out", noise=0.0, **sizes)
        rates = read_rates(tmp_path / "out/lr_multipliers.json")
        expected = train(model, optimizer, range(3, 7))

        def distance(multipliers):
            grown = type(model).from_pretrained(tmp_path / "out", dtype=torch.float64)
            again = optimizer_of(family, grown, multipliers)
            load_state(again, grown, tmp_path / "out/optimizer/optimizer.safetensors")
            return tiny.relative(expected, train(grown, again, range(3, 7)))

        assert distance(rates) < 1e-10
        assert any("by_index" in said for said in rates.values()) == (sizes != WHOLE)
        if family == "llama":
            plain = {name: {word: said[word] for word in ("lr", "weight_decay", "eps")} for name, said in rates.items()}
            assert distance(plain) > 1e-5  # without a rate for each index
            matrix = "model.layers.0.mlp.up_proj.weight"
            assert distance({**rates, matrix: {**rates[matrix], "lr": 1.1 * rates[matrix]["lr"]}}) > 1e-6
            with mock.patch.object(torch.Tensor, "bfloat16", lambda tensor: tensor.to(torch.bfloat16)):
                assert 1e-10 < distance(rates) < 0.1


def test_one_rate_of_each_matrix(tmp_path):
    """Square in the residual stream: none; torch's "match_rms_adamw" makes of the larger shape sqrt(1.5)."""
    model = tiny.make("llama", dtype=torch.float32)
    model.save_pretrained(tmp_path / "source")
    (tmp_path / "source/optimizer").mkdir()
    buffers = {
        f"{name}.momentum_buffer": p.detach()
        for name, p in model.named_parameters()
        if is_muons(FAMILIES["llama"], name)
    }
    save_file(buffers, tmp_path / "source/optimizer/optimizer.safetensors")
    growkit.widen(tmp_path / "source", tmp_path / "out", noise=0.0, **RESIDUAL)
    said = json.loads((tmp_path / "out/lr_multipliers.json").read_text())
    layer, embedding = "model.layers.1.", said["multipliers"]["model.embed_tokens.weight"]
    assert said["optimizer"] == "Muon" and embedding["by_index"]["counts"] == [12, 12, 12]
    assert embedding["by_index"]["lr"] == pytest.approx([0.75**0.5, 1.5**0.5, 0.75**0.5])
    rate = lambda name: said["multipliers"][layer + name]["lr"]  # noqa: E731
    assert rate("self_attn.q_proj.weight") == pytest.approx((1 / 1.5 * 24 / 36) ** 0.5)
    assert rate("mlp.up_proj.weight") == pytest.approx(1.5**-0.5)  # its larger side, ffn, stays
    assert rate("mlp.down_proj.weight") == pytest.approx(1.5**0.5)
    grown = load_file(tmp_path / "out/optimizer/optimizer.safetensors")
    assert grown.keys() == buffers.keys() and grown[f"{layer}mlp.up_proj.weight.momentum_buffer"].shape == (40, 36)


def test_what_is_muons():
    llama, gpt2, bert = (FAMILIES[name] for name in ("llama", "gpt2", "bert"))
    assert is_muons(llama, "model.layers.0.self_attn.q_proj.weight") and is_muons(
        gpt2, "transformer.h.0.attn.c_attn.weight"
    )
    assert is_muons(bert, "cls.predictions.transform.dense.weight")
    for family, name in ((llama, "model.embed_tokens.weight"), (llama, "lm_head.weight"), (llama, "model.norm.weight"),
                         (gpt2, "transformer.wpe.weight"), (gpt2, "transformer.h.0.attn.c_attn.bias"),
                         (FAMILIES["mixtral"], "model.layers.0.block_sparse_moe.gate.weight")):  # fmt: skip
        assert not is_muons(family, name)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("muon")
    dataset(folder / "data", 3000)
    tiny.make("llama", dtype=torch.float32).save_pretrained(folder / "llama")
    tiny.make("mixtral", dtype=torch.float32).save_pretrained(folder / "mixtral")
    pretrain.pretrain(asked(folder, folder / "run"))
    pretrain.pretrain(ask(folder, str(folder / "adam"), steps=1, model="llama"))
    return folder


def asked(world, out, **more):
    return ask(world, str(out), **{**dict(model="llama", optimizer="muon", steps=6), **more})


def test_a_run_goes_on_where_it_was_killed_and_through_growth(world, tmp_path):
    state = load_file(world / "run/final/optimizer/optimizer.safetensors")
    assert state["model.layers.0.mlp.up_proj.weight.momentum_buffer"].any() and state["model.norm.weight.exp_avg"].any()
    assert "model.layers.0.mlp.up_proj.weight.exp_avg" not in state
    with pytest.raises(Stopped):
        pretrain.pretrain(asked(world, tmp_path / "killed"), watch=stops_at(5))
    pretrain.pretrain(asked(world, tmp_path / "killed"), resume=True)
    assert curve(tmp_path / "killed") == curve(world / "run")
    assert same(weights(tmp_path / "killed/final"), weights(world / "run/final"))
    growkit.grow(world / "run/final", tmp_path / "grown", hidden=36, heads=4, kv_heads=2, layers=6)
    pretrain.pretrain(asked(world, tmp_path / "more", checkpoint=str(tmp_path / "grown"), multipliers="relax:12"))
    said = json.loads((tmp_path / "more/final/lr_multipliers.json").read_text())
    runs = said["multipliers"]["model.embed_tokens.weight"]["by_index"]
    assert said["optimizer"] == "Muon" and runs["lr"] == pytest.approx([0.75**0.25, 1.5**0.25, 0.75**0.25])
    pretrain.pretrain(asked(world, tmp_path / "staged", schedule="stackbert", steps=8))
    assert json.loads((tmp_path / "staged/final/config.json").read_text())["num_hidden_layers"] == 6


def test_refusals(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="is Muon's state, and this run is AdamW's: go on with --optimizer muon"):
        pretrain.pretrain(asked(world, "out", optimizer="adamw", checkpoint=str(world / "run/final")))
    with pytest.raises(CheckpointError, match="is AdamW's state, and this run is Muon's: go on with --optimizer adamw"):
        pretrain.pretrain(asked(world, "out", checkpoint=str(world / "adam/final")))
    growkit.widen(world / "adam/final", "wide", hidden=48)
    Path("wide/optimizer/optimizer.safetensors").unlink()
    with pytest.raises(RequestError, match=r"says AdamW's multipliers, and this run is Muon's: .* --multipliers off"):
        pretrain.pretrain(asked(world, "out", checkpoint="wide"))
    assert pretrain.pretrain(asked(world, "fine", checkpoint="wide", multipliers="off", steps=1)).step == 1
    with pytest.raises(RequestError, match="--optimizer muon is for dense models"):
        pretrain.pretrain(asked(world, "out", model="mixtral"))
    with pytest.raises(RequestError, match="--optimizer muon moves a model's own matrices; --train lora:4 has others"):
        pretrain.pretrain(asked(world, "out", train="lora:4"))
    with pytest.raises(RequestError, match="--optimizer 'sgd' is not one of adamw, muon"):
        pretrain.pretrain(asked(world, "out", optimizer="sgd"))
    with pytest.raises(RequestError, match=r"optimizer 'adamw' .was 'muon'."):
        pretrain.pretrain(asked(world, world / "run", optimizer="adamw"), resume=True)
    assert not Path("out").exists()
