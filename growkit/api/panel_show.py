"""`growkit panel show`: what a control panel keeps, and what turning its directions does."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

from growkit import limits
from growkit.api import words as w
from growkit.api.option import Argument, Callback, Option
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.skills.look import Look

TURN = "What a control does"
Panel = Annotated[w.PathLike, Argument("A folder of growkit panel.", "PANEL")]
Begin = Annotated[
    Callable[[int], Callable[[int], None]],
    Callback("Called with the number of batches; returns what is called with the number of those that are done."),
]


def _quiet(_total: int) -> Callable[[int], None]:
    return lambda _done: None


@public
def panel_show(
    panel: Panel,
    *,
    picture: Annotated[
        w.PathLike | None,
        Option(help="Draw energy and spectra into this file, .svg, .png or .pdf.", panel=w.OUTPUT, metavar="FILE"),
    ] = None,
    base: Annotated[
        w.PathLike | None, Option(help="The panel's model, to turn directions in.", panel=TURN, metavar="BASE")
    ] = None,
    text: Annotated[
        Sequence[w.PathLike] | w.PathLike,
        Option(
            help="Text that it runs over: files, a dataset or a .bin file; several by giving it again.",
            panel=TURN,
            metavar="TEXT",
        ),
    ] = (),
    turn: Annotated[
        Sequence[str] | str,
        Option(
            help="A direction I, from 1, of a weight, or an end of its name: mlp.up_proj:1; WEIGHT:I:J with direction J of"
            " the input. Again for more; default three of the middle layer.",
            panel=TURN,
            metavar="WEIGHT:I",
        ),
    ] = (),
    by: Annotated[
        float,
        Option(
            help="How far: 1 doubles what the weight does there, -1 takes it away.",
            panel=TURN,
            metavar="T",
            within=(-limits.WEIGHT, limits.WEIGHT),
        ),
    ] = 1.0,
    tokens: Annotated[
        int, Option(help="Read about so many of the text.", panel=TURN, metavar="N", within=(1, limits.TOKENS))
    ] = 4096,
    top: Annotated[
        int, Option(help="Tokens that are shown of each.", panel=TURN, metavar="N", within=(1, limits.AXIS))
    ] = 8,
    device: Annotated[w.Device, Option(help="Where to compute.", panel=TURN)] = "auto",
    begin: Begin = _quiet,
) -> "Look":
    """Show a control panel: the energy kept in each layer, the spectra, and which tokens a direction makes likelier.

    The last is measured: base, which must be the model that the panel was made of, runs over the text as it is and
    with each direction turned, and the mean probabilities of all tokens are compared.

    Returns a Look: .view with .energy and .spectra, .turned. Raises RequestError or CheckpointError.
    """
    from growkit.skills.look import look

    def listed(words: Sequence[w.PathLike] | w.PathLike) -> list[w.PathLike]:
        return [words] if isinstance(words, str) or not isinstance(words, Sequence) else [*words]

    return look(
        panel, picture=picture, base=base, texts=listed(text), turns=[str(one) for one in listed(turn)], by=by,
        tokens=tokens, top=top, device=device, begin=begin,
    )  # fmt: skip
