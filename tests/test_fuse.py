"""Several models into one: what each mode promises, held against stock models in float64 and against tensors built by
hand.

Side by side, nothing but the norms couples the members: with statistics taken block by block the fused logits are the
mean of the members', whoever they are; with the stock norms they are where the statistics agree, and the plan says so
only there. In the modes fpi and aki, first copies are the first member's and later ones the others', row for row. A
model fused with itself is its FPI. Moments follow by the chain rule; a result says of what it was made.
"""

import json
from copy import deepcopy
from functools import cache, lru_cache
from itertools import product

import pytest
import tiny
import torch
from comparing import gradients, headers
from covering import cover, kind, sample
from safetensors.torch import load_file, save_file

import growkit
from growkit.checkpoint.stream import StateSource
from growkit.growth.execute import grow_tensor
from growkit.growth.grow_plan import grow_plan
from growkit.growth.request import recipe
from growkit.operators import rule

EVERY = sample(tiny.DENSE)
DIRECT = ("llama", "gpt2", "gpt_neox", "bert", "gemma", "qwen3")
TIED = (True, False)
SIZES = ("hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size", "word_embed_proj_dim")
SIZES += ("n_embd", "n_head", "n_inner", "dim", "n_heads", "hidden_dim", "ffn_dim")
HALF = torch.bfloat16


