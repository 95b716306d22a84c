"""Control panels: what their bases are, what they keep, what they read of a text; and what is refused."""

import json
import weakref
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from covering import sample
from on_disk import edit_weights
from refusing import cases, refused, run
from safetensors.torch import load_file

import growkit
from growkit.families import FAMILIES
from growkit.models.small.targets import linear_layers
from growkit.skills import bases, general_text, make_panel
from growkit.skills.layer_inputs import LayerInputs
from growkit.skills.panel_file import open_panel

Q = "model.layers.1.self_attn.q_proj.weight"
TEXT = dict(text="text.bin", seq_len=16)


def matrix(rows, columns, seed, decay=0.0):
    """(rows, columns), float64, whose singular values fall as 1 / i^decay."""
    draws = torch.Generator().manual_seed(seed)
    plain = torch.randn(rows, columns, generator=draws, dtype=torch.float64)
    left, values, right = torch.linalg.svd(plain, full_matrices=False)
    return left * (values / torch.arange(1, len(values) + 1) ** decay) @ right


def draws():
    return torch.Generator().manual_seed(3)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("panels")
    for family in ("llama", "gpt2", "bert", "qwen2_moe", "mixtral"):
        tiny.make(family, dtype=torch.float32).save_pretrained(folder / family)
    np.random.default_rng(0).integers(3, 61, 2000).astype("<u2").tofile(folder / "text.bin")
    (folder / "words.txt").write_text("some words")
    return folder


@pytest.fixture(autouse=True)
def here(world, tmp_path, monkeypatch):
    for path in world.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)


# ---------------------------------------------------------------- bases


@pytest.mark.parametrize("shape", [(30, 20), (20, 30)])
def test_without_text_the_basis_is_that_of_the_singular_vectors(shape):
    weight = matrix(*shape, seed=0, decay=1)
    found = bases.input_directions(weight, 5, draws())
    _, values, right = torch.linalg.svd(weight)
    assert torch.allclose(found.basis @ found.basis.T, right[:5].T @ right[:5], atol=1e-10) and found.error < 1e-12
    u, control = bases.output_directions(weight, found.basis)
    assert torch.allclose(control, u.T @ weight @ found.basis, atol=1e-12)
    assert torch.allclose(control.norm(dim=1), values[:5]) and torch.allclose(u.T @ u, torch.eye(5).double())
    assert (
        abs(bases.kept(weight, u, control, found.basis) - float(values[:5].square().sum() / values.square().sum()))
        < 1e-12
    )


@pytest.mark.parametrize("seen", [200, 7], ids=["a whole moment", "a singular one"])
def test_with_text_no_other_basis_keeps_more_of_what_comes_out(seen):
    weight, inputs = matrix(30, 20, seed=1), matrix(seen, 20, seed=2, decay=0.5)
    moment = inputs.T @ inputs / seen
    found = bases.input_directions(weight, 5, draws(), moment)
    best = torch.linalg.eigvalsh(weight @ moment @ weight.T).flip(0)
    u, control = bases.output_directions(weight, found.basis, moment)
    kept = bases.kept(weight, u, control, found.basis, moment)
    assert abs(kept - float(best[:5].sum() / best.sum())) < 1e-9
    sampled = inputs @ weight.T
    lost = sampled - inputs @ found.basis @ control.T @ u.T
    assert abs(kept - float(1 - lost.square().sum() / sampled.square().sum())) < 1e-9
    plain = bases.input_directions(weight, 5, draws()).basis
    assert bases.kept(weight, *bases.output_directions(weight, plain), plain, moment) < kept - 0.01


@pytest.mark.parametrize("with_text", [False, True])
def test_a_randomised_decomposition_says_how_far_off_it_is(with_text, monkeypatch):
    """Where singular values fall it is the whole one; where they do not, its error says so."""
    errors = []
    for decay in (1.0, 0.0):
        weight, inputs = matrix(90, 80, seed=0, decay=decay), matrix(100, 80, seed=1)
        moment = inputs.T @ inputs if with_text else None
        whole = bases.input_directions(weight, 4, draws(), moment).basis
        monkeypatch.setattr(bases, "WHOLE", 0)
        found = bases.input_directions(weight, 4, draws(), moment)
        monkeypatch.undo()
        apart = float((whole @ whole.T - found.basis @ found.basis.T).norm())
        errors.append((apart, found.error))
    (near, small), (far, large) = errors
    assert near < 1e-2 and small < 1e-3 and far > 10 * near and large > 10 * small and far < 30 * large


@pytest.mark.parametrize("with_text", [False, True])
def test_of_weights_that_share_an_input_no_large_one_takes_all_directions(with_text):
    inputs = matrix(100, 20, seed=3)
    moment = inputs.T @ inputs if with_text else None
    weights = [100 * matrix(20, 20, seed=1, decay=1), matrix(20, 20, seed=2, decay=1)]

    def shares(rows):
        basis = bases.input_directions(rows, 6, draws(), moment).basis
        sides = [bases.output_directions(weight, basis, moment) for weight in weights]
        return [bases.kept(weight, *side, basis, moment) for weight, side in zip(weights, sides)]

    fair, plain = shares(bases.stacked(weights, moment)), shares(torch.cat(weights))
    assert min(fair) > min(plain) + 0.2 and max(fair) - min(fair) < 0.1


