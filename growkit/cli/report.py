"""The command that compares training runs: report. Knows tables on a terminal; everything else is the library's."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from growkit import api
from growkit.cli.commands import command

if TYPE_CHECKING:
    from growkit.reports.report import Savings
    from growkit.reports.savings import Table as Figures


def reporting(call: Callable[..., "Savings"], as_json: bool) -> None:
    """Show the report's tables and where it is."""
    savings = call()
    from growkit.cli.terminal import out, print_json

    if as_json:
        print_json(savings.to_json())
        return
    show_tables(savings.tables(), savings.notes)
    out.say(("wrote", "bold"), f" {savings.folder}")


def show_tables(tables: "Sequence[Figures]", notes: Sequence[str]) -> None:
    """The tables of a report, and its notes."""
    from growkit.cli.terminal import out, table_of

    for title, headings, rows in tables:
        out.print(title, style="bold")
        table = table_of(headings, overflow="fold")
        for row in rows:
            table.add_row(*row)
        out.print(table)
        out.print()
    for note in notes:
        out.note(note)


command(api.report, reporting)
