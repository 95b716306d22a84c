"""The commands that compare skills and put them together: skill check, skill plug. Knows what is shown of them;
everything else is the library's."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from growkit import api
from growkit.cli.app import FAILED, KEPT
from growkit.cli.commands import command

if TYPE_CHECKING:
    from growkit.skills.checking.skill_table import SkillCheck
    from growkit.skills.gates.plug_gated import Plugged


def checking(call: Callable[..., "SkillCheck"], as_json: bool) -> int:
    """Show the table; 1 where a pair is red."""
    from growkit.cli import show_data, show_skill_check

    with show_data.bar("running the model with skills", as_json) as begin:
        checked = call(begin=begin)
    show_skill_check.check(checked, as_json)
    return FAILED if checked.red else 0


def plugging(call: Callable[..., "Plugged"], as_json: bool) -> None:
    """Make a bundle with a bar of general texts, and show its certificate."""
    from growkit.cli import show_data, show_skills

    with show_data.bar("reading general text", as_json) as begin:
        plugged = call(begin=begin)
    show_skills.plugged(plugged, as_json)


command(api.skill_check, checking, interrupted=KEPT)
command(api.skill_plug, plugging, interrupted=KEPT)
