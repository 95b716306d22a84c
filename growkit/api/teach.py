"""`growkit teach`: what a teacher says of a dataset, written down."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

from growkit import limits
from growkit.api import words as w
from growkit.api.option import Argument, Callback, Option
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.training.teachers.teach import Written

WINDOWS = "Windows"
Teacher = Annotated[w.PathLike, Argument("The checkpoint that teaches.", "CKPT")]
Data = Annotated[
    w.PathLike, Option(help="A dataset of growkit tokenize, or a .bin file of tokens.", panel=WINDOWS, metavar="DATA")
]
Begin = Annotated[
    Callable[[int], Callable[[int], None]],
    Callback("Called with the number of windows to do; returns what is called with the number of those that are done."),
]


def _quiet(_total: int) -> Callable[[int], None]:
    return lambda _done: None


@public
def teach(
    checkpoint: Teacher,
    data: Data,
    out: Annotated[
        w.PathLike, Option(help="Folder of the store.", panel=w.OUTPUT, metavar="STORE", flags=("-o", "--out"))
    ],
    *,
    head: Annotated[
        int,
        Option(
            help="Entries kept of each position with their log-probabilities, the largest.",
            metavar="K",
            within=(1, limits.AXIS),
        ),
    ] = 16,
    tail: Annotated[int, Option(help="Entries drawn from all others.", metavar="M", within=(0, limits.AXIS))] = 16,
    temperature: Annotated[float, Option(help="Of the probabilities.", metavar="T", within=(0.01, 1000))] = 1.0,
    seq_len: Annotated[
        int | None,
        Option(
            help="Tokens in a window, as the run will have; default 512, or the model's positions.",
            panel=WINDOWS,
            metavar="N",
            within=(1, limits.AXIS),
        ),
    ] = None,
    seed: Annotated[
        int, Option(help="Of what is drawn, and of a masked model's masks.", metavar="S", within=limits.SEEDS)
    ] = 0,
    device: Annotated[w.Device, Option(help="Where to compute.")] = "auto",
    resume: Annotated[
        Literal["auto", "never"], Option(help="auto: go on with a store that is there.", panel=w.OUTPUT)
    ] = "never",
    begin: Begin = _quiet,
) -> "Written":
    """Write down what a teacher says of a dataset, so that training needs no teacher in memory.

    data: what will be learned from. out: the folder to make, for pretrain's teacher. The pass over the data may be
    stopped, or killed, at any moment: the same call with resume="auto" goes on, and the files are the same, byte for
    byte. All processes of a torchrun call it alike, each does its share.

    Returns a Written: .folder, .header, .loss (the teacher's own on the validation split, None without one). Raises
    RequestError or CheckpointError.
    """
    from growkit.errors import RequestError

    if resume not in ("auto", "never"):
        raise RequestError(f"--resume {resume!r} is not one of auto, never")
    from growkit.training.teachers.teach import teach as write

    return write(
        checkpoint, data, out, head=head, tail=tail, temperature=temperature, seq_len=seq_len, seed=seed, device=device,
        resume=resume == "auto", begin=begin,
    )  # fmt: skip
