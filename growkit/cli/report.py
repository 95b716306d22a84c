"""The command that compares training runs: report. Knows tables on a terminal; everything else is the library's."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from growkit import api
from growkit.cli.commands import command

if TYPE_CHECKING:
    from growkit.reports.report import Savings


def reporting(call: Callable[..., "Savings"], as_json: bool) -> None:
    """Show the report's tables and where it is."""
    savings = call()
    if as_json:
        import json

        print(json.dumps(savings.to_json(), indent=2))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False, emoji=False)
    for title, headings, rows in savings.tables():
        console.print(f"[bold]{escape(title)}[/]")
        table = Table(box=None, pad_edge=False, header_style="bold")
        for number, heading in enumerate(headings):
            table.add_column(heading, justify="right" if number else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(table)
        console.print()
    for note in savings.notes:
        console.print(f"[dim]note:[/] {escape(note)}")
    console.print(f"[bold]wrote[/] {escape(str(savings.folder))}", soft_wrap=True)


command(api.report, reporting)
