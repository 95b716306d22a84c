"""LoRA that PEFT made: what `apply` adds is what PEFT's own model computes, for each kind that PEFT stores."""

import json
import re
from itertools import combinations, product
from pathlib import Path

import pytest
import tiny
import torch
import transformers
from covering import cover
from loras import edit, lora
from on_disk import state
from refusing import refused

import growkit
from growkit.families import FAMILIES
from growkit.families.stacked import split_experts

peft = pytest.importorskip("peft", reason="peft is not installed: pip install peft")
pytestmark = pytest.mark.filterwarnings("ignore")
LINEAR = {
    "llama": ["q_proj", "v_proj", "down_proj"],
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "bert": ["query", "output.dense"],
    "gpt_neox": ["query_key_value", "dense_4h_to_h"],
}
EMBEDDING = {"llama": "embed_tokens", "gpt2": "wte", "bert": "word_embeddings", "gpt_neox": "embed_in"}


def adapter(folder, model, seed=0, dtype=torch.float64, before=lambda model: None, **settings):
    """A LoRA of a live model with every number drawn, saved by PEFT; what it computes with it, and its tensors."""
    settings = {"r": 4, "lora_alpha": 6, **settings}
    wrapped = peft.get_peft_model(model, peft.LoraConfig(**settings), autocast_adapter_dtype=False).eval()
    before(wrapped)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in wrapped.named_parameters():
        if any(word in name for word in ("lora_", "modules_to_save", "trainable_tokens")) or (
            parameter.requires_grad and name.endswith("bias")
        ):
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            size = parameter.data.abs().mean() if "magnitude" in name else 0.3
            parameter.data = (parameter.data + size * 0.3 * noise).to(dtype if "lora_" in name else parameter.dtype)
    wrapped.save_pretrained(folder)
    return logits(wrapped)


def logits(model):
    with torch.no_grad():
        return model(tiny.tokens()).logits.double()


def base(family="llama", **changes):
    """A tiny model saved as `base`, and live, in float64."""
    model = tiny.make(family, **changes)
    model.save_pretrained("base")
    return tiny.one_by_one(type(model).from_pretrained("base", dtype=torch.float64)).eval()


def applied(*skills, **options):
    """The logits of the base with these skills added."""
    growkit.apply("base", [*skills], "applied", **options)
    name = json.loads(Path("applied/config.json").read_text())["architectures"][0]
    return logits(tiny.one_by_one(getattr(transformers, name).from_pretrained("applied", dtype=torch.float64)).eval())


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


KINDS = {
    "plain": {},
    "a rank and an alpha by pattern": {
        "rank_pattern": {"0.self_attn.q_proj": 2, r"layers\.[12]\..*down_proj": 8, "^v_proj": 5},
        "alpha_pattern": {"model.layers.1.self_attn.v_proj": 9, "q_proj": 3},
    },
    "rank-stabilised": {"use_rslora": True},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "some layers": {"layers_to_transform": [0, 2]},
    "one layer by its list's name": {"layers_to_transform": 1, "layers_pattern": "layers"},
    "a regular expression": {"target_modules": r".*\.(q|k)_proj"},
    "all linear layers": {"target_modules": "all-linear"},
    "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "head": {"target_modules": ["lm_head", "q_proj"]},
    "head and embedding": {"target_modules": ["lm_head", "embed_tokens"]},
    "magnitudes": {"use_dora": True},
    "magnitudes of the embedding": {"use_dora": True, "target_modules": ["embed_tokens", "k_proj"]},
    "a bias of B": {"lora_bias": True},
    "biases": {"bias": "lora_only"},
    "all biases": {"bias": "all"},
    "modules saved whole": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "tokens": {"trainable_token_indices": [5, 3, 60]},
    "tokens by module": {"trainable_token_indices": {"embed_tokens": [7, 2]}, "modules_to_save": ["input_layernorm"]},
    "norms saved whole": {"modules_to_save": ["input_layernorm"]},
}


# a tied head matters to what is on the head, the embedding or all layers
ENDS = [kind for kind, settings in KINDS.items() if re.search("head|embed|all|token", str(settings))]


@pytest.mark.parametrize(("kind", "tied"), [*((kind, False) for kind in KINDS), *((kind, True) for kind in ENDS)])
def test_apply_adds_what_peft_computes(kind, tied, monkeypatch):
    monkeypatch.setattr("growkit.merging.merged_tensor.BLOCK_ELEMENTS", 100)
    monkeypatch.setattr("growkit.merging.lora.BLOCK_ELEMENTS", 100)
    model = base(tie_word_embeddings=tied)
    start = logits(model)
    expected = adapter("lora", model, **{"target_modules": LINEAR["llama"], **KINDS[kind]})
    found = applied("lora")
    assert tiny.relative(expected, found) < 1e-10 < 1e-2 < tiny.relative(expected, start)


