"""A growth from request to finished folder, for commands and for stages of a run alike. Knows the order of things;
every step lives beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growkit.checkpoint.source import Checkpoint
from growkit.growth.depth.matching import matched
from growkit.growth.plan import Plan
from growkit.growth.prepare import Options, Path_, prepared
from growkit.growth.request import Recipe
from growkit.growth.write_growth import write_checkpoint

Refine = Callable[[Plan, Checkpoint], Plan]  # the plan and the first source's checkpoint


@dataclass(frozen=True, kw_only=True)
class Grown:
    """What a growth did, or with `dry_run` would do."""

    folder: Path  # the folder that was made, or would be
    plan: Plan  # what was followed
    carried: tuple[Path, ...] = ()  # the files of AdamW's state that grew along, or would
    dry_run: bool = False  # whether nothing was written
    report: Any = None  # the proof, a growkit.models.verify.Verification, where one was run
    unverified: str = ""  # why there is none, though one was asked for
    broken: bool = False  # whether that is because the proof was begun and broke off

    @property
    def failed(self) -> bool:
        """Whether a proof was asked for and begun, and the result did not pass it."""
        return self.broken or (self.report is not None and not self.report.ok)


def carry_out(
    sources: Sequence[Path_],
    out: Path_ | None,
    recipe: Recipe,
    options: Options,
    refine: Refine = lambda plan, _: plan,
    settle: Callable[[Plan], Plan] = lambda plan: plan,
) -> Grown:
    """Plan and write. settle: what live models without weights add to a plan, a dry run's too; refine: what only those
    with weights can add. Raises CheckpointError or RequestError."""
    with prepared(sources, out, recipe, options) as ready:
        carried = tuple(path for state in ready.states for path in state.files())
        plan = settle(ready.plan)
        done = Grown(folder=ready.folder, plan=plan, carried=carried, dry_run=options.dry_run)
        if options.dry_run:
            return done
        options.announce(plan)
        write_checkpoint(
            matched(refine(plan, ready.sources[0]), ready.sources),
            ready.sources,
            ready.folder,
            options.shard_bytes,
            options.allow_nonfinite,
            ready.states,
            ready.rates,
            ready.replaces,
            options.progress,
        )
        return done
