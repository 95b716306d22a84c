"""The command that compares skills: skill check. Knows its exit code; everything else is the library's."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from growkit import api
from growkit.cli.app import FAILED
from growkit.cli.commands import command

if TYPE_CHECKING:
    from growkit.skills.checking.check import SkillCheck


def checking(call: Callable[..., "SkillCheck"], as_json: bool) -> int:
    """Show the table; 1 where a pair is red."""
    from growkit.cli import show_skills

    checked = call()
    show_skills.check(checked, as_json)
    return FAILED if checked.red else 0


command(api.skill_check, checking)
