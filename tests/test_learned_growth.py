"""Maps that learn (LiGO): before a step they are the exact growth's, whatever they learn the result is linear in the
source's weights, and what they learn lowers the loss."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file
from tiny_runs import dataset

import growkit
from growkit.errors import RequestError
from growkit.growth.learning import Learn
from growkit.growth.prepare import Options, prepared
from growkit.growth.recorded import recorded_growth
from growkit.growth.request import grow_recipe
from growkit.growth.sources import open_source
from growkit.training.learned_growth import learned_maps
from growkit.training.learned_maps import LearnedMaps

LEARN = dict(steps=6, lr=0.05, batch_size=4, seq_len=16)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    torch.set_num_threads(1)
    return dataset(tmp_path_factory.mktemp("learned") / "data", 4000)


def weights(model):
    return {name: tensor.detach() for name, tensor in tiny.stored(model).items()}


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "olmo2", "phi3", "opt"])
def test_before_a_step_they_are_the_exact_growth(family, tmp_path, data):
    """At twice the width, at one that is no multiple, and with layers inserted as the identity: the source's logits."""
    with tiny.float32_parts_in_double(), torch.no_grad():
        model = tiny.make(family)
        model.save_pretrained(tmp_path / "src")
        expected = model(tiny.tokens()).logits
        for growth in (dict(hidden=48), dict(hidden=36, ffn=100, layers=5, depth="identity")):
            asked = grow_recipe(learn=Learn(data=str(data), **LEARN), **growth)
            with prepared([tmp_path / "src"], tmp_path / "out", asked, Options()) as ready:
                maps = LearnedMaps(ready.plan, torch.float64, 0)
                grown = tiny.rebuild(model, maps(weights(model)), ready.plan.config)
            assert tiny.relative(expected, grown(tiny.tokens()).logits) < 1e-10


def test_what_they_learn_lowers_the_loss_and_is_linear(tmp_path, data):
    """Each tensor is M_out W M_in^T, mixed over layers; copies, which would stay equal, have parted."""
    with tiny.float32_parts_in_double():
        model = tiny.make("llama")
        model.save_pretrained(tmp_path / "src")
        asked = grow_recipe(learn=Learn(data=str(data), **LEARN), hidden=48, layers=4)
        with prepared([tmp_path / "src"], tmp_path / "out", asked, Options()) as ready:
            maps, told = learned_maps(ready.plan, ready.sources[0], asked.learn)
    assert told.after < told.before and told.tokens == 6 * 4 * 16 and told.flops > 0
    state = weights(model)
    with torch.no_grad():
        made = maps(state)
        heads = [maps.matrix("head", "write", layer) for layer in range(3)]
        slots = torch.eye(model.config.head_dim, dtype=torch.float64)
        read = maps.matrix("hidden", "read")
        name = "model.layers.{}.self_attn.q_proj.weight"
        wide = [torch.kron(heads[k], slots) @ state[name.format(k)] @ read.T for k in range(3)]
        mixture = maps.mixtures["layers/{layer}/self_attn/q_proj/weight"]
        for layer in range(4):
            by_hand = sum(mixture[layer, k] * wide[k] for k in range(3))
            torch.testing.assert_close(made[name.format(layer)], by_hand)
        up = made["model.layers.0.mlp.up_proj.weight"]
        assert (up[:, :24] - up[:, 24:]).abs().max() > 1e-3


def test_the_command_writes_them_counts_them_and_is_the_same_again(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.make("llama", dtype=torch.float32).save_pretrained("src")
    learning = dict(learn=6, learn_lr=0.05, batch_size=4, seq_len=16, data=data, hidden=48)
    done = growkit.grow("src", **learning)
    assert done.folder.name == "src-h48-learned" and str(done.plan.exactness) == "approximate"
    said = json.loads((done.folder / "growkit.json").read_text())
    assert said["request"]["learn"] == dict(steps=6, lr=0.05, batch_size=4, seq_len=16, data="data")
    assert said["learned"]["loss_after"] < said["learned"]["loss_before"] and said["maps"] == {}
    again = growkit.grow("src", "again", **learning)
    for name, tensor in load_file(done.folder / "model.safetensors").items():
        assert torch.equal(tensor, load_file(again.folder / "model.safetensors")[name])
    growkit.pretrain(done.folder, data=data, out="run", steps=1, batch_size=2, seq_len=8)
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    flops = [line["flops"] for line in lines if line["kind"] == "train"]
    assert len(flops) == 1 and flops[0] > said["learned"]["flops"]
    with pytest.raises(RequestError, match="grown by maps that learned"):
        recorded_growth(open_source("src"), open_source(done.folder))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (dict(learn=2), "--learn needs text to learn from: add --data"),
        (dict(data="there"), "--data is for maps that learn: add --learn STEPS"),
        (dict(learn=2, data="nowhere"), "--data 'nowhere' does not exist"),
        (dict(learn=2, data="there", noise=0.5), "leave --noise 0.5 out"),
        (dict(learn=2, data="there", method="aki"), "leave --method aki out"),
        (dict(learn=2, data="there", layers=4, depth="average"), "leave --depth average out"),
        (dict(learn=2, data="there", optimizer="state.safetensors"), "with --learn training begins with a state of its own"),
        (dict(learn=2, data="there", seq_len=4096), "--seq-len 4096 is more than the model's"),
        (dict(learn=2, data="there", learn_lr=9.0, batch_size=2, seq_len=8), "did not lower the loss"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_is_said(more, said, tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").symlink_to(data)
    tiny.make("llama", dtype=torch.float32).save_pretrained("src")
    with pytest.raises(RequestError, match=said):
        growkit.grow("src", "out", **{"hidden": 48, **more})
    assert not (tmp_path / "out").exists()
