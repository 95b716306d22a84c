"""Skills and LoRAs carried over a growth of their base: what they did there they do on the grown model."""

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import loras
import peft
import pytest
import tiny
import torch
import transformers
from refusing import cases, refused, run, tree
from skill_folders import mixture_folder
from skills import skill_on

import growkit
from growkit.growth.recorded import SCHEMA, recorded_growth, request_of
from growkit.growth.request import Depth, Recipe
from growkit.growth.sources import headers_of, open_source
from growkit.skills.carried import carried_weights
from growkit.skills.controlled import input_groups
from growkit.skills.gates.named_skills import NamedSkill
from growkit.skills.plugged_pairs import plugged_pairs
from growkit.skills.skill_file import read_skill


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def grow(base, out, **sizes):
    return growkit.grow(base, out, verify=False, **sizes)


def stock(folder, dtype=torch.float64):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def logits_of(model):
    with tiny.float32_parts_in_double(), torch.no_grad():
        return model(input_ids=tiny.tokens()).logits


EXACT = [
    ("llama", dict(hidden=36, layers=5, depth="identity", mapping="random")),
    ("llama", dict(hidden=48, ffn=56, heads=8, layers=4, depth="identity", after=[2])),
    ("llama", dict(layers=5, depth="identity")),
    ("gpt2", dict(hidden=42)),  # the mean of the stream fills what is no multiple
    ("opt", dict(hidden=48, layers=5, depth="identity")),
    ("bert", dict(hidden=48)),
    ("gemma2", dict(hidden=36, head_dim=12)),
    ("olmo2", dict(hidden=36)),
    ("qwen2_moe", dict(hidden=48)),
    ("mixtral", dict(experts=8, top_k=4)),
]


@pytest.mark.parametrize("family, sizes", EXACT, ids=str)
def test_a_change_carried_is_the_change_grown(family, sizes):
    """In float64: the base with a change, and the grown base, its copies split by noise, with the change carried."""
    model, draws = tiny.make(family), torch.Generator().manual_seed(0)
    model.save_pretrained("base")
    grow("base", "grown", **sizes)
    base, grown = open_source("base"), open_source("grown")
    plan, headers = recorded_growth(base, grown), headers_of(base)
    groups = input_groups(plan.family, headers.config, headers.shapes, range(3), "all")
    weights = {weight.name: weight for group in groups for weight in group.weights}
    factors = {
        name: tuple(torch.randn(side, 3, generator=draws, dtype=torch.float64) * 0.4 for side in (one.out, one.width))
        for name, one in weights.items()
    }
    small = {name: output @ read.T for name, (output, read) in factors.items()}
    carried = carried_weights(plan, weights)
    large = {one.name: one.written(factors[one.origin][0]) @ one.read(factors[one.origin][1]).T for one in carried}
    across = {one.name: weights[one.origin].across for one in carried} | {n: w.across for n, w in weights.items()}

    def changed(source, changes):
        state = {name: source.whole(name) for name in source.tensors}
        for name, change in changes.items():
            state[name] = state[name] + (change.T if across[name] else change)
        with tiny.float32_parts_in_double():
            return logits_of(tiny.rebuild(model, state, source.config))

    before = changed(base, small)
    assert tiny.relative(before, changed(grown, large)) < 1e-10
    assert tiny.relative(before, changed(base, {})) > 1e-2
    assert len(carried) == len(weights) // 3 * plan.layers.new


SETTINGS = dict(
    sizes={"hidden": 48, "expert": 8}, method="shrink-perturb", keep=0.5, mapping="random", noise=0.25, seed=7,
    dtype=torch.bfloat16, depth=Depth(layers=5, method="identity", after=(1, 2), where="top"), top_k=4, copies={2: (1, 3)},
)  # fmt: skip


