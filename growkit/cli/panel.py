"""The commands around control panels: panel, panel show. Knows what is shown of them; everything else is the
library's.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from growkit import api
from growkit.cli.app import KEPT
from growkit.cli.commands import command

if TYPE_CHECKING:
    from growkit.skills.look import Look
    from growkit.skills.make_panel import MadePanel


def making(call: Callable[..., "MadePanel"], as_json: bool) -> None:
    """Make a panel with a bar of inputs."""
    from growkit.cli import show_data, show_panel

    with show_data.bar("making the panel", as_json) as begin:
        made = call(begin=begin)
    show_panel.made(made, as_json)


def showing(call: Callable[..., "Look"], as_json: bool) -> None:
    """Look at a panel, with a bar of batches where its model runs."""
    from growkit.cli import show_data, show_panel

    with show_data.bar("turning", as_json) as begin:
        seen = call(begin=begin)
    show_panel.look(seen, as_json)


command(api.panel, making, interrupted=KEPT)
command(api.panel_show, showing)
