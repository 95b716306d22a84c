"""What skills do to each other, measured on data: LoRAs too, through the whole network, and what mending one costs."""

import copy
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import peft
import pytest
import tiny
import torch
from loras import lora
from panels import plain_panel
from refusing import cases, refused, run
from safetensors.torch import load_file
from skill_folders import lora_folder
from skills import skill_on
from tiny_runs import conversations

import growkit
from growkit.skills.checking.check_page import colour_of
from growkit.skills.skill_file import read_skill

TARGETS = ["q_proj", "up_proj", "down_proj"]
DATA = ["one=one.bin", "lora=lora.bin"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A model in float64, its panel, a skill, a LoRA on some of its linear layers, and tokens of each."""
    folder = tmp_path_factory.mktemp("shop")
    tiny.make("llama", dtype=torch.float64).save_pretrained(folder / "base")
    plain_panel(folder / "base", folder / "panel", rank=6)
    skill_on(folder / "panel", folder / "one", adapter=2)
    skill_on(folder / "panel", folder / "blind", seed=1, read=0)
    lora_folder(tiny.make("llama", dtype=torch.float64), folder / "lora", target_modules=TARGETS)
    for seed, name in enumerate(("one", "lora", "general")):
        np.random.default_rng(seed).integers(3, 61, 12).astype("<u2").tofile(folder / f"{name}.bin")
    conversations(folder / "talks", names=())
    return folder


@pytest.fixture(autouse=True)
def here(shop, tmp_path, monkeypatch):
    for path in shop.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)


def ids_of(name):
    return torch.from_numpy(np.fromfile(f"{name}.bin", "<u2").astype(np.int64))[None]


def deltas(folder):
    """What a skill or a LoRA adds to weights, by name."""
    if (Path(folder) / "skill.json").exists():
        skill = read_skill(folder)
        return {weight: skill.delta(weight).double() for weight in skill.facts.weights}
    stored = load_file(Path(folder) / "adapter_model.safetensors")
    scale = 6 / 3
    found = {}
    for name in stored:
        if ".lora_A" in name:
            weight = name.removeprefix("base_model.model.").replace("lora_A.", "")
            found[weight] = scale * stored[name.replace("lora_A", "lora_B")].double() @ stored[name].double()
    return found


def with_on(*folders):
    """The base with these added to its weights."""
    model = tiny.make("llama", dtype=torch.float64)
    state = copy.deepcopy(model.state_dict())
    for folder in folders:
        for weight, delta in deltas(folder).items():
            state[weight] += delta
    model.load_state_dict(state)
    return model


def told(ids, *folders):
    with torch.no_grad():
        return torch.log_softmax(with_on(*folders)(ids[:, :-1]).logits[0], -1)


def loss(ids, *folders):
    return -float(told(ids, *folders).gather(1, ids[0, 1:, None]).mean())


def kl(one, other):
    return float((one.exp() * (one - other)).sum(-1).mean())


def read_by(model, ids):
    """(tokens, in): what each weight reads."""
    seen = {}
    hooks = [
        module.register_forward_pre_hook(
            lambda _, given, name=name: seen.setdefault(f"{name}.weight", given[0].flatten(0, -2))
        )
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    with torch.no_grad():
        model(ids)
    for hook in hooks:
        hook.remove()
    return seen


def check(*skills, data=DATA, **more):
    return growkit.skill_check("panel", skills or ["one", "lora"], base="base", data=data, **more)


def test_rho_of_a_lora_is_that_of_what_its_layers_put_out():
    """On data of its own and of a skill, whose inputs are a panel's, to 1e-9: neither needs a sketch."""
    checked, model = check(), tiny.make("llama", dtype=torch.float64)
    for target, source in (("one", "lora"), ("lora", "one")):
        pair, seen = checked.pair(source, target), read_by(model, ids_of(target)[:, :-1])
        of, own = deltas(source), deltas(target)
        expected = {
            weight: float((seen[weight] @ of[weight].T).norm() / (seen[weight] @ own[weight].T).norm())
            if weight in of
            else 0.0
            for weight in own
        }
        assert pair.rho == pytest.approx(expected, rel=1e-6)
        assert pair.beside == len(of.keys() - own.keys())
    assert [skill.kind for skill in checked.skills] == ["skill", "lora"]


def test_what_is_measured_through_the_network_is_that_of_plugged_models():
    """Losses and divergences against models whose weights were changed by hand."""
    checked = check(text="general.bin")
    for line, other in zip(checked.skills, ("lora", "one")):
        ids, name = ids_of(line.name), line.name
        base, alone, both = told(ids), told(ids, name), told(ids, "one", "lora")
        pair = checked.pair(other, name)
        assert pair.kl == pytest.approx(kl(alone, both), rel=1e-5) and pair.own_kl == pytest.approx(
            kl(alone, base), rel=1e-5
        )
        assert pair.network == pytest.approx((kl(alone, both) / kl(alone, base)) ** 0.5, rel=1e-5)
        found = line.losses
        expected = (loss(ids), loss(ids, name), loss(ids, "one", "lora"))
        assert (found.base, found.alone, found.plugged) == pytest.approx(expected, rel=1e-6)
        if found.kept is not None:
            assert found.kept == pytest.approx((expected[0] - expected[2]) / (expected[0] - expected[1]))
    general, ids = checked.general, ids_of("general")
    assert (general.base, general.plugged) == pytest.approx((loss(ids), loss(ids, "one", "lora")), rel=1e-6)
    assert general.alone == pytest.approx({name: loss(ids, name) for name in ("one", "lora")}, rel=1e-6)
    assert general.kl == pytest.approx(kl(told(ids), told(ids, "one", "lora")), rel=1e-5)
    shown = run("skill", "check", "panel", "one", "lora", "--base", "base", "--text", "general.bin", *split(DATA))
    assert shown.exit_code == int(bool(checked.red)) and "gain kept" in shown.stdout and "no skill" in shown.stdout


def split(data):
    return [word for one in data for word in ("--data", one)]


def test_data_stands_in_for_a_sketch_and_a_sketch_for_data():
    """A skill without a sketch is measured; what another's sketch says stays as it was."""
    checked = check("one", "blind", data=["blind=one.bin"])
    assert checked.pair("one", "blind").rho and checked.pair("blind", "one").kl is None
    skill_on("panel", "seen", seed=1)
    assert growkit.skill_check("panel", ["one", "seen"]).pair("seen", "one").rho == pytest.approx(
        checked.pair("blind", "one").rho
    )
    turned = check("one", "blind", data=["blind=one.bin"], device="cpu").pair("one", "blind").rho
    assert turned == checked.pair("one", "blind").rho


def test_of_conversations_the_answers_count():
    """As eval has it; each conversation by itself, and what fills a row up is neither read nor predicted."""
    checked = check("one", "blind", data=["one=talks", "blind=talks"], tokens=10_000)
    measured = growkit.evaluate("base", "talks")
    for line in checked.skills:
        assert line.losses.base == pytest.approx(measured.loss, rel=1e-5)


def test_layers_that_store_their_weights_across(tmp_path):
    """GPT-2: a LoRA's loss is what eval says with it on, and rho of two equal ones is 1."""
    growkit.panel(tiny_gpt2(), "panel-2", rank=4)
    lora_folder(tiny.make("gpt2", dtype=torch.float32), "lora-2")
    Path("twin").symlink_to("lora-2")
    skills = ["lora-2", "twin=twin:-1"]
    checked = growkit.skill_check("panel-2", skills, base="gpt2", data=["lora-2=one.bin", "twin=one.bin"])
    measured = growkit.evaluate("gpt2", "one.bin", adapter="lora-2")
    assert checked.skills[0].losses.alone == pytest.approx(measured.loss, rel=1e-5)
    assert checked.skills[0].losses.plugged == pytest.approx(growkit.evaluate("gpt2", "one.bin").loss, rel=1e-5)
    pair = checked.pair("twin", "lora-2")
    assert len(pair.rho) == 4 * 3 and pair.rho == pytest.approx(dict.fromkeys(pair.rho, 1.0))
    assert pair.network == pytest.approx(1, rel=1e-3) and pair.band == "red"


def tiny_gpt2():
    tiny.make("gpt2", dtype=torch.float32).save_pretrained("gpt2")
    return "gpt2"


def test_a_mended_lora_reads_no_more_what_the_others_are_made_of():
    checked = check(repair="lora", out="mended", share=0.9)
    mended = checked.repaired
    before, after = mended.rho["one"]
    assert before == checked.pair("lora", "one").mean and after < 0.5 * before and 0 < mended.lost < 1
    assert {path.name for path in Path("mended").iterdir()} == {"adapter_model.safetensors", "adapter_config.json"}
    again = check("one", "lora=mended")
    assert again.pair("lora", "one").mean == pytest.approx(after, rel=1e-4)
    old, new = load_file("lora/adapter_model.safetensors"), load_file("mended/adapter_model.safetensors")
    assert old.keys() == new.keys()
    for name in old:
        assert torch.equal(old[name], new[name]) == (".lora_B" in name) and old[name].dtype == new[name].dtype
    peft.PeftModel.from_pretrained(tiny.make("llama", dtype=torch.float64), "mended")
    hard = check(repair="lora", out="mended", share=0.9999, force=True).repaired
    assert hard.rho["one"][1] < after and hard.lost > mended.lost and hard.directions > mended.directions


@pytest.mark.parametrize(
    "words, says",
    cases(
        [
            ("one lora", "'lora' is a LoRA, which carries no sketch; what it does is measured: name the model with --base"),
            ("one lora --base base --data lora=lora.bin", "'one' has a sketch of the panel's directions, and lora, a LoRA, reads others; give its data"),
            ("one lora --base base --data one=one.bin", "'lora' carries no sketch; give its data: --base MODEL --data lora=DATA"),
            ("one blind", "'blind' has a sketch of no tokens; give its data: --base MODEL --data blind=DATA"),
            ("one blind --data blind=one.bin", "is measured on the model; name it with --base"),
            ("one blind --base base", "--base is for what is measured on data; give that with --data SKILL=DATA or --text"),
            ("one blind --base base --data one.bin", "--data 'one.bin' should be SKILL=DATA, such as one=DATA"),
            ("one blind --base base --data two=one.bin", "--data 'two=one.bin' is of none of the skills one, blind"),
            ("one blind --base base --data blind=a --data blind=b", "--data is given twice for 'blind'"),
            ("one blind --base base --data blind=absent.bin", "'absent.bin' does not exist"),
            ("one blind --base other --data blind=one.bin", "name the model it was made for"),
            ("one blind --base base --data blind=short.bin", "'short.bin' is too short: it makes 1 tokens"),
            ("one blind --base base --data blind=large.bin", "holds"),
            ("one lora --base base --data one=one.bin --data lora=lora.bin --repair lora", "--repair SKILL makes a new LoRA in --out; give both"),
            ("one lora --base base --data one=one.bin --data lora=lora.bin --repair two -o out", "--repair 'two' is none of the skills one, lora"),
            ("one lora --base base --data one=one.bin --data lora=lora.bin --repair one -o out", "'one' is a skill of a panel: learn it again with --protect"),
            ("one lora --base base --data one=one.bin --data lora=lora.bin --repair lora -o lora", "choose another with -o"),
            ("one lora --base base --data one=one.bin --data lora=lora.bin --repair lora --share 1 -o out", "--share 1 should be above 0 and below 1"),
            ("one head --base base --data one=one.bin --data head=lora.bin", "changes 'lm_head.weight' other than by A and B of a linear layer"),
        ]
    ),
)  # fmt: skip
def test_refusals(words, says):
    if " other " in words:
        tiny.make("llama", seed=5, dtype=torch.float64).save_pretrained("other")
    if " head " in words:
        lora({"lm_head": (61, 24)}, "head")
    np.array([5], "<u2").tofile("short.bin")
    np.full(20, 900, "<u2").tofile("large.bin")
    refused("skill", "check", "panel", *words.split(), says=says)
    assert json.loads(run("skill", "check", "panel", *words.split(), "--json").stdout)["exit"] == 2


def test_the_report_is_one_page_that_says_it_all():
    """Heat maps by pair, by layer and by kind of weight; names of files are no HTML."""
    Path("<b>one").symlink_to("one")
    checked = check("a.b=<b>one", "lora", data=["a.b=one.bin", DATA[1]], text="general.bin", report="seen.html")
    page = Path("seen.html").read_text()
    tree = ElementTree.fromstring(page.partition("<!doctype html>")[2].replace('<meta charset="utf-8">', ""))
    maps = tree.findall(".//{http://www.w3.org/2000/svg}svg")
    told = [["".join(cell.itertext()) for cell in svg.iter("{http://www.w3.org/2000/svg}title")] for svg in maps]
    mean = checked.pair("lora", "a.b").mean
    assert f"lora, a.b: {mean:.3g}" in told[0] and "a.b, a.b: -" in told[0] and len(told[0]) == 4
    assert len(told[1]) == 2 * 3 and len(told[2]) == 2 * 7  # layers, kinds of linear layers
    assert (
        "&lt;b&gt;one" in page
        and "<b>one" not in page
        and "all plugged" in page
        and not re.search(r"(src|href)=", page)
    )
    assert colour_of(0) != colour_of(0.1) != colour_of(0.3) != colour_of(1) == colour_of(50)


@pytest.mark.parametrize(
    "name, says", [("seen.txt", "should end in .html"), ("no/seen.html", "in a folder that does not exist")]
)
def test_reports_that_cannot_be(name, says):
    refused("skill", "check", "panel", "one", "lora", "--report", name, says=says)
