"""A key that config.json does not have is what transformers' own config class says it is, for every key growth reads."""

import json
from pathlib import Path

import pytest
import tiny
from on_disk import edit_config
from refusing import cases, refused, run

import growkit
from growkit.errors import CheckpointError
from growkit.families import FAMILIES, vocabulary_size
from growkit.families.keys import Either
from growkit.growth.depth.by_layer import kinds_of_attention
from growkit.growth.width.rotary import rope_value, rotary_size
from growkit.growth.width.sizes import read_sizes

AXES = ("hidden", "head", "kv_head", "head_dim", "ffn", "shared_ffn", "dense_ffn", "expert", "vocab", "layer")


def config_of(family: str) -> dict:
    config_class, sizes = tiny.ALL[family]
    return config_class(**sizes).to_dict()


def keys_read(name: str) -> set[str]:
    """Every config key that a family's table names."""
    family = FAMILIES[name]
    keys = {key for axis in family.sizes for key in family.keys(axis)} | {*family.score_keys, *family.defaults}
    keys |= {*family.by_number, *family.refused, family.windows.full_layers, family.positions.counted_after}
    keys |= {family.experts.top_k, family.experts.sparse_step, family.experts.dense_layers}
    return keys - {"", 1}


def without(config: dict, *keys: str) -> dict:
    return {key: value for key, value in config.items() if key not in keys}


@pytest.mark.parametrize("name", tiny.ALL)
def test_every_key_of_a_table_is_what_its_class_says(name):
    for bare in (True, False):  # a config of no key, and one of all others
        every_key_is_what_its_class_says(name, bare)


def every_key_is_what_its_class_says(name: str, bare: bool) -> None:
    family, config_class = FAMILIES[name], tiny.ALL[name][0]
    config, checked = {} if bare else without(config_of(name), "layer_types", "model_type"), 0
    for key in sorted(keys_read(name)):
        same = next((family.keys(axis) for axis in family.sizes if isinstance(family.sizes[axis], Either)), ())
        lacking = without(config, key, *(same if key in same else ()))
        if key == "sliding_window" and "use_sliding_window" in family.defaults:
            lacking["use_sliding_window"] = True  # else the class has none
        try:
            # what a model reads of a config whose class has no such key is off where it is absent
            stock = getattr(config_class(**lacking), key, family.refused.get(key, (None,))[0])
        except Exception:  # such as 4 heads for 8 kv heads, the default
            assert not bare
            if key not in family.defaults:
                with pytest.raises(CheckpointError, match=r"transformers does not take this config.json"):
                    family.value(lacking, key)
            continue
        checked += 1
        axis = next((axis for axis in AXES if key in family.keys(axis)), None)
        if key in family.refused:
            assert stock == family.refused[key][0], key
        elif key in family.score_keys and family.value(lacking, key) is None:  # follows from head_dim, and with it
            # MPT's class leaves it open, and its model takes this
            assert stock in (None, read_sizes(family, lacking)["head_dim"] ** -0.5), key
        elif axis is None or family.value(lacking, key) is not None:
            assert family.value(lacking, key) == stock, key
        elif stock is not None and (axis != "kv_head" or family.groups_heads(lacking)):
            assert read_sizes(family, lacking)[axis] == stock, key
    assert checked > 4
    tied = config_class(**without(config, "tie_word_embeddings")).tie_word_embeddings
    assert family.tied == tied


@pytest.mark.parametrize(
    "name", [n for n in tiny.ALL if (rotary := FAMILIES[n].rotary) and not (rotary.by_type or rotary.size_key)]
)
def test_absent_rotary_settings(name):
    family = FAMILIES[name]
    bare = without(config_of(name), "rope_parameters", "model_type")
    config = tiny.ALL[name][0](**bare)
    stock = getattr(config, "rope_parameters", None) or {"rope_theta": config.rope_theta}
    own = (family.rotary.base_key, "rope_theta")
    if family.rotary.by_type:  # its class completes what a config leaves open, and is asked
        assert {kind: one["rope_theta"] for kind, one in stock.items()}.keys() == family.rotary.by_type.keys()
        return
    assert rope_value(bare, own, family.rotary.base) == stock["rope_theta"]
    assert rotary_size(family, bare, 100) == int(100 * stock.get("partial_rotary_factor", 1.0))


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "gemma2", "qwen2_moe"])
@pytest.mark.parametrize(
    "changes", [{}, {"use_sliding_window": True}, {"use_sliding_window": True, "max_window_layers": 1}]
)
def test_kinds_of_layers_are_those_of_the_class(name, changes):
    if name == "qwen2_moe" and changes:
        pytest.skip("refused in depth: a layer computes by its number")
    config = without(config_of(name), "layer_types", "max_window_layers", "sliding_window", "model_type") | changes
    stock = tiny.CONFIGS[name][0](**config)
    assert kinds_of_attention(FAMILIES[name], config, stock.num_hidden_layers) == stock.layer_types


def test_a_size_that_only_the_class_knows(tmp_path, monkeypatch):
    """OPT's embedding is as wide as its stream unless a config says otherwise; GPT-2's sizes have other names too."""
    monkeypatch.chdir(tmp_path)
    tiny.make("opt").save_pretrained("opt")
    edit_config(Path("opt"), word_embed_proj_dim=KeyError)
    assert growkit.widen("opt", "out", hidden=48, verify=True).report.ok
    tiny.make("gpt2").save_pretrained("gpt2")
    edit_config(Path("gpt2"), n_embd=KeyError, hidden_size=24, n_layer=KeyError, num_hidden_layers=3)
    assert growkit.grow("gpt2", "out2", hidden=48, layers=4, depth="identity", verify=True).report.ok
    config = json.loads(Path("out2/config.json").read_text())
    assert config["hidden_size"] == 48 and config["num_hidden_layers"] == 4
    assert "n_embd" not in config and "n_layer" not in config
    assert vocabulary_size(without(config, "vocab_size")) == 50257


def test_a_config_that_transformers_does_not_take(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.make("llama").save_pretrained("src")
    edit_config(Path("src"), vocab_size=KeyError, num_attention_heads=5, num_key_value_heads=5)
    refused("widen", "src", "--hidden", "48", says="transformers does not take this config.json: ")


STRAYS = cases([
    ("pretraining_tp", "x", "Field 'pretraining_tp' expected int, got str (value: 'x')"),
    ("use_cache", [1], "Field 'use_cache' expected bool"),
])  # fmt: skip


@pytest.mark.parametrize("key, value, says", STRAYS)
def test_a_key_that_growkit_does_not_read_is_asked_about_before_a_proof(key, value, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.make("llama").save_pretrained("src")
    edit_config(Path("src"), **{key: value})
    for line in (["widen", "src", "--hidden", "48"], ["stack", "src", "--layers", "6", "--dry-run"]):
        said = refused(*line, says=says)
        assert "transformers does not take the config.json of 'src'" in said
    assert run("widen", "src", "--hidden", "48", "--no-verify", "-o", "out").exit_code == 0
