"""The folder of a skill: what is written is read, and what is not as the format says is refused in a sentence."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from skills import facts, make_skill, skill_tensors

from growkit.errors import CheckpointError
from growkit.skills.skill_file import is_skill, read_skill, write_skill


@pytest.mark.parametrize("adapter", [0, 2])
def test_what_is_written_is_read(tmp_path, adapter):
    said = dict(steps=7, losses={"before": 2.5, "after": 1.25}, protect=["general", "d" * 64], trained_with=["e" * 64])
    folder = make_skill(tmp_path / "skill", adapter=adapter, **said)
    tensors, read = skill_tensors(adapter=adapter), read_skill(folder)
    assert is_skill(folder) and not is_skill(tmp_path) and read.facts == facts(adapter=adapter, **said)
    assert read.stored.tensors.keys() == tensors.keys()
    assert all(torch.equal(read.tensor(name), tensor) for name, tensor in tensors.items())
    for weight, group in read.facts.weights.items():
        free = tensors[f"{weight}.B"] if adapter else torch.zeros(1)
        delta = (tensors[f"{weight}.U_s"] @ tensors[f"{weight}.R"] + free) @ tensors[f"{group}.V_s"].T
        assert torch.allclose(read.delta(weight), delta, atol=1e-6) and delta.abs().max() > 0.1
    read.close()


def test_a_skill_is_named_by_its_bytes(tmp_path):
    first, again = (make_skill(tmp_path / name) for name in ("first", "again"))
    other = make_skill(tmp_path / "other", seed=1)
    assert read_skill(first).hash == read_skill(again).hash != read_skill(other).hash
    assert (first / "skill.json").read_bytes() == (again / "skill.json").read_bytes()


def without(name):
    return lambda tensors: tensors.pop(name)


def put(name, tensor):
    return lambda tensors: tensors.update({name: tensor})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without("q.R"), "lacks 'q.R'"),
        (without("in.K"), "lacks 'in.K'"),
        (without("up.B"), "lacks 'up.B'"),
        (put("strange", torch.zeros(2)), "has, beyond what belongs to a skill, 'strange'"),
        (put("q.R", torch.zeros(3, 4)), r"'q.R' as float32 \[3, 4\], not as float32 \[3, 3\]"),
        (put("q.R", torch.zeros(9)), r"'q.R' as float32 \[9\]"),
        (put("q.Q", torch.zeros(5, 2)), r"'q.Q' as float32 \[5, 2\], not as float32 \[5, 3\]"),
        (put("q.U_s", torch.zeros(0, 3)), r"'q.U_s' as float32 \[0, 3\], not as float32 \[any, 3\]"),
        (put("q.B", torch.zeros(11, 3)), r"'q.B' as float32 \[11, 3\], not as float32 \[12, 3\]"),
        (put("in.K", torch.zeros(4, 5)), r"'in.K' as float32 \[4, 5\], not as float32 \[5, 5\]"),
        (put("ffn.P", torch.zeros(5, 3, dtype=torch.float64)), "'ffn.P' as float64"),
    ],
)
def test_tensors_are_those_of_a_skill(tmp_path, change, says):
    folder = make_skill(tmp_path / "skill", adapter=1)
    tensors = load_file(folder / "skill.safetensors")
    change(tensors)
    save_file(tensors, folder / "skill.safetensors")
    with pytest.raises(CheckpointError, match=says):
        read_skill(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 2}, "should have format as one of 1, not 2"),
        ({"size": 0}, "should have size as a whole number from 1"),
        ({"adapter": 4}, "has adapter 4 of size 3"),
        ({"panel": "x"}, "should have panel as a SHA-256"),
        ({"protect": ["x"]}, r"should have protect\[0\] as a SHA-256, or 'general'"),
        ({"losses": {"before": 1.0}}, "should have losses as an object with before, after"),
        ({"weights": {"q": 1}}, "should have weights.'q' as the name of a group"),
        ({"weights": None}, "should have weights as an object"),
    ],
)
def test_what_a_skill_says_is_held_to_its_format(tmp_path, change, says):
    folder = make_skill(tmp_path / "skill")
    said = json.loads((folder / "skill.json").read_text())
    (folder / "skill.json").write_text(json.dumps(said | change))
    with pytest.raises(CheckpointError, match=says):
        read_skill(folder)
    del said["base"]
    (folder / "skill.json").write_text(json.dumps(said))
    with pytest.raises(CheckpointError, match="lacks 'base'"):
        read_skill(folder)


def test_a_folder_without_a_skill(tmp_path):
    with pytest.raises(CheckpointError, match=r"is no skill: it has no skill\.json"):
        read_skill(tmp_path)
    write_skill(tmp_path, facts(), skill_tensors())
    (tmp_path / "skill.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"skill\.safetensors' does not exist"):
        read_skill(tmp_path)
