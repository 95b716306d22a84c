"""What a config says layer by layer goes along with the layers, or depth is refused."""

import re
import shutil

import pytest
import tiny
import torch
from comparing import ALGEBRA, logits, source, stepwise
from on_disk import edit_config

import growkit

F, S = "full_attention", "sliding_attention"
WINDOWED = dict(num_hidden_layers=4, use_sliding_window=True, sliding_window=3, max_window_layers=2)
LISTS = [  # family, changes of its config, request, kinds of attention of the result
    ("qwen2", WINDOWED, dict(layers=8), [F, F, S, S, F, F, S, S]),
    ("qwen2", WINDOWED, dict(layers=6), [F, F, S, S, S, S]),
    ("qwen3", WINDOWED, dict(layers=8, depth="interleave"), [F, F, F, F, S, S, S, S]),
    ("qwen3", WINDOWED, dict(layers=6, depth="identity"), [F, F, F, S, S, S]),
    ("qwen2", {**WINDOWED, "max_window_layers": 28}, dict(layers=40), [F] * 40),
    ("qwen2", {**WINDOWED, "use_sliding_window": False}, dict(layers=8), [F] * 8),
    ("gemma2", {}, dict(layers=6), [S, F, S, S, F, S]),
    ("gemma2", {}, dict(layers=4, depth="identity"), [S, F, S, S]),
    ("gemma2", dict(num_hidden_layers=4), dict(layers=8), [S, F] * 4),
]


@pytest.mark.parametrize("stated", [True, False], ids=["layer_types stated", "left to the rule"])
@pytest.mark.parametrize(("family", "changes", "request_", "kinds"), LISTS)
def test_each_layer_keeps_its_kind_of_attention(family, changes, request_, kinds, stated):
    """Also where the config leaves it to transformers' rule, by number: what the rule would get wrong is then
    listed."""
    with tiny.float32_parts_in_double():
        model = tiny.make(family, **changes)
        settings = model.config.to_dict()
        if not stated:
            del settings["layer_types"]
            assert type(model.config).from_dict(settings).layer_types == model.config.layer_types
        state, config = growkit.grow_state_dict(model.state_dict(), settings, **request_)
        read = type(model.config).from_dict(config)
        assert read.layer_types == kinds and read.num_hidden_layers == len(kinds)
        by_rule = type(model.config).from_dict({k: v for k, v in config.items() if k != "layer_types"})
        assert ("layer_types" in config) == (stated or by_rule.layer_types != kinds)
        if request_.get("depth") == "identity":
            ids = tiny.tokens()
            grown = tiny.rebuild(model, state, config)
            assert tiny.relative(logits(model, ids), logits(grown, ids)) <= ALGEBRA
            assert tiny.relative(logits(model, ids), stepwise(grown, ids)) <= ALGEBRA


def test_lists_of_other_kinds_go_along():
    model = source("llama", False, 0)
    settings = {**model.config.to_dict(), "no_rope_layers": [1, 1, 0], "mlp_only_layers": [0, 2], "layer_types": None}
    for request, ropes, numbers in [
        (dict(layers=6), [1, 1, 0, 1, 1, 0], [0, 2, 3, 5]),
        (dict(layers=4, depth="identity"), [1, 1, 0, 0], [0, 2, 3]),
        (dict(slices="2-3"), [1, 0], [1]),
    ]:
        _, config = growkit.grow_state_dict(model.state_dict(), settings, **request)
        assert config["no_rope_layers"] == ropes and config["mlp_only_layers"] == numbers


def test_sources_that_differ_in_what_they_say_by_layer(tmp_path):
    """No list of numbers is an empty one; entries that one source lacks cannot be made up."""
    tiny.make("llama", dtype=torch.float32).save_pretrained(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    orders = [[tmp_path / "a", tmp_path / "b"], [tmp_path / "b", tmp_path / "a"]]
    edit_config(tmp_path / "a", mlp_only_layers=[0, 2])
    for nothing in (KeyError, None, []):
        edit_config(tmp_path / "b", mlp_only_layers=nothing)
        configs = [growkit.stack(order, dry_run=True).plan.config for order in orders]
        assert [config["mlp_only_layers"] for config in configs] == [[0, 2], [3, 5]]
    edit_config(tmp_path / "a", no_rope_layers=[1, 1, 0])
    for order in orders:
        with pytest.raises(growkit.GrowkitError, match="no_rope_layers"):
            growkit.stack(order, dry_run=True)


BY_LAYER = [  # family, changes of the config, part of the sentence
    ("llama", dict(layer_types=[F] * 2), "should list 3 entries under 'layer_types', one for each layer"),
    ("llama", dict(layer_types=F), "should list 3 entries under 'layer_types'"),
    ("llama", dict(no_rope_layers=[1]), "should list 3 entries under 'no_rope_layers'"),
    ("llama", dict(mlp_only_layers=[3]), "should list layers from 0 to 2 under 'mlp_only_layers'"),
    ("llama", dict(mlp_only_layers=2), "should list layers from 0 to 2 under 'mlp_only_layers'"),
    ("llama", dict(layers_block_type=["attention"] * 3), "under 'layers_block_type', which growkit does not know"),
    (
        "gpt2",
        dict(scale_attn_by_inverse_layer_idx=True),
        "a layer computes by its number, so it cannot stand elsewhere",
    ),
    ("bert", dict(pruned_heads={"0": [1]}), "pruned_heads: layers of different heads"),
]


@pytest.mark.parametrize(("family", "changes", "says"), BY_LAYER)
def test_what_a_config_says_by_layer_and_cannot_be_carried_is_refused(family, changes, says):
    model = source(family, True, 0)
    settings = {**model.config.to_dict(), **changes}
    for request in (dict(layers=6), dict(layers=4, depth="identity"), dict(layers=6, hidden=48)):
        with pytest.raises(growkit.CheckpointError, match=re.escape(says)):
            growkit.grow_state_dict(model.state_dict(), settings, **request)
