"""Carry the plan of a merge out: read rows, take deltas, thin them, make one of several, add it to the base. Knows
streams of blocks; ignorant of files that are written and of what was checked before.

A block is a pure function of its place: what is drawn for an element depends on the seed, its tensor, its member and
its number alone. So the bytes do not depend on blocks, threads, shards or the order of members, and memory holds a few
blocks. What must be known of a whole tensor or model first (a trim's threshold, an angle) is found in passes of its
own.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np
import torch

from growkit.checkpoint.stream import Source, is_finite, kind_of
from growkit.errors import CheckpointError
from growkit.merging.merge_plan import MergePlan
from growkit.merging.merged_tensor import MergedTensor
from growkit.merging.methods import MergeRequest
from growkit.merging.operators.consensus import Weighted
from growkit.merging.operators.select import kth_largest
from growkit.merging.rounding import Rounding
from growkit.merging.ways import Known, Options
from growkit.operators.streams import draws


class Deltas(Protocol):
    """A member as it is read: what it changes, by blocks of rows."""

    def delta(
        self, tensor: MergedTensor, name: str, start: int, stop: int, base: torch.Tensor | None, rows: np.ndarray | None
    ) -> torch.Tensor: ...


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned checkpoint: what it changes is what it is, less the base; without one it is its own delta."""

    source: Source

    def delta(
        self, tensor: MergedTensor, name: str, start: int, stop: int, base: torch.Tensor | None, rows: np.ndarray | None
    ) -> torch.Tensor:
        """Rows [start, stop) of the delta as (rows, width) in the tensor's compute dtype; 0 where rows says NONE."""
        if rows is None:
            mine = self.source.rows(name, np.arange(start, stop)).to(tensor.compute)
            return mine if base is None else mine.sub_(base)
        assert base is not None, "vocabularies may only differ from a base's"
        there = np.flatnonzero(rows[start:stop] >= 0)
        delta = torch.zeros_like(base)
        mine = self.source.rows(name, rows[start:stop][there]).to(tensor.compute)
        delta[torch.from_numpy(there)] = mine - base[torch.from_numpy(there)]
        return delta


def thin(
    delta: torch.Tensor,
    tensor: MergedTensor,
    key: str,
    start: int,
    request: MergeRequest,
    options: Options,
    limits: Sequence[float],
) -> torch.Tensor:
    """A delta with what the method leaves out set to 0, in place. options: this member's, of the method. limits: the
    magnitudes at the ranks it must know."""
    way, vector = request.row.sparsify, len(tensor.shape) < 2
    if way is None or way.idle(options) or (way.draws and vector and not request.vectors):
        return delta
    known = Known(options, limits)
    if way.draws:
        chances = draws(request.seed, f"{tensor.stem}/{key}", start * tensor.width, delta.numel())
        known = Known(options, limits, chances)
    return way.apply(delta.view(1, -1) if vector else delta, known).view(delta.shape)


