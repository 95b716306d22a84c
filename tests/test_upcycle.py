"""A dense model as a mixture of experts: the same function where the plan says exact, in stock code and float64;
tensors that are the dense one's, unit for unit; draws that are what their papers say; several models as the experts of
one.
"""

import json
from functools import lru_cache
from itertools import product

import numpy as np
import pytest
import tiny
import torch
import transformers
from comparing import headers, logits, stepwise
from covering import cover
from refusing import run
from safetensors.torch import load_file
from texts import EXCERPT, TOKENIZERS, wrap

import growkit
from growkit.checkpoint.stream import StateSource
from growkit.families import FAMILIES
from growkit.families.upcycling import ROWS
from growkit.growth.execute import grow_tensor
from growkit.growth.plan import active
from growkit.growth.request import upcycle_recipe
from growkit.growth.upcycle.experts import factors
from growkit.growth.upcycle.upcycle_plan import upcycle_plan

ROW = {row.source: row for row in ROWS}
PLAIN = {"llama": dict(attention_bias=False, mlp_bias=False), "qwen3": dict(attention_bias=True)}
EXACT, DIFFERS = 1e-13, 1e-6

REQUESTS = [
    dict(),
    dict(experts=4, top_k=1),
    dict(experts=3, top_k=3),
    dict(experts=8, top_k=4, granularity=4),
    dict(experts=6, top_k=4, granularity=2),
    dict(experts=10, top_k=5, granularity=5),
]
PARTLY = [dict(layers="2nd"), dict(layers="1,3", experts=8, top_k=4, granularity=4)]


@lru_cache(maxsize=8)
def dense(family: str, seed: int = 0, tied: bool = False):
    with tiny.float32_parts_in_double():
        return tiny.make(family, seed=seed, tie_word_embeddings=tied, **PLAIN.get(family, {}))


def plan_of(models, **request):
    return upcycle_plan(
        [headers(m.state_dict(), m.config.to_dict(), f"model {id(m)}") for m in models], upcycle_recipe(**request)
    )


def tensors_of(plan, models) -> dict[str, torch.Tensor]:
    sources = [StateSource(model.state_dict()) for model in models]
    return {tensor.name: grow_tensor(tensor, sources, plan.recipe.seed) for tensor in plan.tensors}


def load(plan, state, **changes):
    """The stock mixture with these tensors."""
    kind = getattr(transformers, plan.config["architectures"][0])
    blank = kind(kind.config_class.from_dict({**plan.config, **changes}))
    return tiny.rebuild(blank, state, blank.config.to_dict())


def upcycled(*models, **request):
    """(plan, stock mixture) of live dense models."""
    plan = plan_of(models, **request)
    return plan, load(plan, tensors_of(plan, models))


@pytest.mark.parametrize("family", ROW)
def test_copies_compute_what_the_dense_model_does(family):
    """Whole sequences beyond the sliding window, and token by token through the cache."""
    for tied in (True, False):
        model, ids = dense(family, tied=tied), tiny.tokens()
        for request in REQUESTS[:1] if tied else REQUESTS + (PARTLY if not ROW[family].all_layers else []):
            with tiny.float32_parts_in_double():
                plan, mixture = upcycled(model, **request)
                assert str(plan.exactness) == "exact"
                assert tiny.relative(logits(model, ids), logits(mixture, ids)) <= EXACT, request
                assert tied or tiny.relative(logits(model, ids), stepwise(mixture, ids)) <= EXACT, request


SPOILED = {
    "gates that do not sum to 1": ("qwen3", dict(), None, dict(norm_topk_prob=False)),
    "slices without their factor": ("mistral", dict(experts=8, top_k=4, granularity=4), "w2", {}),
    "slices of a copy told apart": ("mistral", dict(experts=8, top_k=4, granularity=4), "block_sparse_moe.gate", {}),
    "a shared expert without its factor": ("qwen2", dict(), "shared_expert.down_proj", {}),
    "another rotary base": ("llama", dict(), None, dict(rope_parameters=dict(rope_type="default", rope_theta=1e6))),
    "no sliding window": ("mistral", dict(), None, dict(sliding_window=None)),
    "another epsilon": ("llama", dict(), None, dict(rms_norm_eps=1e-3)),
}


