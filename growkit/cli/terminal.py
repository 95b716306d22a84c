"""Words on a terminal: the one way there. Knows rich; ignorant of what is said.

Much of what is shown comes from files that anybody may have made: names of folders and tensors, values of a config.
None of it is read as markup, and what a terminal would obey rather than show stands there as an escape.
"""

import json
import math
from collections.abc import Collection, Sequence
from typing import Any

from rich.console import Console
from rich.progress import ProgressColumn, Task
from rich.table import Column, Table
from rich.text import Text

from growkit.visible import visible


def styled(*parts: str | tuple[str, str]) -> Text:
    """A line of parts, each text alone or (text, style)."""
    return Text.assemble(*(visible(p) if isinstance(p, str) else (visible(p[0]), p[1]) for p in parts))


def table_of(headings: Sequence[str], left: Collection[str] | None = None, **how: Any) -> Table:
    """An empty table whose columns of numbers lie to the right; those under `left`, by default the first, to the left.
    how: what else rich is told of each column."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, heading in enumerate(headings):
        words = not number if left is None else heading in left
        table.add_column(heading, justify="left" if words else "right", **how)
    return table


class Terminal(Console):
    """Standard output or standard error, for text that is shown and never read as markup."""

    def __init__(self, stderr: bool = False):
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **how: Any) -> Text:
        """What rich makes of plain text, in tables and elsewhere."""
        return super().render_str(visible(text), **{**how, "markup": False, "emoji": False})

    def say(self, *parts: str | tuple[str, str], style: str | None = None) -> None:
        """Print a line of parts, each text alone or (text, style), that may be longer than the terminal is wide."""
        self.print(styled(*parts), style=style, soft_wrap=True)

    def flow(self, text: str) -> None:
        """Print a stretch of a text that goes on, its lines as they are."""
        lines = text.split("\n")
        for number, line in enumerate(lines):
            self.print(styled(line), end="\n" if number < len(lines) - 1 else "", soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a note; one that begins so is a warning."""
        warning = text.startswith("warning: ")
        mark = ("warning:", "yellow") if warning else ("note:", "dim")
        self.print(styled(mark, f" {text.removeprefix('warning: ')}"))


class Words(ProgressColumn):
    """A column of a progress bar: a format of its task, such as "{task.description}"."""

    def __init__(self, form: str, style: str = ""):
        super().__init__(Column(no_wrap=True))
        self.form, self.style = form, style

    def render(self, task: Task) -> Text:
        """The text of a task."""
        return styled((self.form.format(task=task), self.style))


out, err = Terminal(), Terminal(stderr=True)


def print_json(content: Any) -> None:
    """One JSON document on standard output, strict (null for what is not finite) and in ASCII, for any terminal."""
    print(json.dumps(_finite(content), indent=2, allow_nan=False))


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
