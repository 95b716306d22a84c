"""What a small module is good for once it is there: it is put into its model where that is exact, used on it, and
refused on any other."""

import json
import shutil
from pathlib import Path

import peft
import pytest
import tiny
import torch
import transformers
from refusing import refused, run
from safetensors.torch import load_file, save_file
from small_runs import run_on
from tiny_runs import tokenizer

import growkit
from growkit.merging.ia3 import HARMLESS
from growkit.models.small.small_file import put_small


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """Folders: models, what runs on them left, and what the trained models compute, by word and model."""
    folder, logits = tmp_path_factory.mktemp("trained"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for family in ("llama", "gpt2"):
            shutil.copytree(world / family, family)
            tokenizer().save_pretrained(family)
        tiny.make("llama", dtype=torch.float32, seed=9).save_pretrained("other")
        tokenizer().save_pretrained("other")
        for family, word in PUT_IN + USED:
            here = Path(family).resolve()
            run = run_on(world, f"{word}-{family}", word, model=here, steps=4, lr=2e-2)
            with torch.no_grad():
                logits[f"{word}-{family}/final"] = run.student.model.eval()(tiny.tokens()).logits
    return folder, logits


PUT_IN = [("llama", "lora"), ("llama", "control"), ("llama", "ia3"), ("gpt2", "ia3"), ("gpt2", "control")]
USED = [("llama", "mov"), ("gpt2", "molora")]


@pytest.fixture(autouse=True)
def here(trained, tmp_path, monkeypatch):
    for path in trained[0].iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)


def stock(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def logits_of(model):
    with torch.no_grad():
        return model(tiny.tokens()).logits


@pytest.mark.parametrize(("family", "word"), PUT_IN)
def test_what_is_exact_is_put_into_the_model(trained, family, word):
    small = f"{word}-{family}/final"
    growkit.apply(family, [small], "applied")
    assert (logits_of(stock("applied")) - trained[1][small]).abs().max() < 2e-5
    assert (trained[1][small] - logits_of(stock(family))).abs().max() > 1e-2


def test_ia3_of_peft_is_what_pefts_own_merge_makes_of_it():
    """Also when PEFT trained it, in another dtype and with a weight."""
    for family, targets in (("gpt2", ["c_attn", "mlp.c_proj"]), ("llama", ["k_proj", "v_proj", "down_proj"])):
        config = peft.IA3Config(
            target_modules=targets, feedforward_modules=targets[-1:], fan_in_fan_out=family == "gpt2"
        )
        model = peft.get_peft_model(stock(family), config)
        draws = torch.Generator().manual_seed(1)
        for name, parameter in model.named_parameters():
            if "ia3_l" in name:
                parameter.data = 1 + 0.3 * torch.randn(parameter.shape, generator=draws)
        model.save_pretrained(f"own-{family}")
        growkit.apply(family, [f"own-{family}"], f"applied-{family}")
        wanted = logits_of(model.merge_and_unload())
        assert (logits_of(stock(f"applied-{family}")) - wanted).abs().max() < 2e-5
        growkit.apply(family, [(f"own-{family}", 0.5)], f"half-{family}")
        name = next(n for n in load_file(f"{family}/model.safetensors") if targets[-1] in n and n.endswith("weight"))
        none, half, whole = (
            load_file(f"{folder}/model.safetensors")[name] for folder in (family, f"half-{family}", f"applied-{family}")
        )
        assert torch.allclose(half, (none + whole) / 2, atol=1e-6)


def test_every_field_of_pefts_ia3_is_known():
    """A field that the installed PEFT has is read, harmless, or ends in a refusal by name once it is set."""
    fields = set(peft.IA3Config().to_dict())
    assert fields - {*HARMLESS} == {"modules_to_save"}


def test_a_small_module_is_used_on_its_model(trained):
    for family, word in USED:
        small = f"{word}-{family}/final"
        said = growkit.generate(family, "w4 w5 w6", adapter=small, max_tokens=8)
        model = stock(family)
        put_small(model, small)
        assert torch.equal(logits_of(model), trained[1][small])
        ids = torch.tensor([tokenizer()("w4 w5 w6")["input_ids"]])
        ends = [e for e in [model.generation_config.eos_token_id] if e is not None and e < 61]
        made = model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=ends or None, pad_token_id=1)
        assert said.text == tokenizer().decode(made[0, ids.shape[1] :])


