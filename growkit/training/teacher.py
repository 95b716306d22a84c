"""What a teacher says of a batch. Knows where its logits come from, a small model that runs beside the student; ignorant of how
much its word counts.

A store of probabilities written down earlier would be a second class with `says` and `flops`, and nothing else would change.
"""

from collections.abc import Callable
from typing import Any

import torch

from growkit.training.flops import forward_flops
from growkit.training.machine import Machine
from growkit.training.objective import Predicted


class LiveTeacher:
    """A frozen model on this process's device, in the precision that matrices are multiplied in."""

    def __init__(self, model: Any, machine: Machine):
        self.model = model.to(machine.device, machine.precision).eval().requires_grad_(False)

    def says(self, inputs: torch.Tensor, labels: torch.Tensor) -> Callable[[slice], torch.Tensor]:
        """What gives the logits (n, vocabulary) of a piece of the positions that inputs and labels (rows, length) predict."""
        with torch.no_grad():
            predicted = Predicted(self.model, inputs, labels)

        def logits(piece: slice) -> torch.Tensor:
            with torch.no_grad():
                return predicted.logits(predicted.hidden[piece])

        return logits

    def flops(self, tokens: int, length: int) -> float:
        """Operations for a batch of `tokens` tokens in sequences of `length`."""
        return forward_flops(self.model, tokens, length)
