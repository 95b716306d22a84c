"""What skills do to each other: sketches say what samples say, the bands, the table, and what is refused."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from panels import plain_panel
from refusing import cases, refused, run
from safetensors.torch import load_file, save_file
from skills import skill_on

import growkit
from growkit.skills.checking.rho import Interference, band_of, interference_of
from growkit.skills.panel_file import open_panel
from growkit.skills.skill_file import read_skill


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A model in float64, its panel, and three skills that were made on tokens of their own."""
    folder = tmp_path_factory.mktemp("shop")
    model = tiny.make("llama", dtype=torch.float64)
    model.save_pretrained(folder / "base")
    plain_panel(folder / "base", folder / "panel", rank=6)
    for seed, name in enumerate(("one", "two", "three")):
        sketches = {
            group: v.T @ (x.T @ x / len(x)) @ v
            for group, v, x in (
                (group, open_panel(folder / "panel").input_basis(group).double(), inputs_of(model, seed, weights[0]))
                for group, weights in open_panel(folder / "panel").header.groups.items()
            )
        }
        skill_on(folder / "panel", folder / name, seed=seed, adapter=seed, sketches=sketches)
    return folder


@pytest.fixture(autouse=True)
def here(shop, tmp_path, monkeypatch):
    for path in shop.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)


def inputs_of(model, seed, weight):
    """(tokens, in): what a weight reads of a skill's tokens."""
    seen = []
    hook = model.get_submodule(weight.removesuffix(".weight")).register_forward_pre_hook(
        lambda _, given: seen.append(given[0].detach().flatten(0, 1))
    )
    model(tiny.tokens(seed))
    hook.remove()
    return seen[0]


def put(folder, change=lambda tensors: None, **says):
    """Change a tensor of a skill that is a copy of `one`."""
    tensors = load_file("one/skill.safetensors")
    Path(folder).mkdir()
    change(tensors)
    save_file(tensors, Path(folder) / "skill.safetensors")
    said = json.loads(Path("one/skill.json").read_text())
    (Path(folder) / "skill.json").write_text(json.dumps(said | says))


def test_what_a_sketch_says_is_what_samples_say(shop):
    """rho from stored sketches and from the inputs themselves, to 1e-6; every pair and every weight."""
    model = tiny.make("llama", dtype=torch.float64)
    checked = growkit.skill_check("panel", ["one", "two", "three"])
    names = ("one", "two", "three")
    assert [(pair.source, pair.target) for pair in checked.pairs] == [(s, t) for t in names for s in names if s != t]
    skills = {name: read_skill(name) for name in names}
    for pair in checked.pairs:
        assert len(pair.rho) == len(open_panel("panel").header.weights) and not pair.beside
        for weight, rho in pair.rho.items():
            x = inputs_of(model, names.index(pair.target), weight)
            put_out = [(x @ skills[name].delta(weight).double().T).norm() for name in (pair.source, pair.target)]
            assert rho == pytest.approx(float(put_out[0] / put_out[1]), rel=1e-6)
        assert pair.mean == pytest.approx(sum(pair.rho.values()) / len(pair.rho)) and pair.largest == max(
            pair.rho.values()
        )


def test_rho_goes_with_strengths_and_names_are_the_persons():
    plain = growkit.skill_check("panel", ["one", "two"])
    other = growkit.skill_check("panel", ["a=one:0.5", "b=two:-2"])
    assert [skill.name for skill in other.skills] == ["a", "b"] and other.skills[1].strength == -2
    for there, here, factor in ((("one", "two"), ("a", "b"), 0.25), (("two", "one"), ("b", "a"), 4)):
        expected = {weight: rho * factor for weight, rho in plain.pair(*there).rho.items()}
        assert other.pair(*here).rho == pytest.approx(expected)
    assert other.skills[0].lost == pytest.approx(other.pair("b", "a").mean ** 2)


def test_bands():
    assert [band_of(value) for value in (0, 0.1, 0.1001, 0.3, 0.3001)] == ["green", "green", "amber", "amber", "red"]
    pair = Interference(source="s", target="t", rho={"w": 0.05, "v": 0.13})
    assert pair.mean == pytest.approx(0.09) and pair.band == "green" and pair.worst(1) == [("v", 0.13)]
    told = dict(source="s", target="t", rho={"w": 0.05})
    assert Interference(**told, kl=0.04, own_kl=1.0).band == "amber"  # sqrt(0.04): the network says more than rho
    assert (
        Interference(**told, beside=1).band == "amber"
        and Interference(**told, beside=1, kl=1e-4, own_kl=1.0).band == "green"
    )
    nothing = interference_of("s", "t", {"w": 0.0}, {"w": 0.0})
    assert nothing.mean is None and nothing.largest is None and nothing.band == "green"
    apart = interference_of("s", "t", {"w": 1.0, "v": 1.0}, {"w": 4.0, "u": 1.0})
    assert apart.rho == {"w": 0.5, "u": 0.0} and apart.beside == 1


