"""Optimizer state grows by the dual map: the grown model's gradients are the source's, grown with the roles of writing
and reading exchanged, so training can go on as if nothing had happened.

Laws on stock models in float64. Duality: copy for copy, where all copies are read alike. Chain rule: growth is linear
and keeps the loss, so gradients pulled back through it are the source's; this holds for every exact growth, also where
duality is shown not to (noise, dealt key-value heads, fillers, slots under a norm). Moments: the first by the dual map,
the second by its square; entries without a history get none of the first and the mean of the second. Dynamics: with the
state and the multipliers that `widen` writes, AdamW takes the source's steps; leaving out any one multiplier, it does
not.
"""

import json
import os
import shutil
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from comparing import gradients, headers, loss_of
from covering import can, cover, features, free, kind, sample
from on_disk import written
from safetensors.torch import load_file, save_file

import growkit
from growkit.checkpoint.stream import StateSource
from growkit.families import FAMILIES
from growkit.growth.dual_rules import dual_rule, rate_multipliers
from growkit.growth.execute import grow_tensor
from growkit.growth.grow_plan import grow_plan
from growkit.growth.optimizer import kept_state
from growkit.growth.plan import Part, TensorPlan
from growkit.growth.request import recipe

torch.set_num_threads(1)  # on tensors this small, threads only wait for one another


def some(*kinds: str, axis: str = "", **growth) -> tuple[str, ...]:
    """Families of these kinds that can grow so, each fact of norms, embeddings and order of dimensions at least
    once, norms behind blocks and none.

    axis: one that is free of hidden; no norm runs over it where it is head_dim.
    """
    able = [
        family
        for family in tiny.DENSE
        if kind(family) in kinds
        and (not axis or free(family, axis))
        and can(family, **growth)
        and not (axis == "head_dim" and FAMILIES[family].norms.on_heads)
    ]
    told = ("norms.", "embedding_", "tied", "order read", "word query_head")
    told_of = {family: {feature for feature in features(family) if feature.startswith(told)} for family in able}
    return cover(able, lambda family: told_of[family] | {bool(FAMILIES[family].norms.branch)})


ANY = ("post", "pre", "RMS")
SAMPLE = sample(tiny.CONFIGS)
BOTH = cover(SAMPLE, lambda family: {kind(family), FAMILIES[family].is_moe})  # with a tied head and without

# growths whose copies are all read alike, and the families that can do them
CANONICAL = {
    "hidden x2": (dict(hidden=48), SAMPLE),
    "hidden x3": (dict(hidden=72), some(*ANY, hidden=72)),
    "ffn uneven, random": (dict(ffn=101, mapping="random"), some(*ANY, ffn=101)),
    "hidden x1.67, isometric": (dict(hidden=40, heads=4), some("RMS", axis="head", hidden=40, heads=4)),
    "hidden x2, isometric random": (dict(hidden=48, mapping="random"), some("RMS", hidden=48)),
    "heads x2": (dict(heads=8), some("pre", "RMS", axis="head", heads=8)),
    "heads inside groups": (dict(heads=8, kv_heads=2), some("RMS", axis="kv_head", heads=8, kv_heads=2)),
    "groups doubled and widened": (dict(heads=12, kv_heads=4), some("RMS", axis="kv_head", heads=12, kv_heads=4)),
    "head_dim x2, plain slots": (dict(hidden=48, head_dim=12), ("bert", "gpt2", "gpt_neox", "opt")),
    "head_dim uneven, plain slots": (dict(head_dim=11), some("pre", axis="head_dim", head_dim=11)),
    "head_dim x2, by index": (dict(head_dim=12), ("mistral", "qwen2")),
    "head_dim by theta": (dict(head_dim=10), some("RMS", axis="head_dim", head_dim=10)),
}
# exact growths whose copies are read differently, or stand beside fillers: only the chain rule holds
UNEVEN = {
    "noise on the residual axis": (dict(hidden=48, noise=0.5), BOTH),
    "noise on inner axes": (dict(ffn=131, noise=0.9), some(*ANY, ffn=131)),
    "isometric with noise": (dict(hidden=40, heads=4, noise=0.5), some("RMS", axis="head", hidden=40, heads=4)),
    "groups dealt out": (dict(heads=4, kv_heads=4, noise=0.0), some("pre", "RMS", axis="kv_head", heads=4, kv_heads=4)),
    "mean filler": (dict(hidden=36, noise=0.0), ("gpt2", "gpt_neox", "opt", "phi")),
    "slots under a norm": (dict(heads=4, head_dim=24, noise=0.0), ("qwen3", "olmo2")),
}
# growths with entries that nothing of the source stands behind
NEW_ENTRIES = [("gpt2", dict(hidden=36)), ("bert", dict(hidden=40, heads=4)), ("mistral", dict(head_dim=12))]
NEW_ENTRIES += [("qwen3", dict(head_dim=16)), ("gemma", dict(head_dim=10)), ("olmo2", dict(head_dim=12))]
RATE, DECAY, EPSILON = 1e-2, 0.1, 1e-4


