"""The command that compares training runs: report. Knows options and tables on a terminal; everything else is the library's."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from growkit.cli.app import app, people_errors
from growkit.cli.options import OUTPUT, AsJson


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of growkit pretrain.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", rich_help_panel=OUTPUT, help="Folder for report.md, report.json and report.png; one that holds a report is written anew.")],
    baseline: Annotated[Optional[Path], typer.Option(metavar="RUN", help="The run to measure against; default the first.")] = None,
    source: Annotated[Optional[list[Path]], typer.Option(metavar="RUN", help="A run whose cost comes on top of every run's but the baseline's, such as the small model's; again for more.")] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Compare training runs: loss against FLOPs and time, and what each saved on the way to the baseline's final loss."""
    with people_errors():
        from growkit.reports.report import report as compare

        made = compare(runs, out, baseline, source or ())
        if as_json:
            import json

            print(json.dumps(made.to_json(), indent=2))
            return
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        console = Console(highlight=False, emoji=False)
        for title, headings, rows in made.tables():
            console.print(f"[bold]{escape(title)}[/]")
            table = Table(box=None, pad_edge=False, header_style="bold")
            for number, heading in enumerate(headings):
                table.add_column(heading, justify="right" if number else "left", overflow="fold")
            for row in rows:
                table.add_row(*map(escape, row))
            console.print(table)
            console.print()
        for note in made.notes:
            console.print(f"[dim]note:[/] {escape(note)}")
        console.print(f"[bold]wrote[/] {escape(str(made.folder))}", soft_wrap=True)
