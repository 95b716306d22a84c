"""The folder of a skill: skill.json and skill.safetensors. Knows the format and its bounds; ignorant of panels, of
training and of what a skill is good for.

skill.safetensors, all float32, for each weight by its name in the checkpoint and each group, the weights that read one
input, by the panel's name for it; r: the panel's rank of the weight or the group, m: the skill's size, or r where that
is less:
    WEIGHT.Q    (r_w, m_w)  output directions in the panel's coordinates, orthonormal columns
    WEIGHT.R    (m_w, m_g)  the transform
    WEIGHT.B    (out, m_g)  the adapter, where there is one; zeros beyond its first columns
    WEIGHT.U_s  (out, m_w)  U Q: the output directions themselves
    GROUP.P     (r_g, m_g)  input directions in the panel's coordinates, orthonormal columns
    GROUP.K     (r_g, r_g)  the sketch V^T C V of the skill's own data, C = E[x x^T]
    GROUP.V_s   (in, m_g)   V P: the input directions themselves
The change of a weight (out, in), whichever way a file stores it, is (U_s R + B) V_s^T.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.fields import Fields, ListOf, MapOf, Null, Number, OneOf, Text, Whole, checked
from growkit.checkpoint.headers import file_hash
from growkit.checkpoint.small_files import read_json
from growkit.checkpoint.source import Checkpoint, open_state
from growkit.checkpoint.writer import write_json
from growkit.errors import CheckpointError
from growkit.limits import AXIS, STEPS, TOKENS
from growkit.skills.small_tensors import check_names, write_tensors_file
from growkit.version import __version__

SKILL, SKILL_WEIGHTS, FORMAT = "skill.json", "skill.safetensors", 1
GENERAL = "general"  # in place of a hash: the panel's sketch of general texts
MOST = 1_000  # skills that one is protected against, or trained with
_HASH = Text(r"[0-9a-f]{64}", "a SHA-256 in hexadecimal")
_LOSS = Null(Number(0.0))
SCHEMA = Fields(
    {
        "format": OneOf([FORMAT]),
        "base": Fields({"name": Text(), "files": MapOf(_HASH)}, needed=("name", "files")),
        "panel": _HASH,
        "size": Whole(1, AXIS),
        "adapter": Whole(0, AXIS),
        "steps": Whole(0, STEPS),
        "losses": Fields({"before": _LOSS, "after": _LOSS}, needed=("before", "after")),
        "sketch": Fields({"tokens": Whole(0, TOKENS), "data": Null(_HASH)}, needed=("tokens", "data")),
        "trained_with": ListOf(_HASH, most=MOST),
        "protect": ListOf(Text(rf"[0-9a-f]{{64}}|{GENERAL}", f"a SHA-256, or {GENERAL!r}"), most=MOST),
        "weights": MapOf(Text(r"[\s\S]+", "the name of a group")),
    },
    needed=(
        "format", "base", "panel", "size", "adapter", "steps", "losses", "sketch", "trained_with", "protect", "weights"
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SkillFacts:
    """What skill.json says. base: {name, files: {file: SHA-256}} of the model. panel: SHA-256 of panel.safetensors.
    size: directions of each weight, m. adapter: how many of the input directions have a free output, 0: none. losses:
    {before, after}, nats of the validation split, None where there was none. sketch: {tokens, data: SHA-256 of the
    tokens' file, None where they were none}. protect: SHA-256 of the skill.safetensors that the input directions were
    chosen against, or GENERAL. trained_with: likewise of those that were plugged meanwhile. weights: the group of each.
    """

    base: Mapping[str, Any]
    panel: str
    size: int
    adapter: int = 0
    steps: int = 0
    losses: Mapping[str, float | None] = field(default_factory=lambda: {"before": None, "after": None})
    sketch: Mapping[str, Any]
    protect: Sequence[str] = ()
    trained_with: Sequence[str] = ()
    weights: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class StoredSkill:
    """A skill on disk. Tensors are read when they are asked for, and none is held."""

    folder: Path
    facts: SkillFacts
    stored: Checkpoint

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor of the file, float32, by its name there, such as "WEIGHT.R" or "GROUP.K"."""
        return self.stored.whole(name)

    def output(self, weight: str) -> torch.Tensor:
        """G = U_s R + B (out, m_g): what comes out for each of the input directions."""
        adapter = self.tensor(f"{weight}.B") if f"{weight}.B" in self.stored.tensors else 0.0
        return self.tensor(f"{weight}.U_s") @ self.tensor(f"{weight}.R") + adapter

    def input(self, weight: str) -> torch.Tensor:
        """V_s (in, m_g): the input directions."""
        return self.tensor(f"{self.facts.weights[weight]}.V_s")

    def sides(self, weight: str) -> tuple[int, int]:
        """(out, in) of a weight."""
        out, into = (self.stored.tensors[name] for name in (f"{weight}.U_s", f"{self.facts.weights[weight]}.V_s"))
        return out.shape[0], into.shape[0]

    def sizes(self, weight: str) -> tuple[int, int]:
        """(m_w, m_g): how many output and input directions it has of a weight."""
        shape = self.stored.tensors[f"{weight}.R"].shape
        return shape[0], shape[1]

    def delta(self, weight: str) -> torch.Tensor:
        """G V_s^T (out, in): what a weight changes by."""
        return self.output(weight) @ self.input(weight).T

    @cached_property
    def hash(self) -> str:
        """SHA-256 of skill.safetensors, by which other skills name this one."""
        return file_hash(self.folder / SKILL_WEIGHTS)

    def close(self) -> None:
        """Close the file; reading again opens it again."""
        self.stored.close()


def is_skill(folder: str | Path) -> bool:
    """Whether a folder holds a skill."""
    return (Path(folder) / SKILL).is_file()


def read_skill(folder: str | Path) -> StoredSkill:
    """Open a skill. Raises CheckpointError where there is none, and for files that are not as the format says."""
    path = Path(folder) / SKILL
    if not path.is_file():
        raise CheckpointError(f"{str(folder)!r} is no skill: it has no {SKILL}; name a folder of growkit skill learn")
    said = checked(read_json(path), SCHEMA, path)
    facts = SkillFacts(**{name: said[name] for name in SkillFacts.__dataclass_fields__})
    if facts.adapter > facts.size:
        raise CheckpointError(f"{str(path)!r} has adapter {facts.adapter} of size {facts.size}; learn the skill again")
    stored = open_state(path.with_name(SKILL_WEIGHTS))
    _check_tensors(facts, stored)
    return StoredSkill(folder=Path(folder), facts=facts, stored=stored)


def write_skill(place: Path, facts: SkillFacts, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put a skill's two files into a folder that is there. tensors: by their names in the file. Raises OSError for the
    disk."""
    write_tensors_file(place / SKILL_WEIGHTS, {name: tensor.float() for name, tensor in tensors.items()})
    write_json(place / SKILL, {"format": FORMAT, "growkit": __version__, **asdict(facts)})


def _check_tensors(facts: SkillFacts, stored: Checkpoint) -> None:
    """Refuse a file that lacks a tensor, has one beyond what belongs to a skill, or one of another shape or dtype."""
    groups = sorted(set(facts.weights.values()))
    wanted = {f"{group}.{part}" for group in groups for part in ("P", "K", "V_s")}
    parts = ("Q", "R", "U_s", "B") if facts.adapter else ("Q", "R", "U_s")
    wanted |= {f"{weight}.{part}" for weight in facts.weights for part in parts}
    check_names(stored, wanted, "learn the skill again", "to a skill")

    def check(name: str, *wanted: int | None) -> tuple[int, int]:
        """The shape of a matrix, which is as it should be; None: any size from 1."""
        tensor = stored.tensors[name]
        fits = len(tensor.shape) == 2 and all(n and want in (None, n) for want, n in zip(wanted, tensor.shape))
        if not fits or tensor.dtype != torch.float32:
            dtype = str(tensor.dtype).removeprefix("torch.")
            asked = ", ".join("any" if want is None else str(want) for want in wanted)
            raise CheckpointError(
                f"{stored.label!r} has {name!r} as {dtype} {list(tensor.shape)}, not as float32 [{asked}]; learn the skill"
                " again"
            )
        return tensor.shape[0], tensor.shape[1]

    inputs = {}
    for group in groups:
        rank = check(f"{group}.P", None, None)[0]
        inputs[group] = check(f"{group}.P", rank, min(facts.size, rank))[1]
        check(f"{group}.K", rank, rank)
        check(f"{group}.V_s", None, inputs[group])
    for weight, group in facts.weights.items():
        rank = check(f"{weight}.Q", None, None)[0]
        size = check(f"{weight}.Q", rank, min(facts.size, rank))[1]
        check(f"{weight}.R", size, inputs[group])
        out, _ = check(f"{weight}.U_s", None, size)
        if facts.adapter:
            check(f"{weight}.B", out, inputs[group])
