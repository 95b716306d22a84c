"""Small modules that learn on a frozen model: that they are nothing at first, what learns, and what the result is to
stock PEFT.
"""

import json
import warnings
from pathlib import Path

import peft
import pytest
import tiny
import torch
import transformers
from processes import pair
from safetensors.torch import load_file
from small_runs import WORDS, begun, run_on
from tiny_runs import Stopped, curve, losses_of, same, stops_at

from growkit.errors import RequestError
from growkit.models.small.targets import unwrapped
from growkit.operators.seeds import generator
from growkit.training import checkpoints as state
from growkit.training.learning.control import controls
from growkit.training.state_files import read_plan

OF_PEFT = ("lora", "lora-mlp", "ia3", "control")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def stock(family, folder):
    model = getattr(transformers, tiny.language_model(family)).from_pretrained(folder)
    return tiny.one_by_one(model).eval()


def logits_of(model):
    with torch.no_grad():
        return model.eval()(tiny.tokens()).logits


def learns(model):
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(("model", "word"), [("llama", word) for word in WORDS] + [("gpt2", "molora")])
def test_nothing_changes_at_first_and_nothing_else_ever(world, model, word):
    """A new module is no change at all, bit for bit; a step moves all of it, and nothing of the model it is on."""
    student = begun(world, word, model=model).student
    before = stock(model, world / model)
    assert torch.equal(logits_of(student.model), logits_of(before))
    run = run_on(world, "run", word, model=model, steps=3)
    named = dict(run.student.model.named_parameters())
    frozen = {unwrapped(name): p for name, p in named.items() if not p.requires_grad}
    assert frozen.keys() == dict(before.named_parameters()).keys()
    assert all(torch.equal(frozen[name], p) for name, p in before.named_parameters())
    first = learns(student.model)
    assert first.keys() == learns(run.student.model).keys()
    assert not [name for name, p in learns(run.student.model).items() if torch.equal(p, first[name])]
    assert {id(p) for p in run.student.optimizer.state} == {id(p) for p in learns(run.student.model).values()}


@pytest.mark.parametrize(("model", "word"), [("llama", word) for word in OF_PEFT] + [("gpt2", "control")])
def test_the_result_is_a_folder_that_stock_peft_loads(world, model, word):
    run = run_on(world, "run", word, model=model, steps=4, lr=2e-2)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="(?i).*(missing|unexpected).*")
        loaded = peft.PeftModel.from_pretrained(stock(model, world / model), "run/final")
    ours = logits_of(run.student.model)
    assert (logits_of(loaded) - ours).abs().max() < 1e-5
    assert (ours - logits_of(stock(model, world / model))).abs().max() > 1e-2
    assert {path.name for path in Path("run/final").iterdir()} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "growkit.json", "optimizer",
    }  # fmt: skip
    said = json.loads(Path("run/final/growkit.json").read_text())
    assert len(said["sources"][0]["files"]["model.safetensors"]) == 64
    assert "library_name: peft" in Path("run/final/README.md").read_text()


@pytest.mark.parametrize("word", ["lora", "ia3"])
def test_losses_are_those_of_a_loop_in_plain_peft(world, word):
    """The same batches, the same first values, AdamW: 20 steps of one are 20 steps of the other."""
    usual = dict(model="llama3", steps=20, warmup=0, decay="constant", weight_decay=0.0, clip=0.0, lr=2e-2)
    first = begun(world, word, **usual)
    run = run_on(world, "run", word, **usual)
    said = json.loads(Path("run/final/adapter_config.json").read_text())
    kind = {"lora": peft.LoraConfig, "ia3": peft.IA3Config}[word]
    plain = peft.get_peft_model(stock("llama", world / "llama3"), kind(**{**said, "inference_mode": False}))
    values = {name: p.detach().clone() for name, p in learns(first.student.model).items()}
    missing = plain.base_model.model.load_state_dict(values, strict=False).unexpected_keys
    assert not missing and plain.get_nb_trainable_parameters()[0] == sum(p.numel() for p in values.values())
    optimizer = torch.optim.AdamW(learns(plain).values(), lr=2e-2, betas=(0.9, 0.95), weight_decay=0.0)
    losses = []
    for step in range(20):
        batch = run.train.rows(step, 0, 4)
        logits = plain.train()(batch.inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses_of("run") == pytest.approx(losses, abs=1e-5) and losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("word", ["lora", "control"])
def test_a_run_goes_on_bit_for_bit_from_what_learns_alone(world, word):
    usual = dict(model="llama", steps=6, save_every=3, lr=1e-2)
    whole = run_on(world, "whole", word, **usual).student
    kept = read_plan(state.checkpoints_in(Path("whole/checkpoints"))[0])
    held = {name.removeprefix("model.") for name in kept if name.startswith("model.")}
    vectors = {f"{name}.{side}" for name, _ in controls(whole.model) for side in ("left", "right")}
    assert held - dict(whole.model.named_buffers()).keys() == learns(whole.model).keys() and vectors <= held

    with pytest.raises(Stopped):
        run_on(world, "run", word, watch=stops_at(5), **usual)
    run_on(world, "run", word, resume=True, **usual)
    file = next(Path("run/final").glob("*.safetensors")).name
    assert curve("run") == curve("whole")
    assert same(load_file(f"run/final/{file}"), load_file(f"whole/final/{file}"))
    moments = [load_file(f"{out}/final/optimizer/optimizer.safetensors") for out in ("run", "whole")]
    assert same(*moments) and {name.rpartition(".")[0] for name in moments[0]} == learns(whole.model).keys()


@pytest.mark.parametrize("word", ["control", "molora"])
def test_two_processes_train_the_same_module(world, word):
    """It is drawn, or taken from weights that neither holds whole, alike."""
    usual = dict(model="llama", steps=2, lr=1e-2)
    assert pair(lambda: run_on(world, "two", word, shard="all", **usual) and 0) == [0, 0]
    run_on(world, "one", word, grad_checkpointing=True, **usual)
    assert losses_of("two") == pytest.approx(losses_of("one"), abs=1e-5)
    file = next(Path("one/final").glob("*.safetensors")).name
    one, two = (load_file(f"{out}/final/{file}") for out in ("one", "two"))
    assert one.keys() == two.keys() and all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)