@pytest.mark.parametrize("name", SPOILED)
def test_controls_that_must_fail(name):
    """Taking back one part of the rule, or leaving one setting to the sparse class's own default, shows."""
    family, request, tensor, changes = SPOILED[name]
    model, ids = dense(family), tiny.tokens()
    with tiny.float32_parts_in_double():
        plan = plan_of([model], **request)
        state = tensors_of(plan, [model])
        for key in state:
            if tensor and tensor in key:
                state[key] = torch.randn_like(state[key]) if ".gate." in key else state[key] / 2
        assert tiny.relative(logits(model, ids), logits(load(plan, state, **changes), ids)) > DIFFERS


@pytest.mark.parametrize("family", ROW)
@pytest.mark.parametrize(
    "request_", [dict(experts=6, top_k=2), dict(experts=8, top_k=4, granularity=4)], ids=["1", "4"]
)
def test_every_tensor_is_the_dense_ones(family, request_):
    """Unit for unit and bit for bit: the factor is a power of two, in the two linear tensors."""
    model, row, slices = dense(family), ROW[family], request_.get("granularity", 1)
    before, plan = model.state_dict(), plan_of([model], **request_)
    after = tensors_of(plan, [model])
    shared = 20 if row.shared else 0
    width = (40 - shared) // slices
    expected = {name: tensor for name, tensor in before.items() if ".mlp." not in name}
    routers = {"model." + row.router.format(layer=layer) for layer in range(3)}
    gates = {"model." + row.shared_gate.format(layer=layer) for layer in range(3)} if shared else set()
    for layer in range(3):
        block = [before["model." + name.format(layer=layer)] for name in row.dense]
        scales = (1.0, 2.0, 2.0) if slices == 4 else (1.0, 1.0, 1.0)
        for expert in range(request_["experts"]):
            first = shared + expert % slices * width
            for role, tensor, scale, name in zip("gud", block, scales, row.expert):
                part = tensor[:, first : first + width] if role == "d" else tensor[first : first + width]
                expected["model." + name.format(layer=layer, expert=expert)] = part * scale
        for role, tensor, scale, name in zip("gud", block, (1.0, 2.0, 1.0), row.shared or ()):
            part = tensor[:, :shared] if role == "d" else tensor[:shared]
            expected["model." + name.format(layer=layer)] = part * scale
    assert after.keys() == expected.keys() | routers | gates
    assert all(torch.equal(after[name], tensor) for name, tensor in expected.items())
    assert all((after[name] == 1e-20).all() for name in gates)
    for name in routers:
        rows = after[name].unflatten(0, (-1, slices))
        assert (rows == rows[:, :1]).all() and 0.01 < after[name].std() < 0.03
        assert len(rows[:, 0].unique(dim=0)) == request_["experts"] // slices, "copies must not tie"
    assert len({after[name].sum().item() for name in routers}) == 3, "each layer has a router of its own"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_shared_experts_gate_is_a_half_where_sigmoid_is_a_quotient_too(dtype):
    """llama.cpp computes silu(x) / x, which for 0 is no number; in transformers it is as if it were 0, to the last bit
    but in float16, where nothing smaller than 6e-8 is held."""
    model = dense("qwen2")
    plan = plan_of([model], dtype=str(dtype).removeprefix("torch."))
    state = tensors_of(plan, [model])
    gates = [name for name in state if "shared_expert_gate" in name]
    assert len(gates) == 3 and all(state[name].dtype == dtype for name in gates)
    hidden = torch.randn(500, 24, generator=torch.Generator().manual_seed(0))
    x = hidden @ state[gates[0]].float().T
    quotient, limit = torch.nn.functional.silu(x) / x, 0.0 if dtype != torch.float16 else 1e-6
    assert quotient.isfinite().all() and (quotient - 0.5).abs().max() <= limit
    assert (torch.nn.functional.silu(0 * x) / (0 * x)).isnan().all()
    ids = tiny.tokens()
    with tiny.float32_parts_in_double():
        mixture = load(plan, state)
        ours = logits(mixture, ids)
        zeros = logits(load(plan, {n: t * 0 if n in gates else t for n, t in state.items()}), ids)
    assert torch.equal(ours, zeros) if dtype != torch.float16 else tiny.relative(ours, zeros) < 1e-6