@dataclass(frozen=True, kw_only=True)
class Merger:
    """A plan with the sources to carry it out: base (None without one) and members, in the plan's order. rounding: what
    is told how much of the change is left."""

    plan: MergePlan
    base: Source | None
    members: Sequence[Deltas]
    allow_nonfinite: bool = False
    rounding: Rounding | None = None

    def givers(self, tensor: MergedTensor) -> list[int]:
        """Members that have the tensor, and any weight in it; on the great circle both count."""
        both = self.plan.request.row.consensus.mix is not None
        return [n for n, weight in enumerate(tensor.weights) if tensor.origins[n] and (both or weight != 0)]

    def blocks(
        self, tensor: MergedTensor, trims: Sequence[Sequence[float]]
    ) -> Iterator[tuple[int, Callable[[], torch.Tensor]]]:
        """(first element, function that computes the block) of one tensor. trims: of each member, from `model_trims`.

        Raises CheckpointError from the function for weights that are not finite.
        """
        request = self.plan.request
        way, consensus = request.row.sparsify, request.row.consensus
        givers = self.givers(tensor)
        if way is not None and way.ranks is not None and not way.over_model:
            trims = [self._limits([tensor], number) if number in givers else () for number in range(len(self.members))]
        mix: Sequence[float] = ()
        if consensus.mix is not None and givers:
            pairs = zip(self.deltas(tensor, 0), self.deltas(tensor, 1))
            mix = consensus.mix(pairs, tensor.weights)

        def block(start: int) -> torch.Tensor:
            stop = min(start + tensor.block_rows, tensor.height)
            stored = self._base_rows(tensor, start, stop)
            if not givers:
                assert stored is not None, "a mean of nothing was refused"
                return self._checked(stored.to(tensor.dtype), tensor, start, stop)
            base = stored.to(tensor.compute) if stored is not None else None

            def deltas() -> Weighted:
                for place, number in enumerate(givers):
                    delta = self._delta(tensor, number, start, stop, base)
                    if tensor.whole and not is_finite(delta):
                        raise self._not_finite(tensor, start, stop, delta)
                    key = self.plan.members[number].key
                    weight = mix[place] if mix else tensor.weights[number]
                    yield weight, thin(delta, tensor, key, start, request, tensor.options[number], trims[number])

            if tensor.whole and consensus.join_whole is not None:
                merged = consensus.join_whole(deltas(), len(givers))
            else:
                merged = consensus.join(deltas())
            result = (merged if base is None else base.add_(merged, alpha=tensor.scale)).to(tensor.dtype)
            if self.rounding is not None and stored is not None and tensor.dtype.itemsize < 4:
                self.rounding.add(stored.to(tensor.compute), merged * tensor.scale, result)
            return self._checked(result, tensor, start, stop)

        for start in range(0, tensor.height, tensor.block_rows):
            yield start * tensor.width, lambda start=start: block(start)  # type: ignore[misc]

    def model_trims(self) -> list[Sequence[float]]:
        """For each member the magnitudes its thinning must know of the whole model; none where it asks for none."""
        request = self.plan.request
        way, none = request.row.sparsify, [()] * len(self.members)
        if way is None or way.ranks is None or not way.over_model or way.idle(request.options):
            return list(none)
        active = {number for tensor in self.plan.tensors for number in self.givers(tensor)}
        return [self._limits(self.plan.tensors, number) if number in active else () for number in range(len(none))]

    def _limits(self, tensors: Sequence[MergedTensor], number: int) -> Sequence[float]:
        """The magnitudes at the ranks that a thinning must know, of one member's deltas of these tensors."""
        request = self.plan.request
        assert request.row.sparsify is not None and request.row.sparsify.ranks is not None, (
            "only asked where there are any"
        )
        own = [tensor for tensor in tensors if tensor.origins[number]]
        dtype = max((tensor.compute for tensor in own), key=lambda dtype: dtype.itemsize)
        options = request.options if request.row.sparsify.over_model else tensors[0].options[number]
        ranks = request.row.sparsify.ranks(sum(prod(tensor.shape) for tensor in own), options)
        return kth_largest(lambda: (d.to(dtype) for t in own for d in self.deltas(t, number)), ranks, dtype)

    def deltas(self, tensor: MergedTensor, number: int) -> Iterator[torch.Tensor]:
        """What one member changes in a tensor, in blocks of rows."""
        return (delta for _, _, delta in self.read(tensor, number))

    def read(self, tensor: MergedTensor, number: int) -> Iterator[tuple[int, torch.Tensor | None, torch.Tensor]]:
        """(first row, what the base has there as it is stored, what one member changes in it), in blocks of rows."""
        for start in range(0, tensor.height, tensor.block_rows):
            stop = min(start + tensor.block_rows, tensor.height)
            stored = self._base_rows(tensor, start, stop)
            base = None if stored is None else stored.to(tensor.compute)
            yield start, stored, self._delta(tensor, number, start, stop, base)

    def _base_rows(self, tensor: MergedTensor, start: int, stop: int) -> torch.Tensor | None:
        return self.base.rows(tensor.base, np.arange(start, stop)) if self.base is not None else None

    def _delta(
        self, tensor: MergedTensor, number: int, start: int, stop: int, base: torch.Tensor | None
    ) -> torch.Tensor:
        return self.members[number].delta(tensor, tensor.origins[number], start, stop, base, tensor.rows[number])

    def _checked(self, result: torch.Tensor, tensor: MergedTensor, start: int, stop: int) -> torch.Tensor:
        """A block of the result. Raises CheckpointError where it is not finite, unless that is allowed."""
        if not self.allow_nonfinite and not is_finite(result):
            raise self._not_finite(tensor, start, stop, result)
        return result

    def _not_finite(self, tensor: MergedTensor, start: int, stop: int, result: torch.Tensor) -> CheckpointError:
        """Whose fault it is that a merged block holds NaN or Inf: the base's, a member's, or the dtype's."""
        stored = self._base_rows(tensor, start, stop)
        blocks = [] if stored is None else [(self.plan.first, stored)]
        base = None if stored is None else torch.zeros(stored.shape, dtype=tensor.compute)
        for number in self.givers(tensor):
            blocks.append((self.plan.members[number].label, self._delta(tensor, number, start, stop, base)))
        for label, block in blocks:
            if not is_finite(block):
                cure = (
                    ", which has no singular values; choose another --method"
                    if tensor.whole
                    else ": pass --allow-nonfinite to merge it as it is"
                )
                return CheckpointError(f"tensor {tensor.names[0]!r} of {label!r} holds {kind_of(block)}{cure}")
        dtype = str(tensor.dtype).removeprefix("torch.")
        return CheckpointError(
            f"tensor {tensor.names[0]!r} holds {kind_of(result)} once merged: its values do not fit {dtype}; choose"
            " another --dtype"
        )
