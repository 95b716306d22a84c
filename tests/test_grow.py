"""Growth in width and depth at once is widening, then stacking, byte for byte; it loads in stock transformers and keeps
the function where each of the two does. Optimizer state goes with the layers it belongs to. `--like` is the sizes of
another model.
"""

import json

import pytest
import tiny
import torch
from comparing import ALGEBRA, logits, source, stepwise
from covering import cover, kind
from on_disk import saved, written
from safetensors.torch import load_file, save_file

import growkit
from growkit.families import FAMILIES
from growkit.families.named import NAMED
from growkit.growth.width.sizes import read_sizes

DEPTH = ("layers", "overlap", "after", "every", "block", "slices")


SAME = [  # family, changes of its config, growth
    *((family, {}, dict(hidden=48, layers=7)) for family in ("distilbert", "gpt_neox")),
    ("bert", {}, dict(hidden=36, mapping="random", seed=3, layers=6, depth="interleave")),
    ("gpt2", {}, dict(hidden=60, method="aki", noise=0.3, layers=5, depth="middle")),
    ("llama", {}, dict(hidden=36, ffn=77, method="aki", mapping="random", layers=4, depth="solar")),
    ("llama", dict(tie_word_embeddings=True), dict(heads=8, kv_heads=4, noise=0.9, layers=5, depth="top", block=1)),
    ("qwen3", {}, dict(heads=8, head_dim=16, dtype="bfloat16", layers=5, depth="identity")),
    ("gemma2", {}, dict(hidden=36, dtype="float16", after=(1, 1, 3), depth="identity")),
    ("olmo2", {}, dict(hidden=48, heads=8, noise=0.0, every=2, depth="identity")),
    ("mistral", dict(tie_word_embeddings=True), dict(head_dim=12, slices="3,1-2", dtype="float64")),
    ("phi", {}, dict(ffn=101, layers=6, shard_size=20_000)),
    ("opt", {}, dict(hidden=36, layers=4, depth="identity", shard_size=20_000)),
]


@pytest.mark.parametrize(("family", "changes", "growth"), SAME)
def test_grow_is_widen_then_stack_byte_for_byte(family, changes, growth, tmp_path):
    saved(family, tmp_path / "src", **changes)
    files = {key: growth[key] for key in ("shard_size",) if key in growth}
    wide = {key: value for key, value in growth.items() if key not in (*DEPTH, "depth")}
    deep = {key: growth[key] for key in DEPTH if key in growth} | {"method": growth.get("depth", "stack")} | files
    growkit.widen(tmp_path / "src", tmp_path / "wide", **wide, optimizer=tmp_path / "src" / "adam.safetensors")
    growkit.stack(
        tmp_path / "wide",
        tmp_path / "deep",
        **deep,
        optimizer=tmp_path / "wide" / "optimizer" / "optimizer.safetensors",
    )
    grown = growkit.grow(
        tmp_path / "src", tmp_path / "grown", **growth, optimizer=tmp_path / "src" / "adam.safetensors"
    )
    one, two = written(tmp_path / "grown"), written(tmp_path / "deep")
    assert one.keys() == two.keys() and [name for name in one if one[name] != two[name]] == []
    assert {"config.json", "optimizer/optimizer.safetensors", "lr_multipliers.json"} < one.keys()
    assert ("model.safetensors.index.json" in one) == bool(files)
    record = json.loads((tmp_path / "grown" / "growkit.json").read_text())
    assert record["command"] == "grow" and record["maps"]["layer"]["new"] == grown.plan.layers.new


def kinds(family: str) -> set:
    """What the exactness of growth in depth, and the ways to run a model, hang on."""
    row = FAMILIES[family]
    return {kind(family), ("moe", row.is_moe), ("causal", row.causal), ("branch", bool(row.norms.branch))}


