"""`growkit stack`: a checkpoint grown in depth, or several stacked."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from growkit.api import words as w
from growkit.api.growing import grown, several
from growkit.api.option import Argument, Option, quiet
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.growth.carry_out import Grown

Sources = Annotated[
    w.PathLike | Sequence[w.PathLike] | None,
    Argument("Checkpoints: folders, .safetensors files, hub ids. None: the newest growth here.", "SRC", may_lack=True),
]


@public
def stack(
    source: Sources = None,
    out: w.Out = None,
    *,
    layers: w.Layers = None,
    method: Annotated[
        w.DepthMethod,
        Option(help="which layer each new one copies; identity keeps the function.", panel=w.DEPTH, metavar="METHOD"),
    ] = "stack",
    overlap: w.Overlap = None,
    after: w.After = None,
    every: w.Every = None,
    where: w.Where = None,
    block: w.Block = None,
    slices: w.Slices = None,
    seed: w.Seed = 0,
    dtype: w.Dtype = None,
    optimizer: w.StateBeside = "auto",
    allow_nonfinite: w.AllowNonfinite = False,
    shard_size: w.ShardSize = "5GB",
    dry_run: w.DryRun = False,
    force: w.Force = False,
    verify: w.Verify = False,
    family: w.FamilyName = None,
    source_heads: w.SourceHeads = None,
    progress: w.Progress = quiet,
    announce: w.AnnouncePlan = quiet,
) -> "Grown":
    """Grow a checkpoint in depth, or stack the layers of several.

    source: one checkpoint, several, or None for the current one (see growkit.checkpoint.lineage). Several are first
    widened to the largest of each size; what stands before the layers comes from the first, what follows from the last.
    layers: how many there will be. after: numbers from 1, or as people write them, "4,8". Result and errors as of
    `widen`.
    """
    from growkit.growth.prepare import Options
    from growkit.growth.request import stack_recipe
    from growkit.growth.spelling import size_in_bytes

    request = stack_recipe(
        layers=layers, method=method, overlap=overlap, after=after, every=every, where=where, block=block, slices=slices, seed=seed,
        dtype=dtype,
    )  # fmt: skip
    options = Options(
        shard_bytes=size_in_bytes(shard_size), force=force, optimizer=optimizer, allow_nonfinite=allow_nonfinite,
        family=family, source_heads=source_heads, dry_run=dry_run, progress=progress, announce=announce,
    )  # fmt: skip
    return grown(several(source), out, request, options, verify)
