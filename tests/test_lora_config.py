"""What adapter_config.json says of a LoRA: every field of PEFT's is classified, and patterns match as PEFT's do."""

import dataclasses
import itertools
import json
import random

import pytest
from refusing import cases

from growkit.errors import CheckpointError, GrowkitError, RequestError
from growkit.merging.lora_config import HARMLESS, READ, REFUSED, pattern_for, read_lora_config

SOUND = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "target_modules": ["q_proj"]}
MODULES = [
    "model.layers.0.self_attn.q_proj", "model.layers.10.self_attn.q_proj", "model.layers.1.mlp.experts.0.up_proj",
    "h.0.attn.c_attn", "transformer.h.1.attn.c_attn", "lm_head", "model.embed_tokens", "encoder.layer.1.output.dense",
    "model.layers.0.mlp.xq_proj", "q_proj",
]  # fmt: skip


@pytest.fixture(scope="module")
def peft():
    return pytest.importorskip("peft", reason="peft is not installed: pip install peft")


def read(folder, **content):
    (folder / "adapter_config.json").write_text(json.dumps(SOUND | content))
    return read_lora_config(folder)


def test_every_field_of_peft_is_classified(peft):
    """One that comes with a newer PEFT fails here: it is to be read, known to be harmless, or refused."""
    fields = {field.name for field in dataclasses.fields(peft.LoraConfig)}
    assert fields <= {*READ, *HARMLESS, *REFUSED}
    assert not set(READ) & set(HARMLESS) and not (set(READ) | set(HARMLESS)) & set(REFUSED)


