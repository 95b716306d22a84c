"""The `growkit` program: its name, its exit codes, and how it says what went wrong."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from growkit.errors import FailedError, GrowkitError
from growkit.version import __version__

app = typer.Typer(
    name="growkit",
    help="Grow trained transformers: wider, deeper, several into one, into mixtures of experts; with a proof of what"
    " still computes the same.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
KEPT = "interrupted; nothing was kept"


@contextmanager
def people_errors(interrupted: str = "interrupted") -> Iterator[None]:
    """Turn what growkit refuses, and what the system does, into one sentence and an exit code."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
    try:
        yield
    except BrokenPipeError:
        raise  # whoever read the output has seen enough
    except (GrowkitError, OSError, MemoryError) as error:
        reason = f"not enough memory ({error})" if isinstance(error, MemoryError) else str(error)
        console.print(f"[bold red]growkit:[/] {escape(reason)}")
        raise typer.Exit(FAILED if isinstance(error, FailedError) else REFUSED) from None
    except KeyboardInterrupt:
        console.print(f"[bold yellow]growkit:[/] {interrupted}")
        raise typer.Exit(INTERRUPTED) from None


def _version(value: bool) -> None:
    if value:
        print(f"growkit {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Grow trained transformers."""


def main() -> None:
    """Entry point of the `growkit` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show must not end a run
    app(prog_name="growkit")
