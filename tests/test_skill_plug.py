"""Skills plugged into a base: the sum of what they change, in any order, as weights and as one LoRA."""

import json
import shutil
from pathlib import Path

import peft
import pytest
import tiny
import tiny_runs
import torch
import transformers
from refusing import cases, refused, run, tree
from skills import skill_on

import growkit
from growkit.skills.skill_file import read_skill

RANK = 8
ONE = pytest.mark.parametrize("bench", ["llama"], indirect=True)  # where one family is enough


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def bench(request, tmp_path_factory):
    """A base, its panel, and three skills on it: of all directions, with an adapter; of four; and of the four others."""
    folder = tmp_path_factory.mktemp(request.param)
    tiny.make(request.param, dtype=torch.float32).save_pretrained(folder / "base")
    growkit.panel(folder / "base", folder / "panel", rank=RANK)
    skill_on(folder / "panel", folder / "wide", size=5, adapter=2, seed=1)
    skill_on(folder / "panel", folder / "low", seed=2, reads=[0, 1, 2, 3])
    skill_on(folder / "panel", folder / "high", seed=3, reads=[4, 5, 6, 7])
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def plug(bench, skills, out, as_lora=False, **more):
    named = [(bench / name if isinstance(name, str) else name, strength) for name, strength in skills]
    return growkit.skill_plug(
        bench / "base", named, out, form="lora" if as_lora else "weights", **{"force": True, **more}
    )


