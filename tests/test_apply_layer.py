"""An application over frozen skills: their plain sum at first, and what is left does what was learned."""

import json
from pathlib import Path
from types import SimpleNamespace

import peft
import pytest
import tiny
import torch
import transformers
from panels import plain_panel
from processes import pair
from refusing import cases, refused
from skills import skill_on
from tiny_runs import Stopped, curve, losses_of, stops_at

import growkit
from growkit.skills import apply_layer
from growkit.skills.application_control import application_controls
from growkit.skills.application_file import read_application
from growkit.skills.skill_file import read_skill

USUAL = dict(steps=6, seq_len=16, batch_size=4, lr=2e-2, eval_every=3, eval_tokens=160, save_every=3, keep=9, warmup=0)
USUAL |= dict(weight_decay=0.0)


@pytest.fixture(scope="module")
def bench(world, tmp_path_factory):
    """Two skills on a panel of the model, of unlike sizes, and an application of both."""
    folder = tmp_path_factory.mktemp("bench")
    plain_panel(world / "llama3", folder / "panel")
    skill_on(folder / "panel", folder / "a", size=3, adapter=1, seed=1, strength=0.1)
    skill_on(folder / "panel", folder / "b", size=2, seed=2, strength=0.1)
    learned(world, folder, folder / "run")
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def learned(world, bench, out, **more):
    skills = [(bench / "a", 1.0), f"{bench / 'b'}:0.5"]
    return growkit.skill_apply_layer(world / "llama3", skills, world / "data", out, **{**USUAL, **more})


def stock(world):
    return transformers.LlamaForCausalLM.from_pretrained(world / "llama3").eval()


def logits_of(model):
    with torch.no_grad():
        return model.eval()(tiny.tokens()).logits


def by_hand(world, bench, alpha, cross):
    """The model with what an application changes by its definition. alpha, cross: by weight."""
    plain, a, b = stock(world), read_skill(bench / "a"), read_skill(bench / "b")
    state = plain.state_dict()
    for weight in a.facts.weights:
        state[weight] += alpha(weight)[0] * a.delta(weight) + alpha(weight)[1] * b.delta(weight)
        outward = torch.cat([skill.tensor(f"{weight}.U_s") for skill in (a, b)], 1)
        inward = torch.cat([skill.input(weight) for skill in (a, b)], 1)
        state[weight] += outward @ cross(weight, (outward.shape[1], inward.shape[1])) @ inward.T
    return plain


def test_at_first_it_is_the_plain_sum(world, bench, monkeypatch):
    held = []
    monkeypatch.setattr(
        apply_layer,
        "carry_through",
        lambda run, _: held.append(run) or apply_layer.Finished(folder=None, step=0, loss=None),
    )
    learned(world, bench, "begun")
    held[0].begin()
    held[0].release()
    model = held[0].student.model
    wanted = logits_of(by_hand(world, bench, lambda _: (1.0, 0.5), lambda _, shape: torch.zeros(shape)))
    assert (logits_of(model) - wanted).abs().max() < 1e-5
    assert (wanted - logits_of(stock(world))).abs().max() > 1e-2
    learn = {name.rpartition(".")[2] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learn == {"middle", "strengths"}


@pytest.mark.parametrize("strengths_only", [False, True])
def test_an_application_is_what_was_learned(world, bench, strengths_only):
    """By its own file over the skills, as a LoRA in stock PEFT, added by apply, and as the run's model."""
    done = learned(world, bench, "run", strengths_only=strengths_only)
    facts, stored = read_application("run/final")
    assert facts.crossing != strengths_only and [skill["strength"] for skill in facts.skills] == [1.0, 0.5]
    assert [skill["sha256"] for skill in facts.skills] == [read_skill(bench / name).hash for name in "ab"]

    def tensor(name, shape):
        return (
            stored.rows(name, torch.arange(shape[0]).numpy()).view(shape)
            if name in stored.tensors
            else torch.zeros(shape)
        )

    alpha = {weight: tensor(f"{weight}.alpha", (2,)) for weight in read_skill(bench / "a").facts.weights}
    assert all((one != torch.tensor([1.0, 0.5])).all() for one in alpha.values())
    ours = by_hand(world, bench, alpha.get, lambda weight, shape: tensor(f"{weight}.R", shape))
    wanted = logits_of(done.run.student.model)
    assert (logits_of(ours) - wanted).abs().max() < 1e-5
    loaded = peft.PeftModel.from_pretrained(stock(world), "run/final")
    assert (logits_of(loaded) - wanted).abs().max() < 1e-5
    growkit.apply(world / "llama3", ["run/final"], "applied")
    applied = transformers.LlamaForCausalLM.from_pretrained("applied")
    assert torch.allclose(logits_of(applied), wanted, rtol=1e-5, atol=2e-5)
    said = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in said if line["kind"] == "val"]
    assert losses[-1] < losses[0]