@lru_cache(maxsize=8)
def member(family: str, seed: int, tied: bool = True, larger: bool = False):
    """A tiny model; `larger`: half as many more of everything that may differ side by side."""
    own = {**tiny.CONFIGS[family][1], **({"n_inner": 40} if family == "gpt2" else {})}
    sizes = {key: 3 * own[key] // 2 for key in SIZES if key in own} if larger else {}
    with tiny.float32_parts_in_double():
        return tiny.make(family, tie_word_embeddings=tied, seed=seed, **({**own, **sizes}))


def plan_of(models, request):
    """The plan of several live models; one model given twice is one source given twice."""
    known = [headers(model.state_dict(), model.config.to_dict(), f"model {id(model)}") for model in models]
    return grow_plan(known, request)


def state_of(plan, states) -> dict[str, torch.Tensor]:
    sources = [StateSource(state) for state in states]
    return {tensor.name: grow_tensor(tensor, sources, plan.recipe.seed) for tensor in plan.tensors}


def fuse(models, mode="side-by-side", **request):
    """(plan, fused model) of live models."""
    plan = plan_of(models, recipe(mode=mode, **request))
    with tiny.float32_parts_in_double():
        return plan, tiny.rebuild(models[0], state_of(plan, [m.state_dict() for m in models]), plan.config)


def logits(model):
    ids = tiny.tokens()
    with torch.no_grad(), tiny.float32_parts_in_double():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def mean_logits(models):
    return torch.stack([logits(model) for model in models]).mean(0)


def norm_by_block(model, members):
    """Let each norm of a model that runs over all members' units take each member's statistics apart."""
    parts = [dict(m.named_modules()) for m in members]
    for name, norm in model.named_modules():
        if "norm" in type(norm).__name__.lower() and norm.weight.shape != parts[0][name].weight.shape:
            blocks, sizes = [deepcopy(norm) for _ in members], [len(part[name].weight) for part in parts]
            for block, size, *values in zip(blocks, sizes, *(p.split(sizes) for p in norm.parameters())):
                block.normalized_shape = (size,)
                for parameter, value in zip(block.parameters(), values):
                    parameter.data = value
            norm.forward = lambda x, blocks=blocks, sizes=sizes: torch.cat(
                [block(part) for block, part in zip(blocks, x.split(sizes, -1))], -1
            )
    return model


def some(families, *values) -> tuple:
    """Each of some families, and each of the values with each kind of family."""
    return cover(product(families, *values), lambda row: {row[0], *((kind(row[0]), value) for value in row[1:])})


@pytest.mark.parametrize(("family", "tied"), some(EVERY, TIED))
def test_members_of_any_sizes_compute_side_by_side_and_only_norms_couple_them(family, tied):
    members = [deepcopy(m) for m in (member(family, 0, tied), member(family, 1, tied, larger=True))]
    for model in members:
        model.config.final_logit_softcapping = None  # Gemma 2's: what is averaged is what it is taken of
    if family == "qwen3":  # its query and key gains are one for all heads, whoever's they are
        first = members[0].state_dict()
        shared = {name: first[name] for name in first if "q_norm" in name or "k_norm" in name}
        members[1].load_state_dict(shared, strict=False)
    plan, fused = fuse(members)
    assert (
        str(plan.exactness) == "approximate" and "norm" in next(a.why for a in plan.axes if a.axis == "hidden").lower()
    )
    expected = mean_logits(members)
    assert tiny.relative(expected, logits(fused)) > 1e-3, "the plan warns of a difference that is not there"
    assert tiny.relative(expected, logits(norm_by_block(fused, members))) <= 1e-10


@pytest.mark.parametrize(("family", "members", "tied"), some(EVERY, ("two", "three"), TIED))
def test_a_model_fused_with_itself_is_its_fpi(family, members, tied):
    """Side by side in function; in mode fpi tensor for tensor, and aki as widen's aki."""
    model, k = member(family, 2, tied), {"two": 2, "three": 3}[members]
    state, width = model.state_dict(), k * 24
    plan, fused = fuse([model] * k)
    assert str(plan.exactness) == "exact" and tiny.relative(logits(model), logits(fused)) <= 1e-10
    for mode in ("fpi", "aki"):
        plan = plan_of([model] * k, recipe(mode=mode))
        wide, config = growkit.grow_state_dict(state, model.config, hidden=width, method=mode, noise=0.0)
        grown = state_of(plan, [state] * k)
        assert plan.config == config and list(grown) == list(wide)
        assert all(torch.equal(grown[name], wide[name]) for name in wide)
        assert str(plan.exactness) == {"fpi": "exact", "aki": "approximate"}[mode]
    plan, fused = fuse([model] * k, "fpi", hidden=2 * width, noise=0.5)
    assert str(plan.exactness) == "exact" and tiny.relative(logits(model), logits(fused)) <= 1e-10


def side_by_side(family: str, states: list[dict], tied: bool) -> dict[str, torch.Tensor]:
    """The fused tensors by hand, from the names and layouts of the stock models alone."""
    count, fused = len(states), {}
    widths = [next(v for name, v in state.items() if name.endswith("norm.weight") or "ln_f" in name or "LayerNorm" in name).numel() for state in states]  # fmt: skip
    scales = [(width / sum(widths)) ** 0.5 if family == "gemma" else 1.0 for width in widths]
    last = ("model.norm.", "transformer.ln_f.", "gpt_neox.final_layer_norm.", "cls.predictions.transform.LayerNorm.")
    for name in states[0]:
        values = [state[name] for state in states]
        is_head = name in ("lm_head.weight", "embed_out.weight", "cls.predictions.decoder.weight")
        if is_head and not tied:
            fused[name] = torch.cat(values, 1) / count
        elif ("embed" in name and values[0].dim() == 2) or is_head or ".wte." in name or ".wpe." in name:
            fused[name] = torch.cat([value * scale for value, scale in zip(values, scales)], 1)
        elif name in ("cls.predictions.bias", "cls.predictions.decoder.bias") or "q_norm" in name or "k_norm" in name:
            fused[name] = torch.stack(values).mean(0)
        elif name.startswith(last) and tied:
            one = 1.0 if family == "gemma" else 0.0
            fused[name] = torch.cat([(one + v) / count / scale - one for v, scale in zip(values, scales)])
        elif "c_attn" in name:
            thirds = zip(*(value.chunk(3, -1) for value in values))  # Conv1D: (read, q | k | v)
            fused[name] = torch.cat([torch.block_diag(*t) if t[0].dim() == 2 else torch.cat(t) for t in thirds], -1)
        else:  # GPT-NeoX stores q, k and v head by head, so its heads are blocks like any others
            fused[name] = torch.cat(values) if values[0].dim() == 1 else torch.block_diag(*values)
    return fused


@pytest.mark.parametrize(("family", "tied"), some(DIRECT, TIED))
def test_side_by_side_is_what_one_would_build_by_hand(family, tied, monkeypatch):
    """Two members of two sizes, or three; in one block or in many; in bfloat16 rounded once."""
    two, three = [member(family, 0, tied), member(family, 1, tied, True)], [member(family, s, tied) for s in range(3)]
    for members in (two, three):
        states = [model.state_dict() for model in members]
        expected, plan = side_by_side(family, states, tied), plan_of(members, recipe(mode="side-by-side"))
        for elements in (1 << 20, 2000):
            monkeypatch.setattr(rule, "BLOCK_ELEMENTS", elements)
            grown = state_of(plan, states)
            assert grown.keys() == expected.keys()
            for name, value in expected.items():
                torch.testing.assert_close(grown[name], value, rtol=1e-15, atol=1e-15, msg=name)
        halves = [{name: tensor.to(HALF) for name, tensor in state.items()} for state in states]
        grown = state_of(plan_of([deepcopy(m).to(HALF) for m in members], recipe(mode="side-by-side")), halves)
        for name, value in side_by_side(family, [{n: t.float() for n, t in s.items()} for s in halves], tied).items():
            once = members is two and family != "gemma"  # no thirds and no roots: equal to the last bit
            torch.testing.assert_close(grown[name], value.to(HALF), rtol=0 if once else 2**-7, atol=0, msg=name)


@pytest.mark.parametrize("family", cover(DIRECT, lambda family: {kind(family)}))
def test_the_order_of_members_is_the_order_of_blocks(family):
    members = [member(family, 0), member(family, 1, larger=True), member(family, 2)]
    fused = [logits(fuse([members[n] for n in order])[1]) for order in ((0, 1, 2), (1, 2, 0))]
    assert tiny.relative(*fused) <= 1e-10


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi"])
def test_members_whose_norms_agree_are_averaged_exactly(family):
    """One body, two heads: every statistic is the same, the logits are not. The plan cannot know and promises less."""
    members = [member(family, 0, False), deepcopy(member(family, 0, False))]
    members[1].lm_head.weight.data = member(family, 1, False).lm_head.weight.data
    plan, fused = fuse(members)
    assert str(plan.exactness) == "approximate"
    assert tiny.relative(mean_logits(members), logits(fused)) <= 1e-10 < tiny.relative(*map(logits, members))


def from_above(state: dict, family) -> dict:
    """Each tensor of a layer replaced by the layer above's; norms, the top layer and all else stay."""

    def donor(name: str) -> str:
        above = family.in_layer(name, (family.layer_of(name) or 0) + 1)
        is_norm = "norm" in name.lower() or "ln_" in name
        return name if family.layer_of(name) is None or is_norm or above not in state else above

    return {name: state[donor(name)] for name in state}


@pytest.mark.parametrize(("family", "mode"), some(EVERY, ("fpi", "aki")))
def test_first_copies_are_the_first_members_and_later_ones_the_others_in_turn(family, mode):
    """Row for row of what is written (column for column of embeddings and heads), each is plain FPI of one member."""
    k, width = {"fpi": 2, "aki": 3}[mode], 72
    members = [member(family, seed, tied=False) for seed in range(k)]
    plan = plan_of(members, recipe(mode=mode, hidden=width))
    states = [model.state_dict() for model in members]
    grown = state_of(plan, states)
    donors = [states[0], *(from_above(s, plan.family) if mode == "aki" else s for s in states[1:])]
    wide = [growkit.grow_state_dict(s, m.config, hidden=width, noise=0.0)[0] for s, m in zip(donors, members)]
    mixed = set()
    for name, tensor in grown.items():
        by_column = tensor.dim() == 2 and (61 in tensor.shape or "embed" in name or ".wpe." in name)
        by_column |= family == "gpt2" and ".h." in name and tensor.dim() == 2
        rows, *own = (t.T if by_column else t for t in (tensor, *(w[name] for w in wide)))
        seen: dict = {}
        for row, *candidates in zip(rows.tolist(), *(o.tolist() for o in own)):
            rank = seen.setdefault(str(candidates[0]), -1) + 1
            seen[str(candidates[0])] = rank
            assert row == candidates[0 if rank == 0 else 1 + (rank - 1) % (k - 1)], (name, rank)
        mixed |= {name} if max(seen.values()) else set()
    assert len(mixed) > len(grown) / 2 and str(plan.exactness) == "approximate"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model, itself fused with itself, the gradients of both, and the state and rates that growkit made of the
    former."""

    @cache
    def make(family: str, mode: str, tied: bool, k: int):
        folder, model = tmp_path_factory.mktemp(family), deepcopy(member(family, 3, tied))
        model.save_pretrained(folder / "a")
        small = gradients(model)
        state = {f"{name}.exp_avg": g for name, g in small.items()}
        save_file(state | {f"{name}_sq": g**2 for name, g in state.items()}, folder / "state.safetensors")
        states = [folder / "state.safetensors"] * k
        growkit.fuse([folder / "a"] * k, folder / "out", mode=mode, optimizer=states)
        with tiny.float32_parts_in_double():
            fused = type(model).from_pretrained(folder / "out", dtype=torch.float64).eval()
        rates = json.loads((folder / "out" / "lr_multipliers.json").read_text())["multipliers"]
        return (
            model,
            small,
            fused,
            gradients(fused),
            load_file(folder / "out" / "optimizer" / "optimizer.safetensors"),
            rates,
        )

    return make


MODES = ("side-by-side", "fpi")


@pytest.mark.parametrize(("family", "mode", "tied"), some(EVERY, MODES, TIED))
def test_gradients_of_a_model_fused_with_itself_are_its_dual_growth(family, mode, tied, trained):
    _, _, fused, large, state, _ = trained(family, mode, tied, 2 if tied else 3)
    floor = 1e-5 * max(g.abs().max() for g in large.values())
    for name, parameter in fused.named_parameters():
        own = parameter != 0  # zeros connect the members
        assert own.all() or mode == "side-by-side", name
        first, second = state[f"{name}.exp_avg"][own], state[f"{name}.exp_avg_sq"][own]
        assert (first - large[name][own]).abs().max() < 1e-9 * large[name].abs().max().clamp(min=floor), name
        assert torch.allclose(second, first**2, rtol=1e-12, atol=0), name


@pytest.mark.parametrize("family", cover(DIRECT, lambda family: {kind(family)}))
def test_what_connects_members_has_no_history_but_bounded_first_steps(family, trained):
    """Weights off the diagonal are zero but have gradients: nothing of the first moment, the mean of the second."""
    _, _, fused, large, state, _ = trained(family, "side-by-side", True, 2)
    largest = 0.0
    for name, parameter in fused.named_parameters():
        new = (parameter == 0) & (large[name].abs() > 1e-5 * max(g.abs().max() for g in large.values()))
        assert (state[f"{name}.exp_avg"][new] == 0).all(), name
        gradient = large[name][new].abs()
        steps = 0.1 * gradient / (0.999 * state[f"{name}.exp_avg_sq"][new] + 0.001 * gradient**2).sqrt()
        largest = max(largest, *steps.tolist(), 0.0)
    assert 0.01 < largest < 1


@pytest.mark.parametrize(("family", "mode", "tied"), some((*DIRECT, "phi", "roberta"), MODES, TIED))
def test_rates_say_by_how_much_weights_and_gradients_shrank(family, mode, tied, trained):
    model, small, fused, _, state, rates = trained(family, mode, tied, 2 if tied else 3)
    for (name, before), after in zip(model.named_parameters(), fused.parameters()):
        before, after = before.detach(), after.detach()
        one = 1.0 if family == "gemma" and before.dim() == 1 else 0.0
        weight = (one + after).abs().max() / (one + before).abs().max()
        gradient = state[f"{name}.exp_avg"].abs().max() / small[name].abs().max()
        expected = dict(
            lr=float(weight),
            weight_decay=1 / float(weight),
            eps=float(gradient) if small[name].any() else rates[name]["eps"],
        )
        assert rates[name] == pytest.approx(expected), name