@pytest.mark.filterwarnings("ignore")
def test_what_peft_writes_of_its_defaults_is_read(peft, tmp_path):
    peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj"]).save_pretrained(tmp_path)
    config = read_lora_config(tmp_path)
    assert (config.rank_of("q_proj"), config.scale_of("q_proj")) == (8, 2.0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("field", REFUSED)
def test_what_makes_it_more_than_weights_is_refused_by_name(field, tmp_path):
    for value in (None, False, [], {}):
        read(tmp_path, **{field: value})
    for value in (True, [1], {"a": 1}, "x", 7):
        with pytest.raises(RequestError, match=f"has {field} .*growkit cannot add it"):
            read(tmp_path, **{field: value})


def test_a_field_nobody_knows_is_refused_where_it_says_anything(tmp_path):
    for value in (None, False, [], {}, "", 0):
        read(tmp_path, use_next=value)
    with pytest.raises(RequestError, match=r"has use_next 'fast' in adapter_config\.json, which growkit does not know"):
        read(tmp_path, use_next="fast")


KEEP = [True, False, None, "gaussian", "eva", "orthogonal", "mica"]
CHANGE = ["pissa", "pissa_niter_16", "olora", "OLoRA", "corda", "loftq", "lora_ga"]


@pytest.mark.parametrize("init", KEEP)
def test_initialisations_of_a_and_b_alone(init, tmp_path):
    read(tmp_path, init_lora_weights=init)


@pytest.mark.parametrize("init", CHANGE)
def test_initialisations_that_change_the_base_are_refused(init, tmp_path):
    with pytest.raises(RequestError, match=f"init_lora_weights '{init}'.*path_initial_model_for_weight_conversion"):
        read(tmp_path, init_lora_weights=init)


def test_an_initialisation_nobody_knows_is_refused(tmp_path):
    with pytest.raises(RequestError, match="init_lora_weights 'nova', which growkit does not know"):
        read(tmp_path, init_lora_weights="nova")


PATTERNS = [
    "q_proj",
    "0.self_attn.q_proj",
    r"layers\.\d.*proj",
    "^q_proj",
    "^model.layers",
    "(q|up)_proj",
    "proj",
    ".*",
]


@pytest.mark.filterwarnings("ignore")
def test_patterns_match_as_in_peft(peft):
    for patterns in itertools.permutations(PATTERNS, 2):
        for module in MODULES:
            assert pattern_for(patterns, module) == peft.utils.other.get_pattern_key(patterns, module)


@pytest.mark.filterwarnings("ignore")
def test_targets_are_those_of_peft(peft, tmp_path):
    """Lists of names; what a regular expression targets is what the file holds."""
    from peft.tuners.tuners_utils import check_target_module_exists

    draw = random.Random(0)
    names = ["q_proj", "self_attn.q_proj", "c_attn", "lm_head", "up_proj", "dense", MODULES[1]]
    seen = set()
    for _ in range(200):
        content = {
            "target_modules": draw.sample(names, 3),
            "exclude_modules": draw.choice([None, ["q_proj"], ["10.self_attn.q_proj"]]),
            "layers_to_transform": draw.choice([None, [], 0, [0], [1, 10]]),
        }
        if content["layers_to_transform"] not in (None, []):
            content["layers_pattern"] = draw.choice([None, [], "layers", ["h", "layers"], ["layer"]])
        config, theirs = read(tmp_path, **content), peft.LoraConfig(r=4, **content)
        for module in MODULES:
            expected = check_target_module_exists(theirs, module)
            expected = bool(expected) and type(expected).__name__ != "_ExcludedModule"
            assert config.adapts(module) == expected, (content, module)
            seen.add((expected, content["layers_to_transform"] is None))
    assert len(seen) == 4


UNSOUND = [
    ({"r": 0}, "should give r as a whole number above 0, not 0"),
    ({"r": "8"}, "should give r as a whole number above 0, not '8'"),
    ({"r": True}, "not True"),
    ({"r": 10**30}, "should give r as a whole number above 0"),
    ({"r": None}, "not None"),
    ({"lora_alpha": "16"}, "should give lora_alpha as a finite number, not '16'"),
    ({"lora_alpha": float("nan")}, "should give lora_alpha as a finite number, not nan"),
    ({"lora_alpha": 10**400}, "a number of 401 digits"),
    ({"use_rslora": "yes"}, "should give use_rslora as true or false, not 'yes'"),
    ({"use_dora": 2}, "should give use_dora as true or false, not 2"),
    ({"rank_pattern": ["q_proj"]}, "should give rank_pattern as whole numbers above 0 by module name"),
    ({"rank_pattern": {"q_proj": -1}}, "should give rank_pattern as whole numbers above 0 by module name"),
    ({"alpha_pattern": {"q_proj": "x"}}, "should give alpha_pattern as finite numbers by module name"),
    ({"rank_pattern": {"(q_proj": 2}}, "has '(q_proj' in rank_pattern, which is no pattern"),
    ({"rank_pattern": {"(a+)+$": 2}}, "has '(a+)+$' in rank_pattern, which is no pattern"),
    ({"rank_pattern": {".*" * 9 + "x": 2}}, "in rank_pattern, which is no pattern of module names that growkit"),
    ({"modules_to_save": "lm_head"}, "should give modules_to_save as a list of module names, not 'lm_head'"),
    ({"modules_to_save": [7]}, "should give modules_to_save as a list of module names, not [7]"),
    ({"target_modules": 3}, "should give target_modules as text or a list of text, not 3"),
    ({"layers_to_transform": ["0"]}, "should give layers_to_transform as layer numbers, not ['0']"),
    ({"peft_type": "IA3"}, "has peft_type 'IA3'; of PEFT's adapters growkit adds LORA"),
    ({"peft_type": ["LORA"]}, "has peft_type ['LORA']"),
]


@pytest.mark.parametrize("content, says", cases(UNSOUND))
def test_unsound_configs_get_one_sentence(content, says, tmp_path):
    with pytest.raises(GrowkitError) as error:
        read(tmp_path, **content)
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '"LORA"', "\x00", '{"r": 1, "r": '])
def test_what_is_no_json_object_gets_one_sentence(text, tmp_path):
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        read_lora_config(tmp_path)


def test_a_folder_without_config(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no adapter_config\.json"):
        read_lora_config(tmp_path)
