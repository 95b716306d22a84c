"""A frozen linear layer with several frozen skills on it, whose strengths and whose cross-skill control learn. Knows
one layer; ignorant of how skills were learned and of steps.

    W + sum_s alpha_s G_s V_s^T + [U_1 U_2 ...] R [V_1 V_2 ...]^T

alpha (skills,) is at first what the skills are plugged with, R at first 0, so that at the start it is their plain sum.
Block (s, t) of R takes what skill t reads to where skill s puts out. Learning alpha alone is LoRA Soups (arXiv
2410.13025).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn.functional import linear

from growkit.training.learning.control import Control, whole


class ApplicationControl(Control):
    """weight: its name in the skills. outputs, inputs: how many directions each skill has there. crossing: whether R
    learns; it is 0 else.

    Buffers: left (out, outputs of all) and right (inputs of all, in), the directions; moved (out, inputs of all), G of
    each skill.
    """

    def __init__(
        self,
        base_layer: Any,
        across: bool,
        *,
        weight: str,
        outputs: Sequence[int],
        inputs: Sequence[int],
        crossing: bool,
        rank: int,
    ):
        super().__init__(base_layer, across, sum(outputs), sum(inputs), rank)
        self.weight, self.inputs = weight, tuple(inputs)
        if not crossing:
            self.middle = None  # type: ignore[assignment]
        self.strengths = torch.nn.Parameter(torch.empty(len(inputs), device="meta"))
        self.moved: torch.Tensor
        self.register_buffer("moved", torch.zeros(len(self.left), sum(inputs)))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        inner = linear(inputs, self.right.to(inputs.dtype))
        changed = linear(inner * self._by_input(self.strengths).to(inner.dtype), self.moved.to(inner.dtype))
        if self.middle is not None:
            changed = changed + linear(linear(inner, self.middle.to(inner.dtype)), self.left.to(inner.dtype))
        return self.base_layer(inputs) + changed

    @torch.no_grad()
    def program(self) -> tuple[torch.Tensor, torch.Tensor]:
        """alpha (skills,) and R (outputs, inputs). All processes call this together."""
        strengths = whole(self.strengths).cpu()
        cross = torch.zeros(self.left.shape[1], len(self.right)) if self.middle is None else whole(self.middle).cpu()
        return strengths, cross

    def output(self) -> torch.Tensor:
        """(out, inputs of all): what comes out for each of the input directions."""
        strengths, cross = self.program()
        return self.moved.cpu() * self._by_input(strengths) + self.left.cpu() @ cross

    def _by_input(self, strengths: torch.Tensor) -> torch.Tensor:
        """The strength of each input direction's skill."""
        return torch.cat([one.expand(count) for one, count in zip(strengths, self.inputs)])


def application_controls(model: torch.nn.Module) -> Iterator[ApplicationControl]:
    """The ApplicationControls of a model, in its order."""
    return (module for module in model.modules() if isinstance(module, ApplicationControl))
