"""`growkit report`: what growing saved, from runs side by side."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from growkit.api import words as w
from growkit.api.option import Argument, Option
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.reports.report import Savings

Runs = Annotated[w.PathLike | Sequence[w.PathLike], Argument("Folders of growkit pretrain.", "RUN...")]
Out = Annotated[
    w.PathLike,
    Option(
        help="Folder for report.md, report.json and report.png; one that holds a report is written anew.",
        panel=w.OUTPUT,
        metavar="DIR",
        flags=("-o", "--out"),
    ),
]


@public
def report(
    runs: Runs,
    out: Out,
    *,
    baseline: Annotated[
        w.PathLike | None, Option(help="The run to measure against; default the first.", panel=None, metavar="RUN")
    ] = None,
    sources: Annotated[
        Sequence[w.PathLike] | None,
        Option(
            help="A run whose cost comes on top of every run's but the baseline's, such as the small model's; again for"
            " more.",
            panel=None,
            metavar="RUN",
            flags=("--source",),
        ),
    ] = None,
) -> "Savings":
    """Compare training runs: loss against FLOPs and time, and what each saved on the way to the baseline's final loss.

    runs: folders of `pretrain`. out: where report.md, report.json and, with matplotlib, report.png go.

    Returns a Savings: .runs, .notes, .tables(). Raises RequestError for what cannot be compared, CheckpointError for
    what cannot be read.
    """
    from growkit.reports.report import report as compare

    return compare(runs, out, baseline, sources or ())
