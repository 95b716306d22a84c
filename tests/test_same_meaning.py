"""Configs are compared by what they mean to transformers, whichever release wrote them and whatever else they hold."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from comparing import logits
from on_disk import copied, edit_config, fine_tune
from refusing import cases, refused

import growkit

# families whose rotary settings a 4.31 config has at the top; what else that release did not write, or wrote otherwise
OLD = {
    "llama": ({}, ("head_dim", "attention_bias", "mlp_bias", "attention_dropout")),
    "mistral": ({"sliding_window": 4096}, ("head_dim", "attention_dropout", "sliding_window")),
    "qwen2": ({}, ("layer_types", "use_sliding_window", "sliding_window", "max_window_layers")),
    "gpt_neox": ({}, ("attention_bias", "tie_word_embeddings", "hidden_dropout")),
    "phi": ({}, ("qk_layernorm", "partial_rotary_factor")),
    "mixtral": ({}, ("head_dim", "router_jitter_noise")),
}


def older(folder: str, family: str) -> None:
    """Rewrite a config as transformers 4.31 would have: the same meaning, in other keys."""
    path = Path(folder, "config.json")
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    own = {"gpt_neox": {"rotary_emb_base": rope["rope_theta"], "rotary_pct": rope.get("partial_rotary_factor")}}
    config |= own.get(family, {"rope_theta": rope["rope_theta"]})
    if family == "phi":
        config["partial_rotary_factor"] = rope["partial_rotary_factor"]
    if rope["rope_type"] != "default":
        config["rope_scaling"] = {"type": rope["rope_type"], "factor": rope["factor"]}
    elif family != "gpt_neox":
        config["rope_scaling"] = None
    config["torch_dtype"] = config.pop("dtype")
    for key in OLD[family][1]:
        if key != "partial_rotary_factor":
            config.pop(key, None)
    config |= {"_name_or_path": "somewhere/base", "transformers_version": "4.31.0", "use_cache": False}
    path.write_text(json.dumps(config))


def pair(tmp_path, monkeypatch, family: str, **changes) -> None:
    """`base`, with a config of 4.31, and `a`, fine-tuned from it and saved by transformers 5."""
    monkeypatch.chdir(tmp_path)
    plain = {"attention_bias": False, "mlp_bias": False} if family == "llama" else {}
    fine_tune(tmp_path, "a", family, **{**plain, **OLD[family][0], **changes})
    older("base", family)


def loaded(name: str):
    kind = json.loads(Path(name, "config.json").read_text())["architectures"][0]
    return tiny.one_by_one(getattr(tiny.transformers, kind).from_pretrained(name, dtype=torch.float64)).eval()


@pytest.mark.parametrize("family", OLD)
def test_two_generations_of_config(tmp_path, monkeypatch, family):
    pair(tmp_path, monkeypatch, family)
    written = json.loads(Path("base/config.json").read_text())
    merged = growkit.merge(["a"], "out", base="base", method="task-arithmetic")
    assert not [note for note in merged.plan.notes if "have" in note or "differ" in note]
    assert json.loads(Path("out/config.json").read_text()) == written  # the base's, in its own words
    ids = tiny.tokens()
    assert tiny.relative(logits(loaded("a"), ids), logits(loaded("out"), ids)) < 1e-12
    growkit.delta("base", "a", "delta")
    growkit.apply("base", ["delta"], "again")
    assert tiny.relative(logits(loaded("a"), ids), logits(loaded("again"), ids)) < 1e-12
    assert growkit.stack(["base", "a"], dry_run=True).plan.layers.new == 6
    if family != "mixtral":
        assert growkit.fuse(["base", "a"], dry_run=True).plan.growth.maps["hidden"].new == 48
    if family in ("llama", "mistral", "qwen2"):
        assert growkit.upcycle(["base", "a"], dry_run=True, experts=2).plan.config["num_hidden_layers"] == 3


def test_scaled_rotary_positions_of_two_generations(tmp_path, monkeypatch):
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    pair(tmp_path, monkeypatch, "llama", rope_parameters=rope)
    growkit.merge(["a"], "out", base="base", method="task-arithmetic")
    assert tiny.relative(logits(loaded("a"), tiny.tokens()), logits(loaded("out"), tiny.tokens())) < 1e-12
    edit_config(Path("base"), rope_scaling={"type": "linear", "factor": 4.0})
    refused("merge", "a", "--base", "base", "-o", "o2", says="have rope_parameters {")


COMMANDS = {
    "merge": lambda: growkit.merge(["a"], base="base", dry_run=True).plan,
    "fuse": lambda: growkit.fuse(["base", "a"], dry_run=True).plan,
    "stack": lambda: growkit.stack(["base", "a"], dry_run=True).plan,
    "upcycle": lambda: growkit.upcycle(["base", "a"], experts=2, dry_run=True).plan,
}
HARMLESS = {  # a key that one config has and the other has not -> whether a note names it
    "unsloth_version": ("2024.9", True),
    "auto_map": ({"AutoModelForCausalLM": "modeling_x.X"}, True),
    "tokenizer_class": ("LlamaTokenizer", True),
    "_attn_implementation": ("flash_attention_2", False),
    "attn_implementation": ("sdpa", False),
    "name_or_path": ("x/y", False),
    "_name_or_path": ("x/y", False),
    "num_labels": (2, False),
    "id2label": ({"0": "no", "1": "yes"}, False),
    "pretraining_tp": (1, False),
    "use_cache": (False, False),
    "torch_dtype": ("bfloat16", False),
    "rope_theta": (10000.0, False),
    "partial_rotary_factor": (1.0, False),
    "temperature": (0.6, False),
    "chunk_size_feed_forward": (0, False),
    "is_encoder_decoder": (False, False),
    "bos_token_id": (5, True),
    "eos_token_id": ([2, 7], True),
    "pad_token_id": (3, True),
    "max_position_embeddings": (4096, True),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("same")
    fine_tune(folder, "a", "mistral", sliding_window=4096)
    return folder


@pytest.fixture
def here(models, tmp_path, monkeypatch):
    """`base` and `a`, whose config may be changed, in the current folder."""
    copied(models, tmp_path, monkeypatch)


@pytest.mark.parametrize("key", HARMLESS)
def test_what_says_nothing_of_the_function(here, key):
    value, noted = HARMLESS[key]
    edit_config(Path("a"), **{key: value})
    for command, planned in COMMANDS.items():
        notes = [note for note in planned().notes if key in note.replace(",", "").split()]
        assert bool(notes) == noted, (command, notes)
        assert not noted or notes[0].startswith("'base' and 'a' ")


def test_every_default_may_be_left_out(here):
    """Of a config saved whole, any setting that is the class's default means the same when it is not there."""
    config = json.loads(Path("a/config.json").read_text())
    default = tiny.transformers.MistralConfig().to_dict()
    same = [key for key, value in config.items() if key in default and default[key] == value and key != "model_type"]
    assert {"sliding_window", "rms_norm_eps", "hidden_act", "tie_word_embeddings", "rope_parameters"} <= {*same}
    edit_config(Path("a"), **dict.fromkeys(same, KeyError))
    for planned in COMMANDS.values():
        assert not [note for note in planned().notes if note.startswith("'base' and")]


