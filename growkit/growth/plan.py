"""What will be done, before a byte is touched: axes with their maps, tensors with their rules, and what is exact. Knows
how to describe itself; ignorant of how maps are chosen and of how anything is executed.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch

from growkit.checkpoint.record import FORMAT
from growkit.families import Family, family_named
from growkit.families.text_part import changes
from growkit.growth.request import Recipe
from growkit.growth.rules import Growth
from growkit.maps.axis import AxisMap
from growkit.maps.exactness import Exactness
from growkit.maps.notation import READ
from growkit.operators.draws import Fill, Given, Redraw, Rest
from growkit.operators.rule import BLOCK_ELEMENTS, Rule

# Measured as the largest resident size of a process (VmHWM) with torch 2.13 for CPUs on x86-64 Linux:
PROCESS_BYTES = 252_000_000  # Python with torch and growkit imported
# and what transformers' config classes bring along where one is asked, those of most families the second too, and its
# models where one is made
STOCK_BYTES = {
    "transformers.configuration_utils": 24_000_000,
    "transformers.activations": 85_000_000,
    "transformers.modeling_utils": 60_000_000,
}
# per tensor of a result: its plan, its name and its source's header, by examples/benchmarks/plan_30b.py: 31 MB more
# than after the imports for 18,867 tensors widened, 37 MB for 37,731 stacked (10 MB of either for a vocabulary of
# 151,936)
TENSOR_BYTES = 1_200
# per element of a block, two of them in flight with their temporaries: 72 MB widening the small shape of
# examples/benchmarks/big.py, 85 MB a layer of plan_30b.py's. What goes from file to file is only checked: 7 MB stacking
GROWN_BYTES, KEPT_BYTES = 90, 8
REDRAW_BYTES = 20_000_000  # drawing entries of one block anew, measured


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Two layers that are averaged. turn: of a tensor of the upper one, the order that puts what it holds where the
    lower one has it; None while it is not known."""

    lower: int
    upper: int
    turn: Rule | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What one stored tensor gives to a target tensor: the number of its source, its name there, and the rule.

    pair: the layers that are averaged, where this is of the upper one; `rule` follows its order once that is known.
    like: the name of one that has its axes; "": itself.
    """

    source: int
    name: str
    rule: Rule
    pair: Neighbours | None = None
    like: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorPlan:
    """One target tensor: its name, shape and dtype, and the parts it is the sum of.

    Tensors that share one `parts` are copies of one another. inserted: in a layer that starts as the identity. draw:
    what of it is drawn at random; what is drawn or given whole has no parts.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    parts: tuple[Part, ...]
    inserted: bool = False
    draw: Fill | Given | Redraw | Rest | None = None

    @property
    def bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, kw_only=True)
