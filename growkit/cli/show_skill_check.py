"""What skill check prints: tables for people, JSON for machines. Knows rich; ignorant of how anything was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from growkit.cli.terminal import out, print_json, styled

if TYPE_CHECKING:
    from growkit.skills.checking.check import SkillCheck
    from growkit.skills.checking.rho import Interference

STYLES = {"green": "green", "amber": "yellow", "red": "bold red"}
WORST = 3


def check(result: SkillCheck, as_json: bool) -> None:
    """Every skill on every other's data, the worst weights, and who goes with whom."""
    if as_json:
        print_json(result.to_json())
        return
    names = [skill.name for skill in result.skills]
    out.print("mean rho of each skill (row) on the data of another (column)", style="bold")
    table = _table("", *names)
    for source in names:
        table.add_row(source, *(_cell(result, source, target) for target in names))
    table.add_row("lost by all, about", *(f"{skill.lost:.1%}" for skill in result.skills), style="dim")
    out.print(table)
    out.print()
    table = _table("skill", "on", "mean", "max", "band", f"worst {WORST} weights")
    for pair in result.pairs:
        worst = ", ".join(f"{name} {rho:.2f}" for name, rho in pair.worst(WORST))
        band = styled((pair.band, STYLES[pair.band]))
        table.add_row(pair.source, pair.target, _number(pair.mean), _number(pair.largest), band, worst)
    out.print(table)
    out.print()
    for note in result.notes:
        out.note(note)
    for pair in result.red:
        out.say((pair.source, "bold"), f" on the data of {pair.target} is ", ("red", "bold red"), _advice(pair))
    for one, other in result.together:
        out.say(
            f"{one} and {other} are ", ("green", "green"), f" both ways: --together {one},{other} in a gated bundle"
        )


def _advice(pair: Interference) -> str:
    return f": gate them, learn {pair.source} again with --protect, or leave one out"


def _cell(result: SkillCheck, source: str, target: str) -> Text:
    if source == target:
        return styled(("-", "dim"))
    pair = result.pair(source, target)
    return styled((_number(pair.mean), STYLES[pair.band]))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, heading in enumerate(headings):
        left = not number or heading.startswith(("worst", "on", "band"))
        table.add_column(heading, justify="left" if left else "right", overflow="fold")
    return table
