"""Shrink and perturb: lambda of every lifted weight, and sqrt(1 - lambda^2) of its size at random, so that its length
stays (arXiv 2411.07340)."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from on_disk import written
from safetensors.torch import load_file

import growkit
from growkit.errors import RequestError

SIZES = dict(hidden=96, ffn=160)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shrink")
    tiny.make("llama", dtype=torch.float32, tie_word_embeddings=True).save_pretrained(folder / "llama")
    tiny.make("mixtral", dtype=torch.float32).save_pretrained(folder / "mixtral")
    growkit.widen(folder / "llama", folder / "lift", noise=0.0, **SIZES)
    growkit.widen(folder / "llama", folder / "half", method="shrink-perturb", keep=0.6, **SIZES)
    return folder


def tensors(folder):
    return load_file(Path(folder, "model.safetensors"))


def test_the_length_of_every_matrix_stays_and_a_share_of_it_is_the_lift(world):
    lift, half = tensors(world / "lift"), tensors(world / "half")
    assert lift.keys() == half.keys()
    drawn = {}
    for name, was in lift.items():
        now = half[name]
        if was.dim() == 1:
            assert torch.equal(now, was), name
            continue
        random = (now - 0.6 * was) / 0.8
        assert now.norm() / was.norm() == pytest.approx(1.0, abs=0.05), name
        assert random.norm() / was.norm() == pytest.approx(1.0, abs=0.05), name
        assert abs(float((random * was).sum() / (random.norm() * was.norm()))) < 0.06, name
        assert np.unique(random.numpy()).size > 0.99 * random.numel(), name  # copies part
        drawn[name] = random
    layers = [
        drawn[f"model.layers.{n}.mlp.up_proj.weight"] / lift[f"model.layers.{n}.mlp.up_proj.weight"].std()
        for n in (0, 1)
    ]
    assert abs(float((layers[0] * layers[1]).mean())) < 0.05  # each its own


def test_at_the_ends_it_is_the_lift_and_nothing_of_it(world, tmp_path):
    whole = growkit.widen(world / "llama", tmp_path / "one", method="shrink-perturb", keep=1.0, **SIZES).plan
    lift, one = tensors(world / "lift"), tensors(tmp_path / "one")
    assert all(torch.equal(one[name], lift[name]) for name in lift) and str(whole.exactness) == "approximate"
    growkit.grow(world / "llama", tmp_path / "none", method="shrink-perturb", keep=0.0, layers=6, **SIZES)
    none, name = tensors(tmp_path / "none"), "model.layers.{}.mlp.down_proj.weight"
    cosine = torch.nn.functional.cosine_similarity(none[name.format(0)].flatten(), lift[name.format(0)].flatten(), 0)
    assert abs(cosine) < 0.06 and not torch.equal(none[name.format(0)], none[name.format(3)])


def test_one_seed_one_result(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = growkit.widen(world / "llama", method="shrink-perturb", keep=0.6, **SIZES)
    assert made.folder.name == "llama-h96-ffn160-shrink-perturb" and made.plan.recipe.noise == 0
    assert written(made.folder) == written(world / "half")
    growkit.widen(world / "llama", "other", method="shrink-perturb", keep=0.6, seed=1, **SIZES)
    assert not torch.equal(
        tensors("other")["model.embed_tokens.weight"], tensors(made.folder)["model.embed_tokens.weight"]
    )
    assert growkit.verify(world / "llama", made.folder).tolerance is None  # nothing is promised


def test_what_does_not_grow_is_not_touched(world, tmp_path):
    growkit.grow(world / "llama", tmp_path / "deep", method="shrink-perturb", layers=6, depth="identity")
    growkit.stack(world / "llama", tmp_path / "plain", layers=6, method="identity")
    one, other = tensors(tmp_path / "deep"), tensors(tmp_path / "plain")
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_refusals(world, tmp_path):
    for request, says in (
        (dict(keep=0.5), "--keep is for --method shrink-perturb, not for fpi"),
        (dict(method="shrink-perturb", keep=1.5), "--keep 1.5 should be from 0 to 1"),
        (dict(method="shrink"), "--method 'shrink' is not one of fpi, aki, shrink-perturb"),
    ):
        with pytest.raises(RequestError, match=says):
            growkit.widen(world / "llama", tmp_path / "out", **SIZES, **request)
    with pytest.raises(RequestError, match="is for dense models"):
        growkit.widen(world / "mixtral", tmp_path / "out", hidden=48, method="shrink-perturb")
