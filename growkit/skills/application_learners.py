"""Who learns an application in a run: the strengths of frozen skills, and what crosses from one to another. Knows how a
live model gets its ApplicationControls and what they begin with; ignorant of steps and of files.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from growkit.models.small.targets import put_around
from growkit.skills.application_control import ApplicationControl, application_controls
from growkit.skills.panel_layers import panel_layers
from growkit.skills.skill_file import StoredSkill
from growkit.training.prefix import submodel
from growkit.training.sharing import own_rows
from growkit.training.step import PlannedStep


@dataclass(frozen=True)
class ApplicationLearners:
    """skills: with the strengths that they begin with; all change the same weights. crossing: whether R learns."""

    skills: Sequence[tuple[StoredSkill, float]]
    crossing: bool

    def choose(self, model: Any) -> Callable[[Any, int], None]:
        """Put an ApplicationControl around every layer that the skills change. Raises RequestError where one is no
        such layer."""
        model.requires_grad_(False)
        weights = self.skills[0][0].facts.weights
        sizes = {weight: [skill.sizes(weight) for skill, _ in self.skills] for weight in weights}
        rank = max(sum(inputs for _, inputs in each) for each in sizes.values())
        for layer in panel_layers(model, weights):
            outputs, inputs = zip(*sizes[layer.weight])
            control = ApplicationControl(
                model.get_submodule(layer.module),
                layer.across,
                weight=layer.weight,
                outputs=outputs,
                inputs=inputs,
                crossing=self.crossing,
                rank=rank,
            )
            put_around(model, layer.module, control)
        return self.begin

    def in_step(self, model: Any, plan: PlannedStep) -> AbstractContextManager[None]:
        """The whole model."""
        return submodel(model, plan.depth, plan.trained)

    @torch.no_grad()
    def begin(self, model: Any, seed: int) -> None:
        """The plain sum of the skills. All processes call this together."""
        strengths = torch.tensor([strength for _, strength in self.skills])
        for control in application_controls(model):
            skills = [skill for skill, _ in self.skills]
            control.left.copy_(torch.cat([skill.tensor(f"{control.weight}.U_s") for skill in skills], 1))
            control.right.copy_(torch.cat([skill.input(control.weight) for skill in skills], 1).T)
            control.moved.copy_(torch.cat([skill.output(control.weight) for skill in skills], 1))
            first, rows = own_rows(control.strengths)
            rows.copy_(strengths[first : first + len(rows)])
            if control.middle is not None:
                own_rows(control.middle)[1].zero_()
        for skill, _ in self.skills:
            skill.close()
