"""What a run on a skill leaves: the skill's two files, and PEFT's two of what it does as a LoRA. Knows how a learned
model becomes them; ignorant of steps.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.source import Checkpoint
from growkit.skills.gates.own_file import write_gate
from growkit.skills.panel_control import PanelControl, panel_controls
from growkit.skills.panel_learners import SKETCH, TOKENS, PanelLearners
from growkit.skills.skill_cards import skill_card
from growkit.skills.skill_course import AFTER, BEFORE, STEPS, course_of
from growkit.skills.skill_file import SkillFacts, write_skill
from growkit.training.learning.small_saved import PeftFolder
from growkit.training.saved import Record
from growkit.training.settings import Settings
from growkit.training.student import Student


@dataclass(frozen=True, kw_only=True)
class SkillFolder:
    """A skill, also as a LoRA that stock PEFT loads, AdamW's state beside it. settings: of the run, with its hashes.
    learners: whose size, panel and gate it has. protect: as skill.json says it."""

    origin: Checkpoint
    settings: Settings
    learners: PanelLearners
    protect: Sequence[str]

    def export(self, student: Student, folder: Path, record: Record | None = None) -> None:
        """The folder is there when it is whole; raises RequestError where the disk has no room for it."""
        student.settle()
        controls = list(panel_controls(student.model))
        tensors = {name: tensor for control in controls for name, tensor in _tensors(control).items()}
        facts = self._facts(student.model, controls, tensors)
        if not facts.adapter:
            tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(".B")}

        def more(place: Path) -> None:
            write_skill(place, facts, tensors)
            if self.learners.gate is not None:
                write_gate(place, self.learners.gate)

        PeftFolder(self.origin, card=skill_card(self.origin, facts)).export(student, folder, record, more)

    def _facts(self, model: Any, controls: Sequence[PanelControl], tensors: Mapping[str, torch.Tensor]) -> SkillFacts:
        course, hashes = course_of(model), self.settings.hashes
        before, after = (None if math.isnan(course[place]) else course[place] for place in (BEFORE, AFTER))
        adapters = [0 if one.adapter is None else one.adapter.shape[1] for one in controls]
        free = any(tensors[f"{control.weight}.B"].any() for control in controls)
        return SkillFacts(
            base={"name": self.origin.name, "files": dict(hashes["checkpoint"])},
            panel=self.learners.panel.sha256,
            size=self.learners.size,
            adapter=max(adapters) if free else 0,
            steps=self.settings.steps if after is None else int(course[STEPS]),
            losses={"before": before, "after": after},
            sketch={"tokens": int(getattr(model, TOKENS)), "data": hashes["data"]},
            protect=tuple(self.protect),
            weights={control.weight: control.group for control in controls},
        )


def _tensors(control: PanelControl) -> dict[str, torch.Tensor]:
    """What skill.safetensors has of a weight, B always, and of its group where it is the first of it. All processes
    call this together."""
    weight, group = control.weight, control.group
    transform, free = control.program()
    tensors = {
        f"{weight}.Q": control.output_coordinates, f"{weight}.U_s": control.left, f"{weight}.R": transform,
        f"{weight}.B": free,
    }  # fmt: skip
    if hasattr(control, SKETCH):
        tensors |= {
            f"{group}.P": control.input_coordinates, f"{group}.V_s": control.right.T, f"{group}.K": getattr(control, SKETCH),
        }  # fmt: skip
    return tensors
