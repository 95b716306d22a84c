"""Who learns a skill in a run: R of every weight of a panel, then B. Knows how a live model gets its PanelControls and
what they begin with; ignorant of steps and of files.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from growkit.data.batches import BatchSource
from growkit.errors import CheckpointError
from growkit.models.small.targets import put_around
from growkit.skills.directions import input_directions, output_directions
from growkit.skills.gates.gate_texts import GateTexts
from growkit.skills.gates.learn_gate import gate_of_texts
from growkit.skills.gates.own_texts import OwnTexts
from growkit.skills.own_sketch import own_sketches
from growkit.skills.panel_control import ADAPTER, PanelControl, adapting, panel_controls
from growkit.skills.panel_file import Panel
from growkit.skills.panel_layers import panel_layers
from growkit.skills.skill_course import remember_course
from growkit.training.machine import Machine
from growkit.training.prefix import submodel
from growkit.training.settings import Settings
from growkit.training.sharing import own_rows
from growkit.training.step import PlannedStep

SKETCH, TOKENS = "skill_sketch", "skill_tokens"  # buffers: of the first weight of a group, and of the model


@dataclass(frozen=True)
class OwnData:
    """What a run learns from, for what it says of itself. texts: for a gate, None where they are too few."""

    train: BatchSource
    settings: Settings
    machine: Machine
    texts: GateTexts | None


@dataclass(kw_only=True)
class PanelLearners:
    """size, adapter: of the skill. others: the sketches by group of what its input directions are chosen against.
    tokens: how many its own sketches are of. data: known once the run could begin. gate: found when it begins."""

    panel: Panel
    size: int
    adapter: int
    others: Sequence[Mapping[str, torch.Tensor]]
    tokens: int
    data: OwnData | None = None
    gate: OwnTexts | None = None

    def choose(self, model: Any) -> Callable[[Any, int], None]:
        """Put a PanelControl around every layer that the panel has. Raises RequestError where one is no such layer."""
        model.requires_grad_(False)
        weights, led = self.panel.header.weights, set[str]()
        for layer in panel_layers(model, weights):
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
        assert self.data is not None, "a skill that begins before its data is known"
        for parameter in model.parameters():
            if parameter.requires_grad:
                own_rows(parameter)[1].zero_()
        leaders = {control.group: control for control in panel_controls(model) if hasattr(control, SKETCH)}
        reading = {group: (one.base_layer, self.panel.input_basis(group)) for group, one in leaders.items()}
        data = self.data
        sketches, counted = own_sketches(model, reading, data.train, data.settings, self.tokens, data.machine)
        getattr(model, TOKENS).fill_(counted)
        if (texts := data.texts) is not None:
            self.gate = data.machine.whole(model, lambda: gate_of_texts(model, texts, seed=seed))
        strange = next((group for group, sketch in sketches.items() if not torch.isfinite(sketch).all()), None)
        if strange is not None:
            raise CheckpointError(f"what {strange!r} is on this data is NaN or Inf; look at the model and the data")
        chosen = {}
        for group, leader in leaders.items():
            getattr(leader, SKETCH).copy_(sketches[group])
            others = [sketch[group] for sketch in self.others]
            chosen[group] = input_directions(sketches[group], others, leader.input_coordinates.shape[1])
        for control in panel_controls(model):
            self._point(control, chosen[control.group], reading[control.group][1], sketches[control.group])
        for buffer in model.buffers() if dist.is_initialized() else ():
            dist.broadcast(buffer, 0)  # another machine may give a vector the other sign
        self.panel.close()

    def _point(
        self, control: PanelControl, coordinates: torch.Tensor, inputs: torch.Tensor, sketch: torch.Tensor
    ) -> None:
        """Give a control its directions. coordinates: P. inputs: V of its group."""
        through = self.panel.control(control.weight)
        outward = output_directions(through, sketch, control.output_coordinates.shape[1])
        control.output_coordinates.copy_(outward)
        control.input_coordinates.copy_(coordinates)
        control.left.copy_(self.panel.output_basis(control.weight) @ outward)
        control.right.copy_((inputs @ coordinates).T)
        control.scale.copy_(self.panel.output_scale(outward.T @ through))
