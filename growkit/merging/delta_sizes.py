"""How large and how redundant a delta is. Knows how to count; ignorant of how it will be stored or merged.

What drop rate is safe follows the magnitudes that DARE's authors report (arXiv 2311.03099): deltas of supervised
fine-tuning lie within 0.005, where 90 % can go; those of continued pretraining reach 0.03, where DARE fails. The noise
that dropping adds to a delta is, relative to it, sqrt(p / (1 - p)), from the variance of a Bernoulli mask.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

import numpy as np
import torch

from growkit.checkpoint.stream import is_finite, kind_of
from growkit.errors import CheckpointError
from growkit.growth.source_headers import architecture_of
from growkit.merging.merged_tensor import MergedTensor
from growkit.merging.merger import Merger
from growkit.merging.operators.select import magnitude_bits

THRESHOLDS = (1e-5, 1e-4, 1e-3, 5e-3, 3e-2)
SMALL, LARGE = 5e-3, 3e-2
RATES = (0.5, 0.9, 0.99)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Deltas of one kind of tensor. below: the share under each of THRESHOLDS."""

    kind: str
    elements: int
    rms: float
    base_rms: float
    largest: float
    unchanged: float
    below: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class DeltaReport:
    """What `growkit delta` shows. q999: the magnitude 99.9 % lie below, to 1 %. histogram: (power of ten, share) of
    magnitudes.

    safe_drop: the drop rate that DARE's authors' magnitudes allow. noise: (p, root mean square of what dropping adds,
    over that of the base's weights).
    """

    base: str
    member: str
    kinds: tuple[Kind, ...]
    q999: float
    histogram: tuple[tuple[int, float], ...]
    safe_drop: float
    noise: tuple[tuple[float, float], ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {**asdict(self), "thresholds": THRESHOLDS}


# called with a tensor, a first row and the block of the delta from there, (rows, width), which it may change
Seen = Callable[[MergedTensor, int, torch.Tensor], None]


def measure(merger: Merger, seen: Seen = lambda tensor, start, delta: None) -> DeltaReport:
    """Count one member's deltas in one pass. seen: gets each block once it is counted, so that nobody reads it again.

    Raises CheckpointError where one is NaN or Inf, and what `seen` raises.
    """
    plan = merger.plan
    sums: dict[str, np.ndarray] = {}
    bins = np.zeros(1 << 16, dtype=np.int64)
    decades: Counter[int] = Counter()
    for tensor in plan.tensors:
        entry = sums.setdefault(_kind(merger, tensor), np.zeros(5 + len(THRESHOLDS)))
        for start, base, block in merger.read(tensor, 0):
            if not is_finite(block):
                raise CheckpointError(
                    f"tensor {tensor.names[0]!r} of {plan.members[0].label!r} less the base's holds {kind_of(block)};"
                    " such a delta can be neither measured nor added"
                )
            size = block.abs().float()
            bins += np.bincount(magnitude_bits(size) >> 16, minlength=1 << 16)
            below = [int((size < limit).sum()) for limit in THRESHOLDS]
            squares = float(size.double().square().sum())
            entry[0] += size.numel()
            entry[1] += squares
            entry[2] = max(entry[2], float(size.max()) if size.numel() else 0.0)
            entry[3] += int((size == 0).sum())
            assert base is not None, "a delta is of a base"
            entry[4] += float(base.double().square().sum())
            entry[5:] += below
            seen(tensor, start, block)
    kinds = [
        Kind(
            kind=name,
            elements=int(s[0]),
            rms=sqrt(s[1] / s[0]),
            base_rms=sqrt(s[4] / s[0]),
            largest=float(s[2]),
            unchanged=s[3] / s[0],
            below=tuple((s[5:] / s[0]).tolist()),
        )
        for name, s in sums.items()
        if s[0]
    ]
    total = np.stack(list(sums.values())).sum(axis=0)
    edges = (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32)
    q999 = float(edges[int(np.searchsorted(bins.cumsum(), 0.999 * bins.sum()))])
    for place in np.flatnonzero(bins):
        if 0 < edges[place] < np.inf:
            decades[int(np.floor(np.log10(edges[place])))] += int(bins[place])
    ratio = sqrt(total[1] / total[4]) if total[4] else 0.0
    safe = 0.9 if q999 <= SMALL else 0.5 if q999 <= LARGE else 0.0
    return DeltaReport(
        base=plan.first,
        member=plan.members[0].label,
        kinds=tuple(kinds),
        q999=q999,
        histogram=tuple((decade, decades[decade] / int(total[0])) for decade in sorted(decades)),
        safe_drop=safe,
        noise=tuple((p, sqrt(p / (1 - p)) * ratio) for p in RATES),
        notes=plan.notes,
    )


def _kind(merger: Merger, tensor: MergedTensor) -> str:
    assert merger.plan.base is not None
    dimensions = merger.plan.family.axes_of(tensor.names[0], architecture_of(merger.plan.family, merger.plan.base))
    axes = {axis for dimension in dimensions for axis in dimension.axes}
    if len(dimensions) == 1:
        return "norms and biases"
    if axes & {"vocab", "position", "type"}:
        return "embedding and head"
    return (
        "feed-forward"
        if "ffn" in axes
        else "attention"
        if axes & {"head", "kv_head", "query_head", "key_head"}
        else "other"
    )
