"""Skills that are compared on one panel: opened, held to the panel and to each other. Knows the files of panels and of
skills; ignorant of what is computed of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from growkit.checkpoint.made_for import SHOWN
from growkit.errors import CheckpointError, RequestError
from growkit.skills.directions import is_covariance
from growkit.skills.gates.named_skills import NamedSkill
from growkit.skills.panel_file import Panel
from growkit.skills.skill_file import StoredSkill, read_skill

LEARN_AGAIN = "learn the skill again"


@dataclass(kw_only=True, eq=False)
class CheckedSkill(ABC):
    """A change of a model, as factors of each weight's change. weights: the group of each weight by its name."""

    named: NamedSkill
    weights: Mapping[str, str]

    @property
    def name(self) -> str:
        """By which it is told from the others."""
        return self.named.name

    @property
    @abstractmethod
    def kind(self) -> str:
        """What it is, in a word."""

    @property
    @abstractmethod
    def sha256(self) -> str:
        """Of its weight file."""

    @abstractmethod
    def close(self) -> None:
        """Close its file; reading again opens it again."""

    @abstractmethod
    def factors(self, weight: str) -> tuple[torch.Tensor, torch.Tensor]:
        """G (out, m) and V (in, m), float64: the weight changes by G V^T. Its strength is in G."""


@dataclass(kw_only=True, eq=False)
class PanelSkill(CheckedSkill):
    """A skill of the panel. stored: its files."""

    stored: StoredSkill
    kind = "skill"

    @property
    def sha256(self) -> str:
        """Of its weight file, by which other skills name it."""
        return self.stored.hash

    def close(self) -> None:
        """Close its file; reading again opens it again."""
        self.stored.close()

    @property
    def has_sketch(self) -> bool:
        """Whether it was made on tokens."""
        return bool(self.stored.facts.sketch["tokens"])

    def factors(self, weight: str) -> tuple[torch.Tensor, torch.Tensor]:
        """G (out, m) and V (in, m), float64. Raises CheckpointError where they are not finite."""
        return self.output(weight), self._finite(f"{self.weights[weight]}.V_s")

    def output(self, weight: str) -> torch.Tensor:
        """G = U_s R + B (out, m), float64, times the strength. Raises CheckpointError where it is not finite."""
        parts = {
            part: self._finite(f"{weight}.{part}") for part in ("U_s", "R", *"B" * (self.stored.facts.adapter > 0))
        }
        return (parts["U_s"] @ parts["R"] + parts.get("B", 0.0)) * self.named.strength

    def coordinates(self, group: str) -> torch.Tensor:
        """P (r, m), float64: its input directions in the panel's coordinates."""
        return self._finite(f"{group}.P")

    def sketch(self, group: str) -> torch.Tensor:
        """K (r, r), float64, of its own data. Raises CheckpointError for what is no covariance."""
        sketch = self.stored.tensor(f"{group}.K")
        if not is_covariance(sketch):
            raise CheckpointError(f"{str(self.named.folder)!r}: {group + '.K'!r} is no covariance; {LEARN_AGAIN}")
        return sketch.double()

    def _finite(self, name: str) -> torch.Tensor:
        tensor = self.stored.tensor(name)
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"tensor {name!r} of {self.stored.stored.label!r} holds NaN or Inf; {LEARN_AGAIN}")
        return tensor.double()


def open_panel_skill(named: NamedSkill, panel: Panel) -> PanelSkill:
    """A skill of this panel. Raises CheckpointError for what is none, RequestError for one of another model or another
    panel, and for one whose weights or sides the panel does not have."""
    skill = read_skill(named.folder)
    facts, folder, whose = skill.facts, str(named.folder), str(panel.folder)
    wanted, there = {*panel.header.files.values()}, {*facts.base["files"].values()}
    if wanted != there:
        one, other = (sorted(side - rest or side)[0][:SHOWN] for side, rest in ((there, wanted), (wanted, there)))
        raise RequestError(
            f"{folder!r} was learned on {facts.base['name']!r}, weights of SHA-256 {one}..., and {whose!r} is the panel of"
            f" {panel.header.base!r}, {other}...; skills of one model alone can be compared"
        )
    strange = sorted(facts.weights.keys() - panel.header.weights.keys())
    moved = [
        weight for weight, group in facts.weights.items() if weight not in strange and _group(panel, weight) != group
    ]
    if facts.panel != panel.sha256 or strange or moved:
        ranks = {skill.stored.tensors[f"{group}.P"].shape[0] for group in facts.weights.values()}
        why = f"its panel has rank {max(ranks)}" if ranks and max(ranks) != panel.header.rank else "their bases differ"
        why = f"it changes {strange[0]!r}, which the panel has not" if strange else why
        raise RequestError(
            f"{folder!r} was learned on panel {facts.panel[:SHOWN]}..., and {whose!r} is {panel.sha256[:SHOWN]}..., rank"
            f" {panel.header.rank}, basis {panel.header.basis}: {why}; sketches compare on one panel alone, so learn the"
            " skill on this one"
        )
    opened = PanelSkill(named=named, weights=dict(facts.weights), stored=skill)
    for weight, group in facts.weights.items():
        tensors = skill.stored.tensors
        found = (tensors[f"{weight}.U_s"].shape[0], tensors[f"{group}.V_s"].shape[0], tensors[f"{group}.P"].shape[0])
        asked = (*panel.sides(weight), panel.input_rank(group))
        if found != asked:
            raise CheckpointError(
                f"{folder!r} has {weight!r} of sides and rank {list(found)}, and its panel {list(asked)}; {LEARN_AGAIN}"
            )
    return opened


def _group(panel: Panel, weight: str) -> str:
    return panel.header.weights[weight].input
