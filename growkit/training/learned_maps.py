"""Growth whose maps learn (LiGO, Wang et al., arXiv 2303.00980): of every axis a matrix for each role, and for each
kind of tensor how much of which layer. Knows plans and their maps; ignorant of losses and of data.

    W~_k = M_out W_k M_in^T            of each layer k of the source, whose weights stay as they are
    W'_l = sum over k of w[l, k] W~_k  of each layer l of the result, w of one kind of tensor

M begins as the exact map and w as the layers that the plan names, so that before a step the result is what the exact
growth makes. What is read (M_in) is a matrix of its own beside what is written (M_out): one for both could not begin
exactly. Copies would stay equal for ever, so what is read begins with something added that what is written cancels:
N with N^T P = 0. The stream has one matrix for each role; heads, which are mixed whole, and feed-forward units have one
in each layer. All other axes, the slots of a head among them, keep the matrix that the plan has.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from growkit.growth.plan import Plan, TensorPlan
from growkit.growth.rules import before_head_factor, dimension_map, is_embedding
from growkit.maps.axis import BALANCED, FREE, GATHER, AxisMap, axis_map, concatenate
from growkit.maps.notation import GAIN, READ, SHIFT, UNSIZED, WRITE, Dimension
from growkit.operators.seeds import generator

EVERYWHERE = "hidden"  # the stream, which all layers share
IN_LAYERS = ("head", "kv_head", "query_head", "key_head", "ffn")
APART = 0.5  # length of what is added to a row of M_in, beside the row's own


@dataclass(frozen=True)
class Layered:
    """One kind of tensor in layers: what it is called in each of the source's, and the tensors of the result."""

    origins: tuple[str, ...]
    targets: tuple[TensorPlan, ...]


