"""The Python twins of the commands around merging: merge, delta, apply. Knows the order of things; every step lives below."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growkit.execute import Progress
from growkit.merging.output import write_merged
from growkit.merging.prepare import Member, Path_, prepared_merge
from growkit.planners.merge import MergePlan
from growkit.prepare import SHARD_BYTES


@dataclass(frozen=True)
class Merged:
    """What a merge did: the folder it made and the plan it followed."""

    folder: Path
    plan: MergePlan


def merge(
    members: Sequence[Member],
    out: Path_ | None = None,
    *,
    base: Path_ | None = None,
    shard_bytes: int = SHARD_BYTES,
    force: bool = False,
    allow_nonfinite: bool = False,
    progress: Progress = lambda _: None,
    announce: Callable[[MergePlan], None] = lambda _: None,
    **request: Any,
) -> Merged:
    """Merge fine-tuned models into one: theta = base + scale * C({(w_t, S(theta_t - base))}).

    members: checkpoints, each a path, 'path:weight' or (path, weight). base: what they were fine-tuned from. request: method
    (see growkit.planners.methods.METHODS), drop, density, epsilon, gamma, scale, seed, vocab, drop_vectors, dtype.
    Raises CheckpointError or RequestError, having written nothing and touched nothing.
    """
    with prepared_merge(members, base, out, request, allow_nonfinite, force) as ready:
        announce(ready.merger.plan)
        write_merged(ready.merger, ready.first, ready.sources, ready.folder, shard_bytes, progress)
        return Merged(ready.folder, ready.merger.plan)


def plan_merge(
    members: Sequence[Member],
    out: Path_ | None = None,
    *,
    base: Path_ | None = None,
    force: bool = False,
    **request: Any,
) -> MergePlan:
    """What `merge` would do, without writing anything; it refuses what `merge` would."""
    with prepared_merge(members, base, out, request, False, force) as ready:
        return ready.merger.plan
