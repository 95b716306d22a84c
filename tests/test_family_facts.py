"""Facts of families: they stand in the tables and nowhere else, and what is read off them."""

import ast
import re
from copy import deepcopy
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

import growkit
from growkit import grow_state_dict
from growkit.errors import CheckpointError
from growkit.families import FAMILIES, family_named
from growkit.families.keys import Both, Either, key_names, keys_to_read
from growkit.family_check.small_models import stock_classes
from growkit.growth.width.rotary import write_rotary
from growkit.growth.width.sizes import read_sizes
from growkit.maps.axis import identity
from growkit.maps.notation import WRITE
from growkit.operators.rule import rule_of, select

ROOT = Path(growkit.__file__).parent
ELSEWHERE = [path for path in sorted(ROOT.rglob("*.py")) if ROOT / "families" not in path.parents]


def strings(tree: ast.AST) -> list[tuple[int, str]]:
    """(line, text) of the strings in a program, docstrings left out."""
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in said]
    return [(node.lineno, node.value) for node in constants if isinstance(node.value, str)]


def test_no_family_is_named_outside_the_tables():
    """Facts of a family belong in growkit/families."""
    assert len(ELSEWHERE) > 200
    assert [
        (str(path.relative_to(ROOT)), line, text)
        for path in ELSEWHERE
        for line, text in strings(ast.parse(path.read_text("utf-8")))
        if text in FAMILIES
    ] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_what_transformers_passes_over_in_old_files_is_known(family):
    """But for what predicts further tokens, in layers beyond the config's or under a name of its own."""
    passed_over = {
        pattern.removeprefix("^")
        for kind in stock_classes(FAMILIES[family])
        for pattern in getattr(kind, "_keys_to_ignore_on_load_unexpected", None) or ()
        if not re.search(r"layers\\\.\d+|mtp|crossattention|original_inv_freq", pattern)
    }
    known = [*FAMILIES[family].buffers, *FAMILIES[family].tensors]
    names = [name.replace("block.{layer}", "block.0") for name in known]
    assert all(any(re.search(pattern, name) for name in names) for pattern in passed_over), passed_over