@pytest.mark.parametrize(
    ("family", "dora", "embedding"),
    cover(product(("gpt2", "bert", "gpt_neox"), (False, True), (False, True)), lambda row: {*combinations(row, 2)}),
)
def test_other_families_too(family, dora, embedding):
    model = base(family)
    start = logits(model)
    targets = LINEAR[family] + [EMBEDDING[family]] * embedding
    expected = adapter("lora", model, target_modules=targets, use_dora=dora)
    assert tiny.relative(expected, applied("lora")) < 1e-10 < 1e-2 < tiny.relative(expected, start)


RARE = {
    "tied by PEFT": {"target_modules": ["embed_tokens", "lm_head"], "ensure_weight_tying": True},
    "saved and tied by PEFT": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "one of a tied pair saved": {"modules_to_save": ["embed_tokens"]},
    "other of a tied pair saved": {"modules_to_save": ["lm_head"]},
    "velora": {"velora_config": {"num_groups": 4}},
}


@pytest.mark.parametrize("kind", RARE)
def test_rarer_kinds_on_a_tied_base(kind):
    settings = {"target_modules": ["q_proj"], **RARE[kind]}
    if "velora_config" in settings:
        settings["velora_config"] = peft.tuners.lora.config.VeloraConfig(**settings["velora_config"])
    expected = adapter("lora", base(tie_word_embeddings=True), **settings)
    assert tiny.relative(expected, applied("lora")) < 1e-10


@pytest.mark.parametrize("dora", [False, True])
def test_weights_are_those_of_merge_and_unload(dora):
    model = base()
    adapter("lora", model, target_modules=LINEAR["llama"] + ["lm_head"], use_dora=dora)
    names = state("lora")
    assert "base_model.model.lm_head.base_layer.weight" in names  # PEFT stores the base's copy
    growkit.apply("base", ["lora"], "applied")
    fresh = type(model).from_pretrained("base", dtype=torch.float64)
    merged = peft.PeftModel.from_pretrained(fresh, "lora", autocast_adapter_dtype=False).merge_and_unload()
    made, before = state("applied"), state("base")
    changed = 0
    for name, tensor in merged.state_dict().items():
        assert tiny.relative(tensor, made[name]) < 1e-14
        changed += not torch.equal(made[name], before[name])
    assert changed == 3 * len(LINEAR["llama"]) + 1


@pytest.mark.parametrize(("dtype", "dora"), [(torch.float32, True), (torch.bfloat16, True), (torch.float16, False)])
def test_other_dtypes_to_rounding(dtype, dora):
    """PEFT rounds the change, then the sum; growkit adds in float32 and rounds once."""
    model = base(dtype=dtype).to(dtype)
    adapter("lora", model, dtype=dtype, target_modules=LINEAR["llama"], use_dora=dora)
    growkit.apply("base", ["lora"], "applied")
    fresh = type(model).from_pretrained("base", dtype=torch.float64)
    merged = peft.PeftModel.from_pretrained(fresh, "lora", autocast_adapter_dtype=False).double().merge_and_unload()
    for name, tensor in merged.state_dict().items():
        made = state("applied")[name]
        assert made.dtype == dtype
        assert (made.double() - tensor).abs().max() <= 2 * torch.finfo(dtype).eps * tensor.abs().max()


def test_several_at_once_with_weights():
    """What each changes of the base is added up; DoRA's change too."""
    changes = []
    start = {name: tensor.double() for name, tensor in base().state_dict().items()}
    for number, settings in enumerate([{}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}]):
        model = base()
        adapter(f"lora{number}", model, seed=number, target_modules=LINEAR["llama"], **settings)
        fresh = type(model).from_pretrained("base", dtype=torch.float64)
        merged = peft.PeftModel.from_pretrained(fresh, f"lora{number}", autocast_adapter_dtype=False).merge_and_unload()
        changes.append({name: tensor - start[name] for name, tensor in merged.state_dict().items()})
    growkit.apply("base", ["lora0:0.5", "lora1:-2", ("lora2", 0.25)], "applied")
    for name, tensor in state("applied").items():
        expected = start[name] + 0.5 * changes[0][name] - 2 * changes[1][name] + 0.25 * changes[2][name]
        assert tiny.relative(expected, tensor) < 1e-13, name


def test_a_sparse_delta_beside_a_lora_that_unties():
    """The sparse one knows one tensor for embedding and head: it changes both, the LoRA the embedding alone."""
    model = base(tie_word_embeddings=True)
    model.save_pretrained("tuned")
    tuned = type(model).from_pretrained("tuned", dtype=torch.float64)
    tiny.shake(tuned, 3).save_pretrained("tuned")
    growkit.delta("base", "tuned", "skill")
    adapter("lora", model, target_modules=["embed_tokens"])
    plan = growkit.apply("base", ["skill", "lora"], "applied").plan
    made, before, after = state("applied"), state("base"), state("tuned")
    a, b = (state("lora")[f"base_model.model.model.embed_tokens.lora_embedding_{part}"] for part in "AB")
    assert tiny.relative(after["model.embed_tokens.weight"], made["lm_head.weight"]) < 1e-14
    expected = after["model.embed_tokens.weight"] + 1.5 * (b @ a).T
    assert tiny.relative(expected, made["model.embed_tokens.weight"]) < 1e-13
    assert any("the head gets weights of its own" in note for note in plan.notes)
    assert before["model.embed_tokens.weight"].shape == expected.shape