def test_red_is_an_exit_code_and_green_pairs_are_told():
    red = run("skill", "check", "panel", "one", "two", "--json")
    said = json.loads(red.stdout)
    assert (
        red.exit_code == 1
        and said["red"]
        and not said["together"]
        and said == growkit.skill_check("panel", ["one", "two"]).to_json()
    )
    shown = run("skill", "check", "panel", "one", "two")
    assert shown.exit_code == 1 and "red: gate them" in shown.stdout.replace("\n", " ")
    put("still", lambda tensors: [tensor.zero_() for name, tensor in tensors.items() if name.endswith(".R")])
    nothing = run("skill", "check", "panel", "one", "still")
    assert nothing.exit_code == 0 and "still changes nothing yet" in nothing.stdout
    checked = growkit.skill_check("panel", ["one", "still"])
    assert checked.pair("still", "one").band == "green" and checked.pair("one", "still").band == "amber"


def test_skills_apart_are_green():
    """What each reads, the other's data does not have."""
    for name, reads in (("left", [0, 1, 2]), ("right", [3, 4, 5])):
        skill_on("panel", name, reads=reads)
    checked = growkit.skill_check("panel", ["left", "right"])
    assert checked.together == [("left", "right")] and not checked.red and checked.pair("left", "right").largest < 1e-6
    shown = run("skill", "check", "panel", "left", "right")
    assert shown.exit_code == 0 and "--together left,right" in shown.stdout


def fill(ending, value):
    def change(tensors):
        for name in [name for name in tensors if name.endswith(ending)]:
            tensors[name].fill_(value)

    return change


@pytest.mark.parametrize(
    "words, says",
    cases(
        [
            ("one", "compares skills, and 1 is named; name two or more"),
            ("one one", "'one' and 'one' are both called 'one'; name one, such as other=one"),
            ("one two:40", "skill 'two' has strength 40, which should be from -16 to 16"),
            ("one panel", "'panel' is no skill: it has no skill.json"),
            ("one base", "'base' is no skill: it has no skill.json"),
            ("one other", "rank 6, basis data: its panel has rank 5; sketches compare on one panel alone"),
            ("one turned", "rank 6, basis data: their bases differ; sketches compare on one panel alone"),
            (
                "one foreign",
                "'foreign' was learned on 'elsewhere', weights of SHA-256 aaaaaaaaaaaa..., and 'panel' is the panel of",
            ),
            ("one blind", "'blind' has a sketch of no tokens"),
            ("one wild", "holds NaN or Inf; learn the skill again"),
            ("one skewed", ".K' is no covariance; learn the skill again"),
            ("one strange", "it changes 'model.layers.9.mlp.up_proj.weight', which the panel has not"),
        ]
    ),
)
def test_refusals(words, says):
    named = words.split()[-1]
    if named == "other":
        plain_panel(Path("base"), Path("small"), rank=5)
        skill_on("small", "other")
    base = {"name": "elsewhere", "files": {"model.safetensors": "a" * 64}}
    facts = {
        "turned": dict(panel="b" * 64),
        "foreign": dict(base=base),
        "blind": dict(sketch={"tokens": 0, "data": None}),
    }
    changes = {"wild": fill(".R", float("nan")), "skewed": fill(".K", -1.0)}
    if named in facts.keys() | changes.keys():
        put(named, changes.get(named, lambda tensors: None), **facts.get(named, {}))
    if named == "strange":
        weights = json.loads(Path("one/skill.json").read_text())["weights"]
        group = weights["model.layers.1.mlp.up_proj.weight"]

        def add(tensors):
            for part in ("Q", "R", "U_s"):
                name = f"model.layers.1.mlp.up_proj.weight.{part}"
                tensors[name.replace("layers.1", "layers.9")] = tensors[name].clone()

        put(named, add, weights=weights | {"model.layers.9.mlp.up_proj.weight": group})
    refused("skill", "check", "panel", *words.split(), says=says)
    refused("skill", "check", "panel", *words.split(), "--json", says=says)
