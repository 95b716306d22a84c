"""Who learns a skill in a run: R of every weight of a panel, then B. Knows how a live model gets its PanelControls and
what they begin with; ignorant of steps and of files.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from growkit.errors import CheckpointError, RequestError
from growkit.families import family_named
from growkit.models.small.targets import put_around
from growkit.skills.directions import input_directions, output_directions
from growkit.skills.gates.gate_texts import GateTexts
from growkit.skills.gates.learn_gate import gate_of_texts
from growkit.skills.gates.own_texts import OwnTexts
from growkit.skills.own_sketch import OwnRows, check_changes_nothing, own_sketches, uncompiled, wanted_outputs
from growkit.skills.panel_control import ADAPTER, PanelControl, adapting, panel_controls
from growkit.skills.panel_file import Panel
from growkit.skills.panel_layers import panel_layers
from growkit.skills.skill_course import remember_course
from growkit.training.prefix import submodel
from growkit.training.sharing import own_rows
from growkit.training.step import PlannedStep

SKETCH, TOKENS = "skill_sketch", "skill_tokens"  # buffers: of the first weight of a group, and of the model


@dataclass(kw_only=True)
class PanelLearners:
    """size, adapter: of the skill. others: the sketches by group of what its input directions are chosen against.
    own, texts: rows of its data, and texts for a gate, None where there are too few; known once the run could begin.
    gate: found when it begins."""

    panel: Panel
    size: int
    adapter: int
    others: Sequence[Mapping[str, torch.Tensor]]
    own: OwnRows | None = None
    texts: GateTexts | None = None
    gate: OwnTexts | None = None

    def choose(self, model: Any) -> Callable[[Any, int], None]:
        """Put a PanelControl around every layer that the panel has. Raises RequestError where one is no such layer, and
        for feed-forward layers of a mixture, whose names PEFT takes for those of experts."""
        model.requires_grad_(False)
        mixture = family_named(model.config.model_type).is_moe
        weights, led = self.panel.header.weights, set[str]()
        for layer in panel_layers(model, weights):
            if mixture and layer.feed_forward:
                raise RequestError(
                    f"the panel has {layer.weight!r} of a mixture, which PEFT would take for a part of its experts; a skill of"
                    " a mixture needs a panel of its attention: growkit panel --modules attention"
                )
            group = weights[layer.weight].input
            rank, read = weights[layer.weight].rank, self.panel.input_rank(group)
            control = PanelControl(
                model.get_submodule(layer.module),
                layer.across,
                weight=layer.weight,
                group=group,
                outputs=(rank, min(self.size, rank)),
                inputs=(read, min(self.size, read)),
                adapter=self.adapter,
                rank=self.size,
            )
            if group not in led:
                led.add(group)
                control.register_buffer(SKETCH, torch.zeros(read, read))
            put_around(model, layer.module, control)
        model.register_buffer(TOKENS, torch.zeros((), dtype=torch.int64))
        remember_course(model)
        return self.begin

    @contextmanager
    def in_step(self, model: Any, plan: PlannedStep) -> Iterator[None]:
        """The whole model, of which R learns, or in the adapter's stage B."""
        with submodel(model, plan.depth, plan.trained), adapting(model, plan.stage == ADAPTER):
            yield

    @torch.no_grad()
    def begin(self, model: Any, seed: int) -> None:
        """R = 0 and B = 0; the own sketches, the directions that follow from them, and the gate. All processes call
        this together."""
        own = self.own
        assert own is not None, "a skill that begins before its data is known"
        for parameter in model.parameters():
            if parameter.requires_grad:
                own_rows(parameter)[1].zero_()
        with uncompiled(model):
            self._read(model, own)
            if (texts := self.texts) is not None:
                self.gate = own.machine.whole(model, lambda: gate_of_texts(model, texts))
            wanted = wanted_outputs(model, own)
        for control in panel_controls(model):
            if not torch.isfinite(wanted[control.weight]).all():
                raise CheckpointError(
                    f"the gradient of {control.weight!r} on this data is NaN or Inf; look at the model and the data"
                )
            basis = self.panel.output_basis(control.weight)
            outward = output_directions(basis.T @ wanted[control.weight], control.output_coordinates.shape[1])
            control.output_coordinates.copy_(outward)
            control.left.copy_(basis @ outward)
            control.scale.copy_(self.panel.output_scale(outward.T @ self.panel.control(control.weight)))
        _agree(model)
        with uncompiled(model):
            check_changes_nothing(model, own)
        self.panel.close()

    def _read(self, model: Any, own: OwnRows) -> None:
        """Gather the sketches, and give each control its input directions."""
        leaders = {control.group: control for control in panel_controls(model) if hasattr(control, SKETCH)}
        bases = {group: self.panel.input_basis(group) for group in leaders}
        reading = {group: (one.base_layer, bases[group]) for group, one in leaders.items()}
        sketches, counted = own_sketches(model, reading, own)
        getattr(model, TOKENS).fill_(counted)
        for group, leader in leaders.items():
            if not torch.isfinite(sketches[group]).all():
                raise CheckpointError(f"what {group!r} is on this data is NaN or Inf; look at the model and the data")
            getattr(leader, SKETCH).copy_(sketches[group])
            others = [sketch[group] for sketch in self.others]
            leader.input_coordinates.copy_(input_directions(sketches[group], others, leader.input_coordinates.shape[1]))
        for control in panel_controls(model):
            coordinates = leaders[control.group].input_coordinates
            control.input_coordinates.copy_(coordinates)
            control.right.copy_((bases[control.group] @ coordinates.cpu()).T)
        _agree(model)


def _agree(model: torch.nn.Module) -> None:
    """Take the first process's buffers: another machine may give a vector the other sign."""
    for buffer in model.buffers() if dist.is_initialized() else ():
        dist.broadcast(buffer, 0)
