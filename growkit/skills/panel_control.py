"""A frozen linear layer with a skill on it: W + (U_s R + B) V_s^T, of which first R learns and then, where there is
one, the adapter B. Knows one layer; ignorant of how directions are chosen and of steps.

What learns is R / s, the parameter `middle`, s being the panel's factor for each output direction: with Adam every
entry takes steps of one size. Both are at first 0, so that nothing changes, bit for bit.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch.nn.functional import linear, pad

from growkit.training.learning.control import Control, whole

ADAPTER = "adapter"  # the parameter, and the stage in which it learns


class PanelControl(Control):
    """A linear layer with R beside it, and B (out, adapter) where adapter > 0, for its first input directions.

    weight, group: their names in the panel. outputs, inputs: (rank of the panel, directions of the skill) of either
    side. Buffers, and so in checkpoints: the panel's coordinates of its directions, output_coordinates Q (r_w, m_w) and
    input_coordinates P (r_g, m_g); scale s (m_w,); kept, B as it was when validation last fell.
    """

    def __init__(
        self,
        base_layer: Any,
        across: bool,
        *,
        weight: str,
        group: str,
        outputs: tuple[int, int],
        inputs: tuple[int, int],
        adapter: int,
        rank: int,
    ):
        super().__init__(base_layer, across, outputs[1], inputs[1], rank)
        self.weight, self.group = weight, group
        self.adapting = self.bypassed = False
        self.kept: torch.Tensor
        self.scale: torch.Tensor
        self.output_coordinates: torch.Tensor
        self.input_coordinates: torch.Tensor
        shape = len(self.left), min(adapter, inputs[1])
        self.adapter = torch.nn.Parameter(torch.empty(shape, device="meta")) if adapter else None
        self.register_buffer("kept", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(outputs[1]))
        self.register_buffer("output_coordinates", torch.zeros(outputs))
        self.register_buffer("input_coordinates", torch.zeros(inputs))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        if self.bypassed:
            return self.base_layer(inputs)
        inner = linear(inputs, self.right.to(inputs.dtype))
        middle = self.middle.detach() if self.adapting else self.middle
        transform = self.scale[:, None] * middle
        changed = linear(linear(inner, transform.to(inner.dtype)), self.left.to(inner.dtype))
        if self.adapter is not None:
            free = self.adapter if self.adapting else self.adapter.detach()
            changed = changed + linear(inner[..., : free.shape[1]], free.to(inner.dtype))
        return self.base_layer(inputs) + changed

    @torch.no_grad()
    def program(self) -> tuple[torch.Tensor, torch.Tensor]:
        """R (m_w, m_g) and B (out, m_g), 0 beyond the adapter. All processes call this together."""
        free = torch.zeros(len(self.left), 0) if self.adapter is None else whole(self.adapter).cpu()
        transform = self.scale[:, None] * whole(self.middle)
        return transform.cpu(), pad(free, (0, transform.shape[1] - free.shape[1]))

    def output(self) -> torch.Tensor:
        """U_s R + B (out, m_g): what comes out for each of the input directions."""
        transform, free = self.program()
        return self.left.cpu() @ transform + free


def panel_controls(model: torch.nn.Module) -> Iterator[PanelControl]:
    """The PanelControls of a model, in its order."""
    return (module for module in model.modules() if isinstance(module, PanelControl))


def adapting(model: torch.nn.Module, now: bool) -> AbstractContextManager[None]:
    """Within it gradients reach B alone, or else R alone."""
    return _set(model, "adapting", now)


def bypassed(model: torch.nn.Module) -> AbstractContextManager[None]:
    """Within it the model is as it is without the skill."""
    return _set(model, "bypassed", True)


@contextmanager
def _set(model: torch.nn.Module, flag: str, now: bool) -> Iterator[None]:
    for control in panel_controls(model):
        setattr(control, flag, now)
    try:
        yield
    finally:
        for control in panel_controls(model):
            setattr(control, flag, False)
