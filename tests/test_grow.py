"""Growth in width and depth at once is widening, then stacking, byte for byte; and what `stack` and `grow` take for granted:
which checkpoint is meant when none is named, which sizes a target has, what happens to optimizer state, what is refused.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from test_exactness import ALGEBRA, kind, logits, source, stepwise
from test_refusals import cases, edit_config, refused, run, tree

import growkit
from growkit.families import FAMILIES
from growkit.families.named import NAMED
from growkit.lineage import current_checkpoint

EVERY = tuple(tiny.CONFIGS)
DEPTH = ("layers", "overlap", "after", "every", "block", "slices")


def saved(family: str, folder: Path, **changes):
    """A tiny model on disk, with AdamW state that went on for a while."""
    model = tiny.make(family, dtype=torch.float32, **changes)
    model.save_pretrained(folder)
    generator = torch.Generator().manual_seed(1)
    state = {}
    for name, parameter in model.named_parameters():
        for moment in ("exp_avg", "exp_avg_sq"):
            state[f"{name}.{moment}"] = torch.rand(parameter.shape, generator=generator) - (moment == "exp_avg") / 2
        state[f"{name}.step"] = torch.tensor(1000.0)
    save_file(state, folder / "adam.safetensors")
    return model, state


def written(folder: Path) -> dict[str, bytes]:
    """The files of a result; the record and the card tell of different commands."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in ("growkit.json", "README.md")}


SAME = [  # family, changes of its config, growth
    *((family, {}, dict(hidden=48, layers=7)) for family in EVERY),
    ("bert", {}, dict(hidden=36, mapping="random", seed=3, layers=6, depth="interleave")),
    ("gpt2", {}, dict(hidden=60, method="aki", noise=0.3, layers=5, depth="middle")),
    ("llama", {}, dict(hidden=36, ffn=77, method="aki", mapping="random", layers=4, depth="solar")),
    ("llama", dict(tie_word_embeddings=True), dict(heads=8, kv_heads=4, noise=0.9, layers=5, depth="top", block=1)),
    ("qwen3", {}, dict(heads=8, head_dim=16, dtype="bfloat16", layers=5, depth="identity")),
    ("gemma2", {}, dict(hidden=36, dtype="float16", after=(1, 1, 3), depth="identity")),
    ("olmo2", {}, dict(hidden=48, heads=8, noise=0.0, every=2, depth="identity")),
    ("mistral", dict(tie_word_embeddings=True), dict(head_dim=12, slices="3,1-2", dtype="float64")),
    ("phi", {}, dict(ffn=101, layers=6, shard_bytes=20_000)),
    ("opt", {}, dict(hidden=36, layers=4, depth="identity", shard_bytes=20_000)),
]


@pytest.mark.parametrize(("family", "changes", "growth"), SAME)
def test_grow_is_widen_then_stack_byte_for_byte(family, changes, growth, tmp_path):
    saved(family, tmp_path / "src", **changes)
    files = {key: growth[key] for key in ("shard_bytes",) if key in growth}
    wide = {key: value for key, value in growth.items() if key not in (*DEPTH, "depth")}
    deep = {key: growth[key] for key in DEPTH if key in growth} | {"method": growth.get("depth", "stack")} | files
    growkit.widen(tmp_path / "src", tmp_path / "wide", **wide, optimizer=tmp_path / "src" / "adam.safetensors")
    growkit.stack(tmp_path / "wide", tmp_path / "deep", **deep, optimizer=tmp_path / "wide" / "optimizer.safetensors")
    grown = growkit.grow(
        tmp_path / "src", tmp_path / "grown", **growth, optimizer=tmp_path / "src" / "adam.safetensors"
    )
    one, two = written(tmp_path / "grown"), written(tmp_path / "deep")
    assert one.keys() == two.keys() and [name for name in one if one[name] != two[name]] == []
    assert {"config.json", "optimizer.safetensors", "lr_multipliers.json"} < one.keys()
    assert ("model.safetensors.index.json" in one) == bool(files)
    record = json.loads((tmp_path / "grown" / "growkit.json").read_text())
    assert record["command"] == "grow" and record["maps"]["layer"]["new"] == grown.plan.layers.new


@pytest.mark.parametrize("family", EVERY)
def test_both_at_once_keep_the_function_where_each_does(family):
    model = source(family, family != "llama", 0)
    with tiny.float32_parts_in_double():
        state, config = growkit.grow_state_dict(
            model.state_dict(), model.config, hidden=36, ffn=101, layers=5, depth="identity"
        )
        grown, ids = tiny.rebuild(model, state, config), tiny.tokens()
        difference = tiny.relative(logits(model, ids), logits(grown, ids))
        assert difference <= ALGEBRA if kind(family) else difference > 1e-6
        if family not in tiny.ENCODERS:
            assert tiny.relative(logits(model, ids), stepwise(grown, ids)) <= ALGEBRA