def test_every_setting_of_a_growth_is_read_back():
    """A setting that comes later must be written, read and named here."""
    asked = Recipe(**SETTINGS)
    assert {*SETTINGS, "mode", "experts", "like", "learn"} == {field.name for field in fields(Recipe)}
    assert all(getattr(asked, name) != getattr(Recipe(), name) for name in SETTINGS)
    said = json.loads(json.dumps(asked.to_json()))
    assert SCHEMA.kinds["request"].fault(said) is None
    unset = dict.fromkeys(("head", "kv_head", "head_dim", "ffn"))
    assert request_of(said) == replace(asked, sizes={**asked.sizes, **unset})


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A base, a panel and two skills on it, and the base grown: wider and with two identity layers."""
    folder = tmp_path_factory.mktemp("carried")
    tiny.make("llama", dtype=torch.float32).save_pretrained(folder / "base")
    grow(folder / "base", folder / "grown", hidden=36, layers=5, depth="identity")
    growkit.panel(folder / "base", folder / "panel", rank=8)
    skill_on(folder / "panel", folder / "one", adapter=2, seed=1)
    skill_on(folder / "panel", folder / "other", seed=2, reads=[0, 1, 2, 3])
    return folder


def test_a_skill_is_carried_whole(bench):
    before = tree(bench)
    done = growkit.skill_carry(bench / "base", bench / "one", bench / "grown", "carried")
    assert (done.kind, done.weights, done.rank, str(done.exactness), done.notes) == ("skill", 35, 3, "exact", ())
    growkit.skill_plug(bench / "base", [bench / "one"], "small")
    growkit.skill_plug(bench / "grown", ["carried"], "large")
    small = logits_of(stock("small"))
    assert (
        tiny.relative(small, logits_of(stock("large")))
        < 1e-6
        < 1e-2
        < tiny.relative(small, logits_of(stock(bench / "base")))
    )
    loaded = peft.PeftModel.from_pretrained(stock(bench / "grown"), "carried")
    assert tiny.relative(small, logits_of(loaded)) < 1e-6
    assert tree(bench) == before
    again = growkit.skill_carry(bench / "base", bench / "one", bench / "grown", "carried", force=True)
    assert again.folder == Path("carried") and "for `grown`" in Path("carried/README.md").read_text()


def test_skills_that_are_carried_know_each_other(bench):
    """Their sketches and coordinates stay, so rho of a pair does where copies are even; and they share a panel."""
    grow(bench / "base", "grown", hidden=48)
    folders = {
        name: growkit.skill_carry(bench / "base", bench / name, "grown", name).folder for name in ("one", "other")
    }
    pairs = []
    for places in ({name: bench / name for name in folders}, folders):
        skills = [
            (NamedSkill(name=name, folder=place, strength=1.0), read_skill(place)) for name, place in places.items()
        ]
        found = plugged_pairs(skills)
        assert not found.unknown
        pairs.append([pair.mean for pair in found.known])
    assert pairs[1] == pytest.approx(pairs[0], rel=1e-5)
    one, carried = read_skill(bench / "one"), read_skill("one")
    assert carried.facts.panel == read_skill("other").facts.panel != one.facts.panel
    assert torch.equal(carried.tensor("model.layers.2.mlp.input.K"), one.tensor("model.layers.2.mlp.input.K"))


def test_a_lora_of_peft_is_carried_too(bench):
    """Of another rank on some modules, and one that is an application beside."""
    modules = {f"model.layers.{layer}.mlp.down_proj": (24, 40) for layer in (0, 2)} | {
        "model.layers.1.self_attn.k_proj": (12, 24)
    }
    loras.lora(modules, target_modules=list(modules), dtype=torch.float32)
    done = growkit.skill_carry(bench / "base", "lora", bench / "grown", "carried")
    assert (done.kind, done.rank) == ("LoRA", 4)
    small, large = (
        logits_of(peft.PeftModel.from_pretrained(stock(base), lora)) for base, lora in ((bench / "base", "lora"), (bench / "grown", "carried"))
    )  # fmt: skip
    assert tiny.relative(small, large) < 1e-6 < 1e-3 < tiny.relative(small, logits_of(stock(bench / "base")))
    growkit.skill_plug(bench / "base", [bench / "one", bench / "other"], "both", form="lora", force=True)
    assert growkit.skill_carry(bench / "base", "both", bench / "grown", "both-carried").rank == 6
    refused("apply", bench / "base", "both-carried", "-o", "no", says="'both-carried' was made for 'grown'")


def test_what_is_not_exact_or_stays_behind_is_said(bench):
    growkit.stack(bench / "base", "deep", layers=6)
    shown = run("skill", "carry", bench / "base", bench / "one", "deep", "-o", "carried")
    assert shown.exit_code == 0 and "skill of rank 3 on 42 weights; the growth is approximate" in shown.stdout
    assert "measure it with growkit eval --adapter" in " ".join(shown.stdout.split())
    shutil.copytree(bench / "one", "gated")
    Path("gated/gate.json").write_text("{}")
    said = json.loads(run("skill", "carry", bench / "base", "gated", "deep", "-o", "again", "--json").stdout)
    assert (said["kind"], said["exactness"], said["weights"]) == ("skill", "approximate", 42)
    assert "its gate stays behind" in said["notes"][1] and not Path("again/gate.json").exists()


def dora():
    loras.lora({"model.layers.0.mlp.down_proj": (24, 40)}, dtype=torch.float32, target_modules=["down_proj"])
    magnitude = torch.ones(24)
    loras.edit(change=lambda t: t.update({f"{loras.PREFIX}model.layers.0.mlp.down_proj.lora_magnitude_vector": magnitude}),
               use_dora=True)  # fmt: skip


def plain_mixture():
    tiny.make("llama", attention_bias=False, mlp_bias=False).save_pretrained("dense")
    growkit.upcycle("dense", "mixed", experts=2, verify=False)


def other_request(**request):
    shutil.copytree("grown", "odd")
    said = json.loads(Path("odd/growkit.json").read_text())
    said["request"] |= request
    Path("odd/growkit.json").write_text(json.dumps(said))


NO = cases([
    (None, "base one base", "'base' has no growkit.json, so nobody knows how it was grown"),
    (lambda: plain_mixture(), "base one mixed", "'mixed' was made by growkit upcycle"),
    (lambda: growkit.fuse(["base", "base"], "fused", verify=False), "base one fused", "'fused' was made by growkit fuse"),
    (lambda: grow("grown", "larger", hidden=72), "base one larger", "'larger' was grown from 'grown', weights of SHA-256"),
    (lambda: grow("grown", "larger", hidden=72), "grown one larger", "'one' was made for 'base', weights of SHA-256"),
    (lambda: growkit.stack(["base", "base"], "two", layers=6, verify=False), "base one two", "'two' was made of 2 models"),
    (lambda: grow("base", "aki", hidden=48, method="aki"), "base one aki", "was grown out of two layers (by aki or average)"),
    (lambda: other_request(sizes={"hidden": 36, "ffn": 80}), "base one odd", "tells of other maps than its request makes of 'base' now"),
    (lambda: other_request(copies={"2": [1, 2]}), "base one odd", "tells of a growth that cannot be of 'base': [1, 2] are no copies"),
    (lambda: other_request(learn={"steps": 3}), "base one odd", "'odd' was grown by maps that learned (--learn)"),
    (lambda: mixture_folder(tiny.make("llama"), "mov"), "base mov grown", "'mov' is neither a skill nor a LoRA of PEFT"),
    (dora, "base lora grown", "otherwise than by A and B of a linear layer inside the model's layers"),
    (None, "base nosuch grown", "'nosuch' does not exist"),
])  # fmt: skip


@pytest.mark.parametrize("spoil, words, says", NO)
def test_what_cannot_be_carried(bench, spoil, words, says):
    for name in ("base", "grown", "one"):
        shutil.copytree(bench / name, name)
    if spoil:
        spoil()
    refused("skill", "carry", *words.split(), "-o", "no", says=says)