class Member:
    """One source of a plan: what it is called, what it holds and how its axes grow. dropped: buffers left out."""

    label: str
    config: dict[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    bytes: int
    growth: Growth
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything needed to grow checkpoints. tensors are in the order they will lie in the file.

    layers: the map of layers, over those of all members one after another; stacks: of each stack of them, by the stem
    before its numbers, the first of which is `layers`.
    """

    recipe: Recipe
    members: tuple[Member, ...]
    layers: AxisMap
    axes: tuple[AxisPlan, ...]
    tensors: tuple[TensorPlan, ...]
    config: dict[str, Any]
    notes: tuple[str, ...] = ()
    learned: Mapping[str, Any] | None = None  # what learning its maps came to
    stacks: Mapping[str, AxisMap] = field(default_factory=dict)

    @property
    def source(self) -> str:
        return " + ".join(member.label for member in self.members)

    @property
    def growth(self) -> Growth:
        return self.members[0].growth

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
    def source_bytes(self) -> int:
        return sum(member.bytes for member in self.members)

    @property
    def changed(self) -> dict[str, Any]:
        """Settings of the first member's config that become others."""
        return changes(self.members[0].config, self.config)

    @property
    def peak_bytes(self) -> int:
        """Expected peak resident memory of planning and growing: the process, the plan, two blocks in flight, and what
        is grown whole.
        """
        whole = max((_working_bytes(tensor) for tensor in self.tensors), default=0)
        cast = self.recipe.dtype is not None
        blocks = max((_block_bytes(tensor, cast) for tensor in self.tensors), default=0)
        return process_bytes() + TENSOR_BYTES * len(self.tensors) + blocks + 2 * whole + _whole_bytes(self)

    def parameters(self) -> tuple[int, int]:
        """Numbers of weights before and after (buffers that transformers recomputes not counted)."""
        before = sum(prod(shape) for member in self.members for shape in _weights(member).values())
        return before, sum(prod(tensor.shape) for tensor in self.tensors)

    @property
    def result_family(self) -> Family:
        """The family of the result: the sources' own, except where a dense model becomes a mixture of experts."""
        return family_named(self.config["model_type"])

    def active_parameters(self) -> tuple[int, int]:
        """Numbers of weights that one token passes before and after: of experts, only the share that it takes."""
        before = sum(active(self.family, _weights(member), member.config) for member in self.members)
        return before, active(self.result_family, {t.name: t.shape for t in self.tensors}, self.config)

    def flops_per_token(self) -> tuple[int, int]:
        """Forward floating-point operations per token before and after, as forward_flops counts them."""
        tied = self.growth.tied
        before = sum(forward_flops(self.family, _weights(member), tied, member.config) for member in self.members)
        return before, forward_flops(self.result_family, {t.name: t.shape for t in self.tensors}, tied, self.config)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data: what `--dry-run --json` prints."""
        return {
            "format": FORMAT,
            "command": self.recipe.command,
            "sources": [member.label for member in self.members],
            "family": self.result_family.model_type,
            "request": self.recipe.to_json(),
            "exactness": str(self.exactness),
            "axes": [axis.to_json() for axis in self.axes],
            "parameters": dict(zip(("before", "after"), self.parameters())),
            "active_parameters": dict(zip(("before", "after"), self.active_parameters())),
            "bytes": {"before": self.source_bytes, "after": self.bytes},
            "flops_per_token": dict(zip(("before", "after"), self.flops_per_token())),
            "peak_memory_bytes": self.peak_bytes,
            "config": self.changed,
            "dropped": [name for member in self.members for name in member.dropped],
            "notes": list(self.notes),
        }


def process_bytes() -> int:
    """Resident memory of this process before it holds anything."""
    return PROCESS_BYTES + sum(size for module, size in STOCK_BYTES.items() if module in sys.modules)


def active(family: Family, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> int:
    """Number of weights that one token passes: all, but of the experts' only the share that it takes, k of N."""
    return _passed({name: prod(shape) for name, shape in shapes.items()}, family, config)


def forward_flops(family: Family, shapes: Mapping[str, tuple[int, ...]], tied: bool, config: Mapping[str, Any]) -> int:
    """2 operations per weight of every matrix a token passes (2 * N, Kaplan et al. arXiv 2001.08361 section 2.1).

    Of a mixture's experts a token passes as many as it takes. Embedding look-ups count nothing, a tied head counts as
    the matrix it is; attention scores, whose cost depends on the length of the text, and norms are left out.
    """
    counts = {}
    passes = family.number(config, family.passes) if family.passes else 1
    layers = family.number(config, family.sizes["layer"]) if family.passes else 1
    stored_head = any(family.stem(name) in family.heads for name in shapes)
    for name, shape in shapes.items():
        dimensions = family.axes_of(name)
        is_head = tied and not stored_head and family.stem(name) == family.embedding
        if is_head or (len(shape) > 1 and any(d.role == READ for d in dimensions)):
            counts[name] = 2 * prod(shape)
            if family.layer_of(name) is not None:
                counts[name] = counts[name] * passes // layers
    return _passed(counts, family, config)


def _passed(counts: Mapping[str, int], family: Family, config: Mapping[str, Any]) -> int:
    """A sum over tensors, of which those of experts count for the share of experts that a token takes."""
    every = sum(counts.values())
    if not family.is_moe:
        return every
    routed = sum(count for name, count in counts.items() if family.holds_experts(name))
    taken, experts = family.number(config, family.experts.top_k), family.number(config, family.sizes["expert"])
    return every - routed + routed * taken // experts


def _weights(member: Member) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in member.shapes.items() if name not in member.dropped}


def _block_bytes(tensor: TensorPlan, cast: bool) -> int:
    """Bytes of the largest blocks of a tensor that are in flight, with what computing them takes.

    cast: to another dtype.
    """
    elements = min(BLOCK_ELEMENTS, prod(tensor.shape))
    kept = not cast and len(tensor.parts) == 1 and tensor.draw is None and tensor.parts[0].rule.is_copy
    return elements * (KEPT_BYTES if kept else GROWN_BYTES)


def _whole_bytes(plan: Plan) -> int:
    """Bytes of what is held beside that: to match two averaged layers a number for each pair of units, and a matrix of
    either; for maps that learn the source, the result twice with its gradient, and the maps with theirs and two
    moments."""
    if plan.recipe.learn is not None:
        before, after = plan.parameters()
        each = [(m.new * m.old, 4 if axis == "hidden" else 2 * plan.layers.old) for axis, m in plan.growth.maps.items()]
        return 4 * (before + 3 * after + 4 * sum(size * count for size, count in each))
    averaged = [part for tensor in plan.tensors for part in tensor.parts if part.pair is not None]
    units = max((max(m.growth.maps[axis].old for axis in ("ffn", "head")) for m in plan.members), default=0)
    widest = max((prod(plan.members[part.source].shapes[part.name]) for part in averaged), default=0)
    return 4 * (3 * units**2 + 4 * widest) if averaged else 0


def _working_bytes(tensor: TensorPlan) -> int:
    """Bytes that growing this tensor needs beyond two blocks: only what must be held or drawn whole."""
    if isinstance(tensor.draw, Fill | Given | Rest):
        return 4 * prod(tensor.shape)
    if isinstance(tensor.draw, Redraw):
        return REDRAW_BYTES
    return 4 * prod(tensor.shape) * 3 if tensor.parts[0].rule.transposed else 0