@pytest.mark.parametrize("family", EVERY)
def test_compound_growth_loads_and_is_judged_by_its_worst_step(family, tmp_path):
    tiny.make(family, dtype=torch.float32).save_pretrained(tmp_path / "a")
    growkit.widen(tmp_path / "a", tmp_path / "b", hidden=48)
    growkit.stack(tmp_path / "b", tmp_path / "c", layers=4, method="identity")
    growkit.grow(tmp_path / "c", tmp_path / "d", ffn=256, layers=6, depth="interleave")
    exact = "exact" if kind(family) else "approximate"
    for before, after, expected in [("a", "c", exact), ("c", "d", "approximate"), ("a", "d", "approximate")]:
        report = growkit.verify(tmp_path / before, tmp_path / after)
        assert report.exactness == expected and not report.keys and report.ok
        assert (report.relative < 1e-4) == (expected == "exact")


@pytest.mark.parametrize("family", EVERY)
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
        found = load_file(out / "optimizer.safetensors")
        assert expected.keys() <= found.keys() and {n.replace("embed_out", "lm_head") for n in found} == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        rates = json.loads((out / "lr_multipliers.json").read_text())["multipliers"]
        assert {name.rpartition(".")[0] for name in expected} <= rates.keys()
        assert all(set(rate.values()) == {1.0} for rate in rates.values()), "depth alone changes no rate"


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
        optimizer=tmp_path / "x2" / "optimizer.safetensors",
    )
    growkit.grow(tmp_path / "src", tmp_path / "once", hidden=96, noise=0.0, layers=6, optimizer=state)
    twice, once = (
        json.loads((tmp_path / n / "lr_multipliers.json").read_text())["multipliers"] for n in ("x4", "once")
    )
    assert twice.keys() == once.keys()
    assert all(rate == pytest.approx(once[name]) for name, rate in twice.items())
    assert twice["model.layers.5.mlp.up_proj.weight"] == pytest.approx(dict(lr=1 / 4, weight_decay=4, eps=1 / 4))


@pytest.fixture
def src(tmp_path, monkeypatch):
    """A tiny model of 3 layers as `src` in the current folder."""
    monkeypatch.chdir(tmp_path)
    saved("llama", Path("src"))
    return Path("src")


def test_as_typed(src):
    """One file and its config in the current folder; no source named the second time."""
    os.rename("src/model.safetensors", "src.safetensors")
    os.rename("src/config.json", "config.json")
    shutil.rmtree("src")
    before = tree()
    widened, stacked = run("widen", "src.safetensors", "--hidden", "48"), run("stack", "--layers", "6")
    assert widened.exit_code == stacked.exit_code == 0, widened.output + stacked.output
    assert "same function" in widened.stdout and "1..3 1..3" in stacked.stdout
    assert sorted(os.listdir()) == ["config.json", "src-h48", "src-h48-l6", "src.safetensors"]
    assert {path: entry for path, entry in tree().items() if path in before} == before
    assert json.loads(Path("src-h48-l6/config.json").read_text())["num_hidden_layers"] == 6
    assert run("grow", "src.safetensors", "--hidden", "48", "--layers", "6", "--no-verify", "-o", "once").exit_code == 0
    assert written(Path("once")) == written(Path("src-h48-l6"))


def test_the_checkpoint_that_is_meant(src, monkeypatch):
    def means(expected):
        assert current_checkpoint(Path()) == Path(expected)

    growkit.widen("src", "b", hidden=48)
    means("b")
    growkit.stack(out="c", layers=4)
    means("c")
    growkit.widen("c", "deep/er/d", ffn=99)
    means("deep/er/d")
    os.rename("b", "renamed")  # a record goes by what it says, not by where it lies
    means("deep/er/d")
    Path("half").mkdir()
    shutil.copytree("deep/er/d", "half/e")
    edit_record("half/e", "seed")
    Path("half/UNFINISHED").touch()
    shutil.copytree("half/e", ".trash/e")
    means("deep/er/d")
    monkeypatch.chdir("renamed")  # in a checkpoint, that one; its result goes beside it
    means(".")
    result = run("stack", "--layers", "5", "--no-verify")
    assert result.exit_code == 0 and Path("../renamed-l5/config.json").exists(), result.output
    monkeypatch.chdir("../src")
    means(".")


def edit_record(folder, request):
    """Another growth's record."""
    path = Path(folder) / "growkit.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"request": request}))


def test_one_file_in_the_current_folder_is_meant_until_something_grew_from_it(src, monkeypatch):
    monkeypatch.chdir(src)
    os.remove("adam.safetensors")
    os.rename("model.safetensors", "mine.safetensors")
    assert current_checkpoint(Path()) == Path("mine.safetensors")
    growkit.stack(out="deeper", layers=4)
    assert current_checkpoint(Path()) == Path("deeper")


