"""What a run on an application leaves: its two files, and PEFT's two of what it does as a LoRA. Knows how a learned
model becomes them; ignorant of steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from growkit.checkpoint.source import Checkpoint
from growkit.skills.application_control import application_controls
from growkit.skills.application_file import ApplicationFacts, write_application
from growkit.skills.skill_cards import application_card
from growkit.training.learning.small_saved import PeftFolder
from growkit.training.saved import Record
from growkit.training.settings import Settings
from growkit.training.student import Student


@dataclass(frozen=True, kw_only=True)
class ApplicationFolder:
    """An application, also as a LoRA that stock PEFT loads, AdamW's state beside it. settings: of the run, with its
    hashes. skills: SHA-256 and strength of each, as they began."""

    origin: Checkpoint
    settings: Settings
    skills: Sequence[tuple[str, float]]
    crossing: bool

    def export(self, student: Student, folder: Path, record: Record | None = None) -> None:
        """The folder is there when it is whole; raises RequestError where the disk has no room for it."""
        student.settle()
        tensors: dict[str, torch.Tensor] = {}
        for control in application_controls(student.model):
            strengths, cross = control.program()
            tensors |= {
                f"{control.weight}.alpha": strengths,
                **({f"{control.weight}.R": cross} if self.crossing else {}),
            }
        facts = ApplicationFacts(
            base={"name": self.origin.name, "files": dict(self.settings.hashes["checkpoint"])},
            skills=[{"sha256": name, "strength": strength} for name, strength in self.skills],
            crossing=self.crossing,
            steps=self.settings.steps,
        )
        lora = PeftFolder(self.origin, card=application_card(self.origin, facts))
        lora.export(student, folder, record, lambda place: write_application(place, facts, tensors))