def test_a_weight_of_zeros_has_a_basis_too():
    found = bases.input_directions(torch.zeros(6, 5), 3, draws())
    assert torch.allclose(found.basis.T @ found.basis, torch.eye(3), atol=1e-6) and found.error == 0
    u, control = bases.output_directions(torch.zeros(6, 5), found.basis)
    assert bases.kept(torch.zeros(6, 5), u, control, found.basis) == 1 and not control.any()


# ---------------------------------------------------------------- what a model reads


@pytest.mark.parametrize("family", sample(tiny.CONFIGS))
def test_moments_of_a_pass_layer_by_layer_are_those_of_the_model(family):
    """Of every family, whatever its layers are called with; batches may differ in size, layers may be passed over."""
    model, ids = tiny.make(family), tiny.tokens(batch=5, length=12)
    modules = [layer.module for layer in linear_layers(model)]
    read = {}
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, inputs, name=name: read.__setitem__(name, inputs[0].flatten(0, -2))
        )
        for name in modules
    ]
    with torch.no_grad():
        model(input_ids=ids)
    for hook in hooks:
        hook.remove()
    passing = LayerInputs(model, ids, tokens=24)
    for layer in (0, 2):
        own = {name: name for name in modules if FAMILIES[family].layer_of(name + ".weight") == layer}
        moments = passing.moments(layer, own)
        assert moments.keys() == own.keys() and own
        for name, moment in moments.items():
            assert torch.allclose(moment, read[name].T @ read[name] / ids.numel(), rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------- panels


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "qwen2_moe"])
@pytest.mark.parametrize("basis", ["svd", "data"])
def test_a_panel_holds_what_its_weights_do_between_its_bases(family, basis):
    made = growkit.panel(family, "panel", rank=9, basis=basis, **TEXT)
    panel, state = open_panel("panel"), load_file(Path(family) / "model.safetensors")
    assert panel.header == made.header
    for name, weight in panel.header.weights.items():
        matrix = state[name].T if family == "gpt2" else state[name]
        u, v = panel.output_basis(name), panel.input_basis(weight.input)
        assert panel.sides(name) == tuple(matrix.shape)
        assert torch.allclose(panel.control(name), u.T @ matrix @ v, atol=1e-5)
        kept = float((u @ panel.control(name) @ v.T).square().sum() / matrix.square().sum())
        assert abs(weight.energy - kept) < 1e-5 and weight.error < 1e-5 and 0 < weight.text_energy < 1
    shared = {tuple(names) for names in panel.header.groups.values() if len(names) > 1}
    assert len(shared) == {"llama": 6, "gpt2": 0, "bert": 3, "qwen2_moe": 3 + 2 + 1}[family]


def test_with_text_a_panel_keeps_more_of_what_comes_out_and_sketches_it():
    plain, data = (growkit.panel("llama", kind, rank=6, basis=kind, **TEXT).header.weights for kind in ("svd", "data"))
    assert all(data[name].text_energy > plain[name].text_energy for name in plain)
    panel = open_panel("svd")
    model = tiny.make("llama", dtype=torch.float32)
    ids = torch.from_numpy(np.fromfile("text.bin", "<u2").astype(np.int64)).view(-1, 16)
    moment = LayerInputs(model, ids).moments(1, {"x": Q.removesuffix(".weight")})["x"].float()
    v = panel.input_basis("model.layers.1.self_attn.input")
    assert torch.allclose(panel.sketch("model.layers.1.self_attn.input"), v.T @ moment @ v, rtol=1e-3, atol=1e-5)
    assert panel.header.texts == {"sha256": panel.header.texts["sha256"], "tokens": 2000, "seq_len": 16}


def test_a_panel_of_some_weights_is_a_part_of_the_whole_one_and_the_same_bytes_again():
    growkit.panel("llama", "whole", rank=5, **TEXT)
    growkit.panel("llama", "again", rank=5, **TEXT)
    growkit.panel("llama", "part", rank=5, layers="2", modules="mlp", **TEXT)
    for name in ("panel.json", "panel.safetensors"):
        assert Path("whole", name).read_bytes() == Path("again", name).read_bytes()
    whole, part = (load_file(Path(name, "panel.safetensors")) for name in ("whole", "part"))
    assert {name.split(".")[2] for name in part} == {"1"} and {name.split(".")[3] for name in part} == {"mlp"}
    assert len(part) == 3 * 2 + 2 * 2
    assert all(torch.equal(whole[name], tensor) for name, tensor in part.items())