def test_loss_with_a_small_module_is_that_of_the_model_it_makes(world):
    growkit.apply("llama", ["lora-llama/final"], "applied")
    usual = dict(context=16, limit=320)
    alone = growkit.evaluate("llama", world / "data", **usual).loss
    on = growkit.evaluate("llama", world / "data", adapter="lora-llama/final", **usual)
    assert on.loss == pytest.approx(growkit.evaluate("applied", world / "data", **usual).loss, abs=1e-5)
    mixed = growkit.evaluate("llama", world / "data", adapter="mov-llama/final", **usual).loss
    assert on.notes[-1] == "with 'lora-llama/final' on it" and on.loss < alone - 0.01 and mixed < alone - 0.005


@pytest.mark.parametrize(("family", "word"), PUT_IN + USED)
def test_verify_checks_a_small_module_on_its_base(family, word):
    """Against what apply makes of both, and how far it moves the base; a change of either is found."""
    small = f"{word}-{family}/final"
    alone = growkit.verify([], family, adapter=small)
    assert alone.tolerance is None and alone.relative > 1e-3 and alone.loss_source != alone.loss_target
    assert f"fits {family!r}" in alone.notes[-1] and "all numbers finite" in alone.notes[-1]
    if (family, word) in USED:
        assert not growkit.verify(family, family, adapter=small).ok
        return
    growkit.apply(family, [small], "applied")
    whole = growkit.verify(family, "applied", adapter=small)
    assert (
        whole.ok and whole.exactness == "exact" and whole.relative < 1e-5 and whole.source == f"{family} with {small}"
    )
    assert not growkit.verify(family, family, adapter=small).ok
    growkit.apply(family, [(small, 0.9)], "less")
    assert run("verify", family, "less", "--adapter", small).exit_code == 1


def test_a_soft_mixture_is_no_plain_weights():
    refused(
        "apply", "llama", "mov-llama/final", "-o", "no", says="depends on each token, which no plain weights can do"
    )


@pytest.mark.parametrize("word", ["lora", "ia3", "mov"])
def test_another_model_is_refused_with_both_hashes(world, word):
    small = f"{word}-llama/final"
    said = json.loads(Path(small, "growkit.json").read_text())["sources"][0]["files"]["model.safetensors"][:12]
    lines = [["generate", "other", "w4", "--adapter", small]]
    lines += [["eval", "other", "--data", world / "data", "--adapter", small]] if word == "mov" else []
    lines += [["apply", "other", small, "-o", "no"]] if word != "mov" else []
    for line in lines:
        text = refused(*line, says=f"made for 'llama', weights of SHA-256 {said}...")
        assert "and 'other' has" in text


def test_a_soft_mixture_given_as_a_model(world):
    lines = [["inspect"], ["generate"], ["tune"], ["eval"]]
    more = {"generate": ["w4"], "tune": ["--data", world / "data", "--out", "no"], "eval": ["--data", world / "data"]}
    for (command,) in lines:
        says = "'mov-llama/final' is a small module and no model: name its model, with --adapter mov-llama/final"
        refused(command, "mov-llama/final", *more.get(command, []), says=says)


