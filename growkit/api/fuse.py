"""`growkit fuse`: one model of several, in width."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from growkit.api import words as w
from growkit.api.growing import grown
from growkit.api.option import Argument, Option, quiet
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.growth.carry_out import Grown

Members = Annotated[
    Sequence[w.PathLike], Argument("Two checkpoints or more, of one family and tokenizer.", "A B [C...]")
]
Mode = Annotated[
    Literal["side-by-side", "fpi", "aki"],
    Option(
        help="each in its own block, logits averaged; or the first widened, later copies from the others.",
        panel=w.HOW,
        metavar="MODE",
    ),
]


@public
def fuse(
    sources: Members,
    out: w.Out = None,
    *,
    mode: Mode = "side-by-side",
    hidden: w.Hidden = None,
    heads: w.Heads = None,
    kv_heads: w.KvHeads = None,
    head_dim: w.HeadDim = None,
    ffn: w.Ffn = None,
    mapping: w.Mapping = "cyclic",
    noise: w.Noise = None,
    seed: w.Seed = 0,
    dtype: w.Dtype = None,
    optimizer: w.Optimizer = None,
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
    """Make one model of several: side by side, or the first one widened with the others' units.

    sources: of one family and tokenizer. mode: "side-by-side" (each computes in its own block; logits are averaged), or
    "fpi" or "aki" (the first widened, whose later copies are the others' units, with aki from the layer above), which
    take sizes as `widen` does. Result and errors as of `widen`.
    """
    from growkit.growth.prepare import Options
    from growkit.growth.request import recipe
    from growkit.growth.spelling import size_in_bytes

    request = recipe(
        mode=mode, hidden=hidden, heads=heads, kv_heads=kv_heads, head_dim=head_dim, ffn=ffn, mapping=mapping,
        noise=noise, seed=seed, dtype=dtype,
    )  # fmt: skip
    options = Options(
        shard_bytes=size_in_bytes(shard_size), force=force, optimizer=optimizer, allow_nonfinite=allow_nonfinite,
        family=family, source_heads=source_heads, dry_run=dry_run, progress=progress, announce=announce,
    )  # fmt: skip
    return grown(list(sources), out, request, options, verify)
