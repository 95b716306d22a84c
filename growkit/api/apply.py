"""`growkit apply`: saved deltas added to a model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from growkit.api import words as w
from growkit.api.option import Argument, Option, quiet
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.merging.merge import Merged

Base = Annotated[w.PathLike, Argument("The model to add to: a folder, a .safetensors file or a hub id.", "BASE")]
Deltas = Annotated[
    Sequence[w.PathLike | tuple[w.PathLike, float]],
    Argument("Folders of growkit delta --save or growkit tune, or LoRA or IA3 of PEFT.", "DELTA[:WEIGHT]..."),
]


@public
def apply(
    base: Base,
    deltas: Deltas,
    out: w.Out = None,
    *,
    dtype: Annotated[
        w.DtypeName | None, Option(help="what is stored; default as the base.", panel=w.HOW, metavar="TYPE")
    ] = None,
    allow_nonfinite: Annotated[bool, Option(help="Keep NaN and Inf weights as they are.", panel=w.HOW)] = False,
    shard_size: w.ShardSize = "5GB",
    dry_run: w.DryRun = False,
    force: w.Force = False,
    progress: w.Progress = quiet,
    announce: w.AnnounceMerge = quiet,
) -> "Merged":
    """Add saved deltas to a model: base + the sum of weight x delta.

    deltas: folders of `delta`, of PEFT's LoRA and IA3, or of `tune` (lora, ia3, control), each a path, 'path:weight' or
    (path, weight). out: the folder to make; without it one in the current folder. dtype: small changes are lost in 16
    bits, which .notes tells.

    Result and errors as of `merge`.
    """
    from growkit.growth.spelling import dtype_of, size_in_bytes
    from growkit.merging.merge import apply as carry_out
    from growkit.merging.prepare_merge import MergeOptions, weighted_path

    options = MergeOptions(
        shard_bytes=size_in_bytes(shard_size), force=force, allow_nonfinite=allow_nonfinite, dry_run=dry_run,
        progress=progress, announce=announce,
    )  # fmt: skip
    return carry_out(base, [weighted_path(entry) for entry in deltas], out, dtype_of(dtype), options)
