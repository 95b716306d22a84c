"""The command that looks ahead from short runs: forecast. Knows tables on a terminal; everything else is the
library's.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from growkit import api
from growkit.cli.commands import command
from growkit.cli.report import show_tables

if TYPE_CHECKING:
    from growkit.reports.expected import Forecast


def looking_ahead(call: Callable[..., "Forecast"], as_json: bool) -> None:
    """Show the forecast's tables and where it is."""
    made = call()
    from growkit.cli.terminal import out, print_json

    if as_json:
        print_json(made.to_json())
        return
    show_tables(made.tables(), made.notes)
    out.say(("wrote", "bold"), f" {made.folder}")


command(api.forecast, looking_ahead)
