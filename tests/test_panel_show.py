"""What a panel shows: energy, spectra, and what turning a direction does to the model, measured."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from refusing import cases, refused, run
from safetensors.torch import load_file, save_file

import growkit
from growkit.skills.panel_file import open_panel

UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shown")
    np.random.default_rng(0).integers(3, 61, 500).astype("<u2").tofile(folder / "text.bin")
    for family in ("llama", "gpt2", "bert"):
        tiny.make(family, dtype=torch.float32).save_pretrained(folder / family)
        growkit.panel(folder / family, folder / f"{family}-panel", rank=6, text=folder / "text.bin", seq_len=16)
    tiny.make("llama", dtype=torch.float32, seed=1).save_pretrained(folder / "other")
    return folder


@pytest.fixture(autouse=True)
def here(world, tmp_path, monkeypatch):
    for path in world.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)


def said(model, ids):
    with torch.no_grad():
        return model(input_ids=ids).logits.log_softmax(-1).flatten(0, 1).double()


@pytest.mark.parametrize("family, name, word", [
    ("llama", UP, "layers.1.mlp.up_proj:2"), ("llama", UP, f"{UP}:2:5"),
    ("gpt2", "transformer.h.1.mlp.c_fc.weight", "h.1.mlp.c_fc:2"),
], ids=["own direction", "two directions", "stored the other way"])  # fmt: skip
def test_what_turning_does_is_what_the_changed_weight_does(family, name, word):
    (turned,) = growkit.panel_show(f"{family}-panel", base=family, text="text.bin", turn=word, by=-0.5).turned
    panel, model = open_panel(f"{family}-panel"), tiny.make(family, dtype=torch.float32)
    ids = torch.from_numpy(np.fromfile("text.bin", "<u2").astype(np.int64))[: 64 * 7].view(7, 64)
    before = said(model, ids)
    u, control, v = panel.output_basis(name), panel.control(name), panel.input_basis(panel.header.weights[name].input)
    right = v[:, 4] if word.count(":") == 2 else v @ control[1] / control[1].norm()
    change = -0.5 * control[1].norm() * torch.outer(u[:, 1], right)
    model.get_parameter(name).data += change.T if family == "gpt2" else change
    after = said(model, ids)
    assert turned.kl == pytest.approx(float((before.exp() * (before - after)).sum(1).mean()), rel=1e-3)
    means = (after.exp() - before.exp()).mean(0)
    assert [moved.token for moved in turned.likelier] == [
        f"token {n}" for n in means.argsort(descending=True)[:8].tolist()
    ]
    assert [moved.token for moved in turned.rarer] == [f"token {n}" for n in means.argsort()[:8].tolist()]
    first = turned.likelier[0]
    assert first.after - first.before == pytest.approx(float(means.max()), rel=1e-3)
    assert (turned.weight, turned.write, turned.read) == (name, 2, 5 if word.count(":") == 2 else None)


def test_a_turn_by_nothing_does_nothing_and_three_of_the_middle_layer_are_turned_by_default():
    turned = growkit.panel_show("llama-panel", base="llama", text="text.bin", by=0).turned
    assert [one.write for one in turned] == [1, 2, 3] and {one.weight.split(".")[2] for one in turned} == {"1"}
    assert all(one.kl == 0 and one.likelier[0].before == one.likelier[0].after for one in turned)


def test_energy_and_spectra_are_those_of_the_panel():
    view, panel = growkit.panel_show("llama-panel").view, open_panel("llama-panel")
    assert [*view.energy] == [*view.text_energy] == [1, 2, 3] and len(view.energy[1]) == len(view.spectra) == 7
    assert view.energy[2]["mlp.up_proj"] == panel.header.weights[UP].energy
    norms = [panel.control(UP.replace(".1.", f".{layer}.")).norm(dim=1) for layer in range(3)]
    assert view.spectra["mlp.up_proj"] == pytest.approx(torch.stack([n / n.max() for n in norms]).mean(0).tolist())


def test_what_is_printed_and_drawn():
    line = "panel show bert-panel --picture picture.svg"
    shown = run(*line.split())
    assert shown.exit_code == 0 and "intermediate.dense" in shown.stdout and "attention.output.dense" in shown.stdout
    assert "█" in shown.stdout and Path("picture.svg").read_text().count("<path") > 10
    shown = run(
        *[
            "panel",
            "show",
            "llama-panel",
            "--base",
            "llama",
            "--text",
            "text.bin",
            "--turn",
            "2.mlp.down_proj:1",
            "--top",
            "2",
        ]
    )
    assert f"{UP.replace('1.mlp.up', '2.mlp.down')} direction 1, turned by +1 of its" in shown.stdout
    assert json.loads(run("panel", "show", "gpt2-panel", "--json").stdout)["energy"].keys() == {"1", "2", "3"}


REFUSED = cases(
    [
        ("panel show llama", "'llama' holds no panel.json, so it is no panel; make one with growkit panel"),
        (
            "panel show llama-panel --base llama",
            "what a control does is measured: name its model with --base and a text",
        ),
        ("panel show llama-panel --turn x:1", "name its model with --base and a text with --text"),
        ("panel show llama-panel --base other --text text.bin", "was made for 'llama', weights of SHA-256"),
        ("panel show llama-panel --base llama --text text.bin --turn up_proj:1", "3 weights end so, such as"),
        (
            "panel show llama-panel --base llama --text text.bin --turn nose:1",
            "it has such as 'model.layers.0.mlp.down",
        ),
        (
            "panel show llama-panel --base llama --text text.bin --turn 1.mlp.up_proj",
            "should be WEIGHT:I or WEIGHT:I:J",
        ),
        (
            "panel show llama-panel --base llama --text text.bin --turn 1.mlp.up_proj:7",
            "should name directions from 1 to 6",
        ),
        (
            "panel show bert-panel --base bert --text text.bin",
            "fills in masked tokens; turning shows what a model says next",
        ),
        ("panel show llama-panel --picture shape.txt", "--picture 'shape.txt' should end in .svg, .png or .pdf"),
        ("panel show llama-panel --picture no/shape.svg", "is in a folder that does not exist; choose another name"),
    ]
)


@pytest.mark.parametrize("line, says", REFUSED)
def test_one_sentence(line, says):
    refused(*line.split(), says=says)


def test_a_panel_that_speaks_of_other_sides_is_refused(tmp_path):
    """Whoever edits a panel's tensors is told, and not by a traceback of a product of matrices."""
    Path("edited").mkdir()
    (tmp_path / "edited/panel.json").write_text(Path("llama-panel/panel.json").read_text())
    tensors = load_file("llama-panel/panel.safetensors")
    longer = torch.cat([tensors[f"{UP}.U"], torch.zeros(2, 6)])
    save_file(tensors | {f"{UP}.U": longer}, "edited/panel.safetensors")
    line = "panel show edited --base llama --text text.bin --turn 1.mlp.up_proj:1"
    refused(*line.split(), says=f"'edited' speaks of {UP!r}, which its model has not so; make it again")
