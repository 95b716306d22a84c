"""Optimizer state grows by the dual map: the grown model's gradients are the source's gradients grown with the roles of
writing and reading exchanged, so training goes on as if nothing had happened.

Four laws, on stock models in float64. The chain rule: growth is linear and keeps the loss, so gradients pulled back
through it are the source's; it holds for every exact growth. Duality: copy for copy, where copies are read alike; and
where they are not (noise, dealt key-value heads, filled or normed slots) it is shown not to hold. Moments: first ones by
the dual map, second ones by its square, and entries without a history get none of the first and the mean of the second.
Dynamics: with the state and the multipliers that `widen` writes, AdamW takes the source's steps, and leaving out any one
multiplier does not.
"""

from functools import lru_cache

import numpy as np
import pytest
import tiny
import torch

from growkit.api import recipe
from growkit.execute import StateSource, grow_tensor
from growkit.plan import TensorPlan
from growkit.planners.widen import Headers, widen_plan
from growkit.rules import dual_rule, rate_multipliers

FREE_HEADS = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "olmo2", "phi")
RMS_NORM = tuple(f for f in FREE_HEADS if f != "phi")
ROTARY_ALONE = ("llama", "mistral", "qwen2", "gemma", "gemma2")  # rotary slots with no norm over q and k
FILLED = ("gpt2", "gpt_neox", "opt", "phi")
EVERY = tuple(tiny.CONFIGS)

# growths whose copies are all read alike: the families they are possible in
CANONICAL = {
    "hidden x2": (dict(hidden=48), EVERY),
    "hidden x3": (dict(hidden=72), EVERY),
    "ffn uneven": (dict(ffn=101), EVERY),
    "ffn random": (dict(ffn=101, mapping="random"), EVERY),
    "hidden x1.5, isometric": (dict(hidden=36, heads=6, kv_heads=3), ("llama", "mistral", "qwen2", "qwen3", "gemma")),
    "hidden x1.67, isometric": (dict(hidden=40, heads=4), RMS_NORM),
    "heads x2": (dict(heads=8), FREE_HEADS),
    "heads inside groups": (dict(heads=8, kv_heads=2), FREE_HEADS),
    "heads by whole groups": (dict(heads=12, kv_heads=6), FREE_HEADS),
    "groups doubled and widened": (dict(heads=12, kv_heads=4), FREE_HEADS),
    "head_dim x2, plain slots": (dict(hidden=48, head_dim=12), ("bert", "gpt2", "gpt_neox", "opt")),
    "head_dim uneven, plain slots": (dict(head_dim=11), ("phi",)),
    "head_dim x2, by index": (dict(head_dim=12), ("mistral", "qwen2")),
    "head_dim by theta": (dict(head_dim=10), ROTARY_ALONE),
}
# exact growths whose copies are read differently, or beside fillers: only the chain rule holds
UNEVEN = {
    "noise on the residual axis": (dict(hidden=48, noise=0.5), EVERY),
    "noise on inner axes": (dict(ffn=131, noise=0.9), EVERY),
    "isometric with noise": (dict(hidden=40, heads=4, noise=0.5), RMS_NORM),
    "groups dealt out": (dict(heads=4, kv_heads=4, noise=0.0), FREE_HEADS),
    "mean filler": (dict(hidden=36, noise=0.0), FILLED),
    "normed slots": (dict(heads=4, head_dim=24, noise=0.0), ("qwen3", "olmo2")),
}


def cases(table: dict) -> list:
    return [pytest.param(f, growth, id=f"{name}-{f}") for name, (growth, families) in table.items() for f in families]


def plan_of(model, **growth):
    """The plan for a live model, and its parameters by name as they stand in it."""
    state, config = model.state_dict(), model.config.to_dict()
    if config["model_type"] == "gpt2":
        growth = {axis: 2 * size if axis == "ffn" else size for axis, size in growth.items()}  # its own is 4 * hidden
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    dtypes = {name: tensor.dtype for name, tensor in state.items()}
    tied = config.get("tie_word_embeddings", True)
    return widen_plan(Headers("tiny", shapes, dtypes, config, tied or None), recipe(**growth))