# ---------------------------------------------------------------- what they compute


def test_control_is_the_top_singular_vectors(world):
    """W + U R V^T, with what a singular value decomposition gives, whichever way the weight is stored."""
    for model in ("llama", "gpt2"):
        student = begun(world, "control:6", model=model).student
        for _, layer in controls(student.model):
            weight = layer.base_layer.weight.T if layer.across else layer.base_layer.weight
            left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
            middle = layer.left.double().T @ weight.double() @ layer.right.double().T
            if min(weight.shape) > 2 * 6 + 10:  # by power iterations
                assert torch.allclose(middle, torch.diag(values[:6]), rtol=1e-2, atol=1e-2)
            else:
                assert torch.allclose(
                    layer.left.double() @ middle,
                    left[:, :6] * values[:6] @ right[:6] @ layer.right.double().T,
                    atol=1e-5,
                )


def test_vectors_are_mixed_by_token_and_by_head(world):
    model = begun(world, "mov:3", model="llama").student.model
    layer = model.model.layers[0].self_attn.k_proj
    draws = generator(0, "test")
    layer.router.data.normal_(generator=draws)
    layer.vectors.data.normal_(generator=draws)
    inputs = torch.randn(2, 5, 24, generator=draws)
    plain, out = layer.base_layer(inputs), layer(inputs)
    for row, token, head in [(0, 0, 0), (1, 4, 1), (0, 3, 1)]:
        piece = slice(6 * head, 6 * head + 6)
        seen = plain[row, token, piece]
        shares = torch.softmax(layer.router @ seen, 0)
        scaled = seen * (shares @ (1 + layer.vectors[:, piece]))
        assert torch.allclose(out[row, token, piece], scaled, atol=1e-5)
    down = model.model.layers[0].mlp.down_proj
    assert down.router.shape == down.vectors.shape == (3, 40) and layer.router.shape == (3, 6)


def test_outputs_of_loras_are_mixed_and_not_their_factors(world):
    layer = begun(world, "molora:3:2", model="gpt2").student.model.transformer.h[0].mlp.c_fc
    draws = generator(0, "test")
    for parameter in (layer.router, layer.down, layer.up):
        parameter.data.normal_(generator=draws)
    inputs = torch.randn(7, 24, generator=draws)
    shares = torch.softmax(inputs @ layer.router.T, -1)
    slow = layer.base_layer(inputs).clone()
    for expert in range(3):
        a, b = layer.down[2 * expert : 2 * expert + 2], layer.up[:, 2 * expert : 2 * expert + 2]
        slow += 16 / 2 * shares[:, expert : expert + 1] * (inputs @ a.T @ b.T)
    assert torch.allclose(layer(inputs), slow, atol=1e-4)


# ---------------------------------------------------------------- mixtures of experts


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe"])
def test_a_lora_is_on_experts_too(world, family):
    tiny.make(family, dtype=torch.float32).save_pretrained(family)
    run = run_on(world, "run", "lora", model=Path(family).resolve(), steps=3, lr=1e-2, expert_dropout=0.2)
    learned = learns(run.student.model)
    assert [name for name in learned if ".mlp.experts." in name] and not [name for name in learned if "shared" in name]
    assert not [name for name, p in learned.items() if ".lora_B." in name and not p.any()]
    loaded = peft.PeftModel.from_pretrained(stock(family, family), "run/final")
    assert (logits_of(loaded) - logits_of(run.student.model)).abs().max() < 1e-5


def test_a_lora_of_feed_forward_layers_is_on_these_alone(world):
    names = [name for name in learns(begun(world, "lora-mlp").student.model)]
    assert len(names) == 2 * 3 and all(".mlp." in name for name in names)  # A and B of three


@pytest.mark.parametrize("word", [word for word in WORDS if word != "lora"])
def test_others_say_that_experts_are_no_linear_layers(world, word):
    tiny.make("mixtral", dtype=torch.float32).save_pretrained("mixtral")
    with pytest.raises(RequestError, match="in one tensor"):
        run_on(world, "run", word, model=Path("mixtral").resolve(), steps=3)
    assert not Path("run").exists()
