"""A LoRA of PEFT among the skills: its factors, weight by weight. Knows what a LoRA stores; ignorant of what is
computed of it. It carries no sketch, and its inputs are no panel's, so what it does is measured on data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.headers import file_hash
from growkit.checkpoint.made_for import check_made_for
from growkit.checkpoint.source import ADAPTER, ADAPTER_CONFIG, Checkpoint
from growkit.errors import CheckpointError, RequestError
from growkit.families import Family
from growkit.growth.source_headers import Headers
from growkit.merging.lora import LoraChange
from growkit.merging.lora_tensors import open_lora
from growkit.skills.checking.checked_skills import CheckedSkill
from growkit.skills.controlled import InputGroup
from growkit.skills.gates.named_skills import NamedSkill


def is_lora(folder: Path) -> bool:
    """Whether a folder holds an adapter of PEFT."""
    return (folder / ADAPTER_CONFIG).is_file()


@dataclass(kw_only=True, eq=False)
class LoraSkill(CheckedSkill):
    """A LoRA. stored: its file. changes: by weight."""

    stored: Checkpoint
    changes: Mapping[str, LoraChange]
    kind = "lora"

    @property
    def sha256(self) -> str:
        """Of its weight file."""
        return file_hash(self.named.folder / ADAPTER)

    def close(self) -> None:
        """Close its file; reading again opens it again."""
        self.stored.close()

    def factors(self, weight: str) -> tuple[torch.Tensor, torch.Tensor]:
        """G = scale B (out, rank) and V = A^T (in, rank), float64. Raises CheckpointError where they are not finite."""
        this = self.changes[weight]
        return self._whole(this.b) * (this.scale * self.named.strength), self._whole(this.a).T

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor of the file, by its name there, as it is stored."""
        return self.stored.whole(name)

    def _whole(self, name: str) -> torch.Tensor:
        tensor = self.tensor(name).double()
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"tensor {name!r} of {self.stored.label!r} holds NaN or Inf; save the LoRA again")
        return tensor


def open_lora_skill(
    named: NamedSkill, base: Checkpoint, headers: Headers, family: Family, groups: list[InputGroup]
) -> LoraSkill:
    """The LoRA in a folder. headers: of the base; groups: of all its linear weights. Raises RequestError for one that
    changes more than linear weights by A and B, CheckpointError for files that do not hold together."""
    check_made_for(named.folder, base)
    opened = open_lora(named.folder, base, headers, family)
    group_of: dict[str, str] = {weight.name: group.name for group in groups for weight in group.weights}
    changes: dict[str, Any] = {}
    for stem, change in opened.member.changes.items():
        plain = change.a and change.b and not (change.copy or change.bias or change.magnitude or change.expert)
        if not plain or change.base not in group_of:
            raise RequestError(
                f"{str(named.folder)!r} changes {stem!r} other than by A and B of a linear layer of attention or"
                " feed-forward; what that does on another's data, rho does not say"
            )
        changes[change.base] = change
    return LoraSkill(
        named=named, weights={name: group_of[name] for name in changes}, stored=opened.member.stored, changes=changes
    )