def test_memory_holds_the_weights_of_one_input_and_the_moments_of_one_layer(monkeypatch):
    held, most = {"_read": [], "_pass": []}, {"_read": 0, "_pass": 0}

    def counted(owner, name, tensors_of):
        plain = getattr(owner, name)

        def counting(*arguments):
            result = plain(*arguments)
            held[name] += map(weakref.ref, tensors_of(result))
            most[name] = max(most[name], sum(one() is not None for one in held[name]))
            return result

        monkeypatch.setattr(owner, name, counting)

    counted(make_panel, "_read", lambda weight: [weight])
    counted(LayerInputs, "_pass", lambda moments: moments.values())
    growkit.panel("llama", "panel", rank=4, **TEXT)
    assert [*map(len, held.values())] == [21, 12] and most == {"_read": 3, "_pass": 4}


def test_what_is_cut_and_what_is_left_out_is_said():
    assert "the outputs of 6 weights have fewer directions, down to 12" in growkit.panel("llama", "a", rank=16).notes[0]
    wide = growkit.panel("llama", "b", rank=64)
    assert "12 inputs of 12" in wide.notes[0] and all(
        weight.energy > 1 - 1e-5 for weight in wide.header.weights.values()
    )
    (note,) = growkit.panel("mixtral", "c", rank=8).notes
    assert note.startswith("the experts of a mixtral are left out")
    assert not growkit.panel("mixtral", "d", rank=8, modules="attention").notes
    assert (
        "16 tokens cannot show all 40 directions"
        in growkit.panel("llama", "e", rank=8, basis="data", tokens=16, **TEXT).notes[0]
    )


def test_the_command_is_the_function():
    shown = run("panel", "llama", "--rank", 8, "-o", "one")
    assert shown.exit_code == 0 and "21 weights that read 12 inputs, rank 8, basis svd, scale relative" in shown.stdout
    machine = run("panel", "llama", "--rank", 8, "-o", "one", "--force", "--json")
    assert json.loads(machine.stdout)["weights"] == json.loads(Path("one/panel.json").read_text())["weights"]


# ---------------------------------------------------------------- refusals


def test_a_panel_is_no_model():
    growkit.panel("llama", "panel", rank=2)
    for line in ("inspect panel", "panel panel -o out", "verify llama panel", "merge panel --base llama -o out"):
        refused(
            *line.split(), says="'panel' is a control panel and no model: learn skills on it with growkit skill learn"
        )


REFUSED = cases(
    [
        (
            "panel llama -o out --basis data",
            "--basis data follows what the model reads of a text; give one with --text",
        ),
        ("panel llama -o out --layers 2-4", "--layers '2-4' should name layers from 1 to the model's 3, such as 1-3"),
        ("panel llama -o out --layers first", "--layers 'first' should be layers such as 1-8,12"),
        ("panel llama -o out --rank 0", "--rank 0 should be from 1 to"),
        ("panel llama -o out --text nowhere", "'nowhere' does not exist"),
        ("panel llama -o out --text text.bin --seq-len 65", "--seq-len 65 is more than the model's 64 positions"),
        ("panel llama -o out --text words.txt", "'llama' has no tokenizer to read text with"),
        ("panel mixtral -o out --modules mlp", "no linear weight is left for --modules mlp: what experts have is none"),
        ("panel llama -o llama/panel", "output 'llama/panel' is inside the source"),
        ("panel llama -o bert --force", "output 'bert' exists and is no folder"),
        ("panel nowhere -o out", "'nowhere' does not exist"),
        ("panel llama -o out --basis pca", "--basis 'pca' is not one of svd, data"),
    ]
)


@pytest.mark.parametrize("line, says", REFUSED)
def test_one_sentence(line, says):
    refused(*line.split(), says=says)


def test_windows_are_spread_evenly_over_all_that_is_given(tmp_path):
    for name, ids in (("one.bin", np.arange(35)), ("two.bin", np.arange(35, 60)), ("few.bin", np.arange(4))):
        ids.astype("<u2").tofile(name)
    config = tiny.make("llama").config.to_dict()
    given = ["one.bin", "few.bin", "two.bin"]
    read = general_text.general_text(given, tmp_path, config, "llama", 1000, 10).ids
    assert read[:, 0].tolist() == [0, 10, 20, 35, 45] and read[-1].tolist() == [*range(45, 55)]
    assert general_text.general_text(given, tmp_path, config, "llama", 30, 10).ids[:, 0].tolist() == [0, 20, 45]


def test_text_that_is_too_short_or_of_another_vocabulary_is_refused():
    np.arange(10, dtype="<u2").tofile("short.bin")
    refused(
        "panel", "llama", "-o", "out", "--text", "short.bin", "--seq-len", 16, says="makes 10 tokens at most, too few"
    )
    np.full(100, 61, "<u2").tofile("beyond.bin")
    refused("panel", "llama", "-o", "out", "--text", "beyond.bin", says="--text holds token 61, and the embedding of")


def test_a_weight_that_is_no_number_is_refused(tmp_path):
    tiny.make("llama", dtype=torch.float32).save_pretrained("broken")
    edit_weights(Path("broken"), lambda state: state[Q].fill_(torch.nan))
    refused("panel", "broken", "-o", "out", says=f"tensor {Q!r} of 'broken' holds NaN; fetch it again")