def stock(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


def logits_of(model):
    with torch.no_grad():
        return model.eval()(tiny.tokens()).logits


def by_hand(bench, skills):
    """The base with what skills change added to its weights, as their definition has it."""
    model = stock(bench / "base")
    state = model.state_dict()
    names = {name.removeprefix("transformer."): name for name in state}
    for name, strength in skills:
        skill = read_skill(bench / name)
        for weight in skill.facts.weights:
            change = strength * skill.delta(weight)
            tensor = state[names.get(weight.removeprefix("transformer."), weight)]
            tensor += change if change.shape == tensor.shape and "c_" not in weight else change.T
    return model


THREE = [("wide", 1.0), ("low", 0.5), ("high", -0.7)]


@pytest.mark.parametrize("skills", [THREE[:1], THREE])
def test_plugged_skills_are_the_sum_of_what_they_change(bench, skills):
    before = tree(bench)
    plug(bench, skills, "plugged")
    ours = logits_of(stock("plugged"))
    assert (ours - logits_of(by_hand(bench, skills))).abs().max() < 1e-5
    assert (ours - logits_of(stock(bench / "base"))).abs().max() > 1e-2
    assert tree(bench) == before
    said = json.loads(Path("plugged/growkit.json").read_text())
    assert said["command"] == "skill plug"
    assert {entry.get("drawn_as") for entry in said["sources"]} == {
        None,
        *(read_skill(bench / s).hash for s, _ in skills),
    }


@pytest.mark.parametrize(("skills", "rank"), [(THREE[1:], 6), (THREE, RANK)])
def test_one_lora_carries_them_all(bench, skills, rank):
    """In stock PEFT, on the plain base; its rank is what the skills read together, and never beyond the panel's."""
    plug(bench, skills, "plugged")
    assert plug(bench, skills, "lora", as_lora=True).rank == rank
    loaded = peft.PeftModel.from_pretrained(stock(bench / "base"), "lora")
    assert (logits_of(loaded) - logits_of(stock("plugged"))).abs().max() < 1e-5
    assert json.loads(Path("lora/adapter_config.json").read_text())["r"] == rank
    usual = dict(context=16)
    torch.arange(60).to(torch.uint16).numpy().tofile("tokens.bin")
    on = growkit.evaluate(bench / "base", "tokens.bin", adapter="lora", **usual).loss
    assert on == pytest.approx(growkit.evaluate("plugged", "tokens.bin", **usual).loss, abs=1e-5)


@pytest.mark.parametrize("as_lora", [False, True])
def test_neither_order_nor_names_change_a_bit(bench, as_lora):
    shutil.copytree(bench / "high", "another-name")
    plug(bench, THREE, "one", as_lora)
    plug(bench, [(Path("another-name"), -0.7), *THREE[1::-1]], "other", as_lora)
    files = [path.name for path in Path("one").glob("*.safetensors")]
    assert files and all(Path("one", name).read_bytes() == Path("other", name).read_bytes() for name in files)


def test_without_a_skill_it_is_the_base_to_the_last_bit(bench):
    plug(bench, [(name, 0.0) for name, _ in THREE], "none")
    base, none = stock(bench / "base").state_dict(), stock("none").state_dict()
    assert base.keys() == none.keys() and all(torch.equal(base[name], none[name]) for name in base)


def test_what_is_learned_is_what_is_plugged(world):
    """The model of a skill's own run, and the base with it plugged in."""
    growkit.panel(world / "llama", "panel", rank=RANK)
    usual = dict(size=4, steps=3, seq_len=16, batch_size=4, lr=3e-2, eval_tokens=64, sketch_tokens=64, adapter=2)
    done = growkit.skill_learn(world / "llama", "panel", world / "data", "run", **usual)
    growkit.skill_plug(world / "llama", ["run/final"], "plugged")
    ours = logits_of(stock("plugged"))
    assert (ours - logits_of(done.run.student.model)).abs().max() < 1e-5
    assert (ours - logits_of(stock(world / "llama"))).abs().max() > 1e-3


@ONE
def test_skills_that_disturb_each_other_are_plugged_when_somebody_insists(bench):
    skill_on(bench / "panel", "red", size=4, seed=4, reads=[0, 1, 2, 3], strength=3.0)
    line = ["skill", "plug", bench / "base", bench / "low"]
    refused(
        *line, "red", "-o", "no", says="which is red; gate them (--gated), learn one anew with --protect of the other"
    )
    both = plug(bench, [("low", 1.0), (Path("red"), 1.0)], "yes")
    assert {(pair.source, pair.target): pair.band for pair in both.pairs}["red", "low"] == "red"
    assert any(note.startswith("'red' disturbs 'low': rho ") for note in both.plan.notes)
    fine = plug(bench, [("low", 1.0), ("high", 1.0), (Path("red"), 0.0)], "quiet", force=False)
    assert not fine.plan.notes and len(fine.pairs) == 2
    growkit.panel(bench / "base", "smaller", rank=4)
    skill_on("smaller", "strange", size=3, seed=5)
    refused(*line, "strange", "-o", "no", says="were learned on different panels, so nobody knows what they do to each")
    assert plug(bench, [("wide", 1.0), ("low", 1.0), (Path("strange"), 1.0)], "lora", as_lora=True).rank == RANK + 3
    said = json.loads(Path(skill_on(bench / "panel", "blind", seed=6), "skill.json").read_text())
    Path("blind/skill.json").write_text(json.dumps({**said, "sketch": {"tokens": 0, "data": None}}))
    refused(*line, "blind", "-o", "no", says="'blind' has a sketch of no tokens, so nobody knows what others do to it")


@ONE
def test_an_application_is_plugged_as_it_is(bench):
    """What apply makes of it: it holds its skills."""
    if not (bench / "data").exists():
        tiny_runs.dataset(bench / "data", 1000)
    usual = dict(steps=2, seq_len=16, batch_size=2, eval_tokens=32)
    growkit.skill_apply_layer(bench / "base", [bench / "low", bench / "high"], bench / "data", "run", **usual)
    plug(bench, [(Path("run/final"), 0.5)], "plugged")
    growkit.apply(bench / "base", ["run/final:0.5"], "applied")
    assert Path("plugged/model.safetensors").read_bytes() == Path("applied/model.safetensors").read_bytes()
    line = ["skill", "plug", bench / "base", "run/final"]
    for words in (["--as", "lora"], [bench / "low"]):
        refused(*line, *words, "-o", "no", says="is an application, which has its skills in it and is one LoRA already")


NO = [
    ("other low", "was made for 'base', weights of SHA-256"),
    ("base low another=low", "name it once, with a larger strength"),
    ("base panel", "is no skill: it has no skill.json"),
    ("base low:x", "has weight 'x', which is no number"),
    ("base broken", "'broken' puts NaN or Inf into"),
    ("base broken --as lora", "would hold NaN or Inf; make what it is of again"),
]


@ONE
@pytest.mark.parametrize(("words", "says"), cases(NO))
def test_what_cannot_be_plugged(bench, words, says):
    tiny.make("llama", dtype=torch.float32, seed=7).save_pretrained("other")
    skill_on(bench / "panel", "broken", strength=float("nan"))
    places = {"base": bench / "base", "low": bench / "low", "low:x": f"{bench / 'low'}:x", "panel": bench / "panel"}
    places |= {"another=low": f"another={bench / 'low'}"}
    line = [places.get(word, word) for word in words.split()]
    refused("skill", "plug", *line, "-o", "no", says=says, plan_shown="broken" in words)


@ONE
def test_the_command_plugs_as_the_engine_does(bench):
    """Weights, one LoRA, and a plan alone; what disturbs is refused where nobody forces it."""
    named = [bench / "low", f"{bench / 'high'}:0.5"]
    line = ["skill", "plug", bench / "base", *named, "--force", "--out"]
    for form, out in (("weights", "plugged"), ("lora", "joined")):
        result = run(*line, out, "--as", form)
        assert result.exit_code == 0, result.output
        assert "low ->" in result.stdout.replace("\n", "") and f"wrote {out}" in result.stdout
        plug(bench, [("low", 1.0), ("high", 0.5)], f"engine-{form}", as_lora=form == "lora")
        name = "adapter_model.safetensors" if form == "lora" else "model.safetensors"
        assert Path(out, name).read_bytes() == Path(f"engine-{form}", name).read_bytes()
    dry = run(*line, "dry", "--dry-run", "--json")
    assert json.loads(dry.stdout)["rank"] is None and not Path("dry").exists()
    made = growkit.skill_plug(bench / "base", [(bench / "low", 1.0)], "alone", form="lora")
    assert made.folder == Path("alone") and made.rank and made.pairs == []
    growkit.skill_plug(bench / "base", named, "again", force=True)
    assert Path("again/model.safetensors").read_bytes() == Path("plugged/model.safetensors").read_bytes()
