"""The `growkit` program: its name, its exit codes, and how it says what went wrong."""

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from growkit.errors import FailedError, GrowkitError, ran_out, reason_of
from growkit.version import __version__

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
KEPT = "interrupted; nothing was kept"


class Program(TyperGroup):
    """The commands, which say what is wrong with a line of words as they say everything else: in one sentence."""

    def main(self, args: Sequence[str] | None = None, standalone_mode: bool = True, **more: Any) -> Any:  # type: ignore[override]
        """Run a line of words; leaves by SystemExit where it is standalone."""
        words = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(words, standalone_mode=False, **more)
        except typer.Abort:  # Ctrl-C outside of any command
            if not standalone_mode:
                raise
            code = INTERRUPTED
            told("interrupted", code, "--json" in words)
        except Exception as error:
            if not standalone_mode or not hasattr(error, "format_message"):
                raise
            code = REFUSED
            if error.format_message():  # where nothing was asked for, help has been shown
                told(f"{error.format_message().rstrip('.')}; {_cure(error)}", REFUSED, "--json" in words)
        if not standalone_mode:
            return code
        sys.exit(code if isinstance(code, int) else 0)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that words begin with, whose name may be two of them: `panel show` goes before `panel`."""
        both = " ".join(args[:2])
        ways = [name.split()[1] for name in self.commands if name.startswith(f"{args[0]} ")]
        if both not in self.commands and args[0] not in self.commands and ways:
            ctx.fail(f"{args[0]} needs one of {', '.join(ways)} behind it")
        return super().resolve_command(ctx, [both, *args[2:]] if both in self.commands else args)


def _cure(error: Any) -> str:
    """What to do about a line of words that was not understood."""
    context = getattr(error, "ctx", None)
    help_of = f"{context.command_path if context else app.info.name} --help says more"
    options = [name for one in context.command.params for name in one.opts] if context else []
    if "--out" in options and "unexpected extra argument" in error.format_message():
        return f"what is written is named by --out; {help_of}"
    return help_of


app = typer.Typer(
    cls=Program,
    name="growkit",
    help="Grow trained transformers: wider, deeper, several into one, into mixtures of experts; with a proof of what"
    " still computes the same.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def told(reason: str, code: int, as_json: bool = False) -> None:
    """Say what went wrong: in one sentence on standard error, or for machines as one object on standard output."""
    from growkit.cli.terminal import err, print_json

    if as_json:
        print_json({"error": reason, "exit": code})
    else:
        err.say(("growkit:", "bold yellow" if code == INTERRUPTED else "bold red"), f" {reason}")


@contextmanager
def people_errors(interrupted: str = "interrupted", as_json: bool = False) -> Iterator[None]:
    """Turn what growkit refuses, and what the system does, into one sentence and an exit code."""
    try:
        yield
    except BrokenPipeError:
        raise  # whoever read the output has seen enough
    except (GrowkitError, OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not isinstance(error, GrowkitError) and not ran_out(error):
            raise
        reason = (
            f"not enough memory ({reason_of(error).rpartition('DefaultCPUAllocator: ')[2]})"
            if ran_out(error)
            else str(error)
        )
        code = FAILED if isinstance(error, FailedError) else REFUSED
        told(reason, code, as_json)
        raise typer.Exit(code) from None
    except KeyboardInterrupt:
        told(interrupted, INTERRUPTED, as_json)
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
