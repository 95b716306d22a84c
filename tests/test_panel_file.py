"""The folder of a panel: what is written is what is read, and what is damaged is refused in one sentence."""

import json

import pytest
import tiny
import torch
from panels import plain_panel
from safetensors.torch import load_file, save_file

from growkit.checkpoint.source import open_checkpoint
from growkit.errors import CheckpointError, RequestError
from growkit.skills.panel_file import open_panel, write_panel

Q, DOWN = "model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.down_proj.weight"
INPUT = "model.layers.0.self_attn.input"


@pytest.fixture
def panel(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.make("llama", dtype=torch.float32).save_pretrained(tmp_path / "base")
    plain_panel(tmp_path / "base", tmp_path / "panel", rank=16)
    return tmp_path / "panel"


def test_what_is_written_is_read(panel):
    opened, state = open_panel(panel), load_file(panel.parent / "base" / "model.safetensors")
    u, v, control = opened.output_basis(Q), opened.input_basis(INPUT), opened.control(Q)
    assert opened.sides(Q) == (24, 24) and opened.sides(DOWN) == (24, 40)
    assert torch.allclose(control, u.T @ state[Q] @ v, atol=1e-5)
    assert opened.header.groups[INPUT] == [Q.replace("q_", f"{x}_") for x in "qkv"]
    assert opened.header.weights[Q.replace("q_", "k_")].rank == 12 < opened.input_rank(INPUT) == 16
    assert opened.sketch(INPUT).shape == (16, 16) and opened.header.rank == 16
    assert sorted(path.name for path in panel.iterdir()) == ["panel.json", "panel.safetensors"]
    assert (panel / "panel.json").stat().st_mode & 0o044 and len(opened.sha256) == 64
    opened.check_base(open_checkpoint(panel.parent / "base"))


def test_a_panel_without_text_has_no_sketch(panel):
    plain_panel(panel.parent / "base", panel.parent / "plain", text=False)
    assert open_panel(panel.parent / "plain").sketch(INPUT) is None


@pytest.mark.parametrize("scale", ["relative", "absolute"])
def test_what_a_step_does_on_each_direction(panel, scale):
    """relative: every output direction moves by the same share of what the weight puts there, in all as far."""
    plain_panel(panel.parent / "base", panel.parent / "scaled", scale=scale)
    opened = open_panel(panel.parent / "scaled")
    control = opened.control(DOWN)
    factor = opened.output_scale(control)
    assert torch.allclose(factor.square().mean(), torch.tensor(1.0))
    shares = factor / control.norm(dim=1)
    assert (float(shares.std() / shares.mean()) < 1e-5) == (scale == "relative")


def test_another_model_is_refused(panel):
    tiny.make("llama", dtype=torch.float32, seed=1).save_pretrained(panel.parent / "other")
    with pytest.raises(RequestError, match=r"'base', weights of SHA-256 .* \(panel.json\), and .*other.*; name the"):
        open_panel(panel).check_base(open_checkpoint(panel.parent / "other"))


def test_what_fails_leaves_nothing(panel, tmp_path):
    def fill(put):
        put("a.V", torch.zeros(2, 1))
        raise CheckpointError("no more")

    with pytest.raises(CheckpointError, match="no more"):
        write_panel(tmp_path / "half", [("a.V", (2, 1))], fill)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "panel"]


SAID = [
    (lambda said: said.pop("basis"), "lacks 'basis'"),
    (lambda said: said.update(rank=0), "rank as a whole number from 1"),
    (lambda said: said.update(scale="log"), "scale as one of relative, absolute"),
    (lambda said: said["base"].update(files={"model.safetensors": "x"}), "a SHA-256 in hexadecimal"),
    (lambda said: said["weights"][Q].update(rank=1 << 60), "rank as a whole number from 1"),
    (lambda said: said["weights"][Q].update(rank=5), r"as float32 \[24, 16\] where panel.json asks"),
    (lambda said: said["weights"].pop(Q), "has, beyond what panel.json speaks of,"),
    (lambda said: said.update(weights={}), "speaks of no weights"),
    (lambda said: said.update(texts=None), "has, beyond what panel.json speaks of,"),
    (lambda said: said.update(rank=4), r"where panel.json asks for float32 \(in, rank\) = \[24, 4\]"),
]


@pytest.mark.parametrize("change, says", SAID, ids=[says for _, says in SAID])
def test_damaged_words_are_refused(panel, change, says):
    said = json.loads((panel / "panel.json").read_text())
    change(said)
    (panel / "panel.json").write_text(json.dumps(said))
    with pytest.raises(CheckpointError, match=says):
        open_panel(panel)


def _nan(tensor):
    tensor[0, 0] = torch.nan


HELD = [
    (INPUT + ".V", lambda tensor: tensor.mul_(2), lambda panel: panel.input_basis(INPUT), "orthonormal columns"),
    (Q + ".U", _nan, lambda panel: panel.output_basis(Q), "holds NaN or Inf"),
    (Q + ".C0", _nan, lambda panel: panel.control(Q), "holds NaN or Inf"),
    (INPUT + ".K", lambda tensor: tensor[0].mul_(3), lambda panel: panel.sketch(INPUT), "should be symmetric"),
]


@pytest.mark.parametrize("name, change, read, says", HELD, ids=[name for name, *_ in HELD])
def test_damaged_tensors_are_refused_when_they_are_read(panel, name, change, read, says):
    tensors = load_file(panel / "panel.safetensors")
    change(tensors[name])
    save_file(tensors, panel / "panel.safetensors")
    with pytest.raises(CheckpointError, match=says):
        read(open_panel(panel))


@pytest.mark.parametrize(
    "dtype, shape", [(torch.float64, (24, 16)), (torch.float32, (24, 15)), (torch.float32, (384,))]
)
def test_tensors_of_another_kind_are_refused(panel, dtype, shape):
    tensors = load_file(panel / "panel.safetensors")
    save_file(tensors | {Q + ".U": torch.zeros(shape, dtype=dtype)}, panel / "panel.safetensors")
    with pytest.raises(CheckpointError, match=f"has '{Q}.U'"):
        open_panel(panel)


def test_what_is_no_panel_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no panel.json, so it is no panel; make one with growkit panel"):
        open_panel(tmp_path)
