"""A growth's multipliers of rate, decay and eps: kept, relaxed to 1 over some steps, or let go at once."""

import json
import re
import shutil

import pytest
import torch
from tiny_runs import Stopped, ask, curve, dataset, losses_of, stops_at, weights

import growkit
from growkit.errors import RequestError
from growkit.training import pretrain
from growkit.training.kept_multipliers import exponent, made_whole
from tests.tiny import make

WIDE = "model.layers.0.mlp.up_proj.weight"  # read of a doubled axis: its rate, decay and eps change


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("multipliers")
    dataset(folder / "data", 3000)
    make("llama", dtype=torch.float32).save_pretrained(folder / "small")
    pretrain.pretrain(ask(folder, str(folder / "first"), steps=2, model="small"))
    state = folder / "first/final/optimizer/optimizer.safetensors"
    growkit.widen(folder / "first/final", folder / "grown", hidden=48, noise=0.0, optimizer=state)
    shutil.copytree(folder / "grown", folder / "bare")
    (folder / "bare/lr_multipliers.json").unlink()
    return folder


def run(world, out, word="exact", model="grown", **more):
    return pretrain.pretrain(ask(world, str(out), model=model, multipliers=word, steps=6, **more))


def said(folder):
    return json.loads((folder / "lr_multipliers.json").read_text())["multipliers"].get(WIDE)


def test_they_are_kept_let_go_or_relaxed(world, tmp_path, monkeypatch):
    kept, off, bare, half = (tmp_path / name for name in ("kept", "off", "bare", "half"))
    run(world, kept)
    run(world, off, "off")
    run(world, bare, model="bare")
    assert losses_of(off) == losses_of(bare) != losses_of(kept)
    assert said(kept / "final") == said(world / "grown") == {"lr": 0.5, "weight_decay": 2.0, "eps": 0.5}
    assert said(off / "final") == {"lr": 1.0, "weight_decay": 1.0, "eps": 1.0} and said(bare / "final") is None
    run(world, half, "relax:12")  # of 12 steps 6 are made
    assert said(half / "final")["lr"] == pytest.approx(0.5**0.5)
    assert losses_of(half)[0] == losses_of(kept)[0] != losses_of(half)[-1] != losses_of(off)[-1]
    run(world, tmp_path / "long", "relax:1000000000")
    assert losses_of(tmp_path / "long") == pytest.approx(losses_of(kept), abs=1e-6)


def test_by_default_they_relax_over_half_of_the_run(world, tmp_path):
    done = growkit.pretrain(
        world / "grown", world / "data", tmp_path / "run", steps=6, seq_len=8, batch_size=2, lr=1e-3
    )
    assert json.loads((tmp_path / "run/run.json").read_text())["settings"]["multipliers"] == "relax:3"
    assert said(done.folder)["lr"] == 1.0 and made_whole("relax", 1) == "relax:1" and made_whole("off", 9) == "off"


def test_the_factors_of_each_step(world, tmp_path):
    going = pretrain.open_run(ask(world, str(tmp_path / "run"), model="grown", multipliers="relax:4", warmup=0, lr=1.0))
    going.begin()
    optimizer, parameter = going.student.optimizer, dict(going.student.model.named_parameters())[WIDE]
    (group,) = (g for g in optimizer.param_groups if any(p is parameter for p in g["params"]))
    for step in range(6):
        going._one_step()
        factor = 0.5 ** max(0.0, 1 - step / 4)
        assert (group["scale"], group["weight_decay"]) == pytest.approx((factor, 0.1 / factor))
        assert group["eps"] == pytest.approx(1e-8 * factor, abs=0)
    going.release()


def test_a_run_that_was_killed_relaxes_on(world, tmp_path):
    run(world, tmp_path / "whole", "relax:5")
    asked = ask(world, str(tmp_path / "killed"), model="grown", multipliers="relax:5", steps=6)
    with pytest.raises(Stopped):
        pretrain.pretrain(asked, watch=stops_at(5))
    pretrain.pretrain(asked, resume=True)
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
    one, two = weights(tmp_path / "killed/final"), weights(tmp_path / "whole/final")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert (
        said(tmp_path / "killed/final")
        == said(tmp_path / "whole/final")
        == {"lr": 1.0, "weight_decay": 1.0, "eps": 1.0}
    )


@pytest.mark.parametrize("word", ["", "relax", "relax:", "relax:0", "relax:-1", "exact:3", "on", "relax:9" + "9" * 20])
def test_other_words_are_refused(word):
    with pytest.raises(RequestError, match=re.escape(f"--multipliers {word!r}")):
        exponent(word, 0)
