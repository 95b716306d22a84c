"""`growkit chain`: a family of models, each grown from the one before and taught by it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from growkit.api import words as w
from growkit.api.columns import columns_of
from growkit.api.grow import grow
from growkit.api.init import init
from growkit.api.option import Argument, Callback, Option, quiet
from growkit.api.pretrain import pretrain
from growkit.api.public import public
from growkit.api.teach import teach

if TYPE_CHECKING:
    from growkit.chains.chain import Chained
    from growkit.training.settings import Settings

Sizes = Annotated[
    w.PathLike,
    Argument("A file of [[size]] tables: what each grows to, how it is trained and taught.", "SIZES.toml"),
]
Data = Annotated[w.PathLike, Option(help="A dataset of growkit tokenize, or a .bin file of tokens.", metavar="DATA")]
Out = Annotated[w.PathLike, Option(help="Folder of the family: its runs, and report.", metavar="DIR")]
Doing = Annotated[Callable[[str], None], Callback("Called with what is done now, on the first process.")]
Announce = Annotated[Callable[["Settings"], None], Callback("Called with the settings of each run before it begins.")]
Watch = Annotated[Callable[[dict[str, Any]], None], Callback("Called with each line of a run's metrics.")]

# what a chain says itself, or what has no place in a family that is grown and trained on
NOT_GROWING = (
    "seed", "dtype", "optimizer", "allow_nonfinite", "shard_size", "dry_run", "force", "verify", "family",
    "source_heads", "progress", "announce",
    "learn", "data", "learn_lr", "batch_size", "seq_len", "device",  # maps that learn, some by words of pretrain's
)  # fmt: skip
NOT_TRAINING = ("teacher", "stages", "to_layers", "jump_at", "dry_run", "resume", "watch", "announce")


@public
def chain(
    sizes: Sizes,
    data: Data,
    out: Out,
    *,
    alone: Annotated[
        bool, Option(help="Train each size from random weights too, to measure what the family saves.")
    ] = False,
    dry_run: Annotated[bool, Option(help="Check every size, say what the family will be, and write nothing.")] = False,
    resume: Annotated[Literal["auto", "never"], Option(help="auto: go on with a chain that is there.")] = "never",
    doing: Doing = quiet,
    announce: Announce = quiet,
    watch: Watch = quiet,
) -> "Chained":
    """Make a family of models: small, medium, large, each grown from the one before, taught by it and trained.

    sizes: what each is, a file. data: what all of them learn from. out: the folder; the trained models become
    DIR/NAME/final, and DIR/report says what the family cost. Everything is planned before the first step: a size that
    cannot be grown or trained is refused by its name. The same call with resume="auto" goes on where a chain was
    stopped, or killed. All processes of a torchrun call it alike.

    Returns a Chained: .finals, .report; with dry_run only .sizes. Raises RequestError, CheckpointError, and what
    growing and training raise.
    """
    from growkit.chains import chain as chains
    from growkit.chains.chain_plan import Doors
    from growkit.chains.sizes_file import Columns, read_sizes_file
    from growkit.errors import RequestError

    if resume not in ("auto", "never"):
        raise RequestError(f"--resume {resume!r} is not one of auto, never")
    columns = Columns(growing=columns_of(grow, NOT_GROWING), training=columns_of(pretrain, NOT_TRAINING))
    return chains.chain(
        read_sizes_file(sizes, columns), data, out, Doors(init=init, grow=grow, teach=teach, pretrain=pretrain),
        chains.Watching(doing=doing, announce=announce, watch=watch),
        alone=alone, resume=resume == "auto", dry_run=dry_run,
    )  # fmt: skip