def test_the_skills_stay_as_they_are(world, bench):
    before = [read_skill(bench / name).hash for name in "ab"]
    done = learned(world, bench, "run")
    assert [read_skill(bench / name).hash for name in "ab"] == before
    for control in application_controls(done.run.student.model):
        weight = control.weight
        moved = torch.cat([read_skill(bench / name).output(weight) for name in "ab"], 1)
        assert torch.equal(control.moved, moved)


def test_a_run_goes_on_bit_for_bit(world, bench):
    with pytest.raises(Stopped):
        learned(world, bench, "run", watch=stops_at(4))
    learned(world, bench, "run", resume="auto")
    assert curve("run") == curve(bench / "run")
    names = ("application.safetensors", "adapter_model.safetensors")
    assert all(Path("run/final", name).read_bytes() == (bench / "run/final" / name).read_bytes() for name in names)


NO = [
    ("plain a a", "is the skill of"),
    ("plain a few", "skills of an application change the same weights"),
    ("plain", "an application is over skills: name some behind the model"),
    ("plain a:x", "has weight 'x', which is no number"),
    ("plain panel", "is no skill: it has no skill.json"),
    ("other a", "was made for 'llama3', weights of SHA-256"),
]


@pytest.mark.parametrize(("words", "says"), cases(NO))
def test_what_no_application_can_be_of(world, bench, words, says):
    tiny.make("llama", dtype=torch.float32, seed=5).save_pretrained("other")
    growkit.panel(world / "llama3", "half", rank=4, layers="1")
    skill_on("half", "few", size=2)
    places = {"plain": world / "llama3", "a": bench / "a", "a:x": f"{bench / 'a'}:x", "panel": bench / "panel"}
    line = [places.get(word, word) for word in words.split()]
    refused("skill", "apply-layer", *line, "--data", world / "data", "--out", "no", "--steps", "2", says=says)


def test_a_bundle_stands_for_its_base_and_its_skills(monkeypatch):
    """The command runs on a real one in docs/skills.md."""
    bundle = SimpleNamespace(base="base", folders=(Path("b/skills/a"), Path("b/skills/c")), strengths=(1.0, 0.5))
    monkeypatch.setattr(apply_layer, "is_bundle", lambda place: place == "b")
    monkeypatch.setattr(apply_layer, "read_bundle", lambda _: bundle)
    assert apply_layer.skills_of("b", ()) == ("base", [(Path("b/skills/a"), 1.0), (Path("b/skills/c"), 0.5)])
    with pytest.raises(growkit.RequestError, match="'b' is a bundle, which has its skills in it; name none behind it"):
        apply_layer.skills_of("b", ["a"])


def test_two_processes_learn_the_same_application(world, bench):
    usual = dict(steps=3, shard="all", eval_every=1)
    assert pair(lambda: learned(world, bench, "two", **usual) and 0) == [0, 0]
    learned(world, bench, "one", **usual)
    assert losses_of("two") == pytest.approx(losses_of("one"), abs=1e-5)
    one, two = (read_application(f"{run}/final") for run in ("one", "two"))
    assert one[0] == two[0] and one[1].tensors.keys() == two[1].tensors.keys()
