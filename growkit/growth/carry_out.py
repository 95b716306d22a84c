"""A growth from request to finished folder, for commands and for stages of a run alike. Knows the order of things; every step
lives beside it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growkit.growth.plan import Plan
from growkit.growth.prepare import Build, Path_, prepared
from growkit.growth.write_growth import write_checkpoint

Refine = Callable[[Plan, Any], Plan]  # the plan and the first source's checkpoint


@dataclass(frozen=True)
class Grown:
    """What a growth did: the folder it made, the plan it followed, and the proof where one was run.

    report: a growkit.models.verify.Verification. unverified: why there is none.
    """

    folder: Path
    plan: Plan
    report: Any = None
    unverified: str = ""


def carry_out(
    sources: Sequence[Path_],
    out: Path_ | None,
    build: Build,
    keywords: dict[str, Any],
    like: Path_ | None = None,
    refine: Refine = lambda plan, _: plan,
) -> Grown:
    """Plan and write. refine: what only live models can add to a plan. Raises CheckpointError or RequestError."""
    with prepared(sources, out, build, keywords, like) as ready:
        options, plan = ready.options, ready.plan
        options.announce(plan)
        write_checkpoint(
            refine(plan, ready.sources[0]),
            ready.sources,
            ready.folder,
            options.shard_bytes,
            options.allow_nonfinite,
            ready.states,
            ready.rates,
            options.progress,
        )
    return Grown(ready.folder, ready.plan)