def fused_leaf():
    growkit.widen("src", "b", hidden=48)
    growkit.widen("src", "c", hidden=48, seed=1)
    growkit.stack(["b", "c"], "both")


def test_several_sources_of_one_result_are_all_used(src):
    fused_leaf()
    assert current_checkpoint(Path()) == Path("both")


LINEAGE = [  # what is there, part of the sentence
    (lambda: shutil.rmtree("src"), "no checkpoint in or below"),
    (lambda: None, "say which checkpoint you mean: src"),
    (lambda: shutil.copytree("src", "other"), "say which checkpoint you mean: other, src"),
    (
        lambda: [growkit.widen("src", n, hidden=h) for n, h in (("b", 48), ("c", 72))],
        "say which checkpoint you mean: b, c",
    ),
    (lambda: (growkit.widen("src", "b", hidden=48), growkit.widen("src", "x/y/c", ffn=99)), "you mean: b, x/y/c"),
    (lambda: (fused_leaf(), growkit.widen("b", "d", ffn=200)), "you mean: both, d"),
    (lambda: (growkit.widen("src", "b", hidden=48), other_here()), "you mean: other.safetensors, b"),
    (
        lambda: (growkit.widen("src", "b", hidden=48), Path("b/growkit.json").write_text("{")),
        "growkit.json' is no valid JSON",
    ),
]


def other_here():
    tiny.make("llama", seed=5, dtype=torch.float32).save_pretrained("o")
    os.rename("o/model.safetensors", "other.safetensors")
    os.rename("o/config.json", "config.json")
    shutil.rmtree("o")


@pytest.mark.parametrize("prepare, says", cases(LINEAGE))
def test_a_checkpoint_that_is_not_clear(src, prepare, says):
    prepare()
    refused("stack", "--layers", "400", says=says)


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


@pytest.mark.parametrize(
    "name", ["gpt2-xl", "opt-125m", "pythia-410m", "tinyllama-1.1b", "qwen2.5-0.5b", "roberta-base"]
)
def test_every_family_with_names_reaches_them(name, tmp_path):
    family, sizes = NAMED[name]
    saved(family, tmp_path / "src")
    plan = growkit.plan_grow(tmp_path / "src", like=name, depth="interleave")
    keys = FAMILIES[family].sizes
    assert {axis: plan.config[keys[axis].split()[0]] for axis in sizes if axis in keys} == {
        axis: size for axis, size in sizes.items() if axis in keys
    }


def test_what_is_shown_and_where_it_goes(src):
    before = tree()
    shown = run("grow", "src", "--hidden", "48", "--layers", "5", "--depth", "identity", "--dry-run")
    assert shown.exit_code == 0 and "1 2 (2) 3 (3)" in shown.stdout and "Dry run" in shown.stdout, shown.output
    plan = json.loads(run("stack", "src", "--method", "solar", "--overlap", "1", "--dry-run", "--json").stdout)
    assert (
        plan["command"] == "stack" and plan["exactness"] == "approximate" and plan["config"] == {"num_hidden_layers": 4}
    )
    assert plan["axes"][-1]["how"] == "solar: 1..2 2..3" and plan["request"]["depth"] == {
        "method": "solar",
        "overlap": 1,
    }
    assert tree() == before
    for args, name in [
        ("stack src --layers 6", "src-l6"),
        ("stack src --layers 5 --method top", "src-l5-top"),
        ("stack src src --slices A:1,B:2-3", "src+src-l3-slices"),
        ("grow src --hidden 48 --layers 4 --method aki", "src-h48-aki-l4"),
        ("grow src --like src-l6", "src-h24-heads4-kv2-d6-ffn40-l6"),
    ]:
        grown = json.loads(run(*args.split(), "--json", "--no-verify").stdout)
        assert grown["folder"] == name and Path(name, "config.json").exists() and grown["verify"] is None
    grown = json.loads(run("stack", "src", "--layers", "4", "--method", "identity", "--json").stdout)
    assert grown["verify"]["ok"] and grown["verify"]["exactness"] == "exact" and grown["folder"] == "src-l4-identity"