def cases(table: dict) -> list:
    rows = [(f, growth, f"{f}-{name}") for name, (growth, families) in table.items() for f in families]
    return [pytest.param(*row, id=name) for *row, name in sorted(rows, key=lambda row: list(FAMILIES).index(row[0]))]


def plan_of(model, **growth):
    return grow_plan([headers(tiny.stored(model), model.config.to_dict())], recipe(**growth))


def grown_by(plan, state: dict) -> dict[str, torch.Tensor]:
    """Tensors of the source, grown as its weights are."""
    return {t.name: grow_tensor(t, [StateSource(state)], plan.recipe.seed) for t in plan.tensors if t.name in state}


def dual(plan, tensors: dict, power: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """(grown by the dual rule, which entries carry something of the source) for each tensor."""
    shapes, result = {t.name: t.shape for t in plan.tensors}, {}
    for name, tensor in tensors.items():
        rule = dual_rule(name, tuple(tensor.shape), plan.growth, power)
        grown = grow_tensor(
            TensorPlan(
                name=name, shape=shapes[name], dtype=tensor.dtype, parts=(Part(source=0, name=name, rule=rule),)
            ),
            [StateSource(tensors)],
            0,
        )
        carried = np.outer(rule.rows.carried, rule.columns.carried)
        result[name] = grown, torch.from_numpy(carried.T if rule.transposed else carried).reshape(grown.shape)
    return result


@lru_cache(maxsize=2)
def source(family: str, tied: bool):
    with tiny.float32_parts_in_double():
        # an even number of ffn units below every request, also in GPT-2, whose own is 4 * hidden
        model = tiny.make(family, tie_word_embeddings=tied, **({"n_inner": 40} if family == "gpt2" else {}))
    return model, gradients(model)


class Both:
    """A source and its growth: the plan, the gradients of both, and a floor below which gradients are rounding."""

    def __init__(self, family: str, tied: bool, growth: dict):
        model, self.before = source(family, tied)
        self.plan = plan_of(model, **growth)
        with tiny.float32_parts_in_double():
            grown = tiny.rebuild(model, grown_by(self.plan, tiny.stored(model)), self.plan.config)
        self.after = gradients(grown)
        assert sum(g.numel() for g in self.after.values()) > sum(g.numel() for g in self.before.values())
        self.floor = 1e-5 * max(g.abs().max() for g in self.after.values())
        self.dual = dual(self.plan, self.before, power=1)

    def duality_gap(self) -> float:
        """The largest difference between dual gradients and the grown model's own, relative to each tensor."""
        differences = [
            (value - self.after[name])[carried].abs().max() / self.after[name].abs().max().clamp(min=self.floor)
            for name, (value, carried) in self.dual.items()
        ]
        return max(differences).item()


@pytest.mark.parametrize(("family", "growth"), cases(CANONICAL))
def test_gradients_are_the_dual_growth_of_the_sources_and_their_squares_the_square(family, growth):
    for tied in (True, False) if growth.get("hidden") == 48 and family in BOTH else (True,):
        both = Both(family, tied, {**growth, "noise": 0.0})
        assert both.duality_gap() < 1e-9
        second = dual(both.plan, {name: g**2 for name, g in both.before.items()}, power=2)
        for name, (first, carried) in both.dual.items():
            assert torch.allclose(first[carried] ** 2, second[name][0][carried], rtol=1e-14, atol=0), name


@pytest.mark.parametrize(("family", "growth"), cases(UNEVEN))
def test_duality_holds_only_in_sum_where_copies_are_read_differently(family, growth):
    """For these growths the dual map of moments is an approximation."""
    both = Both(family, True, growth)
    generator = torch.Generator().manual_seed(1)
    directions = {n: torch.randn(g.shape, generator=generator, dtype=g.dtype) for n, g in both.before.items()}
    origin = grown_by(both.plan, {name: torch.zeros_like(g) for name, g in directions.items()})  # Gemma's gain is 1 + w
    moved = grown_by(both.plan, directions)
    for name, gradient in both.before.items():
        slope = (gradient * directions[name]).sum()
        grown_slope = (both.after[name] * (moved[name] - origin[name])).sum()
        scale = directions[name].norm() * gradient.norm().clamp(min=both.floor)
        assert (slope - grown_slope).abs() < 1e-9 * scale, name
    assert both.duality_gap() > 1e-3


@pytest.mark.parametrize(("family", "growth"), NEW_ENTRIES)
def test_entries_without_history_get_the_mean(family, growth):
    """With a kept step, a second moment of 0 makes the first update 3.16 times the learning rate; the mean does not."""
    both = Both(family, True, {**growth, "noise": 0.0})
    second, largest = dual(both.plan, {name: g**2 for name, g in both.before.items()}, power=2), 0.0
    for name, (first, carried) in both.dual.items():
        moment, gradient = second[name][0], both.after[name]
        assert (first[~carried] == 0).all(), name
        new = ~carried & (gradient.abs() > both.floor)
        update = 0.1 * gradient.abs() / (0.999 * moment + 0.001 * gradient**2).sqrt()
        largest = max(largest, *update[new].tolist(), 0.0)
    assert 0.01 < largest < 1

    if family == "gpt2":  # Conv1D: stored (read, written); the filler is what c_proj writes and c_fc reads
        written, read = (f"transformer.h.1.mlp.{name}.weight" for name in ("c_proj", "c_fc"))
        means = {name: both.before[name] ** 2 for name in (written, read)}
        units = torch.arange(60) % 40
        alone = torch.where(units < 20, 0.25, 1.0)  # a unit with two copies has half the gradient in each
        assert torch.allclose(second[written][0][:, 24:], means[written].mean(1)[units, None].expand(60, 12))
        assert torch.allclose(second[read][0][24:], (means[read].mean(0)[units] * alone).expand(12, 60))


def test_multipliers_are_those_of_the_reference():
    """Section 8.1's table for a doubled model with a tied head: (weight, gradient)."""
    model, before = source("llama", True)
    growth, layer = plan_of(model, hidden=48).growth, "model.layers.0."
    half, whole = (1 / 2, 1 / 2), (1, 1 / 2)
    table = {f"{layer}self_attn.{name}_proj.weight": half for name in "qkvo"}
    table |= {f"{layer}mlp.{name}_proj.weight": half for name in ("gate", "up", "down")}
    table |= {f"{layer}input_layernorm.weight": whole, f"{layer}self_attn.q_proj.bias": whole}
    table |= {"model.embed_tokens.weight": whole, "model.norm.weight": (1 / 2, 1)}
    for name, multipliers in table.items():
        assert rate_multipliers(name, tuple(before[name].shape), growth) == pytest.approx(multipliers), name


def adamw(model, multipliers: dict) -> torch.optim.AdamW:
    groups = []
    for name, parameter in model.named_parameters():
        factor = multipliers.get(name, dict(lr=1.0, weight_decay=1.0, eps=1.0))
        # Gemma stores gains minus 1 and decay pulls at what is stored: no multiplier makes that the same for a new gain
        decay = 0.0 if parameter.dim() == 1 and "Gemma" in type(model).__name__ else DECAY * factor["weight_decay"]
        groups.append(dict(params=[parameter], lr=RATE * factor["lr"], weight_decay=decay, eps=EPSILON * factor["eps"]))
    return torch.optim.AdamW(groups)


def train(model, optimizer, seeds) -> torch.Tensor:
    """Logits after one step on each batch."""
    for seed in seeds:
        optimizer.zero_grad()
        loss_of(model, seed).backward()
        optimizer.step()
    with torch.no_grad():
        return model(tiny.tokens(99)).logits


def save_trained(model, folder):
    """Three steps of training, then model and optimizer on disk."""
    optimizer = adamw(model, {})
    train(model, optimizer, range(3))
    model.save_pretrained(folder)
    names = {parameter: name for name, parameter in model.named_parameters()}
    state = {
        f"{names[p]}.{kind}": value.clone() for p, entry in optimizer.state.items() for kind, value in entry.items()
    }
    save_file(state, folder / "state.safetensors")
    return optimizer, state


# a near tie between experts would part mixtures after some steps; of three all multipliers are tried
@pytest.mark.parametrize("family", dict.fromkeys(("bert", "llama", "gemma", *some(*ANY, hidden=48))))
def test_training_goes_on_as_the_source_would_have(family, tmp_path):
    tied, width = {"gpt2": (True, 72), "llama": (False, 72), "gpt_neox": (False, 48)}.get(family, (True, 48))
    with tiny.float32_parts_in_double():
        model = tiny.make(family, tie_word_embeddings=tied)
        source = tmp_path / "source"
        optimizer, state = save_trained(model, source)
        growkit.widen(source, tmp_path / "out", hidden=width, noise=0.0, optimizer=source / "state.safetensors")
        grown_state = load_file(tmp_path / "out" / "optimizer" / "optimizer.safetensors")
        multipliers = json.loads((tmp_path / "out" / "lr_multipliers.json").read_text())["multipliers"]
        expected = train(model, optimizer, range(3, 8))

        def distance(left_out: str = "nothing") -> float:
            grown = type(model).from_pretrained(tmp_path / "out", dtype=torch.float64)
            assert {name for name, _ in grown.named_parameters()} <= multipliers.keys()
            factors = {name: {**factor, left_out: 1.0} for name, factor in multipliers.items()}
            again = adamw(grown, factors)
            for name, parameter in grown.named_parameters():
                entry = {kind: grown_state[f"{name}.{kind}"].clone() for kind in ("step", "exp_avg", "exp_avg_sq")}
                again.state[parameter] = entry
            return tiny.relative(expected, train(grown, again, range(3, 8)))

        assert grown_state.keys() == state.keys()
        assert distance() < 1e-9
        for left_out in ("lr", "weight_decay", "eps") if family in ("bert", "llama", "gemma") else ():
            assert distance(left_out) > 1e-4, left_out


def test_state_is_written_beside_the_weights(tmp_path):
    source = tmp_path / "source"
    _, state = save_trained(tiny.make("qwen2", dtype=torch.float32), source)
    dtypes = {"exp_avg": torch.bfloat16, "exp_avg_sq": torch.float32, "step": torch.int64}
    state = {name: tensor.to(dtypes[name.rsplit(".", 1)[1]]) for name, tensor in state.items()}
    state["model.norm.weight.step"] += 1000
    save_file(state, tmp_path / "state.safetensors")
    growkit.widen(source, tmp_path / "out", hidden=48, ffn=90, optimizer=tmp_path / "state.safetensors")
    grown, weights = (
        load_file(tmp_path / "out" / name) for name in ("optimizer/optimizer.safetensors", "model.safetensors")
    )
    assert grown.keys() == state.keys()
    for name, tensor in grown.items():
        parameter, kind = name.rsplit(".", 1)
        assert tensor.dtype == dtypes[kind]
        assert torch.equal(tensor, state[name]) if kind == "step" else tensor.shape == weights[parameter].shape, name


def test_weights_lie_alone_and_a_state_beside_them_is_read_too(tmp_path, monkeypatch):
    """Loaders that read every .safetensors file of a folder find no moments; growkit 0.2 laid them there."""
    monkeypatch.chdir(tmp_path)
    save_trained(tiny.make("llama", dtype=torch.float32), tmp_path / "source")
    growkit.widen("source", "new", hidden=48, optimizer="source/state.safetensors")
    assert [path.name for path in Path("new").glob("*.safetensors")] == ["model.safetensors"]
    shutil.copytree("new", "old")
    os.rename("old/optimizer/optimizer.safetensors", "old/optimizer.safetensors")
    os.rmdir("old/optimizer")
    assert kept_state(Path("new")) != kept_state(Path("old")) == Path("old/optimizer.safetensors")
    for place in ("new", "old"):
        growkit.widen(place, f"{place}-more", hidden=96, optimizer=kept_state(Path(place)))
    one, two = written(Path("new-more")), written(Path("old-more"))
    assert one == two and {"optimizer/optimizer.safetensors", "lr_multipliers.json"} < one.keys()
    rates = json.loads(one["lr_multipliers.json"])["multipliers"]
    assert rates["model.layers.0.mlp.up_proj.weight"]["lr"] == 0.25  # those of the first growth are in it


@pytest.mark.parametrize(
    ("entry", "value", "said"),
    [
        ("model.layers.9.mlp.up_proj.weight.exp_avg", torch.zeros(40, 24), "no exp_avg, exp_avg_sq or step"),
        ("model.norm.weight.max_exp_avg_sq", torch.zeros(24), "no exp_avg, exp_avg_sq or step"),
        ("model.norm.weight.step", torch.zeros(2), "no exp_avg, exp_avg_sq or step"),
        ("model.norm.weight.exp_avg", torch.zeros(23), r"shape \[23\], its parameter \[24\]"),
        ("model.norm.weight.exp_avg", torch.full((24,), float("nan")), "holds NaN"),
    ],
)
def test_a_state_that_does_not_belong_is_refused(entry, value, said, tmp_path):
    tiny.make("llama", dtype=torch.float32).save_pretrained(tmp_path / "source")
    save_file({entry: value}, tmp_path / "state.safetensors")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(growkit.CheckpointError, match=said):
        growkit.widen(tmp_path / "source", tmp_path / "out", hidden=48, optimizer=tmp_path / "state.safetensors")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_state_larger_than_a_shard_leaves_the_model_loadable(tmp_path):
    model = tiny.make("llama", dtype=torch.float32)
    source = tmp_path / "source"
    save_trained(model, source)
    growkit.widen(source, tmp_path / "out", hidden=48, optimizer=source / "state.safetensors", shard_size=1 << 17)
    assert growkit.verify(source, tmp_path / "out").ok


def test_what_a_run_left_beside_the_source_grows_along(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = tiny.make("llama", dtype=torch.float32)
    save_trained(model, Path("run"))
    os.mkdir("run/optimizer")
    os.rename("run/state.safetensors", state := "run/optimizer/optimizer.safetensors")
    model.save_pretrained("bare")
    planned = growkit.widen("run", "out", hidden=48, dry_run=True)
    assert planned.carried == (Path(state),) and any("grows along" in note for note in planned.plan.notes)
    assert growkit.widen("run", "out", hidden=48).carried == (Path(state),)
    growkit.widen("run", "named", hidden=48, optimizer=state)
    assert written(Path("out")) == written(Path("named"))
    for number, left in enumerate(("none", None)):
        assert growkit.widen("run", f"left-{number}", hidden=48, optimizer=left).carried == ()
        assert not Path(f"left-{number}/optimizer").exists() and not Path(f"left-{number}/lr_multipliers.json").exists()
    assert growkit.grow("bare", "none", hidden=48, layers=4).carried == ()
    assert len(growkit.stack(["run", "run"], "both").carried) == 2
    assert growkit.stack(["run", "bare"], "one").carried == () and not Path("one/optimizer").exists()
    save_file({"model.norm.weight.exp_avg": torch.zeros(23)}, state)
    with pytest.raises(growkit.CheckpointError, match=r"its parameter .24.; --optimizer none grows without the state"):
        growkit.stack("run", "wrong", layers=4)
