"""`growkit init`: a checkpoint with random weights."""

from typing import TYPE_CHECKING, Annotated

from growkit import limits
from growkit.api import words as w
from growkit.api.option import Argument, Option
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.models.init import Initialised

Config = Annotated[
    w.PathLike, Argument("A config.json, a checkpoint (its tokenizer comes along) or a hub id.", "CONFIG")
]


@public
def init(
    config: Config,
    out: w.Folder,
    *,
    seed: Annotated[int, Option(help="For the weights.", panel=None, metavar="S", within=limits.SEEDS)] = 0,
    dtype: Annotated[
        w.DtypeName | None, Option(help="what is stored; default as the config says.", panel=None, metavar="TYPE")
    ] = None,
    force: w.Force = False,
) -> "Initialised":
    """Make a checkpoint with random weights: the model from scratch that growing is compared with.

    The weights are those that transformers gives a new model; the same seed gives the same bytes. config: its class is
    the first of `architectures`, or its family's language model where it names none. out: the folder to make. Needs
    memory for the whole model in float32.

    Returns an Initialised: .folder, .parameters and more. Raises RequestError or CheckpointError, having written
    nothing.
    """
    from growkit.models.init import init as make

    return make(config, out, seed=seed, dtype=dtype, force=force)
