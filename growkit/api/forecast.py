"""`growkit forecast`: from short runs, what growing saves at a budget, and when it stops paying."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from growkit import limits
from growkit.api import words as w
from growkit.api.option import Argument, Option
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.reports.expected import Forecast

Runs = Annotated[
    Sequence[w.PathLike],
    Argument("Short runs of growkit pretrain: of the large model, from scratch and grown.", "RUN..."),
]
Out = Annotated[
    w.PathLike,
    Option(
        help="Folder for report.md, report.json and report.png; one that holds a forecast is written anew.",
        panel=w.OUTPUT,
        metavar="DIR",
        flags=("-o", "--out"),
    ),
]


@public
def forecast(
    runs: Runs,
    out: Out,
    *,
    budget: Annotated[
        int | None,
        Option(
            help="Tokens of the large model to look ahead to; default 3 and 10 times the longest pilot.",
            panel=None,
            metavar="TOKENS",
            within=(1, limits.TOKENS),
        ),
    ] = None,
    source: Annotated[
        w.PathLike | None,
        Option(help="A run of the small model, which says what its tokens cost.", panel=None, metavar="RUN"),
    ] = None,
    seed: Annotated[
        int, Option(help="Of the draws that the interval is made of.", panel=None, metavar="N", within=limits.SEEDS)
    ] = 0,
) -> "Forecast":
    """Say from short runs what growing saves at a budget, and from how many tokens on scratch is ahead.

    runs: from scratch and grown, all of one size, the grown ones by one recipe, from one base or from several that were
    trained for other lengths. A law is fitted to the losses that they ended with, or, where their rate was constant, to
    all behind the warm-up: from scratch E + A0 D^-a0, grown E + A D1^-a1 D2^(-a2 + a3 ln D1) (arXiv 2510.06548). At
    least 3 of each, or 5 grown from two bases.

    Returns a Forecast: .expected, .passing, .tables(). Raises RequestError for too few runs and for runs that are not
    alike, CheckpointError for what cannot be read.
    """
    from growkit.reports.forecast import forecast as look_ahead

    return look_ahead([runs] if isinstance(runs, str) else runs, out, budget, source, seed)
