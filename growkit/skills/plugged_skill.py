"""A skill as a member of a merge: which tensors of its base it changes, and by how much, block by block. Knows skills
and checkpoints; ignorant of how changes are added up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from growkit.checkpoint.made_for import check_same_weights
from growkit.checkpoint.source import Checkpoint
from growkit.errors import CheckpointError
from growkit.families import family_named
from growkit.growth.kin import stem_of
from growkit.growth.source_headers import Headers, architecture_of
from growkit.maps.notation import READ
from growkit.merging.lora import ChangeOfBase
from growkit.merging.merged_tensor import Giver
from growkit.skills.gates.named_skills import NamedSkill
from growkit.skills.skill_file import SKILL, StoredSkill


@dataclass
class SkillDelta(ChangeOfBase):
    """What a skill changes. weights: by stem of the tensor, its name in the skill. across: the stems of those that the
    base stores (in, out)."""

    skill: StoredSkill
    weights: Mapping[str, str]
    across: frozenset[str]

    def __post_init__(self) -> None:
        self._factors = lru_cache(maxsize=2)(self._read_factors)  # blocks of a tensor are computed one after another

    def change(self, stem: str, rows: np.ndarray, base: torch.Tensor) -> torch.Tensor:
        """What these rows change by. base: what the base has there, (rows, width) in the dtype to compute in."""
        left, right = self._factors(stem, base.dtype)
        return left[torch.from_numpy(rows)] @ right

    def _read_factors(self, stem: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """(rows, m) and (m, width) whose product is the change."""
        weight = self.weights[stem]
        output, read = self.skill.output(weight).to(dtype), self.skill.input(weight).to(dtype)
        if not (torch.isfinite(output).all() and torch.isfinite(read).all()):
            raise CheckpointError(f"{str(self.skill.folder)!r} puts NaN or Inf into {weight!r}; learn the skill again")
        return (read, output.T.contiguous()) if stem in self.across else (output, read.T.contiguous())


def skill_member(skill: StoredSkill, named: NamedSkill, base: Checkpoint, headers: Headers) -> tuple[Giver, SkillDelta]:
    """(what a plan needs of it, what it changes). headers: of the base.

    Raises RequestError for a skill of other weights than the base's.
    """
    check_same_weights(skill.folder, skill.facts.base["name"], skill.facts.base["files"], base, SKILL)
    family = family_named(headers.config.get("model_type"))
    architecture = architecture_of(family, headers)
    weights, shapes, across = {}, {}, set()
    for weight in skill.facts.weights:
        stem = stem_of(family, headers, weight)
        weights[stem] = weight
        shape = skill.sides(weight)
        if weight in headers.shapes and family.axes_of(weight, architecture)[0].role == READ:
            across.add(stem)
            shape = shape[::-1]
        shapes[stem] = shape
    giver = Giver(
        label=named.name,
        key=skill.hash,
        weight=named.strength,
        bytes=sum(tensor.bytes for tensor in skill.stored.tensors.values()),
        names={stem: stem for stem in weights},
        dtypes=dict.fromkeys(weights, torch.float32),
        shapes=shapes,
    )
    return giver, SkillDelta(skill, weights, frozenset(across))
