"""Models that read images, and the towers beside them: grown, merged and verified as files, on random pixels; what reads
text refuses them. check-family has the breadth.
"""

from pathlib import Path

import pytest
import torch
import transformers

import growkit
from growkit import CheckpointError, RequestError
from growkit.families import FAMILIES, family_named
from growkit.family_check.small_models import small_config, small_model
from growkit.models.images import image_shape

FAMILY = {"ViTForImageClassification": "vit", "ViTForMaskedImageModeling": "vit", "Dinov2Model": "dinov2",
          "CLIPVisionModelWithProjection": "clip_vision_model", "CLIPTextModelWithProjection": "clip_text_model",
          "SiglipVisionModel": "siglip_vision_model", "SiglipTextModel": "siglip_text_model"}  # fmt: skip


def saved(name: str, folder: str = "model", **changes) -> str:
    kind = getattr(transformers, name)
    small_model(FAMILIES[FAMILY[name]], kind, dtype=torch.float32, **changes).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", FAMILY)
def test_wider_and_deeper_is_the_same_model(name):
    saved(name)
    plan = growkit.grow("model", out="grown", hidden=48, layers=4, depth="identity").plan
    assert str(plan.exactness) == "exact"
    measured = growkit.verify("model", "grown")
    assert measured.ok and measured.relative < 1e-5 and not measured.keys
    images = FAMILY[name] not in ("clip_text_model", "siglip_text_model")
    assert (measured.text, measured.tokens) == (("random images", 8) if images else ("random", 8 * 62))


def test_any_width_where_no_scale_or_norm_stands_in_the_way():
    for name, exactness in (("ViTForImageClassification", "exact"), ("CLIPVisionModelWithProjection", "near")):
        saved(name, name)
        assert str(growkit.widen(name, out=name + "-36", hidden=36).plan.exactness) == exactness
        assert growkit.verify(name, name + "-36").ok
    saved("Dinov2Model")
    with pytest.raises(RequestError, match=r"hidden grows by multiples of 24 with layerscale_value .*: each entry of"):
        growkit.widen("model", out="grown", hidden=36)
    with pytest.raises(RequestError, match="dinov2 has no ffn of its own: it is mlp_ratio x hidden; use --hidden"):
        growkit.widen("model", out="grown", ffn=400)


def test_what_the_class_takes_from_hidden_stays():
    saved("SiglipTextModel")
    config = growkit.widen("model", out="grown", hidden=48).plan.config
    assert (config["hidden_size"], config["projection_size"]) == (48, 24)


def test_inspect_and_merge():
    saved("ViTForImageClassification")
    other = small_model(FAMILIES["vit"], transformers.ViTForImageClassification, 1, torch.float32)
    other.save_pretrained("other")
    assert "vocab" not in growkit.inspect("model").sizes
    growkit.merge(["model", "other"], method="average", out="merged")
    merged, first = (transformers.ViTForImageClassification.from_pretrained(f) for f in ("merged", "model"))
    expected = (first.classifier.weight + other.classifier.weight) / 2
    assert torch.allclose(merged.classifier.weight, expected, atol=1e-6)


def test_outputs_of_single_layers_are_not_carried():
    saved("Dinov2Model", out_indices=[1, 3])
    with pytest.raises(CheckpointError, match="names layers whose outputs the model gives under 'out_indices'"):
        growkit.stack("model", out="grown", layers=4, method="identity")


def test_what_reads_text_refuses_them():
    saved("ViTForImageClassification")
    Path("a.txt").write_text("words")
    with pytest.raises(RequestError, match="'model' reads images, not text: leave --text out"):
        growkit.verify("model", "model", text="a.txt")
    with pytest.raises(RequestError, match="is a vit, which reads images; growkit fuses language models"):
        growkit.fuse(["model", "model"], out="fused")
    with pytest.raises(CheckpointError, match="is a ViTForImageClassification, which has no language-model head"):
        growkit.generate("model", prompt="a")
    saved("SiglipTextModel", "text")
    with pytest.raises(CheckpointError, match="does not read images as the source does"):
        growkit.verify("model", "text")
    with pytest.raises(CheckpointError, match="growkit does not grow altclip: its two towers have sizes of their own"):
        family_named("altclip")


def test_the_size_of_images_is_checked():
    config = small_config(FAMILIES["vit"]).to_dict()
    assert image_shape({**config, "image_size": [8, 12]}) == (3, 8, 12)
    for key, value in (("image_size", 0), ("image_size", [8, 8, 8]), ("image_size", "12"), ("num_channels", 10**9)):
        with pytest.raises(CheckpointError, match=f"config.json should give '{key}' as"):
            image_shape({**config, key: value})