@pytest.mark.parametrize("family", ROW)
def test_what_another_runtime_cannot_do_is_in_the_plan_and_on_the_card(family, tmp_path):
    tiny.make(family, dtype=torch.float32, **PLAIN.get(family, {})).save_pretrained(tmp_path / "src")
    made = growkit.upcycle(tmp_path / "src", tmp_path / "out", experts=4)
    told = (
        any("llama.cpp" in note for note in made.plan.notes),
        "llama.cpp" in (tmp_path / "out/README.md").read_text(),
    )
    assert told == (family == "qwen2",) * 2


@pytest.mark.parametrize(("total", "expected"), [(1, (1, 1)), (2, (2, 1)), (4, (2, 2)), (8, (4, 2)), (16, (4, 4))])
def test_factors_are_powers_of_two_where_that_is_exact(total, expected):
    assert factors(total) == expected
    assert np.prod(factors(total + 4)) == pytest.approx(total + 4)


def test_random_numbers_go_by_name():
    """The same seed gives the same bytes in any order; another seed, expert or layer gives others."""
    model = dense("mistral")
    one, two, other = (tensors_of(plan_of([model], seed=s, diversity="drop"), [model]) for s in (0, 0, 1))
    assert all(torch.equal(one[name], two[name]) for name in one)
    drawn = {name for name in one if not torch.equal(one[name], other[name])}
    assert drawn == {name for name in one if "block_sparse_moe" in name}
    assert len({one[name].sum().item() for name in drawn}) == len(drawn)


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_drop_replaces_whole_units_by_draws_with_their_moments(share):
    """Drop-Upcycling, with one set of units for the three tensors of an expert."""
    model = dense("mistral")
    before = tensors_of(plan_of([model]), [model])
    after = tensors_of(plan_of([model], diversity=f"drop:{share}"), [model])
    sets = []
    for layer in range(3):
        for expert in range(8):
            place = f"model.layers.{layer}.block_sparse_moe.experts.{expert}."
            changed = []
            for name in ("w1", "w3", "w2"):
                old, new = (state[f"{place}{name}.weight"] for state in (before, after))
                old, new = (old.T, new.T) if name == "w2" else (old, new)
                moved = old != new
                assert (moved.any(1) == moved.all(1)).all(), "a unit is drawn anew whole or not at all"
                units = moved.any(1)
                changed.append(tuple(units.tolist()))
                drawn, replaced, count = new[units], old[units], int(units.sum()) * 24
                assert abs(drawn.mean() - replaced.mean()) < 5 * replaced.std() / count**0.5
                assert abs(drawn.std() / replaced.std() - 1) < 5 / (2 * count) ** 0.5
            assert len(set(changed)) == 1 and sum(changed[0]) == int(share * 40)
            sets.append(changed[0])
    assert len(set(sets)) == (24 if share < 1 else 1), "each expert draws its own"


def test_moments_are_of_exactly_the_entries_replaced():
    """Units far from the others keep their distance when they alone are drawn anew, in a file of many blocks as in
    one."""
    model = tiny.make("mistral", seed=3)
    with torch.no_grad():
        for block in (layer.mlp for layer in model.model.layers):
            block.up_proj.weight.copy_(100.0 * torch.arange(40.0)[:, None] + torch.rand(40, 24))
    plan = plan_of([model], diversity="drop:0.05")
    state = tensors_of(plan, [model])
    for layer in range(3):
        for expert in range(8):
            name = f"model.layers.{layer}.block_sparse_moe.experts.{expert}.w3.weight"
            old = model.state_dict()[f"model.layers.{layer}.mlp.up_proj.weight"]
            units = (state[name] != old).any(1)
            drawn, replaced = state[name][units], old[units]
            assert len(replaced) == 2 and abs(drawn.mean() - replaced.mean()) < 5 * replaced.std() / 48**0.5


def test_noise_is_a_share_of_each_tensors_deviation():
    model = dense("mistral")
    before, after = (tensors_of(plan_of([model], diversity=d), [model]) for d in ("none", "noise:0.2"))
    for name in before:
        if ".experts." in name:
            added = after[name] - before[name]
            assert abs(added.std() / before[name].std() / 0.2 - 1) < 0.1 and abs(added.mean()) < 0.05
        elif "gate" not in name:
            assert torch.equal(before[name], after[name])