def grown_by(plan, state: dict) -> dict[str, torch.Tensor]:
    """Tensors of the source grown as weights are."""
    return {t.name: grow_tensor(t, StateSource(state), plan.recipe.seed) for t in plan.tensors if t.name in state}


def loss_of(model, seed: int) -> torch.Tensor:
    ids = tiny.tokens(seed)
    return torch.nn.functional.cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def gradients(model) -> dict[str, torch.Tensor]:
    model.zero_grad()
    with tiny.float32_parts_in_double():
        loss_of(model, seed=0).backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}


@lru_cache(maxsize=4)
def source(family: str, tied: bool):
    with tiny.float32_parts_in_double():
        model = tiny.make(family, tie_word_embeddings=tied)
    return model, gradients(model)


def dual(plan, tensors: dict, power: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """(grown by the dual rule, which entries carry something of the source) for each tensor."""
    shapes, result = {t.name: t.shape for t in plan.tensors}, {}
    for name, tensor in tensors.items():
        rule = dual_rule(name, tuple(tensor.shape), plan.growth, power)
        grown = grow_tensor(TensorPlan(name, shapes[name], tensor.dtype, rule), StateSource(tensors), 0)
        carried = np.outer(rule.rows.carried, rule.columns.carried)
        result[name] = grown, torch.from_numpy(carried.T if rule.transposed else carried).reshape(grown.shape)
    return result


def grown_gradients(family: str, tied: bool, growth: dict):
    """(plan, gradients of the source, gradients of the grown model, the scale below which both are rounding)."""
    model, before = source(family, tied)
    plan = plan_of(model, **growth)
    with tiny.float32_parts_in_double():
        grown = tiny.rebuild(model, grown_by(plan, model.state_dict()), plan.config)
    after = gradients(grown)
    return plan, before, after, 1e-5 * max(g.abs().max() for g in after.values())


def duality_gap(family: str, tied: bool, growth: dict) -> float:
    """The largest difference between dual gradients and the grown model's own, relative to each tensor."""
    plan, before, after, floor = grown_gradients(family, tied, growth)
    expected = dual(plan, before, power=1)
    assert expected.keys() == after.keys()
    assert any(carried.sum() > before[name].numel() for name, (_, carried) in expected.items()), "nothing grew"
    return max(
        ((value - after[name])[carried].abs().max() / after[name].abs().max().clamp(min=floor)).item()
        for name, (value, carried) in expected.items()
        if carried.any()
    )


@pytest.mark.parametrize(("family", "growth"), cases(CANONICAL))
def test_gradients_are_the_dual_growth_of_the_sources(family, growth):
    for tied in (True, False) if "hidden" in growth else (True,):
        assert duality_gap(family, tied, {**growth, "noise": 0.0}) < 1e-9


@pytest.mark.parametrize(("family", "growth"), cases(UNEVEN))
def test_duality_holds_in_sum_where_copies_are_read_differently(family, growth):
    """And not copy for copy: whoever grows moments of such a growth by the dual map gets an approximation."""
    plan, before, after, floor = grown_gradients(family, True, growth)
    generator = torch.Generator().manual_seed(1)
    directions = {n: torch.randn(g.shape, generator=generator, dtype=g.dtype) for n, g in before.items()}
    origin = grown_by(plan, {name: torch.zeros_like(g) for name, g in before.items()})  # not 0 for Gemma's 1 + w
    moved = grown_by(plan, directions)
    for name, gradient in before.items():
        step = moved[name] - origin[name]
        slope = ((gradient * directions[name]).sum() - (after[name] * step).sum()).abs()
        assert slope < 1e-9 * (gradient.norm() * directions[name].norm()).clamp(min=floor), name
    if family not in ("bert", "roberta", "distilbert") or "hidden" in growth:
        assert duality_gap(family, True, growth) > 1e-3


@pytest.mark.parametrize("family", EVERY)
def test_second_moments_grow_by_the_square(family):
    model, before = source(family, True)
    plan = plan_of(model, hidden=72, noise=0.0)
    squares = dual(plan, {name: g**2 for name, g in before.items()}, power=2)
    for name, (value, carried) in dual(plan, before, power=1).items():
        assert carried.all() and tiny.relative(value**2 + 1e-300, squares[name][0] + 1e-300) < 1e-14, name


def test_multipliers_of_a_doubled_model():
    """Reference section 8.1's table, for tensors that each stand for a kind: (weight, gradient)."""
    model, before = source("llama", True)
    growth = plan_of(model, hidden=48).growth
    layer = "model.layers.0."
    table = {
        "model.embed_tokens.weight": (1, 1 / 2),
        **dict.fromkeys((f"{layer}self_attn.{p}_proj.weight" for p in "qkvo"), (1 / 2, 1 / 2)),
        **dict.fromkeys((f"{layer}mlp.{p}_proj.weight" for p in ("gate", "up", "down")), (1 / 2, 1 / 2)),
        f"{layer}self_attn.q_proj.bias": (1, 1 / 2),
        f"{layer}input_layernorm.weight": (1, 1 / 2),
        "model.norm.weight": (1 / 2, 1),
    }
    assert {n: rate_multipliers(n, tuple(before[n].shape), growth) for n in table} == pytest.approx(table)


def test_entries_without_history_start_from_the_mean():
    """Filler rows of a writer, filler columns of a reader, a filler's gain, and keys that were zero."""
    model, before = source("gpt2", True)
    plan = plan_of(model, hidden=36, noise=0.0)
    layer, heads = "transformer.h.1.", torch.arange(36) % 24
    for power, mean in ((1, lambda v, _: torch.zeros_like(v.sum(0))), (2, torch.mean)):
        moments = {name: g.abs() ** power for name, g in before.items()}
        grown = dual(plan, moments, power)
        writer, reader, gain = (f"{layer}{n}.weight" for n in ("attn.c_proj", "mlp.c_fc", "ln_1"))
        read = torch.where(heads < 12, 1.0, 1.0)  # rows of c_proj read heads, whose copies' write amplitude is 1
        wanted = mean(moments[writer], 1)[heads] * read
        assert torch.allclose(grown[writer][0][:, 24:], wanted[:, None].expand(36, 12))
        assert torch.allclose(grown[gain][0][24:], mean(moments[gain], 0).expand(12))
        columns = torch.arange(144) % 96
        shared = torch.where(columns < 48, 0.5, 1.0) ** power  # what reads a unit is divided among its copies
        assert torch.allclose(grown[reader][0][24:], (mean(moments[reader], 0)[columns] * shared).expand(12, 144))
        assert not any(grown[name][1].all() for name in (writer, reader, gain))
    model, before = source("mistral", True)
    plan = plan_of(model, head_dim=12, noise=0.0)
    keys = "model.layers.0.self_attn.k_proj.weight"
    value = dual(plan, {keys: before[keys] ** 2}, power=2)[keys][0].view(2, 12, 24)
    assert torch.allclose(value[:, 1::2], (before[keys] ** 2).mean(0).expand(2, 6, 24))
    assert torch.equal(value[:, ::2], (before[keys] ** 2).view(2, 6, 24))


@pytest.mark.parametrize(
    ("family", "growth"),
    [("gpt2", dict(hidden=36)), ("bert", dict(hidden=40, heads=4)), ("mistral", dict(head_dim=12))]
    + [("qwen3", dict(head_dim=16)), ("llama", dict(hidden=48)), ("olmo2", dict(head_dim=12))],
)
def test_no_first_step_is_out_of_proportion(family, growth):
    """A second moment of 0 under a kept step makes the first update 3.16 times the learning rate; the mean does not."""
    plan, before, after, floor = grown_gradients(family, True, growth)
    second = dual(plan, {name: g**2 for name, g in before.items()}, power=2)
    for name, gradient in after.items():
        if gradient.abs().max() > floor:
            update = 0.1 * gradient.abs() / (0.999 * second[name][0] + 0.001 * gradient**2).sqrt()
            assert update[gradient.abs() > floor].max() < 3, name