DIFFERENT = [  # changes of a's config, part of the sentence
    ({"rms_norm_eps": 1e-5}, "have rms_norm_eps 1e-06 and 1e-05 in config.json, as transformers reads it"),
    ({"hidden_act": "gelu"}, "have hidden_act 'silu' and 'gelu'"),
    ({"sliding_window": None}, "have sliding_window 4096 and None"),
    ({"sliding_window": 6}, "have sliding_window 4096 and 6"),
    ({"rope_parameters": KeyError, "rope_theta": 5000.0}, "have rope_parameters {"),
    ({"rope_parameters": KeyError, "rope_scaling": {"type": "linear", "factor": 2.0}}, "have rope_parameters {"),
    ({"is_causal": False}, "have is_causal None and False"),
]


@pytest.mark.parametrize("changes, says", cases(DIFFERENT))
def test_what_changes_the_function(here, changes, says):
    edit_config(Path("a"), **changes)
    refused("merge", "a", "--base", "base", "-o", "out", says=says)
    refused("fuse", "base", "a", "-o", "out", says=says)
    refused("stack", "base", "a", "-o", "out", says=says)
    refused("upcycle", "base", "a", "--experts", "2", "-o", "out", says=says)


OF_FAMILIES = [
    ("roberta", {"pad_token_id": 0}, "have pad_token_id 1 and 0"),  # positions are counted from behind it
    ("gemma2", {"final_logit_softcapping": None}, "have final_logit_softcapping 30.0 and None"),
    ("gemma2", {"query_pre_attn_scalar": 8}, "have query_pre_attn_scalar 12 and 8"),
    ("qwen2_moe", {"norm_topk_prob": False}, "have norm_topk_prob True and False"),
    ("bert", {"type_vocab_size": 3}, "have type_vocab_size 2 and 3"),
]


@pytest.mark.parametrize("family, changes, says", cases(OF_FAMILIES))
def test_what_changes_the_function_of_a_family(tmp_path, monkeypatch, family, changes, says):
    monkeypatch.chdir(tmp_path)
    fine_tune(tmp_path, "a", family)
    edit_config(Path("a"), **changes)
    refused("merge", "a", "--base", "base", "-o", "out", says=says)


def test_a_class_is_asked_only_where_configs_differ(here, monkeypatch):
    """Importing it takes as long as importing torch."""
    from growkit.growth import same_meaning

    monkeypatch.setattr(same_meaning, "meaning", lambda *_: pytest.fail("asked"))
    edit_config(Path("a"), transformers_version="4.99", _name_or_path="x", use_cache=False)
    for planned in COMMANDS.values():
        planned()
