"""The commands that compare skills and put them together: skill check, skill plug. Knows what is shown of them;
everything else is the library's."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from growkit import api
from growkit.cli.app import FAILED, KEPT
from growkit.cli.commands import command

if TYPE_CHECKING:
    from growkit.skills.checking.check import SkillCheck
    from growkit.skills.gates.plug_gated import Plugged
    from growkit.skills.plug import PluggedModel


def checking(call: Callable[..., "SkillCheck"], as_json: bool) -> int:
    """Show the table; 1 where a pair is red."""
    from growkit.cli import show_skill_check

    checked = call()
    show_skill_check.check(checked, as_json)
    return FAILED if checked.red else 0


def plugging(call: Callable[..., "Plugged | PluggedModel"], as_json: bool) -> None:
    """Make a bundle with a bar of general texts and show its certificate, or a model or a LoRA with a bar of bytes."""
    from growkit.cli import show_data, show_merging, show_skills

    if call.keywords.get("gated"):  # type: ignore[attr-defined]
        with show_data.bar("reading general text", as_json) as begin:
            plugged = call(begin=begin)
        show_skills.plugged(plugged, as_json)
        return
    with show_merging.writing(as_json) as (announce, progress):
        plugged = call(announce=announce, progress=progress)
    show_skills.plugged_model(plugged, as_json)


command(api.skill_check, checking)
command(api.skill_plug, plugging, interrupted=KEPT)
