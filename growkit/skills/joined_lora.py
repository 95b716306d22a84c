"""Several skills as one LoRA that stock PEFT loads, and that carries them exactly. Knows low-rank sums; ignorant of how
the folder comes to be.

A sum of s G_s V_s^T is B A with A = [V_1 ...]^T and B = [s G_1 ...]. Skills of one panel read directions of one V:
where they have more columns than V, A becomes an orthonormal basis of what they span, which V's columns are enough
for, and the rank is the panel's, however many skills there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.source import ADAPTER_CONFIG
from growkit.checkpoint.writer import write_json
from growkit.merging.lora_file import linears, lora_settings, module_names, write_factors
from growkit.merging.merge_plan import MergePlan
from growkit.models.running import is_causal
from growkit.skills.plugged_skill import SkillDelta


@dataclass
class JoinedLora:
    """The sum of members' changes, each times its strength, as factors by weight."""

    members: Sequence[SkillDelta]
    strengths: Sequence[float]

    def __post_init__(self) -> None:
        self._bases = lru_cache(maxsize=8)(self._joined)  # weights that read one input share it, and lie close together

    @cached_property
    def rank(self) -> int:
        """Of the LoRA: of the weight whose input its skills read most directions of."""
        return max(self._rank(stem) for stem in {stem for member in self.members for stem in member.weights})

    def factors(self, stem: str) -> tuple[torch.Tensor, torch.Tensor]:
        """A (r, in) and B (out, r), float64, whose product is the change of a weight (out, in); r at most the rank."""
        on = self._on(stem)
        groups = tuple((number, self.members[number].skill.facts.weights[weight]) for number, weight in on)
        right, turned = self._bases(groups, self._rank(stem))
        outputs = [self.strengths[number] * self.members[number].skill.output(weight).double() for number, weight in on]
        left = torch.cat(outputs, 1)
        return right, left if turned is None else left @ turned

    def _on(self, stem: str) -> list[tuple[int, str]]:
        """The members that change a weight, by number, and what it is called there."""
        return [(number, member.weights[stem]) for number, member in enumerate(self.members) if stem in member.weights]

    def _rank(self, stem: str) -> int:
        """How many directions of a weight's input its skills read together, at most."""
        columns, most, width = dict[str, int](), dict[str, int](), 0
        for number, weight in self._on(stem):
            skill = self.members[number].skill
            rank, size = skill.stored.tensors[f"{skill.facts.weights[weight]}.P"].shape
            columns[skill.facts.panel] = columns.get(skill.facts.panel, 0) + size
            most[skill.facts.panel], width = rank, skill.sides(weight)[1]
        return min(width, sum(min(columns[panel], most[panel]) for panel in columns))

    def _joined(self, groups: tuple[tuple[int, str], ...], rank: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(A (r, in), what takes the columns of all skills to its rows, (columns, r); None: they are its rows). groups:
        the members, and the group of each that the weight is of."""
        inputs = [self.members[number].skill.tensor(f"{group}.V_s").double() for number, group in groups]
        stacked = torch.cat(inputs, 1)
        if stacked.shape[1] <= rank:
            return stacked.T, None
        left, values, right = torch.linalg.svd(stacked, full_matrices=False)
        return left[:, :rank].T, (values[:rank, None] * right[:rank]).T


def write_joined(joined: JoinedLora, plan: MergePlan, base: str, folder: Path) -> None:
    """Put PEFT's two files into a folder that is there; weights of a smaller rank are filled with zeros.

    plan: of the same members. One weight is held at a time; A and B are float32. Raises CheckpointError for a skill
    that holds NaN or Inf, and where transformers has no such model.
    """
    transposed = linears(plan)
    called, targets = module_names(plan, base)
    rank = joined.rank
    sides = {
        called[tensor.stem]: tensor.shape[::-1] if transposed[tensor.stem] else tensor.shape for tensor in plan.tensors
    }
    write_factors(folder, sides, rank, ((called[t.stem], *joined.factors(t.stem)) for t in plan.tensors))
    task = "CAUSAL_LM" if is_causal(plan.config) else None
    said: dict[str, Any] = {"task_type": task, "base_model_name_or_path": base}
    write_json(folder / ADAPTER_CONFIG, {**said, **lora_settings(rank, rank, targets, any(transposed.values()))})
