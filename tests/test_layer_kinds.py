"""What a config says of kinds of layers: patterns given as a number, and rotary settings of each kind."""

from dataclasses import replace

import numpy as np
import pytest

from growkit import CheckpointError, RequestError
from growkit.families import family_named
from growkit.families.schema import AttentionWindows, Rotary
from growkit.growth.depth.by_layer import deepen_config, difference, kinds_of_attention
from growkit.growth.width.rotary import head_slots, rotary_size, write_rotary
from growkit.maps.axis import axis_map

LLAMA = family_named("llama")
MODERNBERT = replace(
    LLAMA,
    model_type="modernbert",
    windows=AttentionWindows(listed=("layer_types",)),
    rotary=Rotary(by_type={"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"}),
)
SMOLLM3 = replace(LLAMA, model_type="smollm3", windows=AttentionWindows(listed=("no_rope_layers", "layer_types")))
FULL, SLIDING = "full_attention", "sliding_attention"


def deepened(family, config: dict, index: list[int]) -> tuple[dict, list[str]]:
    result = dict(config)
    layers = axis_map("stack", config["num_hidden_layers"], np.array(index), 1.0, 1.0)
    return result, deepen_config(family, result, [config], [layers.old], {"": layers})


def test_a_pattern_given_as_a_number_becomes_the_list_it_means_where_layers_move():
    config = {"num_hidden_layers": 4, "global_attn_every_n_layers": 2}
    assert kinds_of_attention(MODERNBERT, config, 4) == [FULL, SLIDING, FULL, SLIDING]
    stacked, notes = deepened(MODERNBERT, config, [0, 1, 2, 3, 0, 1])
    assert "layer_types" not in stacked and stacked["num_hidden_layers"] == 6 and notes == []
    repeated, notes = deepened(MODERNBERT, config, [0, 0, 1, 1, 2, 3])
    assert repeated["layer_types"] == [FULL, FULL, SLIDING, SLIDING, FULL, SLIDING] and "layer_types" in notes[0]


def test_a_list_that_follows_from_another_follows_it():
    config = {"num_hidden_layers": 4, "no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": 4}
    for stated in ({}, {"layer_types": [FULL, SLIDING, FULL, SLIDING]}):
        deep, _ = deepened(SMOLLM3, {**config, **stated}, [0, 1, 1, 2, 3])
        assert deep["no_rope_layers"] == [1, 0, 0, 1, 0]
        assert kinds_of_attention(SMOLLM3, deep, 5) == [FULL, SLIDING, SLIDING, FULL, SLIDING]


def test_patterns_are_compared_by_what_they_mean():
    config = {"num_hidden_layers": 4, "no_rope_layer_interval": 2}
    same = {"num_hidden_layers": 4, "no_rope_layers": [1, 0, 1, 0]}
    assert difference(SMOLLM3, config, same, 4) is None
    assert difference(SMOLLM3, config, {**same, "no_rope_layers": [1, 1, 1, 0]}, 4) == "no_rope_layers"


@pytest.mark.parametrize("stated", ["nested", "flat"])
def test_each_kind_of_layers_has_a_rotary_base_of_its_own(stated):
    thetas = {FULL: 90000.0, SLIDING: 400.0}
    nested = {"rope_parameters": {kind: {"rope_type": "default", "rope_theta": t} for kind, t in thetas.items()}}
    flat = {"global_rope_theta": 90000.0, "local_rope_theta": 400.0}
    config = nested if stated == "nested" else flat
    slots, edits = head_slots(MODERNBERT, config, 4, 6)
    assert slots.rope_power == 1.5
    write_rotary(MODERNBERT, config, edits)
    grown = {kind: settings["rope_theta"] for kind, settings in config["rope_parameters"].items()}
    assert grown == pytest.approx({kind: theta**1.5 for kind, theta in thetas.items()})
    if stated == "flat":
        assert config["global_rope_theta"] == grown[FULL] and config["local_rope_theta"] == grown[SLIDING]


def test_a_kind_of_layers_whose_frequencies_cannot_be_kept_is_enough_to_refuse():
    kinds = {FULL: {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}, SLIDING: {"rope_type": "default"}}
    with pytest.raises(RequestError, match="'dynamic'"):
        head_slots(MODERNBERT, {"rope_parameters": kinds}, 4, 8)
    yarn = {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4, "original_max_position_embeddings": 8}
    slots, _ = head_slots(MODERNBERT, {"rope_parameters": {**kinds, FULL: yarn}}, 4, 8)
    assert slots.name == "rotary slots by theta"  # a base of one kind cannot move by index, so none does


def test_kinds_of_layers_are_not_guessed():
    nested = {"rope_parameters": {FULL: {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}}
    with pytest.raises(CheckpointError, match="a llama has not"):
        head_slots(LLAMA, {"rope_parameters": {FULL: {"rope_theta": 1e4}}}, 4, 8)
    with pytest.raises(CheckpointError, match=r"partial_rotary_factor 0\.5 for full_attention"):
        rotary_size(LLAMA, nested, 8)