REFUSED = [  # command, part of the sentence
    ("stack src", "say how deep: --layers N"),
    ("stack src --layers 2", "--layers 2 is fewer than the source's 3; growkit only grows: to leave layers out"),
    ("stack src --layers 9999", "more than growkit plans for"),
    ("stack src --layers 6 --method magic", "--method 'magic' is not one of stack, interleave"),
    ("stack src --layers 6 --every 2", "--every is for --method identity, not for --method stack"),
    ("stack src --layers 6 --method solar --after 1", "--after is for --method identity"),
    ("stack src --layers 6 --overlap 1", "--overlap is for --method solar"),
    ("stack src --layers 6 --method identity --block 1", "--block is for --method top or middle"),
    ("stack src --method identity --after 1 --every 1", "--after and --every both say"),
    ("stack src --method identity --after 4", "--after 4 should be a layer of the source, from 1 to 3"),
    ("stack src --method identity --after 1;2", "--after '1;2' should be layer numbers such as"),
    ("stack src --method identity --every 4", "--every 4 should be from 1"),
    ("stack src --method identity --after 1 --layers 6", "--layers 6 contradicts the other options, which make 4"),
    ("stack src --method top --layers 6 --block 4", "--block 4 should be from 1"),
    ("stack src --method solar --layers 5", "an even number from 4 to 6, not 5"),
    ("stack src --method solar --layers 8", "an even number from 4 to 6, not 8"),
    ("stack src --method solar --overlap 2", "--overlap 2 should be from 0 to half"),
    ("stack src --method solar --overlap 1 --layers 6", "--layers 6 contradicts the other options, which make 4"),
    ("stack src --slices 1-4", "the source's layers are 1 to 3"),
    ("stack src --slices 3-1", "lower first"),
    ("stack src --slices 0-2", "the source's layers are 1 to 3"),
    ("stack src --slices 1..2", "which is no run of layers"),
    ("stack src --slices B:1-2", "--slices has 'B:1-2'"),
    ("stack src --slices 1-2 --layers 4", "--layers 4 contradicts the other options, which make 2"),
    ("stack src --slices 1-2 --every 1", "--every is for --method identity, not for --slices"),
    ("stack src --slices 1-2 --method solar", "--slices"),
    ("stack src src --slices 1-2", "--slices has '1-2', which is no run of layers; write for example --slices A:1-8"),
    ("stack src src --layers 8 --method identity", "takes one source; stack several with stack or interleave"),
    ("stack src src --layers 5", "fewer than the source"),
    ("stack src bert", "only models of one family become one"),
    ("stack src words", "'words' "),
    ("stack src tokenized", "different tokenizer.json"),
    ("stack src nosuch --layers 6", "'nosuch' does not exist"),
    ("stack src src --optimizer src/adam.safetensors", "1 optimizer states for 2 sources; give one for each"),
    ("stack src --layers 6 -o src/deep", "output 'src/deep' is inside the source 'src'"),
    ("stack src tokenized --layers 6 -o tokenized", "output 'tokenized' is or contains the source 'tokenized'"),
    ("grow src", "nothing to grow: give at least one of --hidden"),
    ("grow src --depth solar", "--depth solar says how to deepen, but not how far"),
    ("grow src --hidden 48 --layers 2", "--layers 2 is fewer than the source's 3"),
    ("grow src --hidden 50 --layers 6", "--hidden 50 in proportion gives 8.33 heads"),
    ("grow src --layers 6 --every 1", "--every is for --depth identity"),
    ("grow src --layers 6 --depth magic", "--depth 'magic' is not one of stack, interleave"),
    ("grow src --like bert-base", "'bert-base' is a bert and the source a llama; a model keeps its family"),
    ("grow src --like bert", "'bert' is a bert and the source a llama"),
    ("grow src --like words", "'words' has a vocabulary of 40, the source of 61"),
    ("grow src --like small", "--layers 1 is fewer than the source's 3"),
    ("grow src --like src --hidden 48", "--like 'src' says all sizes, --hidden says one again"),
    ("grow src --like src --kv-heads 4", "--like 'src' says all sizes, --kv-heads says one again"),
    ("grow src --like nosuch", "'nosuch' does not exist"),
    ("grow src --like nosuch.json", "nosuch.json"),
]  # fmt: skip


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    folder = tmp_path_factory.mktemp("others")
    saved("llama", folder / "src")
    saved("bert", folder / "bert")
    saved("llama", folder / "words", vocab_size=40)
    saved("llama", folder / "small", num_hidden_layers=1)
    shutil.copytree(folder / "src", folder / "tokenized")
    for name in ("src", "tokenized"):
        (folder / name / "tokenizer.json").write_text(name)
    return folder


@pytest.mark.parametrize("command, says", cases(REFUSED))
def test_requests_that_cannot_be(others, monkeypatch, command, says):
    monkeypatch.chdir(others)
    refused(*command.split(), says=says)
    refused(*command.split(), "--dry-run", says=says)


def test_a_config_that_depth_cannot_follow(src):
    edit_config(src, layer_types=["full_attention"] * 2)
    refused("stack", "src", "--layers", "6", says="should list 3 entries under 'layer_types'")
    refused("grow", "src", "--layers", "6", "--hidden", "48", says="should list 3 entries under 'layer_types'")
