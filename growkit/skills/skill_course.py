"""What validation decides while a skill is learned: that its adapter learns only as long as the loss falls. Knows
losses and steps; ignorant of data and of files.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from growkit.skills.panel_control import panel_controls
from growkit.training.learning.control import whole
from growkit.training.sharing import own_rows

COURSE = "skill_course"  # a buffer of the model, float64, and so in checkpoints:
BEFORE, AFTER, STEPS, OVER = range(4)  # losses, None yet: NaN; the step of AFTER; whether the run is over


def remember_course(model: Any) -> None:
    """Give a model the buffer in which its course lies."""
    model.register_buffer(COURSE, torch.tensor([math.nan, math.nan, 0.0, 0.0], dtype=torch.float64))


def course_of(model: Any) -> list[float]:
    """[loss before, loss after, steps, 1 where it is over] of a skill that learns."""
    return getattr(model, COURSE).tolist()


@dataclass(frozen=True)
class SkillCourse:
    """The transform learns for so many steps; then the adapter as long as each validation is below the one before. The
    first that is not ends the run, and the adapter is what it was at the last that was."""

    transform: int

    def asks(self, step: int) -> bool:
        """Before the first step, and where the transform has learned."""
        return step in (0, self.transform)

    @torch.no_grad()
    def heard(self, model: Any, step: int, loss: float) -> Iterator[str]:
        """Keep the adapter, or put back the one that was kept."""
        course = getattr(model, COURSE)
        falls = step <= self.transform or loss < course[AFTER].item()
        if step == 0:
            course[BEFORE] = loss
        if falls:
            course[AFTER], course[STEPS] = loss, step
        for control in panel_controls(model) if step > self.transform else ():
            assert control.adapter is not None
            if falls:
                control.kept.copy_(whole(control.adapter))
            else:
                first, rows = own_rows(control.adapter)
                rows.copy_(control.kept[first : first + len(rows)])
        if not falls:
            course[OVER] = 1.0
            yield (
                f"the adapter ends: validation at step {step} is {loss:.4f}, not below the {course[AFTER].item():.4f} of step"
                f" {int(course[STEPS])}, where it is put back to"
            )

    def is_over(self, model: Any) -> bool:
        """Whether validation has ended it."""
        return bool(course_of(model)[OVER])