def test_pissa_is_refused_until_peft_made_it_a_plain_lora():
    model = base(dtype=torch.float32).float()
    start = logits(model)

    def keep(wrapped):
        wrapped.peft_config["default"].init_lora_weights = True
        wrapped.save_pretrained("initial")
        wrapped.peft_config["default"].init_lora_weights = "pissa"

    wrapped = peft.get_peft_model(
        model, peft.LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj"], init_lora_weights="pissa")
    )
    keep(wrapped)
    for name, parameter in wrapped.named_parameters():
        parameter.data += (
            ("lora_" in name) * 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
        )
    expected = logits(wrapped.eval())
    wrapped.save_pretrained("pissa")
    refused("apply", "base", "pissa", "-o", "out", says="it belongs to a base that its initialisation changed")
    wrapped.save_pretrained("plain", path_initial_model_for_weight_conversion="initial")
    assert tiny.relative(expected, applied("plain")) < 1e-5 < 1e-2 < tiny.relative(expected, start)


def test_experts_one_by_one_as_transformers_4_names_them():
    """A LoRA on each expert, which PEFT on transformers 5 finds only in some families."""
    base("qwen2_moe")
    before = stored_by_expert()
    names = [name for name in before if ".experts." in name]
    lora({name.removesuffix(".weight"): before[name].shape for name in names})
    growkit.apply("base", ["lora"], "applied")
    factors = state("lora")
    for name, tensor in stored_by_expert("applied").items():
        module = f"base_model.model.{name.removesuffix('.weight')}"
        expected = before[name]
        if name in names:
            expected = expected + 1.5 * factors[f"{module}.lora_B.weight"] @ factors[f"{module}.lora_A.weight"]
        assert tiny.relative(expected, tensor) < 1e-14, name


def stored_by_expert(folder="base"):
    return split_experts(FAMILIES["qwen2_moe"], state(folder))


@pytest.mark.parametrize(
    ("family", "targets"),
    [("qwen2_moe", ["gate_up_proj", "down_proj"]), ("mixtral", ["down_proj"]), ("qwen3_moe", ["gate_up_proj"])],
)
def test_stacked_experts(family, targets):
    model = base(family)
    start = logits(model)
    more = {"rank_pattern": {"experts.down_proj": 3}, "alpha_pattern": {r".*\.1\..*experts.gate_up_proj": 9}}
    aimed = [f"mlp.experts.{name}" for name in targets]
    expected = adapter("lora", model, target_modules=["q_proj"], target_parameters=aimed, **more)
    assert tiny.relative(expected, applied("lora")) < 1e-10 < 1e-2 < tiny.relative(expected, start)


def test_stacked_experts_of_other_shapes_are_refused():
    model = base("qwen2_moe")
    adapter("lora", model, target_modules=[], target_parameters=["mlp.experts.down_proj"])
    growkit.apply("base", ["lora"], dry_run=True)
    edit(r=2)
    refused(
        "apply",
        "base",
        "lora",
        "-o",
        "out",
        says="target_parameters is none of gate_up_proj (experts, out, in) [4, 40, 24]",
    )
    edit(r=4, target_parameters=["mlp.experts.gate_up_proj"])
    refused("apply", "base", "lora", "-o", "out", says="with its rank and target_parameters is none of")


def test_changes_that_sixteen_bits_lose_are_told_of():
    """Weights lie on the grid of their dtype, so that what is less than half a step of it is nothing."""
    adapter("lora", base(dtype=torch.bfloat16), target_modules=LINEAR["llama"])
    assert not growkit.apply("base", ["lora"], "large").notes
    (note,) = growkit.apply("base", ["lora:1e-3"], "small").notes
    assert not growkit.apply("base", ["lora:1e-3"], "whole", dtype="float32").notes
    before, small, whole = (state(folder) for folder in ("base", "small", "whole"))
    changes = {name: whole[name].double() - before[name].double() for name in before}
    left = sum(((small[name].double() - before[name].double()) * change).sum() for name, change in changes.items())
    share = left / sum(change.square().sum() for change in changes.values())
    assert 0.05 < share < 0.85 and note.startswith(f"rounding to bfloat16 leaves {share:.0%} of what was added")
    assert {tensor.dtype for tensor in whole.values()} == {torch.float32}
    assert json.loads(Path("whole/config.json").read_text())["dtype"] == "float32"
