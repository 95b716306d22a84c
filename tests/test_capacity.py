"""Experts that take no more than so many tokens while they train."""

import json
import math
from pathlib import Path

import pytest
import tiny
import torch
from refusing import refused
from tiny_runs import ask, conversations, curve, dataset, same, settings, weights

from growkit.data.batches import IGNORED, batch_of
from growkit.data.packed_batches import FILLER, PackedBatches
from growkit.data.tokens import open_tokens
from growkit.training import pretrain
from growkit.training.capacity import Capacity, within_capacity
from growkit.training.machine import this_machine
from growkit.training.objective import Predicted
from growkit.training.routing import described, routing
from growkit.training.step import learn_batch

FAMILIES = ("mixtral", "qwen2_moe", "qwen3_moe")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    dataset(folder / "data", 4000)
    for family in (*FAMILIES, "llama"):
        tiny.make(family, dtype=torch.float32).save_pretrained(folder / family)
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def by_hand(logits, taken, factor):
    """Expert by expert, the most probable tokens first."""
    (tokens, experts), slots = logits.shape, taken.shape[1]
    most, kept = math.ceil(factor * tokens * slots / experts), set()
    chances = torch.softmax(logits, -1)
    for expert in range(experts):
        pairs = [(t, s) for t in range(tokens) for s in range(slots) if taken[t, s] == expert]
        kept |= set(sorted(pairs, key=lambda pair: (-chances[pair[0], expert].item(), *pair))[:most])
    return torch.tensor([[(t, s) in kept for s in range(slots)] for t in range(tokens)])


@pytest.mark.parametrize("factor", [0.01, 0.5, 1.0, 1.25, 3.0])
def test_the_most_probable_pairs_stay(factor):
    logits = torch.randn(37, 6, generator=torch.Generator().manual_seed(1)) * 2 + torch.arange(6) * 0.3
    taken = logits.topk(2).indices
    kept = within_capacity(logits, taken, factor)
    assert torch.equal(kept, by_hand(logits, taken, factor)) and kept.all().item() == (factor == 3.0)
    even = torch.zeros(8, 4), torch.arange(8)[:, None] % 2  # all alike: the first stay
    assert within_capacity(*even, 1.0).flatten().tolist() == [True] * 4 + [False] * 4


@pytest.mark.parametrize("family", FAMILIES)
def test_a_token_beyond_capacity_has_the_weight_0_while_training_alone(family):
    model, ids = tiny.make(family), tiny.tokens()
    plain = model(input_ids=ids).logits
    limit, seen = Capacity(model, 0.5), []
    for module in model.modules():
        if type(module).__name__.endswith("Experts"):
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2]))
    assert torch.equal(model(input_ids=ids).logits, plain) and limit.tally() == (0.0, 0.0)
    assert all((shares > 0).all() for shares in seen)
    seen.clear()
    assert not torch.equal(model.train()(input_ids=ids).logits, plain)
    dropped, pairs = limit.tally()
    assert 0 < dropped < pairs == sum(shares.numel() for shares in seen)
    assert dropped == sum(int((shares == 0).sum()) for shares in seen)
    assert limit.tally() == (0.0, 0.0)


def filled_up(batch, more):
    """The same rows with so many more positions that hold nothing."""
    rows = len(batch.inputs)

    def wider(side, value):
        return torch.cat([side, torch.as_tensor(value).expand(rows, more)], 1)

    places, kinds = wider(batch.places, -1), wider(batch.domains, torch.tensor(0, dtype=torch.uint8))
    sides = wider(batch.inputs, FILLER), wider(batch.labels, IGNORED), places, kinds
    return batch_of(*sides, positions=wider(batch.positions, torch.arange(more)))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_rows_are_filled_up_with_counts_as_no_token(tmp_path, family):
    """The same conversations with more behind them: the same pairs stay, the same losses, gradient and shares."""
    batches = PackedBatches(open_tokens(conversations(tmp_path / "talks")), length=40, size=4)
    batch = batches.at(range(4))
    more, seen = filled_up(batch, 24), []
    assert batch.held is not None and len(more.held) == len(batch.held) < batch.inputs.numel()
    for one in (batch, more):
        asked = settings(checkpoint="", data="", out="", steps=1, stages=(), balance=0.3, router_z=0.1)
        model = tiny.make(family).train().requires_grad_(True)
        limit, kept = Capacity(model, 0.6), []
        for module in model.modules():
            if type(module).__name__.endswith("Experts"):
                module.register_forward_pre_hook(lambda _, given, to=kept, of=one: to.append(given[2][of.held] > 0))
        sums = learn_batch(model, one, one.predicted, None, 0.0, asked, this_machine("cpu", "float32"), limit)
        stays = torch.cat(kept)
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        with torch.no_grad(), routing(model.eval(), one.held) as noted:
            Predicted(model, one)
        seen.append((stays, limit.tally(), sums, gradient, described(noted.tallies())))
    (kept, tally, sums, gradient, shares), (kept_2, tally_2, sums_2, gradient_2, shares_2) = seen
    assert torch.equal(kept, kept_2) and tally == tally_2 and 0 < tally[0] < tally[1] == kept.numel()
    assert tally[0] == (~kept).sum() and torch.allclose(sums, sums_2, rtol=1e-9)
    assert torch.allclose(gradient, gradient_2, rtol=1e-7, atol=1e-12)
    assert shares.pop("router_entropy") == pytest.approx(shares_2.pop("router_entropy")) and shares == shares_2


def told(out):
    return [json.loads(line) for line in Path(out, "metrics.jsonl").read_text().splitlines()]


def test_a_large_capacity_is_none_and_a_small_one_is_told(world):
    usual = dict(model="mixtral", steps=4, balance=0.01, router_z=0.001, grad_accum=2, eval_every=1, warmup=0)
    pretrain.pretrain(ask(world, "plain", **usual))
    pretrain.pretrain(ask(world, "large", capacity=4.0, **usual))
    assert curve("large") == curve("plain") and same(weights("large/final"), weights("plain/final"))
    assert [line["dropped"] for line in told("large") if line["kind"] == "train"] == [0.0] * 4
    assert not any("dropped" in line for line in told("plain"))
    still = {**usual, "lr": 1e-30}
    pretrain.pretrain(ask(world, "small", capacity=0.5, **still))
    pretrain.pretrain(ask(world, "recomputed", capacity=0.5, grad_checkpointing=True, **still))
    steps, vals = ([line for line in told("small") if line["kind"] == kind] for kind in ("train", "val"))
    assert all(0.4 < line["dropped"] < 0.9 for line in steps)
    pretrain.pretrain(ask(world, "still", **still))
    assert [line["loss"] for line in vals] == [line["loss"] for line in told("still") if line["kind"] == "val"]
    assert steps[0]["loss"] != told("plain")[0]["loss"]
    again = [line for line in told("recomputed") if line["kind"] == "train"]
    for key in ("loss", "grad_norm", "dropped"):
        assert [line[key] for line in again] == pytest.approx([line[key] for line in steps], rel=1e-5)


def test_it_is_for_mixtures(world):
    line = ["--data", world / "data", "--out", "run", "--steps", "2", "--capacity", "1.25"]
    for command in ("tune", "pretrain"):
        refused(command, world / "llama", *line, says="--capacity is for mixtures of experts")