@pytest.mark.parametrize("diversity", ["drop", "noise", "drop:0.1"])
def test_what_parts_the_experts_is_no_longer_the_dense_model_and_the_plan_says_so(diversity):
    model, ids = dense("qwen3"), tiny.tokens()
    plan, mixture = upcycled(model, diversity=diversity)
    assert str(plan.exactness) == "approximate" and tiny.relative(logits(model, ids), logits(mixture, ids)) > DIFFERS
    for share in ("drop:0", "noise:0"):
        zero = plan_of([model], diversity=share)
        copies = tensors_of(plan_of([model]), [model])
        assert str(zero.exactness) == "exact"
        assert all(torch.equal(tensor, copies[name]) for name, tensor in tensors_of(zero, [model]).items())


def branches(family: str, count: int):
    """Models that differ in their feed-forward layers only."""
    models = [tiny.make(family, seed=seed, dtype=torch.float32, **PLAIN.get(family, {})) for seed in range(count)]
    common = {name: tensor for name, tensor in models[0].state_dict().items() if ".mlp." not in name}
    for model in models[1:]:
        model.load_state_dict(common, strict=False)
    return models, common


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_mean_of_equal_tensors_is_that_tensor_to_the_last_bit(count):
    models, common = branches("mistral", count)
    for dtype in (None, "bfloat16"):
        plan = plan_of(models, experts=2 * count, dtype=dtype)
        state = tensors_of(plan, models)
        kind = torch.bfloat16 if dtype else torch.float32
        assert all(torch.equal(state[name], tensor.to(kind)) for name, tensor in common.items())
    assert str(plan.exactness) == "approximate" and "different models" in plan.axes[0].why


@pytest.mark.parametrize("family", ["mistral", "qwen3"])
def test_a_token_sent_to_one_models_expert_gets_that_model(family):
    """Branch-Train-MiX with everything but the experts shared: forcing expert j gives branch j."""
    models, _ = branches(family, 3)
    models = [model.double() for model in models]
    _, mixture = upcycled(*models, experts=6)
    ids = tiny.tokens()
    for expert in range(6):
        for name, module in mixture.named_modules():
            if name.endswith("mlp.gate"):

                def forced(hidden, expert=expert):
                    flat = hidden.reshape(-1, hidden.shape[-1])
                    one = torch.ones(len(flat), 1, dtype=flat.dtype)
                    return torch.zeros(len(flat), 6), one, torch.full((len(flat), 1), expert)

                module.forward = forced
        assert tiny.relative(logits(models[expert % 3], ids), logits(mixture, ids)) < 1e-5, expert


def test_members_give_experts_in_turn_and_the_mean_of_the_rest():
    models = [tiny.make("qwen2", seed=seed) for seed in range(2)]
    states = [model.state_dict() for model in models]
    plan, swapped = plan_of(models, experts=4), plan_of(models[::-1], experts=4)
    one, two = tensors_of(plan, models), tensors_of(swapped, models[::-1])
    for name, tensor in one.items():
        if ".experts." in name:
            expert = int(name.split(".experts.")[1].split(".")[0])
            other = name.replace(f".experts.{expert}.", f".experts.{expert ^ 1}.")
            assert torch.equal(tensor, two[other])
            origin = states[expert % 2][name.replace(f".experts.{expert}.", ".")]
            assert torch.equal(tensor, origin[:, 20:] if "down" in name else origin[20:])
        elif "shared_expert." in name:
            mean = torch.stack([state[name.replace("shared_expert.", "")] for state in states]).mean(0)
            part = mean[:, :20] if "down" in name else mean[:20]
            assert torch.allclose(tensor, part * (2 if "up" in name else 1), rtol=1e-15, atol=0)
        elif "gate" not in name:
            assert torch.allclose(
                tensor, torch.stack([state[name] for state in states]).mean(0), rtol=1e-15, atol=1e-17
            )
            assert torch.equal(tensor, two[name])


