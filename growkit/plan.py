"""What will be done, before a byte is touched: axes with their maps, tensors with their rules, and what is exact. Knows how
to describe itself; ignorant of how maps are chosen and of how anything is executed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from math import prod
from typing import Any

import torch

from growkit.axes import READ
from growkit.families import Family
from growkit.operators.blocks import Rule
from growkit.rules import Growth

FORMAT = 1  # of the JSON a plan and growkit.json hold
PROCESS_BYTES = 230_000_000  # a Python process with torch imported, measured
BLOCK_BYTES = 100_000_000  # two blocks in flight with their temporaries, measured


class Exactness(IntEnum):
    """How much of the function survives, worst last."""

    EXACT = 0
    NEAR = 1
    APPROXIMATE = 2

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Recipe:
    """What was asked for: target sizes by axis (None: follow from the others), and how.

    method: "fpi" or "aki". mapping: "cyclic" or "random". noise: relative size of the split between read copies.
    dtype: of what is written, None for as it was.
    """

    sizes: Mapping[str, int | None]
    method: str = "fpi"
    mapping: str = "cyclic"
    noise: float = 0.5
    seed: int = 0
    dtype: torch.dtype | None = None

    def to_json(self) -> dict[str, Any]:
        """The request as plain data, for provenance."""
        return {
            "sizes": {axis: size for axis, size in self.sizes.items() if size is not None},
            "method": self.method,
            "mapping": self.mapping,
            "noise": self.noise,
            "seed": self.seed,
            "dtype": None if self.dtype is None else str(self.dtype).removeprefix("torch."),
        }


@dataclass(frozen=True)
class AxisPlan:
    """One line of a plan: an axis, its sizes, how it grows, and what that does to the function."""

    axis: str
    old: int
    new: int
    how: str
    exactness: Exactness
    why: str

    def to_json(self) -> dict[str, Any]:
        """The line as plain data."""
        return {**vars(self), "exactness": str(self.exactness)}


@dataclass(frozen=True)
class TensorPlan:
    """One target tensor: its name, shape and dtype, the rule, and a donor tensor for AKI (or None)."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    rule: Rule
    donor: str | None = None

    @property
    def bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Plan:
    """Everything needed to grow a checkpoint. tensors are in the order they will lie in the file."""

    source: str
    recipe: Recipe
    growth: Growth
    axes: tuple[AxisPlan, ...]
    tensors: tuple[TensorPlan, ...]
    source_config: dict[str, Any]
    config: dict[str, Any]
    source_shapes: Mapping[str, tuple[int, ...]]
    source_bytes: int
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def family(self) -> Family:
        return self.growth.family

    @property
    def exactness(self) -> Exactness:
        return max((axis.exactness for axis in self.axes), default=Exactness.EXACT)

    @property
    def bytes(self) -> int:
        return sum(tensor.bytes for tensor in self.tensors)

    @property
    def peak_bytes(self) -> int:
        """Expected peak resident memory of growing: the process, two blocks in flight, and what is grown whole."""
        whole = max((_working_bytes(tensor) for tensor in self.tensors), default=0)
        return PROCESS_BYTES + BLOCK_BYTES + 2 * whole

    def parameters(self) -> tuple[int, int]:
        """Numbers of weights before and after (buffers that transformers recomputes not counted)."""
        kept = {tensor.name for tensor in self.tensors}
        before = sum(prod(shape) for name, shape in self.source_shapes.items() if name in kept)
        return before, sum(prod(tensor.shape) for tensor in self.tensors)

    def flops_per_token(self) -> tuple[int, int]:
        """Forward floating-point operations per token before and after, as forward_flops counts them."""
        shapes = {tensor.name: tensor.shape for tensor in self.tensors}
        old = {name: self.source_shapes[name] for name in shapes}
        return tuple(forward_flops(self.family, s, self.growth.tied) for s in (old, shapes))  # type: ignore[return-value]

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data: what `--dry-run --json` prints."""
        return {
            "format": FORMAT,
            "source": self.source,
            "family": self.family.model_type,
            "request": self.recipe.to_json(),
            "exactness": str(self.exactness),
            "axes": [axis.to_json() for axis in self.axes],
            "parameters": dict(zip(("before", "after"), self.parameters())),
            "bytes": {"before": self.source_bytes, "after": self.bytes},
            "flops_per_token": dict(zip(("before", "after"), self.flops_per_token())),
            "peak_memory_bytes": self.peak_bytes,
            "config": {k: v for k, v in self.config.items() if self.source_config.get(k) != v},
            "dropped": list(self.dropped),
            "notes": list(self.notes),
        }


def forward_flops(family: Family, shapes: Mapping[str, tuple[int, ...]], tied: bool) -> int:
    """2 operations per weight of every matrix a token passes (2 * N, Kaplan et al. arXiv 2001.08361 section 2.1).

    Embedding look-ups count nothing, a tied head counts as the matrix it is; attention scores, whose cost depends on
    the length of the text, and norms are left out.
    """
    total = 0
    stored_head = any(family.stem(name) in family.heads for name in shapes)
    for name, shape in shapes.items():
        dimensions = family.axes_of(name)
        is_head = tied and not stored_head and family.stem(name) == family.embedding
        if is_head or (len(shape) == 2 and any(d.role == READ for d in dimensions)):
            total += 2 * prod(shape)
    return total


def _working_bytes(tensor: TensorPlan) -> int:
    """Bytes that growing this tensor needs beyond two blocks: only what must be held whole."""
    return 4 * prod(tensor.shape) * 3 if tensor.rule.transposed else 0