@pytest.mark.parametrize("word", ["lora", "mov"])
def test_what_is_named_as_a_small_module_and_is_none(word):
    for line in (["generate", "llama", "w4", "--adapter"], ["verify", "llama", "--adapter"]):
        refused(*line, "nosuch", says="'nosuch' does not exist; name a folder that growkit tune or delta left")
        refused(*line, f"{word}-llama", says=f"--adapter '{word}-llama' is a run; name '{word}-llama/final'")
    refused("apply", "llama", "nosuch", "-o", "no", says="'nosuch' does not exist")
    refused("apply", "llama", f"{word}-llama", "-o", "no", says=f"'{word}-llama' is a run; name '{word}-llama/final'")


def edited(folder, change=lambda tensors: None, **content):
    shutil.copytree(folder, "edited")
    weights, config = next(
        pair
        for pair in (
            ("small_module.safetensors", "small_module.json"),
            ("adapter_model.safetensors", "adapter_config.json"),
        )
        if Path("edited", pair[0]).exists()
    )
    tensors = load_file(f"edited/{weights}")
    change(tensors)
    save_file(tensors, f"edited/{weights}")
    path = Path("edited", config)
    path.write_text(json.dumps(json.loads(path.read_text()) | content))


ROUTER = "model.layers.0.mlp.down_proj.router"
IA3 = "base_model.model.model.layers.0.mlp.down_proj.ia3_l"
WRONG = [
    ("mov", {}, lambda t: t.pop(ROUTER), "lacks 'model.layers.0.mlp.down_proj.router'; it was made for another model"),
    ("mov", {}, lambda t: t.update(x=torch.ones(1)), "has, beyond what the model takes, 'x'"),
    (
        "mov",
        {},
        lambda t: t.update({ROUTER: torch.ones(3, 41)}),
        "float32 [3, 41] where the model asks for float32 [3, 40]",
    ),
    ("mov", {}, lambda t: t.update({ROUTER: t[ROUTER].half()}), "float16 [3, 40] where the model asks for float32"),
    ("mov", {"experts": 4}, lambda t: None, "where the model asks for float32 [4, "),
    ("mov", {"experts": 0}, lambda t: None, "should have experts as a whole number from 1 to 4096, not 0"),
    ("mov", {"kind": "molora"}, lambda t: None, "lacks 'rank'"),
    ("mov", {"kind": "moe"}, lambda t: None, "should have kind as one of mov, molora"),
    ("ia3", {}, lambda t: t.update({IA3: torch.ones(1, 41)}), "asks for [24, 1] or [1, 40]; it is of another base"),
    ("ia3", {}, lambda t: t.update({IA3: torch.ones(1, 40).int()}), "has dtype int32, which is no weight's"),
    ("ia3", {}, lambda t: t.update(x=torch.ones(1)), "'x', which is not of an IA3 of a model's layers"),
    (
        "ia3",
        {"modules_to_save": ["lm_head"]},
        lambda t: None,
        "has modules_to_save ['lm_head'], which growkit cannot add",
    ),
    ("ia3", {"target_modules": 3}, lambda t: None, "should have target_modules as text or a list"),
]


@pytest.mark.parametrize(("word", "content", "change", "says"), WRONG, ids=[wrong[3][:30] for wrong in WRONG])
def test_a_folder_that_is_wrong(word, content, change, says):
    edited(f"{word}-llama/final", change, **content)
    command = ["generate", "llama", "w4", "--adapter", "edited"] if word == "mov" else ["apply", "llama", "edited"]
    for line in (command, ["verify", "llama", "--adapter", "edited"]):
        refused(*line, says=says)


@pytest.mark.parametrize(("word", "name"), [("mov", ROUTER), ("ia3", IA3)])
def test_verify_finds_numbers_that_are_none(word, name):
    edited(f"{word}-llama/final", lambda tensors: tensors[name][0, -1:].fill_(torch.inf))
    refused("verify", "llama", "--adapter", "edited", says=f"has NaN or infinity in {name!r}")
    refused("verify", "llama", "llama", "gpt2", "--adapter", "edited", says="a small module is for one model")
    refused("verify", "other", "--adapter", f"{word}-llama/final", says="made for 'llama', weights of SHA-256")