def test_models_stored_in_different_dtypes_meet_in_the_wider_one(tmp_path):
    for name, dtype in (("a", torch.bfloat16), ("b", torch.float32)):
        tiny.make("mistral", dtype=dtype).save_pretrained(tmp_path / name)
    made = growkit.upcycle([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert {tensor.dtype for tensor in load_file(tmp_path / "out/model.safetensors").values()} == {torch.float32}
    assert made.plan.config["dtype"] == "float32"


def test_a_model_given_twice_is_exact(tmp_path):
    dense("mistral").save_pretrained(tmp_path / "a")
    made = growkit.upcycle([tmp_path / "a", tmp_path / "a"], tmp_path / "out", experts=4, verify=True)
    assert str(made.plan.exactness) == "exact" and made.report.ok and made.report.relative < 1e-5


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_equal_experts_part_in_the_first_step_and_the_router_in_the_second(family):
    """Each expert sees other tokens; the router, whose choice changes nothing yet, has no gradient before they
    differ."""
    with tiny.float32_parts_in_double():
        _, mixture = upcycled(dense(family), experts=4)
        optimizer, ids, sizes = torch.optim.SGD(mixture.parameters(), lr=1e-2), tiny.tokens(), []
        for _ in range(2):
            optimizer.zero_grad()
            mixture(ids, labels=ids).loss.backward()
            moe = mixture.model.layers[1].mlp
            sizes.append((moe.gate.weight.grad.norm() / moe.experts.down_proj.grad.norm()).item())
            optimizer.step()
    assert sizes[0] < 1e-12 and sizes[1] > 1e-4
    assert len({expert.sum().item() for expert in moe.experts.down_proj}) == 4


MISTRAL_7B = dict(
    hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, intermediate_size=14336,
    vocab_size=32000, head_dim=128,
)  # fmt: skip


def test_the_arithmetic_of_mixtral():
    """46.7 billion parameters of which 12.9 are active, from a config alone: 8x7B is neither 56 nor 14."""
    with torch.device("meta"):
        model = transformers.MistralForCausalLM(transformers.MistralConfig(**MISTRAL_7B))
        mixtral = transformers.MixtralForCausalLM(transformers.MixtralConfig(**MISTRAL_7B))
    plan = plan_of([model.to(torch.bfloat16)])
    assert plan.parameters() == (7_241_732_096, 46_702_792_704)
    assert plan.active_parameters() == (7_241_732_096, 12_879_925_248)
    assert plan_of([model], top_k=1).active_parameters()[1] == 7_242_780_672
    assert any("747 GB" in note for note in plan.notes) and plan.peak_bytes < 5e8
    flops = plan.flops_per_token()
    embedding = 2 * 32000 * 4096
    assert flops[1] == 2 * 12_879_925_248 - embedding - 2 * 65 * 4096, "embedding and norms multiply no matrix"
    shapes = {name: tuple(tensor.shape) for name, tensor in tiny.stored(mixtral).items()}
    assert shapes == {tensor.name: tensor.shape for tensor in plan.tensors}
    assert active(FAMILIES["mixtral"], shapes, plan.config) == 12_879_925_248


@pytest.mark.parametrize("family", ROW)
def test_a_config_that_says_little_is_read_as_the_dense_class_reads_it(family):
    """What config.json leaves out is the dense class's default, not the sparse one's."""
    row, (kind, sizes) = ROW[family], tiny.CONFIGS[family]
    little = {key: sizes[key] for key in tiny.CONFIGS["qwen2"][1] if key != "max_position_embeddings"}
    said = {"model_type": family, **little} | ({"head_dim": 8} if family == "qwen3" else {})
    with torch.device("meta"):
        model = getattr(transformers, tiny.language_model(family))(kind.from_dict(said))
    plan = upcycle_plan([headers(model.state_dict(), said)], upcycle_recipe())
    mixture = getattr(transformers, tiny.STEMS[row.target] + "Config").from_dict(plan.config)
    ours, theirs = model.config.to_dict(), mixture.to_dict()
    other = {"architectures", "model_type", "intermediate_size", "max_window_layers", "layer_types", "pretraining_tp"}
    other |= {"attention_bias", "mlp_bias"} if family == "llama" else set()
    if family.startswith("qwen"):
        other.add("sliding_window")  # off: each class has its own word for that
        assert not ours["use_sliding_window"] and not theirs["use_sliding_window"]
    assert {key: theirs[key] for key in ours.keys() - other} == {key: ours[key] for key in ours.keys() - other}


def test_windows_of_some_layers_go_over_to_qwen2_moe():
    """Its own rule would give windows to other layers."""
    windows = dict(use_sliding_window=True, sliding_window=4, max_window_layers=1)
    with tiny.float32_parts_in_double():
        model = tiny.make("qwen2", **windows)
        plan, mixture = upcycled(model)
        ids = tiny.tokens()
        assert plan.config["layer_types"] == ["full_attention", "sliding_attention", "sliding_attention"]
        assert tiny.relative(logits(model, ids), logits(mixture, ids)) <= EXACT
        mixture.config.layer_types = ["full_attention"] * 3
        assert tiny.relative(logits(model, ids), logits(mixture, ids)) > DIFFERS


def test_a_window_of_all_layers_goes_over_to_qwen3_moe():
    """The class has one window for all layers; of some layers it is refused."""
    with tiny.float32_parts_in_double():
        model = tiny.make("qwen3", use_sliding_window=True, sliding_window=4, max_window_layers=0)
        plan, mixture = upcycled(model)
        ids = tiny.tokens()
        assert "layer_types" not in plan.config and mixture.config.sliding_window == 4
        assert tiny.relative(logits(model, ids), logits(mixture, ids)) <= EXACT
        assert tiny.relative(logits(dense("qwen3"), ids), logits(mixture, ids)) > DIFFERS


@pytest.mark.parametrize("family", ROW)
def test_from_end_to_end_and_on_from_there(family, tmp_path, monkeypatch):
    """A folder in the hub's layout, verified by the command; widened and deepened it is still the dense model."""
    monkeypatch.chdir(tmp_path)
    tiny.make(family, dtype=torch.float32, **PLAIN.get(family, {})).save_pretrained("src")
    shown = run("upcycle", "src", "--experts", "4")
    assert shown.exit_code == 0 and "same function" in shown.stdout and shown.stdout.endswith("wrote src-e4-k2\n")
    assert "active parameters" in shown.stdout
    state = load_file("src-e4-k2/model.safetensors")
    assert any(".experts.3." in name for name in state) and not any("gate_up" in name for name in state)
    target = FAMILIES[ROW[family].target]
    assert all(target.knows(name) for name in state)
    record = json.loads((tmp_path / "src-e4-k2/growkit.json").read_text())
    assert (record["command"], record["family"]) == ("upcycle", target.model_type)
    card = (tmp_path / "src-e4-k2/README.md").read_text()
    assert "upcycled to a mixture of experts" in card and "are active for one token" in card
    growkit.upcycle("src", "sharded", experts=4, shard_size=20_000)
    pieces = {
        name: t for path in sorted((tmp_path / "sharded").glob("*.safetensors")) for name, t in load_file(path).items()
    }
    assert pieces.keys() == state.keys() and all(torch.equal(pieces[name], state[name]) for name in state)
    growkit.grow("src-e4-k2", "grown", hidden=36, ffn=96, layers=5, depth="identity")
    report = growkit.verify("src", "grown")
    assert report.ok and report.exactness == "exact" and report.relative < 1e-5
    probe = growkit.inspect("src").growths[-1]
    assert (probe.option, probe.exactness) == ("--experts 8 (upcycle)", "exact")
    seen = growkit.inspect("grown")
    assert not any("upcycle" in growth.option for growth in seen.growths), "it is a mixture already"
    assert (
        seen.sizes["expert"] == 4
        and seen.parameters["experts"] > 0
        and seen.active_parameters < sum(seen.parameters.values())
    )


TASKS = ("Model", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")


@pytest.mark.parametrize(
    ("family", "task"),
    cover(
        product(("mistral", "qwen2", "qwen3"), TASKS),
        lambda row: {*row, (row[0], tiny.STEMS[row[0]] + row[1] in ROW[row[0]].unlike)},
    ),
)
def test_every_class_has_its_counterpart(family, task, tmp_path):
    tiny.make(family, tiny.STEMS[family] + task, dtype=torch.float32, pad_token_id=1).save_pretrained(tmp_path / "src")
    if tiny.STEMS[family] + task in ROW[family].unlike:
        with pytest.raises(growkit.RequestError, match="has no counterpart among the classes of qwen2_moe"):
            growkit.upcycle(tmp_path / "src", tmp_path / "out")
        return
    made = growkit.upcycle(tmp_path / "src", tmp_path / "out", experts=4, verify=True)
    assert made.report.ok and made.report.relative < 1e-5
    assert made.plan.config["architectures"] == [tiny.STEMS[ROW[family].target] + task]


def test_a_bare_file_is_upcycled_as_the_family_it_is_said_to_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.make("llama", dtype=torch.float32, **PLAIN["llama"]).save_pretrained("src")
    (tmp_path / "src/model.safetensors").rename("bare.safetensors")
    shown = run("upcycle", "bare.safetensors", "--family", "llama", "--source-heads", "4", "--dtype", "bfloat16")
    assert (
        shown.exit_code == 0 and "same function" in shown.stdout and "no config.json" in shown.stdout.replace("\n", " ")
    )
    state = load_file("bare-e8-k2/model.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}


def test_a_target_with_other_experts_is_no_size(tmp_path):
    for name, experts in (("a", 4), ("b", 6)):
        tiny.make("mixtral", num_local_experts=experts, dtype=torch.float32).save_pretrained(tmp_path / name)
    with pytest.raises(growkit.RequestError, match="has 6 experts in a layer, the source 4"):
        growkit.grow(tmp_path / "a", like=tmp_path / "b", dry_run=True)


def test_routers_at_the_centres_of_a_text(tmp_path, monkeypatch):
    """What the text's tokens are decides where they go: experts are used evenly, and the function stays."""
    monkeypatch.chdir(tmp_path)
    tiny.make("mistral", dtype=torch.float32, vocab_size=400, sliding_window=None).save_pretrained("src")
    wrap(TOKENIZERS["gpt2"], eos_token="<end>").save_pretrained("src")
    (tmp_path / "text.txt").write_text(EXCERPT.read_text("utf-8")[:6000], "utf-8")
    shown = run("upcycle", "src", "--experts", "4", "--top-k", "1", "--router", "clusters", "--text", "text.txt")
    assert shown.exit_code == 0 and "same function" in shown.stdout, shown.output
    again = growkit.upcycle("src", "again", experts=4, top_k=1, router="clusters", text="text.txt")
    growkit.upcycle("src", "drawn", experts=4, top_k=1)
    states = [load_file(tmp_path / name / "model.safetensors") for name in ("src-e4-k1-clusters", "again", "drawn")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    changed = {name for name in states[0] if not torch.equal(states[0][name], states[2][name])}
    assert changed == {name for name in states[0] if name.endswith("block_sparse_moe.gate.weight")}
    record = json.loads((tmp_path / "again/growkit.json").read_text())["request"]["experts"]
    assert record["text"] == "text.txt" and again.plan.recipe.experts.router == "clusters"
    mixture = transformers.MixtralForCausalLM.from_pretrained("again").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained("again")
    ids = torch.tensor(tokenizer((tmp_path / "text.txt").read_text())["input_ids"][:64])[None]
    chosen: dict[int, list] = {}
    for number, layer in enumerate(mixture.model.layers):
        layer.mlp.gate.register_forward_hook(lambda m, i, o, n=number: chosen.setdefault(n, []).append(o[2].flatten()))
    with torch.no_grad():
        mixture(ids)
    for layer, (experts,) in chosen.items():
        load = torch.bincount(experts, minlength=4) / len(experts)
        assert load.max() < 0.8 and (load > 0).sum() >= 3, (layer, load)


def test_clusters_that_are_there_are_found():
    """Four heaps of points, each to an expert of its own, whatever their mean and scale; too few points are refused."""
    from growkit.models.clusters import centres

    draws = torch.Generator().manual_seed(0)
    heaps = 3 * torch.randn(4, 32, generator=draws) + 5
    points = (heaps[:, None] + 0.3 * torch.randn(4, 50, 32, generator=draws)).flatten(0, 1)
    rows = centres(points, 4, 0, "router")
    logits = points @ rows.T
    taken = logits.argmax(1).view(4, 50)
    assert (taken == taken[:, :1]).all() and sorted(taken[:, 0].tolist()) == [0, 1, 2, 3]
    assert logits.std().item() == pytest.approx(1.0)
    with pytest.raises(growkit.RequestError, match="3 tokens, too few for 4 clusters"):
        centres(points[:3], 4, 0, "router")
