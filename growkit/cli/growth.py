"""The commands that grow: widen, stack, grow, fuse, upcycle. Knows what is shown of them; everything else is the
library's.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from growkit import api
from growkit.cli.app import FAILED, INTERRUPTED, KEPT
from growkit.cli.commands import command
from growkit.errors import ProofInterrupted

if TYPE_CHECKING:
    from growkit.growth.carry_out import Grown


def growing(call: Callable[..., "Grown"], as_json: bool) -> int:
    """Grow with the plan and a bar shown, then say where the result is and what was proved of it."""
    from growkit.cli import show

    code = 0
    with show.writing(as_json) as (announce, progress):
        try:
            grown = call(announce=announce, progress=progress)
        except ProofInterrupted as stopped:
            grown, code = stopped.grown, INTERRUPTED
    show.grown(grown, as_json)
    return code or (FAILED if grown.failed else 0)


for function in (api.widen, api.stack, api.grow, api.fuse, api.upcycle):
    command(function, growing, interrupted=KEPT)
