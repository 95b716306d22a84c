"""The command that puts a folder on the hub: push. Knows what is shown of it; everything else is the library's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from growkit import api
from growkit.cli.commands import command

if TYPE_CHECKING:
    from growkit.hub.push import Pushed


def pushing(call: Callable[..., "Pushed"], as_json: bool) -> None:
    """Push with the hub client's own bars, and say what went where."""
    from growkit.cli.terminal import err, out, print_json, styled
    from growkit.units import size

    with _bars(not as_json and err.is_terminal):
        pushed = call()
    if as_json:
        print_json(pushed.to_json())
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("file", overflow="fold")
    table.add_column("bytes", justify="right")
    for path, number in pushed.what.files:
        table.add_row(path, f"{number:,}")
    out.print(table)
    if pushed.what.left_out:
        out.print(styled(("stays here:", "dim"), f" {', '.join(pushed.what.left_out)}"))
    for note in pushed.what.notes:
        out.note(note)
    of = f"{pushed.what.kind}, {len(pushed.what.files)} files, {size(pushed.what.bytes)}"
    where = (
        f"{pushed.repo} ({'private ' * pushed.private}{pushed.what.repo_type} repository, {pushed.revision or 'main'})"
    )
    if pushed.url is None:
        out.say(("would push", "bold"), f" {of}, to {where}")
        out.print("Dry run: nothing was asked of the hub.", style="dim")
    else:
        out.say(("pushed", "bold"), f" {of}, to {where}: {pushed.url}")


@contextmanager
def _bars(shown: bool) -> Iterator[None]:
    """Let the hub's client draw its bars, or not, for a while."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    hide = not shown and not are_progress_bars_disabled()
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            enable_progress_bars()


command(api.push, pushing, interrupted="interrupted; the same line goes on with what is not there yet")
