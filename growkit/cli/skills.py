"""The commands that compare skills and put them together: skill check, skill plug, skill carry, skill dial. Knows
what is shown of them; everything else is the library's."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from growkit import api
from growkit.cli.app import FAILED, KEPT
from growkit.cli.commands import command

if TYPE_CHECKING:
    from growkit.skills.carry import CarriedOver
    from growkit.skills.checking.skill_table import SkillCheck
    from growkit.skills.dial import Dialed
    from growkit.skills.gates.plug_gated import Plugged
    from growkit.skills.plug import PluggedModel


def checking(call: Callable[..., "SkillCheck"], as_json: bool) -> int:
    """Show the table; 1 where a pair is red."""
    from growkit.cli import show_data, show_skill_check

    with show_data.bar("running the model with skills", as_json) as begin:
        checked = call(begin=begin)
    show_skill_check.check(checked, as_json)
    return FAILED if checked.red else 0


def plugging(call: Callable[..., "Plugged | PluggedModel"], as_json: bool) -> None:
    """Make a bundle with a bar of general texts and show its certificate; or weights or a LoRA with a bar of bytes."""
    from growkit.cli import show_data, show_skills

    made: Any
    if call.keywords.get("gated"):  # type: ignore[attr-defined]
        with show_data.bar("reading general text", as_json) as begin:
            made = call(begin=begin)
        show_skills.plugged(made, as_json)
        return
    with show_skills.writing(as_json) as (announce, progress):
        made = call(announce=announce, progress=progress)
    show_skills.model(made, as_json)


def carrying(call: Callable[..., "CarriedOver"], as_json: bool) -> None:
    """Say what was carried, and where it is."""
    from growkit.cli import show_skills

    show_skills.carried(call(), as_json)


def dialing(call: Callable[..., "Dialed"], as_json: bool) -> None:
    """Show losses against strengths, after a bar of measurements."""
    from growkit.cli import show_data, show_skills

    with show_data.bar("turning the dial", as_json) as begin:
        seen = call(begin=begin)
    show_skills.dialed(seen, as_json)


command(api.skill_check, checking, interrupted=KEPT)
command(api.skill_plug, plugging, interrupted=KEPT)
command(api.skill_carry, carrying, interrupted=KEPT)
command(api.skill_dial, dialing)