@pytest.mark.parametrize(
    ("family", "old"),
    [
        ("t5", {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": torch.ones(32, 4)}),
        ("distilbert", {"distilbert.embeddings.position_ids": torch.arange(16)[None]}),
        ("opt", {"model.decoder.version": torch.ones(1)}),
        ("bart", {"model.encoder.version": torch.ones(1), "model.decoder.version": torch.ones(1)}),
    ],
)
def test_what_old_files_have_besides_is_left_out(family, old, tmp_path):
    model = tiny.make(family, dtype=torch.float32)
    model.save_pretrained(tmp_path / "src")
    path = tmp_path / "src" / "model.safetensors"
    save_file({**load_file(path), **old}, path, {"format": "pt"})
    grown = growkit.widen(tmp_path / "src", tmp_path / "out", hidden=48)
    assert set(grown.plan.members[0].dropped) == {*old}
    assert not {*old} & load_file(tmp_path / "out" / "model.safetensors").keys()


def test_strings_finds_a_family():
    """The test above can fail."""
    assert strings(ast.parse('"""opt"""\nif kind == "opt":\n    pass')) == [(2, "opt")]


@pytest.mark.parametrize(
    ("family", "config", "longest"),
    [
        ("bert", {"max_position_embeddings": 512, "pad_token_id": 1}, 512),
        ("roberta", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ("roberta", {"max_position_embeddings": 514, "pad_token_id": 7}, 506),
        ("roberta", {"max_position_embeddings": 514}, 512),  # the class's padding token is 1
        ("opt", {"max_position_embeddings": 2048}, 2048),
        ("gpt2", {"n_positions": 1024}, 1024),
        ("llama", {}, 2048),  # the class's
        ("llama", {"max_position_embeddings": None}, None),
    ],
)
def test_longest_sequence(family, config, longest):
    assert family_named(family).longest(config) == longest


@pytest.mark.parametrize(
    ("keys", "config", "read"),
    [
        ("a", {"b": 1}, ("a",)),
        (Both("a", "b"), {"b": 1}, ("a", "b")),
        (Either("a", "b"), {"b": 1}, ("b",)),
        (Either("a", "b"), {"a": None, "b": 1}, ("b",)),
        (Either("a", "b"), {"a": 1, "b": 1}, ("a", "b")),
        (Either("a", "b"), {}, ("a",)),
    ],
)
def test_which_keys_are_read(keys, config, read):
    assert keys_to_read(keys, config) == read


def test_all_keys_of_a_size():
    assert key_names(Both("a", "b")) == key_names(Either("a", "b")) == ("a", "b") and key_names("a") == ("a",)


ROPE = {"rope_parameters": {"rope_theta": 1e4}}
EXPERTS = dict(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, vocab_size=16)


def test_either_key_says_how_many_experts_and_they_must_agree():
    family = family_named("qwen3_moe")
    assert read_sizes(family, {**EXPERTS, "num_key_value_heads": 2, "num_local_experts": 6})["expert"] == 6
    with pytest.raises(CheckpointError, match="gives num_experts as 4 but 'num_local_experts' as 6"):
        read_sizes(family, {**EXPERTS, "num_key_value_heads": 2, "num_experts": 4, "num_local_experts": 6})


@pytest.mark.parametrize(
    ("family", "config", "edit", "where"),
    [
        ("gpt_neox", {"rotary_pct": 0.25}, "partial_rotary_factor", ("rotary_pct",)),
        ("gpt_neox", {}, "partial_rotary_factor", ("rotary_pct",)),
        ("gpt_neox", {}, "rope_theta", ("rotary_emb_base",)),
        ("gpt_neox", ROPE, "rope_theta", ("rope_parameters", "rope_theta")),
        ("gpt_neox", ROPE, "partial_rotary_factor", ("rope_parameters", "partial_rotary_factor")),
        ("phi", {}, "partial_rotary_factor", ("partial_rotary_factor",)),
        ("llama", {}, "rope_theta", ("rope_theta",)),
        ("gpt_neox", ROPE, "rope_theta", ("rotary_emb_base",)),  # and where transformers 4 reads it
        ("gpt_neox", ROPE, "partial_rotary_factor", ("rotary_pct",)),
        ("phi", ROPE, "partial_rotary_factor", ("partial_rotary_factor",)),
        ("llama", ROPE, "rope_theta", ("rope_theta",)),
    ],
)  # fmt: skip
def test_rotary_settings_are_written_where_the_family_has_them(family, config, edit, where):
    config = deepcopy(config)
    write_rotary(family_named(family), config, {edit: 0.5})
    for key in where:
        config = config[key]
    assert config == 0.5


@pytest.mark.parametrize("kind", ["yarn", "llama3"])
def test_a_scaled_base_is_not_stated_without_its_scale(kind):
    """Transformers 4 finds no rope_parameters, so a base by itself would be another model's."""
    config = {"rope_parameters": {"rope_theta": 1e4, "rope_type": kind, "factor": 2.0}}
    write_rotary(family_named("llama"), config, {"rope_theta": 0.5})
    assert config == {"rope_parameters": {"rope_theta": 0.5, "rope_type": kind, "factor": 2.0}}


def test_a_tensor_of_other_dimensions_than_the_table_has_is_refused():
    model = tiny.make("llama")
    state, name = model.state_dict(), "model.layers.0.mlp.up_proj.weight"
    state[name] = torch.stack([state[name]] * 3)
    refusal = r"'model.layers.0.mlp.up_proj.weight' has shape \[3, \d+, 24\] but config.json says 2 dimensions"
    with pytest.raises(CheckpointError, match=refusal):
        grow_state_dict(state, model.config.to_dict(), hidden=48)
    axis = select(identity(4), WRITE)
    with pytest.raises(ValueError, match="not of 4 dimensions"):
        rule_of([axis] * 4, [WRITE] * 4)
