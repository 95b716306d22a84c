"""`growkit upcycle`: a mixture of experts of a dense model, or of several."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from growkit import limits
from growkit.api import words as w
from growkit.api.growing import grown, several
from growkit.api.option import Argument, Option, quiet
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.growth.carry_out import Grown

EXPERTS = "Which experts"
Dense = Annotated[
    w.PathLike | Sequence[w.PathLike],
    Argument(
        "A dense checkpoint; or several fine-tuned from one, which give the experts in turn.", "DENSE [EXPERT2...]"
    ),
]


@public
def upcycle(
    sources: Dense,
    out: w.Out = None,
    *,
    experts: Annotated[
        int, Option(help="Experts of each layer, all in all.", panel=EXPERTS, metavar="N", within=(1, limits.EXPERTS))
    ] = 8,
    top_k: Annotated[
        int, Option(help="Experts a token takes.", panel=EXPERTS, metavar="K", within=(1, limits.EXPERTS))
    ] = 2,
    granularity: Annotated[
        int,
        Option(
            help="Slices of each copy, every one an expert; N and K are multiples of it.",
            panel=EXPERTS,
            metavar="G",
            within=(1, limits.EXPERTS),
        ),
    ] = 1,
    shared: Annotated[
        bool,
        Option(help="Half of the units in an expert that every token passes; qwen2_moe always has it.", panel=EXPERTS),
    ] = False,
    layers: Annotated[
        str,
        Option(
            help="Which layers have experts: every, every 2nd, or numbers from 1; mixtral: every.",
            panel=EXPERTS,
            metavar="LAYERS",
        ),
    ] = "every",
    diversity: Annotated[
        str,
        Option(
            help="none: exact copies; noise[:S]: with noise of S (0.1) of the deviation; drop[:R]: R (0.5) of the units"
            " drawn anew.",
            panel=EXPERTS,
            metavar="HOW",
        ),
    ] = "none",
    router: Annotated[
        Literal["normal", "clusters"],
        Option(help="Drawn; or the centres of clusters of a text's hidden states.", panel=EXPERTS),
    ] = "normal",
    text: Annotated[
        w.PathLike | None, Option(help="The text for --router clusters.", panel=EXPERTS, metavar="FILE")
    ] = None,
    seed: w.Seed = 0,
    dtype: w.Dtype = None,
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
    """Make a mixture of experts of a dense model: llama, mistral -> mixtral, qwen2 -> qwen2_moe, qwen3 -> qwen3_moe.

    sources: one checkpoint, whose feed-forward layers become the experts, or several, which give theirs in turn and of
    which everything else is averaged. experts, top_k: of a layer, and of these those that a token takes. layers:
    "every", "2nd" (3rd, ...) or numbers from 1 such as "1,3". diversity: "none", "noise[:SHARE]" or "drop[:SHARE]".
    text: a file, which router "clusters" needs. Result and errors as of `widen`.
    """
    from growkit.growth.prepare import Options
    from growkit.growth.request import upcycle_recipe
    from growkit.growth.spelling import size_in_bytes

    request = upcycle_recipe(
        experts=experts, top_k=top_k, granularity=granularity, shared=shared, layers=layers, diversity=diversity,
        router=router, text=text, seed=seed, dtype=dtype,
    )  # fmt: skip
    options = Options(
        shard_bytes=size_in_bytes(shard_size), force=force, allow_nonfinite=allow_nonfinite, family=family,
        source_heads=source_heads, dry_run=dry_run, progress=progress, announce=announce,
    )  # fmt: skip
    return grown(several(sources), out, request, options, verify)