class LearnedMaps(torch.nn.Module):
    """The matrices of a plan for one dense source, which learn, and the tensors that they make.

    dtype: what is computed in. seed: of what lets copies part.
    """

    def __init__(self, plan: Plan, dtype: torch.dtype, seed: int):
        super().__init__()
        self.plan, self.growth, self.family = plan, plan.growth, plan.family
        self.dtype, self.seed = dtype, seed
        self.operations = 0  # of one forward pass
        self.learned = torch.nn.ParameterDict()
        self.mixtures = torch.nn.ParameterDict()
        self.kept: dict[tuple[str, str], torch.Tensor] = {}
        shapes = plan.members[0].shapes
        for name in shapes:
            if not self.family.is_buffer(name):
                self._prepare(name, shapes[name])
        for kind, layered in self.kinds.items():
            self.mixtures[_key(kind)] = torch.nn.Parameter(self._first_mixture(layered))
            elements = [int(np.prod(target.shape)) for target in layered.targets]
            self.operations += 2 * len(layered.origins) * sum(elements)

    @cached_property
    def kinds(self) -> dict[str, Layered]:
        """The tensors in layers, by template."""
        targets: dict[str, list[TensorPlan]] = {}
        for tensor in self.plan.tensors:
            if self.family.layer_of(tensor.name) is not None:
                targets.setdefault(self.family.template(tensor.name), []).append(tensor)
        kinds = {}
        for kind, tensors in targets.items():
            origins = [n for n in self.plan.members[0].shapes if self.family.template(n) == kind]
            origins.sort(key=lambda name: self.family.layer_of(name) or 0)
            kinds[kind] = Layered(tuple(origins), tuple(tensors))
        return kinds

    def matrix(self, axis: str, role: str, layer: int | None = None) -> torch.Tensor | None:
        """(new, old) what an axis grows by in one role, of a layer where it has one there; None: it stays as it is."""
        key = self._parameter(axis, role, layer)
        return self.learned[key] if key in self.learned else self.kept.get((axis, role))

    def forward(self, source: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The result's tensors by name, of the source's."""
        made: dict[str, torch.Tensor] = {}
        for tensor in self.plan.tensors:
            if self.family.layer_of(tensor.name) is None:
                made[tensor.name] = self._stored(tensor.name, self.widened(tensor.parts[0].name, source))
        for kind, layered in self.kinds.items():
            wide = torch.stack([self.widened(name, source) for name in layered.origins])
            mixed = torch.tensordot(self.mixtures[_key(kind)], wide, dims=1)
            made |= {target.name: self._stored(target.name, one) for target, one in zip(layered.targets, mixed)}
        return {tensor.name: made[tensor.name] for tensor in self.plan.tensors}

    def widened(self, name: str, source: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """M_out W M_in^T of a tensor of the source; of a gain that is stored less an offset, of all of it."""
        tensor, layer = source[name].to(self.dtype), self.family.layer_of(name)
        dimensions = self.growth.dimensions(name)
        if self._is_gain(name):
            tensor = tensor + self.family.norms.gain_offset
        for place, (dimension, size) in enumerate(zip(dimensions, source[name].shape)):
            if dimension.axes[0] not in UNSIZED:
                tensor = self._along(tensor, place, dimension, layer)
                tensor = tensor * self._factor(dimension, size).to(tensor)
        return tensor * self.growth.embedding_scale if is_embedding(name, self.growth) else tensor

    def _stored(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor - self.family.norms.gain_offset if self._is_gain(name) else tensor

    def _is_gain(self, name: str) -> bool:
        return any(dimension.role == GAIN for dimension in self.growth.dimensions(name))

    def _factor(self, dimension: Dimension, size: int) -> torch.Tensor:
        """What the last norm multiplies by for the head, (new,), and 1 elsewhere."""
        if not dimension.before_head or dimension.role not in (GAIN, SHIFT):
            return torch.ones(())
        axis = dimension_map(dimension, size, self.growth)
        return torch.from_numpy(before_head_factor(axis, self.growth) * np.ones(axis.new))

    def _along(self, tensor: torch.Tensor, place: int, dimension: Dimension, layer: int | None) -> torch.Tensor:
        """A tensor grown along one dimension: each block of it by the matrices of its axes."""
        moved = tensor.movedim(place, 0)
        places = self._places(dimension, [self.growth.maps[axis].old for axis in dimension.axes], False)
        made = []
        for axes, own in zip(dimension.blocks, places):
            block = moved[own] if len(places) > 1 else moved
            block = block.reshape(*(self.growth.maps[axis].old for axis in axes), -1)
            for number, axis in enumerate(axes):
                matrix = self.matrix(axis, dimension.role, layer)
                if matrix is not None:
                    block = torch.tensordot(matrix, block, dims=([1], [number])).movedim(0, number)
            made.append(block.reshape(-1, *moved.shape[1:]))
        grown = torch.cat(made)
        if len(places) > 1:
            new = self._places(dimension, [self.growth.maps[axis].new for axis in dimension.axes], True)
            grown = grown[torch.argsort(torch.cat(new)).to(grown.device)]
        return grown.movedim(0, place)

    def _places(self, dimension: Dimension, sizes: list[int], new: bool) -> list[torch.Tensor]:
        """Where the entries of each block of a dimension lie."""
        left, parts = iter(sizes), []
        for number, axes in enumerate(dimension.blocks):
            count = int(np.prod([next(left) for _ in axes]))
            parts.append(axis_map("block", count, np.arange(count), float(number), 1.0))
        dealt = dimension.dealt or "1"
        if not dealt.isdigit():
            dealt = str(self.growth.maps[dealt].new if new else self.growth.maps[dealt].old)
        which = concatenate(parts, int(dealt), int(dealt)).sides[WRITE].amplitude
        return [torch.from_numpy(np.flatnonzero(which == number)) for number in range(len(parts))]

    def _prepare(self, name: str, shape: tuple[int, ...]) -> None:
        """Make the matrices that a tensor of the source needs, and count what growing it takes."""
        layer, now = self.family.layer_of(name), list(shape)
        for place, dimension in enumerate(self.growth.dimensions(name)):
            if dimension.axes[0] in UNSIZED:
                continue
            for axis in dimension.axes:
                self._begin(axis, dimension.role, layer)
            before = int(np.prod(now))
            now[place] = dimension_map(dimension, shape[place], self.growth).new
            wide = [axis for axis in dimension.axes if self.matrix(axis, dimension.role, layer) is not None]
            self.operations += sum(2 * before * self.growth.maps[axis].new for axis in wide)

    def _begin(self, axis: str, role: str, layer: int | None) -> None:
        key, own = self._parameter(axis, role, layer), self.growth.maps[axis]
        if key in self.learned or (axis, role) in self.kept:
            return
        if axis != EVERYWHERE and (axis not in IN_LAYERS or layer is None):
            if not own.is_identity:
                self.kept[axis, role] = torch.from_numpy(first_matrix(own, role, self.seed, key)).to(self.dtype)
            return
        self.learned[key] = torch.nn.Parameter(
            torch.from_numpy(first_matrix(own, role, self.seed, key, APART)).to(self.dtype)
        )

    def _parameter(self, axis: str, role: str, layer: int | None) -> str:
        if self.growth.maps[axis] is self.growth.maps[EVERYWHERE]:
            axis = EVERYWHERE
        return f"{axis} {role}" if axis == EVERYWHERE or layer is None else f"{axis} {role} {layer}"

    def _first_mixture(self, layered: Layered) -> torch.Tensor:
        """(layers of the result, layers of the source) that hold this tensor: 1 for the one a layer copies, 0 in a row
        that begins as nothing."""
        first = torch.zeros(len(layered.targets), len(layered.origins), dtype=self.dtype)
        for row, target in enumerate(layered.targets):
            part = target.parts[0]
            first[row, layered.origins.index(part.name)] = 0.0 if part.rule.writes_nothing else 1.0
        return first

    def to(self, *arguments: Any, **more: Any) -> "LearnedMaps":
        """The maps on another device, those that are kept too."""
        self.kept = {key: matrix.to(*arguments, **more) for key, matrix in self.kept.items()}
        return super().to(*arguments, **more)


def first_matrix(axis: AxisMap, role: str, seed: int, key: str, apart: float = 0.0) -> np.ndarray:
    """(new, old) the matrix that a role of a map begins as: AxisMap.matrix, and what it leaves to chance.

    What nothing depends on is a copy of random sign; where only a sum counts, signs less their mean. apart: how long
    the rows of N are beside those of what is read, where copies are.
    """
    matrix, side = axis.matrix(role), axis.sides[role]
    draws = generator(seed, f"learned map {key}")
    signs = 2.0 * torch.randint(0, 2, (axis.new,), generator=draws).double().numpy() - 1.0
    for mode in (FREE, BALANCED):
        rows = np.flatnonzero(side.mode == mode)
        matrix[rows, axis.index[rows]] = signs[rows]
        if mode == BALANCED and len(rows):
            matrix[rows] -= matrix[rows].mean(0)
    carried = (side.mode == GATHER) & (side.amplitude != 0) & (axis.sides[WRITE].mode == GATHER)
    if role != READ or not apart or axis.is_identity or np.bincount(axis.index[carried]).max(initial=0) < 2:
        return matrix
    added = torch.randn(axis.new, axis.old, generator=draws, dtype=torch.float64).numpy()
    added *= (apart * np.abs(side.amplitude) / np.sqrt(axis.old) * carried)[:, None]
    write = axis.sides[WRITE].amplitude * carried
    lengths = np.bincount(axis.index, write**2, axis.old)
    sums = np.zeros((axis.old, axis.old))
    np.add.at(sums, axis.index, write[:, None] * added)
    cancelled = np.divide(sums, lengths[:, None], out=np.zeros_like(sums), where=lengths[:, None] > 0)
    return matrix + added - write[:, None] * cancelled[axis.index]


def _key(kind: str) -> str:
    """A template as the name of a parameter, which has no dots."""
    return kind.replace(".", "/")
