"""`growkit panel`: a control panel of a model, small matrices between directions of what its weights read and put
out."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from growkit import limits
from growkit.api import words as w
from growkit.api.option import Argument, Callback, Option
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.skills.make_panel import MadePanel

WHICH, TEXT = "Which weights", "Text"
Base = Annotated[w.PathLike, Argument("The model: a folder, a .safetensors file or a hub id.", "BASE")]
Begin = Annotated[
    Callable[[int], Callable[[int], None]],
    Callback("Called with the number of inputs to do; returns what is called with the number of those that are done."),
]


def _quiet(_total: int) -> Callable[[int], None]:
    return lambda _done: None


@public
def panel(
    base: Base,
    out: Annotated[
        w.PathLike, Option(help="Folder of the panel.", panel=w.OUTPUT, metavar="PANEL", flags=("-o", "--out"))
    ],
    *,
    rank: Annotated[
        int,
        Option(help="Directions of each input, and of each output.", metavar="R", within=(1, limits.AXIS)),
    ] = 256,
    basis: Annotated[
        Literal["svd", "data"],
        Option(help="svd: where the weights are large; data: where what they make of --text is."),
    ] = "svd",
    scale: Annotated[
        Literal["relative", "absolute"],
        Option(help="whether a skill's steps move each direction by the same share of it, or by as much."),
    ] = "relative",
    layers: Annotated[
        str | None,
        Option(help="Layers from 1, such as 1-8,12; default all.", panel=WHICH, metavar="A-B,C"),
    ] = None,
    modules: Annotated[
        Literal["mlp", "attention", "all"], Option(help="which linear weights of these.", panel=WHICH)
    ] = "all",
    text: Annotated[
        Sequence[w.PathLike] | w.PathLike,
        Option(
            help="General text: files, a dataset or a .bin file of tokens; several by giving it again.",
            panel=TEXT,
            metavar="TEXT",
        ),
    ] = (),
    tokens: Annotated[
        int,
        Option(help="Read about so many, spread over the text.", panel=TEXT, metavar="N", within=(1, limits.TOKENS)),
    ] = 32_768,
    seq_len: Annotated[
        int | None,
        Option(
            help="Tokens in a window; default 512, or the model's positions.",
            panel=TEXT,
            metavar="N",
            within=(1, limits.AXIS),
        ),
    ] = None,
    seed: Annotated[int, Option(help="Of the randomised decompositions.", metavar="S", within=limits.SEEDS)] = 0,
    device: Annotated[w.Device, Option(help="Where to compute.")] = "auto",
    force: Annotated[bool, Option(help="Replace a panel that is there.", panel=w.OUTPUT)] = False,
    begin: Begin = _quiet,
) -> "MadePanel":
    """Make a control panel of a model: for each linear weight W, bases U and V and what W does between them, U^T W V.

    The model stays as it is; skills are learned on its panel. With text, which basis="data" needs, the panel also
    keeps a sketch of what each weight reads of it, by which skills spare what the model can do in general.

    Returns a MadePanel: .folder, .header (with .weights, the energy kept of each), .notes. Raises RequestError or
    CheckpointError.
    """
    from growkit.skills.make_panel import PanelRequest, make_panel

    request = PanelRequest(
        rank=rank, basis=basis, scale=scale, layers=layers, modules=modules, tokens=tokens, seq_len=seq_len, seed=seed,
        texts=[text] if isinstance(text, str) or not isinstance(text, Sequence) else text,
    )  # fmt: skip
    return make_panel(base, out, request, device=device, force=force, begin=begin)
