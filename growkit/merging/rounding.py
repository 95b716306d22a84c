"""How much of what is added to weights is left when they are stored. Knows blocks as they pass; ignorant of where they
come from.

A number of 16 bits has steps, and what is added to one that lies on them is nothing where it is less than half a step.
"""

import math
from dataclasses import dataclass, field

import torch

WORTH_TELLING = 0.9  # of the change is left: less, and a model is another than its delta was measured with


@dataclass(frozen=True)
class Rounding:
    """What blocks have added up to, in any order: (what was stored along the change, the change's square)."""

    sums: list[tuple[float, float]] = field(default_factory=list)

    def add(self, before: torch.Tensor, change: torch.Tensor, after: torch.Tensor) -> None:
        """Count a block: the weights before, what is added to them, both in float32 or wider, and what is stored."""
        along = (after.to(before.dtype).sub_(before) * change).sum(dtype=torch.float64)
        self.sums.append((along.item(), change.square().sum(dtype=torch.float64).item()))

    @property
    def kept(self) -> float:
        """The share of the change that is left, measured along it; 1 where nothing changes."""
        whole = math.fsum(square for _, square in self.sums)
        return math.fsum(along for along, _ in self.sums) / whole if whole else 1.0

    def notes(self, dtype: torch.dtype) -> tuple[str, ...]:
        """What a person should know of it. dtype: that of the weights."""
        if not self.kept < WORTH_TELLING:
            return ()
        name = str(dtype).removeprefix("torch.")
        return (
            f"rounding to {name} leaves {max(0.0, self.kept):.0%} of what was added, as most changes are less than half a"
            " step of it; --dtype float32 keeps all",
        )
