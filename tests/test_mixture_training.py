"""Mixtures of experts while they learn: what is added to the loss, what is said of routers, what stages make of
them.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import transformers
from refusing import refused
from safetensors.torch import load_file, save_file
from tiny_runs import Stopped, ask, curve, dataset, stops_at

from growkit.data.batches import Batches, batch_of
from growkit.families import family_named
from growkit.growth.plan import forward_flops as planned_flops
from growkit.growth.width.sized_config import odd_width
from growkit.training import pretrain
from growkit.training.flops import forward_flops, step_flops
from growkit.training.objective import Predicted
from growkit.training.prefix import submodel
from growkit.training.routing import balance_loss, described, drop_in_experts, routing, z_loss

FAMILIES = ("mixtral", "qwen2_moe", "qwen3_moe")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    dataset(folder / "data", 4000)
    for family in FAMILIES:
        tiny.make(family, dtype=torch.float32).save_pretrained(folder / family)
    tiny.make("llama", dtype=torch.float32).save_pretrained(folder / "llama")
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def by_hand(logits: torch.Tensor, taken: torch.Tensor) -> tuple[float, float]:
    """Both losses, token by token."""
    tokens, experts = logits.shape
    shares, chances, z = [0.0] * experts, [0.0] * experts, 0.0
    for row, chosen in zip(logits.double().tolist(), taken.tolist()):
        powers = np.exp(row)
        z += np.log(powers.sum()) ** 2 / tokens
        for expert in range(experts):
            chances[expert] += powers[expert] / powers.sum() / tokens
            shares[expert] += chosen.count(expert) / taken.numel()
    return experts * sum(f * p for f, p in zip(shares, chances)), z


def test_losses_by_hand_and_at_their_ends():
    logits = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    taken = logits.topk(2).indices
    assert (balance_loss(logits, taken).item(), z_loss(logits).item()) == pytest.approx(
        by_hand(logits, taken), rel=1e-5
    )
    even = torch.arange(12).reshape(6, 2) % 6
    assert balance_loss(torch.zeros(6, 6), even).item() == pytest.approx(1.0)
    assert z_loss(torch.zeros(6, 6)).item() == pytest.approx(np.log(6) ** 2)
    # all tokens on two of six experts, for certain: N / k
    sure = torch.tensor([[99.0, 99.0, 0, 0, 0, 0]]).repeat(6, 1)
    assert balance_loss(sure, sure.topk(2).indices).item() == pytest.approx(3.0)
    # two layers collapsed onto different experts are each as bad as one, which a pooled loss would not see
    other = sure.roll(2, 1)
    assert balance_loss(other, other.topk(2).indices).item() == pytest.approx(3.0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prefix", [(3, 3), (3, 2), (2, 1)])
def test_routing_is_what_the_stock_model_says(family, prefix):
    model = tiny.make(family)
    model.requires_grad_(True)
    ids = tiny.tokens()
    with submodel(model, *prefix), routing(model) as noted:
        Predicted(model, batch_of(ids, ids))
    assert not [m for m in model.modules() if m._forward_hooks]
    theirs = model(input_ids=ids, output_router_logits=True).router_logits
    assert (
        len(noted.layers) == sum(layer < prefix[0] for layer in sparse(model))
        and noted.layers == sparse(model)[: len(noted.layers)]
    )
    for layer, mine, stock in zip(noted.layers, noted.logits, theirs):
        assert torch.allclose(mine, stock, rtol=1e-6)
        assert mine.requires_grad == (layer >= prefix[0] - prefix[1])
    learning = [n for n, layer in enumerate(noted.layers) if layer >= prefix[0] - prefix[1]]
    if not learning:
        assert noted.losses() is None
        return
    expected = np.mean([by_hand(noted.logits[n].detach(), noted.taken[n]) for n in learning], axis=0)
    assert noted.losses().tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def sparse(model) -> list[int]:
    return [int(name.split(".")[2]) for name, _ in model.named_modules() if name.endswith("mlp.experts")]


def test_a_step_adds_both_losses(world):
    """The gradient of a run's first step is that of CE + balance + z, written out over stock outputs."""
    weights = dict(balance=0.3, router_z=0.05)
    pretrain.pretrain(ask(world, "run", model="mixtral", steps=1, warmup=0, clip=1e9, grad_accum=2, **weights))
    said = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[0])
    model = transformers.AutoModelForCausalLM.from_pretrained(world / "mixtral", dtype=torch.float32).eval()
    if odd_width(family_named("mixtral"), model.config.to_dict(), 4):
        model.set_experts_implementation("eager")
    batch = Batches(tokens=np.fromfile(world / "data" / "train.bin", "<u2"), length=16, size=4).rows(0, 0, 4)
    inputs, labels = batch.inputs, batch.labels
    routed = []
    for rows in (slice(0, 2), slice(2, 4)):
        output = model(input_ids=inputs[rows], output_router_logits=True)
        nats = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), labels[rows].flatten(), reduction="sum")
        layers = [(balance_loss(x, x.topk(2).indices), z_loss(x)) for x in output.router_logits]
        balance, z = (torch.stack(side).mean() for side in zip(*layers))
        (nats / 64 + (0.3 * balance + 0.05 * z) / 2).backward()
        routed.append((balance.item(), z.item()))
    norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()
    assert said["grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert (said["balance"], said["router_z"]) == pytest.approx(tuple(np.mean(routed, axis=0)), rel=1e-5)


def test_dropout_is_inside_experts_and_only_while_training():
    model = tiny.make("mixtral")
    names, ids = [name for name, _ in model.named_parameters()], tiny.tokens()
    expected = model(input_ids=ids).logits
    drop_in_experts(model, 0.5)
    assert [name for name, _ in model.named_parameters()] == names
    assert torch.equal(model.eval()(input_ids=ids).logits, expected)
    layer, seen = model.model.layers[0].mlp, []
    hidden, taken, shares = torch.randn(5, 24).double(), torch.zeros(5, 1).long(), torch.ones(5, 1).double()
    model.train()
    layer.experts.act_fn.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    layer.experts(hidden, taken, shares)
    plain = torch.nn.functional.silu(seen[0][0])
    kept = seen[0][1] != 0
    assert 0.2 < kept.double().mean() < 0.8 and torch.allclose(seen[0][1][kept], 2 * plain[kept])


@pytest.mark.parametrize("family", FAMILIES)
def test_operations_are_those_of_the_experts_taken(family):
    model = tiny.make(family)
    shapes = {name: tuple(tensor.shape) for name, tensor in hub(model).items()}
    config = model.config.to_dict()
    per_token = planned_flops(family_named(family), shapes, False, config)
    head_size = getattr(model.config, "head_dim", None) or 6
    scores = 4.0 * 3 * 4 * head_size * 16
    assert forward_flops(model, 7, 16) == pytest.approx(7 * (per_token + scores))
    assert step_flops(model, 7, 16, 3, 3) == pytest.approx(3 * forward_flops(model, 7, 16))


def hub(model) -> dict[str, torch.Tensor]:
    from growkit.families.stacked import split_experts

    return split_experts(family_named(model.config.model_type), model.state_dict())


@pytest.mark.parametrize("family", FAMILIES)
def test_stages_and_resume(world, family):
    """Mixtures grow between stages, with their optimizer state, and go on from a checkpoint bit for bit."""
    s = ask(world, "whole", "stackbert", model=family, balance=0.01, router_z=0.001, expert_dropout=0.1)
    pretrain.pretrain(s)
    told = [json.loads(line) for line in Path("whole/metrics.jsonl").read_text().splitlines()]
    val = [line for line in told if line["kind"] == "val"][-1]
    assert all(sum(row) == pytest.approx(len(row), abs=1e-2) for row in val["expert_load"])
    experts = len(val["expert_load"][0])
    assert len(val["router_entropy"]) == len(val["sparse_layers"]) == len(val["expert_load"])
    assert all(0 < entropy <= np.log(experts) for entropy in val["router_entropy"])
    steps = {
        v.item()
        for name, v in load_file("whole/final/optimizer/optimizer.safetensors").items()
        if name.endswith(".step")
    }
    assert steps == {12}
    part = ask(world, "run", "stackbert", model=family, balance=0.01, router_z=0.001, expert_dropout=0.1)

    with pytest.raises(Stopped):
        pretrain.pretrain(part, watch=stops_at(11))
    pretrain.pretrain(part, True)
    assert curve("run") == curve("whole")


def test_an_expert_that_nobody_takes_is_named(world):
    """Its router row turned against what all tokens share."""
    shutil.copytree(world / "mixtral", "lame")
    tensors = load_file("lame/model.safetensors")
    norm = tensors["model.layers.1.post_attention_layernorm.weight"]
    name = next(n for n in tensors if "layers.1." in n and n.endswith("gate.weight"))
    tensors["model.embed_tokens.weight"] += 1e3  # what all tokens share
    tensors[name][2] = -9.0 * norm.sign()
    save_file(tensors, "lame/model.safetensors", {"format": "pt"})
    lines = []
    s = ask(world, "run", model=Path("lame").resolve(), steps=1, eval_every=1, lr=1e-9)
    pretrain.pretrain(s, watch=lines.append)
    dead = next(line["dead_experts"] for line in lines if line["kind"] == "val")
    (note,) = [line["text"] for line in lines if line["kind"] == "note"]
    layer, expert = dead[0]
    assert [1, 2] in dead and f"expert {expert} of layer {layer}" in note and "--balance" in note


def test_described_counts():
    tallies = torch.tensor([[8.0, 6, 2, 0, 0, 4.0, 4], [12.0, 2, 2, 2, 2, 2.0, 4]]).double()
    assert described(tallies) == {
        "sparse_layers": [2, 3],
        "expert_load": [[3.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]],
        "router_entropy": [1.0, 0.5],
        "dead_experts": [[2, 2], [2, 3]],
    }


def test_options_of_mixtures_are_refused_for_dense_models(world):
    usual = f"pretrain {world / 'llama'} --data {world / 'data'} --out run --steps 2".split()
    for option in ("--balance", "--router-z", "--expert-dropout"):
        refused(*usual, option, "0.1", says=f"{option} is for mixtures of experts")
