"""LoRA files that do not hold together, or belong to another base: one sentence each, and nothing is written."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from loras import CONFIG, PREFIX, WEIGHTS, edit, lora
from on_disk import edit_weights, linked, state
from refusing import cases, refused, run

Q, EMBED, NORM = "model.layers.0.self_attn.q_proj", "model.embed_tokens", "model.norm"
A, B = f"{PREFIX}{Q}.lora_A.weight", f"{PREFIX}{Q}.lora_B.weight"
TOKENS = f"{PREFIX}{EMBED}.token_adapter.trainable_tokens_delta"
APPLY = ["apply", "base", "lora", "-o", "out"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    tiny.make("llama", dtype=torch.float32).save_pretrained(folder / "base")
    return folder


@pytest.fixture(autouse=True)
def here(models, tmp_path, monkeypatch):
    linked(models, tmp_path, monkeypatch)
    lora({Q: (24, 24)}, dtype=torch.float32)


def new(name, *shape, dtype=torch.float32):
    return lambda tensors: tensors.update({name: torch.ones(shape).to(dtype)})


def gone(name):
    return lambda tensors: tensors.pop(name)


def as_dtype(dtype):
    return lambda tensors: tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()})


def embedding_of_q(tensors):
    for part in "AB":
        tensors[f"{PREFIX}{Q}.lora_embedding_{part}"] = torch.ones(4, 24)


def lora_on(tensors, module):
    for part in ("lora_A", "lora_B"):
        tensors[f"{PREFIX}{module}.{part}.weight"] = torch.ones(4, 24) if part == "lora_A" else torch.ones(24, 4)


NOT_PEFTS = "which is not of a LoRA of linear layers or embeddings as PEFT stores it"
TENSORS = [  # what is done to the tensors, what to the config, part of the sentence
    (gone(B), {}, f"has {A!r} without its lora_B.weight; save it again"),
    (gone(A), {}, f"has {B!r} without its lora_A.weight; save it again"),
    (dict.clear, {}, "holds no tensors: nothing was saved in its adapter_model.safetensors"),
    (new(A, 3, 24), {}, f"tensor {A!r} of 'lora' has shape [3, 24] where rank 4 and '{Q}.weight' of 'base' ask for [4,"),
    (new(B, 24, 3), {}, f"tensor {B!r} of 'lora' has shape [24, 3] where rank 4"),
    (new(A, 4, 32), {}, f"tensor {A!r} of 'lora' has shape [4, 32] where rank 4"),
    (new(A, 96), {}, f"tensor {A!r} of 'lora' has shape [96] where rank 4"),
    (new(A), {}, f"tensor {A!r} of 'lora' has shape [] where rank 4"),
    (new(A, 0, 24), {}, f"tensor {A!r} of 'lora' has shape [0, 24] where rank 4"),
    (as_dtype(torch.int8), {}, f"tensor {A!r} of 'lora' has dtype int8, which is no weight's"),
    (as_dtype(torch.bool), {}, "has dtype bool, which is no weight's"),
    (None, {"r": 8}, f"tensor {A!r} of 'lora' has shape [4, 24] where rank 8"),
    (None, {"r": 10**9}, "where rank 1000000000"),
    (None, {"rank_pattern": {"0.self_attn.q_proj": 2}}, "where rank 2"),
    (None, {"r": 0}, "should give r as a whole number above 0, not 0"),
    (None, {"lora_alpha": "16"}, "should give lora_alpha as a finite number, not '16'"),
    (None, {"target_modules": ["k_proj"]}, f"by its config PEFT would adapt no {Q!r}; correct target_modules"),
    (None, {"layers_to_transform": [1], "target_modules": ["q_proj"]}, f"PEFT would adapt no {Q!r}"),
    (None, {"use_dora": True}, f"has use_dora True and no lora_magnitude_vector of {Q!r}; save it again"),
    (new(f"{PREFIX}{Q}.lora_magnitude_vector", 24), {}, "has use_dora False and a lora_magnitude_vector"),
    (new(f"{PREFIX}{Q}.lora_magnitude_vector", 1, 24), {"use_dora": True}, "has shape [1, 24] where rank 4"),
    (None, {"lora_bias": True}, f"has lora_bias true and no lora_B.bias of {Q!r}; save it again"),
    (new(f"{PREFIX}{Q}.lora_B.bias", 24), {}, f"has '{PREFIX}{Q}.lora_B.bias' and lora_bias false; save it again"),
    (new(f"{PREFIX}{Q}.lora_B.bias", 25), {"lora_bias": True}, "has shape [25] where"),
    (new(f"{PREFIX}lm_head.lora_B.bias", 61), {"lora_bias": True}, "lm_head.lora_B.bias' without its A and B"),
    (new(f"{PREFIX}{EMBED}.lora_magnitude_vector", 24), {}, "lora_magnitude_vector' without its A and B"),
    (new(f"{PREFIX}{Q}.lora_A.default.weight", 4, 24), {}, NOT_PEFTS),
    (new(f"{PREFIX}{Q}.lora_C.weight", 4, 24), {}, NOT_PEFTS),
    (new(f"{PREFIX}{Q}.lora_diag", 4), {}, NOT_PEFTS),
    (new(f"{PREFIX}{Q}", 4), {}, NOT_PEFTS),
    (new(PREFIX + "weight", 4), {}, NOT_PEFTS),
    (new(f"{Q}.lora_A.weight", 4, 24), {}, NOT_PEFTS),
    (new(TOKENS, 2, 24), {}, "where trainable_token_indices and"),
    (new(TOKENS, 2, 24), {"trainable_token_indices": [3, 61]}, "has rows of token 61, and 'base' has 61"),
    (new(TOKENS, 2, 24), {"trainable_token_indices": [3]}, "has shape [2, 24] where trainable_token_indices and"),
    (None, {"trainable_token_indices": {"a": "x"}}, "should give trainable_token_indices as token ids, or lists of"),
    (lambda t: lora_on(t, "model.layers.0.mlp.experts"), {}, "has no 'layers.0.mlp.experts.weight' that it would"),
    (lambda t: lora_on(t, "model.layers.7.self_attn.q_proj"), {}, "has no 'layers.7.self_attn.q_proj.weight' that"),
    (lambda t: lora_on(t, EMBED), {}, "and 'model.embed_tokens.weight' of 'base' is an embedding"),
    (lambda t: lora_on(t, NORM), {}, "and 'model.norm.weight' of 'base' is no matrix"),
    (new(f"{PREFIX}{Q}.lora_embedding_A", 4, 24), {}, f"has '{PREFIX}{Q}.lora_embedding_A' without its"),
    (embedding_of_q, {}, f"has '{PREFIX}{Q}.lora_embedding_A', and '{Q}.weight' of 'base' is a linear layer"),
    (new(f"{PREFIX}lm_head.weight", 70, 24), {}, "changes tensor 'lm_head.weight' of shape [70, 24] and 'base' has [61"),
    (None, {"modules_to_save": ["lm_head"]}, "has modules_to_save ['lm_head'], and does not hold 'lm_head.weight'"),
    (None, {"peft_type": "LOHA"}, "has peft_type 'LOHA'; of PEFT's adapters growkit adds LORA"),
    (None, {"init_lora_weights": "pissa"}, "it belongs to a base that its initialisation changed"),
    (None, {"alora_invocation_tokens": [1, 2]}, "has alora_invocation_tokens [1, 2]: it works from a phrase in the text"),
    (None, {"target_parameters": "experts.gate_up_proj"}, "should give target_parameters as a list of text"),
    (None, {"target_parameters": ["q_proj.weight"], "target_modules": None}, "PEFT would adapt no 'model.layers.0.self"),
]  # fmt: skip


@pytest.mark.parametrize("change, content, says", cases(TENSORS))
def test_what_does_not_hold_together_or_fit(change, content, says):
    edit(change=change or (lambda tensors: None), **content)
    refused(*APPLY, says=says)


FILES = [  # bytes of a file, part of the sentence
    (WEIGHTS, b"", "it has 0 bytes, too few for a header"),
    (WEIGHTS, b"\x00" * 64, "is no sound safetensors file"),
    (WEIGHTS, b"\xff" * 64, "is the most allowed"),
    (WEIGHTS, pickle.dumps({"a": 1}), "is no sound safetensors file"),
    (CONFIG, b"", "is no valid JSON"),
    (CONFIG, b"{", "is no valid JSON"),
    (CONFIG, b"\xff\xfe", "is no valid JSON"),
    (CONFIG, b"[1]", "should hold a JSON object"),
    (CONFIG, b"[" * 5000, "is no valid JSON"),
    (CONFIG, b"{}", "has peft_type None"),
]


@pytest.mark.parametrize("file, content, says", cases(FILES))
def test_damaged_files(file, content, says):
    (Path("lora") / file).write_bytes(content)
    refused(*APPLY, says=says)


def test_a_header_that_promises_much_allocates_nothing():
    entry = {"dtype": "F32", "shape": [10**9, 24], "data_offsets": [0, 96 * 10**9]}
    header = json.dumps({A: entry, B: entry}).encode()
    (Path("lora") / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header)
    refused(*APPLY, says="is no sound safetensors file")


def test_a_lora_without_config():
    (Path("lora") / CONFIG).unlink()
    refused(*APPLY, says="has no adapter_config.json, without which nobody knows its scale")


def test_a_pickled_adapter_is_not_read():
    (Path("lora") / WEIGHTS).unlink()
    (Path("lora") / "adapter_model.bin").write_bytes(pickle.dumps({}))
    refused(
        *APPLY, says="adapter_model.bin' is a pickle, which can run code when it is read; load the adapter with PEFT"
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn])
def test_every_floating_point_dtype_is_added(dtype):
    edit(change=as_dtype(dtype))
    assert run(*APPLY).exit_code == 0
    factors = {name: tensor.double() for name, tensor in state("lora").items()}
    expected = state("base")[f"{Q}.weight"].double() + 1.5 * factors[B] @ factors[A]
    assert tiny.relative(expected, state("out")[f"{Q}.weight"].double()) < 1e-6


@pytest.mark.parametrize("value, kind", [(float("nan"), "NaN"), (float("inf"), "Inf")])
@pytest.mark.parametrize("name", [f"{Q}.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_what_is_not_finite_in_the_base_does_not_pass(name, value, kind):
    """In a tensor that the LoRA changes, and in those it leaves alone."""
    shutil.copytree("base", "broken")
    edit_weights(Path("broken"), lambda tensors: tensors[name].view(-1)[3:4].fill_(value))
    args = ["apply", "broken", "lora", "-o", "out"]
    refused(*args, says=f"tensor {name!r} of 'broken' holds {kind}: pass --allow-nonfinite", plan_shown=True)
    assert run(*args, "--allow-nonfinite").exit_code == 0
    assert not torch.isfinite(state("out")[name]).all()


def test_what_is_not_finite_in_the_lora_does_not_pass():
    edit(change=lambda tensors: tensors[A].view(-1)[:1].fill_(float("nan")))
    refused(*APPLY, says=f"tensor '{Q}.weight' of 'lora' holds NaN", plan_shown=True)


def test_an_adapter_beside_weights_is_looked_at_before_transformers_does():
    """Stock transformers loads the adapter on top; every command that opens the folder says so instead."""
    shutil.copytree("base", "both")
    for name in (WEIGHTS, CONFIG):
        shutil.copy(Path("lora") / name, "both")
    says = "'both' has adapter_config.json beside its weights, on top of which transformers would load that adapter"
    Path("text.txt").write_text("some words")
    for args in (
        ["eval", "both", "--data", "text.txt"],
        ["verify", "both", "base"],
        ["verify", "base", "both"],
        ["widen", "both", "--hidden", "48", "-o", "out"],
        ["inspect", "both"],
        ["merge", "both", "--base", "base", "-o", "out"],
        ["apply", "both", "lora", "-o", "out"],
    ):
        refused(*args, says=says)
    refused("inspect", "both/model.safetensors", says="has adapter_config.json beside its weights")


def test_an_adapter_given_as_a_model():
    for args in (["inspect", "lora"], ["merge", "lora", "--base", "base", "-o", "out"], ["delta", "base", "lora"]):
        refused(
            *args, says="'lora' is an adapter and no model: add it to its base with growkit apply, or write BASE+lora"
        )
