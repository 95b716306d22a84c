"""The commands around fine-tuned models: merge, delta, apply. Knows what is shown of them; everything else is the
library's.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from growkit import api
from growkit.cli.app import KEPT
from growkit.cli.commands import command

if TYPE_CHECKING:
    from growkit.merging.merge import MeasuredDelta, Merged


def merging(call: Callable[..., "Merged"], as_json: bool) -> None:
    """Merge with the plan and a bar shown, then say where the result is."""
    from growkit.cli import show_merging as show

    with show.writing(as_json) as (announce, progress):
        merged = call(announce=announce, progress=progress)
    show.merged(merged, as_json)


def measuring(call: Callable[..., "MeasuredDelta"], as_json: bool) -> None:
    """Show a delta's figures."""
    from growkit.cli import show_merging as show

    show.delta(call(), as_json)


command(api.merge, merging, interrupted=KEPT)
command(api.delta, measuring, interrupted=KEPT)
command(api.apply, merging, interrupted=KEPT)
