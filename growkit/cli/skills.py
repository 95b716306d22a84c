"""The command that puts skills together: skill plug. Knows what is shown of it; everything else is the library's."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from growkit import api
from growkit.cli.app import KEPT
from growkit.cli.commands import command

if TYPE_CHECKING:
    from growkit.skills.gates.plug_gated import Plugged


def plugging(call: Callable[..., "Plugged"], as_json: bool) -> None:
    """Make a bundle with a bar of general texts, and show its certificate."""
    from growkit.cli import show_data, show_skills

    with show_data.bar("reading general text", as_json) as begin:
        plugged = call(begin=begin)
    show_skills.plugged(plugged, as_json)


command(api.skill_plug, plugging, interrupted=KEPT)
