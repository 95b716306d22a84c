"""`growkit delta`: what a fine-tuned model changed of its base, measured and saved."""

from typing import TYPE_CHECKING, Annotated

from growkit import limits
from growkit.api import words as w
from growkit.api.option import Argument, Option
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.merging.merge import MeasuredDelta

Base = Annotated[w.PathLike, Argument("The model before: a folder, a .safetensors file or a hub id.", "BASE")]
Member = Annotated[w.PathLike, Argument("The model fine-tuned from it, or BASE+DELTA.", "M")]
Save = Annotated[
    w.PathLike | None,
    Option(help="Folder to make of it: a sparse delta, or with --rank a LoRA.", panel=w.OUTPUT, metavar="DELTA"),
]


@public
def delta(
    base: Base,
    member: Member,
    save: Save = None,
    *,
    drop: Annotated[
        float | None,
        Option(
            help="Save a sparse delta thinned as DARE does; default nothing is dropped.",
            panel=w.OUTPUT,
            metavar="P",
            within=(0, 1),
        ),
    ] = None,
    rank: Annotated[
        int | None,
        Option(
            help="Save the linear layers' deltas as a LoRA of rank R that PEFT loads.",
            panel=w.OUTPUT,
            metavar="R",
            within=(1, limits.AXIS),
        ),
    ] = None,
    body: Annotated[
        bool, Option(help="Measure and save the body that both share, whatever their heads.", panel=w.OUTPUT)
    ] = False,
    seed: Annotated[
        int, Option(help="For what is dropped by chance.", panel=w.OUTPUT, metavar="S", within=limits.SEEDS)
    ] = 0,
    force: w.Force = False,
) -> "MeasuredDelta":
    """Show how large and how redundant a fine-tuned model's changes are, and save them as a small file.

    save: the folder to make, if any. drop: DARE's p (arXiv 2311.03099), the share of a sparse delta that is left out.
    rank: instead, a LoRA of the linear layers; embeddings, head, norms and biases are left out of it.

    Returns a MeasuredDelta: .report, .folder, and of a LoRA .errors, relative, by module. Raises as `merge` does.
    """
    from growkit.merging.merge import delta as measure

    return measure(base, member, save, drop=drop, rank=rank, body=body, seed=seed, force=force)
