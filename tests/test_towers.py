"""Text models beside a tower that reads images: grown, stacked, merged and verified as files, whatever their config.json
has around the text model's; check-family has the breadth, with images.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import growkit
from growkit import CheckpointError, RequestError
from growkit.families import FAMILIES
from growkit.families.text_part import flattened, nested
from growkit.family_check.small_models import small_model


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def saved(family: str, folder: str = "model", seed: int = 0, **changes) -> str:
    small_model(FAMILIES[family], seed=seed, dtype=torch.float32, **changes).save_pretrained(folder)
    return folder


def config(folder: str) -> dict:
    return json.loads(Path(folder, "config.json").read_text())


def rewritten(folder: str, **changes) -> None:
    Path(folder, "config.json").write_text(json.dumps({**config(folder), **changes}))


@pytest.mark.parametrize("family", ["gemma3", "qwen3_vl"])  # names in a file are not, and are, those of the live model
def test_the_text_model_grows_and_the_tower_stays(family):
    saved(family)
    plan = growkit.grow("model", out="grown", hidden=36, heads=6, layers=4, depth="identity", after="3").plan
    measured = growkit.verify("model", "grown")
    assert str(plan.exactness) == "exact" and measured.ok and measured.relative < 1e-5 and not measured.keys
    before, after = config("model"), config("grown")
    assert (after["text_config"]["hidden_size"], after["text_config"]["num_hidden_layers"]) == (36, 4)
    written = {key: value for key, value in after["vision_config"].items() if before["vision_config"][key] != value}
    assert written == ({"out_hidden_size": 36} if family == "qwen3_vl" else {})
    assert set(after) == set(before) and "hidden_size" not in after
    stored, grown = (load_file(f"{folder}/model.safetensors") for folder in ("model", "grown"))
    towers = [name for name in stored if ".blocks." in name or name.startswith("vision_tower")]
    assert towers and all(torch.equal(stored[name], grown[name]) for name in towers)


def test_a_size_that_the_tower_leaves_to_its_class_is_written():
    saved("qwen2_vl")
    vision = config("model")["vision_config"]
    del vision["hidden_size"]  # the class's default, as transformers saves the model whose width that is
    rewritten("model", vision_config=vision)
    plan = growkit.widen("model", hidden=48, dry_run=True).plan
    assert plan.changed["vision_config.hidden_size"] == plan.changed["hidden_size"] == 48


@pytest.mark.parametrize("wrong", [None, 30])
def test_what_a_text_model_states_itself_is_needed_and_one(wrong):
    saved("qwen2_vl")
    rewritten("model", text_config={**config("model")["text_config"], "hidden_size": wrong})
    with pytest.raises(CheckpointError, match="hidden_size'"):
        growkit.widen("model", hidden=60, dry_run=True)


def test_what_images_add_behind_the_first_layers_stays_there():
    saved("qwen3_vl")
    plan = growkit.stack("model", layers=4, method="identity", after="1", dry_run=True).plan
    assert str(plan.exactness) == "approximate" and "--after 3 or more" in plan.axes[-1].why
    assert plan.changed == {"num_hidden_layers": 4}


def test_two_are_stacked_and_merged():
    saved("qwen3_vl"), saved("qwen3_vl", "other", 1)
    assert growkit.stack(["model", "other"], out="stacked").plan.config["num_hidden_layers"] == 6
    assert growkit.merge(["model", "other"], out="merged", method="average")
    one, other, merged = (load_file(f"{folder}/model.safetensors") for folder in ("model", "other", "merged"))
    name = "model.visual.blocks.0.attn.proj.weight"
    assert torch.allclose(merged[name], (one[name] + other[name]) / 2)
    with pytest.raises(RequestError, match="which reads images; growkit fuses language models"):
        growkit.fuse(["model", "other"], out="fused")


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_of_two_towers_the_one_that_reads_texts_grows(family):
    saved(family)
    plan = growkit.grow("model", out="grown", hidden=36, layers=4, depth="identity").plan
    measured = growkit.verify("model", "grown")
    assert str(plan.exactness) == "exact" and measured.ok and measured.relative < 1e-5 and not measured.keys
    assert "logits_per_image" in measured.compared and "the one that reads images stays" in " ".join(plan.notes)
    assert config("grown")["vision_config"] == config("model")["vision_config"]


def test_what_is_no_such_model_is_refused():
    saved("gemma3")
    with pytest.raises(CheckpointError, match="a text model beside a tower that reads images: growkit grows, merges"):
        growkit.tune("model", out="run", data="model", steps=1)
    text = config("model")["text_config"]
    for wrong, found in (({**text, "model_type": "gemma2"}, "a gemma2"), ([1], "none")):
        rewritten("model", text_config=wrong)
        with pytest.raises(CheckpointError, match=f"has {found} under 'text_config'; the text model of a gemma3 that"):
            growkit.inspect("model")


def test_a_config_is_the_same_when_it_is_nested_again():
    said = {"model_type": "a", "vision_config": {"x": 1}, "text_config": {"model_type": "b", "y": 2, "dtype": "c"}}
    beside = {"vision_config": {"x": 1}, "text_config": {"model_type": "b", "dtype": "c"}}
    assert flattened(said) == {"model_type": "a", "dtype": "c", "y": 2, "beside": beside}
    assert nested(flattened(said)) == {**said, "dtype": "c"}
    together = {"model_type": "a", "y": 2, "image_token_id": 3, "vision_config": {"x": 1}}  # as transformers 4 wrote it
    assert flattened(together)["y"] == 2
    outer = {"model_type": "a", "image_token_id": 3, "vision_config": {"x": 1}}
    assert nested(flattened(together)) == {**outer, "text_config": {"y": 2}}