@pytest.mark.parametrize("family", cover(tiny.CONFIGS, kinds))
def test_both_at_once_keep_the_function_where_each_does(family):
    model = source(family, family != "llama", 0)
    with tiny.float32_parts_in_double():
        state, config = growkit.grow_state_dict(
            model.state_dict(), model.config, hidden=36, ffn=101, layers=5, depth="identity"
        )
        grown, ids = tiny.rebuild(model, state, config), tiny.tokens()
        difference = tiny.relative(logits(model, ids), logits(grown, ids))
        assert difference <= ALGEBRA if kind(family) != "post" else difference > 1e-6
        if family not in tiny.ENCODERS:
            assert tiny.relative(logits(model, ids), stepwise(grown, ids)) <= ALGEBRA


@pytest.mark.parametrize("family", cover(tiny.DENSE, kinds))
def test_compound_growth_loads_and_is_judged_by_its_worst_step(family, tmp_path):
    tiny.make(family, dtype=torch.float32).save_pretrained(tmp_path / "a")
    growkit.widen(tmp_path / "a", tmp_path / "b", hidden=48)
    growkit.stack(tmp_path / "b", tmp_path / "c", layers=4, method="identity")
    growkit.grow(tmp_path / "c", tmp_path / "d", ffn=256, layers=6, depth="interleave")
    exact = "exact" if kind(family) != "post" else "approximate"
    for before, after, expected in [("a", "c", exact), ("c", "d", "approximate"), ("a", "d", "approximate")]:
        report = growkit.verify(tmp_path / before, tmp_path / after)
        assert report.exactness == expected and not report.keys and report.ok
        assert (report.relative < 1e-4) == (expected == "exact")


@pytest.mark.parametrize("family", ["bert", "gpt_neox", "gemma2"])
def test_moments_of_layers_are_their_donors_and_inserted_ones_start_anew(family, tmp_path):
    """First moments of an inserted layer are 0, second ones its donor's; steps and everything else stay."""
    _, state = saved(family, tmp_path / "src")
    names = FAMILIES[family]
    for request, donors in [(dict(layers=5), "1 2 3 2 3"), (dict(method="identity", after=(1, 3)), "1 (1) 2 3 (3)")]:
        out = tmp_path / request.get("method", "stack")
        growkit.stack(tmp_path / "src", out, **request, optimizer=tmp_path / "src" / "adam.safetensors")
        expected = {name: value for name, value in state.items() if names.layer_of(name) is None}
        for number, donor in enumerate(donors.split()):
            for name in (name for name in state if names.layer_of(name) == int(donor.strip("()")) - 1):
                silent = donor[0] == "(" and name.endswith(".exp_avg")
                expected[names.in_layer(name, number)] = torch.zeros_like(state[name]) if silent else state[name]
        found = load_file(out / "optimizer" / "optimizer.safetensors")
        assert expected.keys() <= found.keys() and {n.replace("embed_out", "lm_head") for n in found} == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        rates = json.loads((out / "lr_multipliers.json").read_text())["multipliers"]
        assert {name.rpartition(".")[0] for name in expected} <= rates.keys()
        assert all(set(rate.values()) == {1.0} for rate in rates.values()), "depth alone changes no rate"


def test_state_of_several_sources_goes_with_their_layers(tmp_path):
    """Embeddings and their history are the first's, what follows the layers is the last's."""
    folders = [tmp_path / "a", tmp_path / "b"]
    states = [saved("llama", folder, seed=seed, num_hidden_layers=1)[1] for seed, folder in enumerate(folders)]
    states[1] = {name: value * 0.5 for name, value in states[1].items()}
    save_file(states[1], folders[1] / "adam.safetensors")
    rates = {"multipliers": {"lm_head.weight": {"lr": 0.5}, "model.layers.0.mlp.up_proj.weight": {"lr": 0.25}}}
    (folders[1] / "lr_multipliers.json").write_text(json.dumps(rates))
    growkit.stack(folders, tmp_path / "out", optimizer=[folder / "adam.safetensors" for folder in folders])
    found = load_file(tmp_path / "out" / "optimizer" / "optimizer.safetensors")
    assert len(found) == 2 * len(states[0]) - 9  # embeddings, last norm and head, three entries each, are not twice
    for name, value in found.items():
        origin = states[0 if "embed_tokens" in name or ".layers.0." in name else 1]
        assert torch.equal(value, origin[name.replace(".layers.1.", ".layers.0.")]), name
    rates = json.loads((tmp_path / "out" / "lr_multipliers.json").read_text())["multipliers"]
    slower = {name: rate["lr"] for name, rate in rates.items() if rate["lr"] != 1}
    assert slower == {"lm_head.weight": 0.5, "model.layers.1.mlp.up_proj.weight": 0.25}


def test_buffers_of_old_files_and_dtypes_of_new_ones(tmp_path):
    """Causal masks that old releases stored in every layer are left out; what is stored in another dtype is only
    rounded."""
    saved("gpt2", tmp_path / "src")
    path = tmp_path / "src" / "model.safetensors"
    before = load_file(path)
    masks = {f"transformer.h.{layer}.attn.bias": torch.ones(1, 1, 64, 64) for layer in range(3)}
    save_file({**before, **masks}, path, {"format": "pt"})
    grown = growkit.stack(
        tmp_path / "src", tmp_path / "out", layers=4, method="identity", dtype="bfloat16", verify=True
    )
    assert grown.report.ok and grown.report.exactness == "exact" and set(grown.plan.members[0].dropped) == set(masks)
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert not masks.keys() & after.keys() and all(torch.equal(after[n], t.bfloat16()) for n, t in before.items())
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def test_multipliers_of_a_second_growth_are_multiplied_in(tmp_path):
    saved("llama", tmp_path / "src")
    state = tmp_path / "src" / "adam.safetensors"
    growkit.widen(tmp_path / "src", tmp_path / "x2", hidden=48, noise=0.0, optimizer=state)
    growkit.grow(
        tmp_path / "x2",
        tmp_path / "x4",
        hidden=96,
        noise=0.0,
        layers=6,
        optimizer=tmp_path / "x2" / "optimizer" / "optimizer.safetensors",
    )
    growkit.grow(tmp_path / "src", tmp_path / "once", hidden=96, noise=0.0, layers=6, optimizer=state)
    twice, once = (
        json.loads((tmp_path / n / "lr_multipliers.json").read_text())["multipliers"] for n in ("x4", "once")
    )
    assert twice.keys() == once.keys()
    assert all(rate == pytest.approx(once[name]) for name, rate in twice.items())
    assert twice["model.layers.5.mlp.up_proj.weight"] == pytest.approx(dict(lr=1 / 4, weight_decay=4, eps=1 / 4))


def test_sizes_of_a_target_by_folder_by_config_and_by_name(tmp_path):
    sizes = dict(hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=256)
    saved("bert", tmp_path / "src", **sizes)
    big = dict(hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512)
    tiny.make("bert", dtype=torch.float32, seed=3, hidden_act="relu", **big).save_pretrained(tmp_path / "big")
    growkit.grow(tmp_path / "src", tmp_path / "said", hidden=128, heads=2, ffn=512, layers=2)
    for number, like in enumerate(
        ("bert-tiny", tmp_path / "big", tmp_path / "big" / "config.json", tmp_path / "big" / "model.safetensors")
    ):
        grown = growkit.grow(tmp_path / "src", tmp_path / str(number), like=like)
        assert written(tmp_path / str(number)) == written(tmp_path / "said")
        assert any("differs: hidden_act" in note for note in grown.plan.notes) == (like != "bert-tiny")
    settings = json.loads((tmp_path / "0" / "config.json").read_text())
    assert {key: settings[key] for key in big} == big and settings["hidden_act"] == "gelu"


@pytest.mark.parametrize("name", ["gpt2-xl", "opt-125m", "pythia-410m", "tinyllama-1.1b", "qwen2.5-0.5b"])
def test_names_say_all_sizes(name, tmp_path):
    family, sizes = NAMED[name]
    saved(family, tmp_path / "src")
    plan = growkit.grow(tmp_path / "src", like=name, depth="interleave", dry_run=True).plan
    grown = read_sizes(FAMILIES[family], plan.config)
    assert {axis: grown[axis] for axis in sizes} == sizes
    assert grown["head_dim"] == sizes["hidden"] // sizes["head"] and grown["vocab"] == 61
