"""The commands of `growkit`. Knows options and exit codes; everything else is the library's."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from growkit.errors import GrowkitError, RequestError
from growkit.version import __version__

app = typer.Typer(
    name="growkit",
    help="Grow trained transformers: any stock checkpoint to any width, with a proof that it computes the same function.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
SIZES, HOW, OUTPUT, SOURCE = "What to grow", "How", "Output", "When the source has no config.json"


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
        raise typer.Exit(REFUSED) from None
    except KeyboardInterrupt:
        console.print(f"[bold yellow]growkit:[/] {interrupted}")
        raise typer.Exit(INTERRUPTED) from None


def _bytes(text: str) -> int:
    """'5GB', '500MB' or a number of bytes. Raises RequestError for what is no such size."""
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "B": 1, "": 1}
    number = text.strip().rstrip("KMGIBkmgib")
    unit = text.strip()[len(number) :].upper()
    try:
        size = int(float(number) * units[unit])
    except (KeyError, ValueError, OverflowError):
        size = 0
    if size < 1:
        raise RequestError(f"--shard-size {text!r} is no size such as 5GB, 500MB or 1000000")
    return size


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


@app.command()
def widen(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A folder, a .safetensors file or a hub id.")],
    hidden: Annotated[Optional[int], typer.Option(min=1, metavar="N", rich_help_panel=SIZES, help="Width of the residual stream; alone, heads and ffn follow in proportion.")] = None,
    heads: Annotated[Optional[int], typer.Option(min=1, metavar="N", rich_help_panel=SIZES, help="Query heads.")] = None,
    kv_heads: Annotated[Optional[int], typer.Option(min=1, metavar="N", rich_help_panel=SIZES, help="Key-value heads.")] = None,
    head_dim: Annotated[Optional[int], typer.Option(min=1, metavar="N", rich_help_panel=SIZES, help="Slots of one head.")] = None,
    ffn: Annotated[Optional[int], typer.Option(min=1, metavar="N", rich_help_panel=SIZES, help="Inner width of the feed-forward layers.")] = None,
    method: Annotated[str, typer.Option(metavar="fpi|aki", rich_help_panel=HOW, help="fpi keeps the function; aki takes new units from the layer above (bert2BERT).")] = "fpi",
    mapping: Annotated[str, typer.Option(metavar="cyclic|random", rich_help_panel=HOW, help="cyclic, or the paper's random.")] = "cyclic",
    noise: Annotated[Optional[float], typer.Option(metavar="X", rich_help_panel=HOW, help="How unevenly read copies are split, 0 to below 1; their sum stays. Default 0.5 for fpi, 0 for aki.")] = None,
    seed: Annotated[int, typer.Option(metavar="S", rich_help_panel=HOW, help="For the random mapping, the split and free fillers.")] = 0,
    dtype: Annotated[Optional[str], typer.Option(metavar="TYPE", rich_help_panel=HOW, help="Store as float64, float32, bfloat16 or float16; default as the source.")] = None,
    optimizer: Annotated[Optional[Path], typer.Option(metavar="STATE", rich_help_panel=HOW, help="AdamW state (<param>.exp_avg, <param>.exp_avg_sq) to grow along.")] = None,
    allow_nonfinite: Annotated[bool, typer.Option("--allow-nonfinite", rich_help_panel=HOW, help="Grow NaN and Inf weights as they are.")] = False,
    out: Annotated[Optional[Path], typer.Option("-o", "--out", metavar="OUT", rich_help_panel=OUTPUT, help="Folder to make; default here, named by what changed.")] = None,
    shard_size: Annotated[str, typer.Option(metavar="SIZE", rich_help_panel=OUTPUT, help="Largest weight file.")] = "5GB",
    dry_run: Annotated[bool, typer.Option("--dry-run", rich_help_panel=OUTPUT, help="Print the plan and write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", rich_help_panel=OUTPUT, help="Print for machines.")] = False,
    force: Annotated[bool, typer.Option("--force", rich_help_panel=OUTPUT, help="Replace a checkpoint that is there.")] = False,
    verify: Annotated[bool, typer.Option(rich_help_panel=OUTPUT, help="Prove the result at the end, where it fits in memory.")] = True,
    family: Annotated[Optional[str], typer.Option(metavar="NAME", rich_help_panel=SOURCE, help="Its family, such as llama.")] = None,
    source_heads: Annotated[Optional[int], typer.Option(min=1, metavar="N", rich_help_panel=SOURCE, help="Its number of query heads.")] = None,
) -> None:  # fmt: skip
    """Grow a checkpoint in width: hidden size, heads, head size, feed-forward size, alone or together."""
    request: dict[str, Any] = dict(
        hidden=hidden, heads=heads, kv_heads=kv_heads, head_dim=head_dim, ffn=ffn, method=method, mapping=mapping,
        noise=noise, seed=seed, dtype=dtype,
    )  # fmt: skip
    with people_errors("interrupted; nothing was kept"):
        shard_bytes = _bytes(shard_size)
        from growkit import api
        from growkit.cli import show

        if dry_run:
            todo = api.plan_widen(
                source, out, force=force, optimizer=optimizer, family=family, source_heads=source_heads, **request
            )
            show.plan(todo, as_json)
            return
        with show.writing(as_json) as (announce, progress):
            grown = api.widen(
                source, out, shard_bytes=shard_bytes, force=force, optimizer=optimizer, allow_nonfinite=allow_nonfinite,
                family=family, source_heads=source_heads, announce=announce, progress=progress, **request,
            )  # fmt: skip
        unproven = ""
        if verify:
            try:
                grown = api.prove(source, grown, family=family, source_heads=source_heads)
            except GrowkitError as error:
                unproven = str(error)
            except KeyboardInterrupt:
                unproven = "interrupted"
        show.grown(replace(grown, unverified=unproven or grown.unverified), as_json)
    if unproven == "interrupted":
        raise typer.Exit(INTERRUPTED)
    if unproven or (grown.report is not None and not grown.report.ok):
        raise typer.Exit(FAILED)


@app.command()
def verify(
    source: Annotated[str, typer.Argument(metavar="SRC", help="The checkpoint before.")],
    target: Annotated[str, typer.Argument(metavar="DST", help="The checkpoint after.")],
    text: Annotated[Optional[Path], typer.Option(help="A file of real text; default random tokens.")] = None,
    tolerance: Annotated[Optional[float], typer.Option(min=0, help="Largest difference over the largest value; default by exactness and dtype.")] = None,
    seed: Annotated[int, typer.Option(metavar="S", help="For the random tokens and the masks.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print for machines.")] = False,
    family: Annotated[Optional[str], typer.Option(metavar="NAME", rich_help_panel=SOURCE, help="Its family, such as llama.")] = None,
    source_heads: Annotated[Optional[int], typer.Option(min=1, metavar="N", rich_help_panel=SOURCE, help="Its number of query heads.")] = None,
) -> None:  # fmt: skip
    """Run two checkpoints on the same tokens in stock transformers and compare what comes out; exit 1 if too far apart."""
    with people_errors():
        from growkit import proof
        from growkit.cli import show

        report = proof.verify(source, target, text, tolerance, seed, family, source_heads)
        show.report(report, as_json)
    if not report.ok:
        raise typer.Exit(FAILED)


@app.command()
def inspect(
    source: Annotated[str, typer.Argument(metavar="CKPT", help="A folder, a .safetensors file or a hub id.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print for machines.")] = False,
    family: Annotated[Optional[str], typer.Option(metavar="NAME", rich_help_panel=SOURCE, help="Its family, such as llama.")] = None,
    source_heads: Annotated[Optional[int], typer.Option(min=1, metavar="N", rich_help_panel=SOURCE, help="Its number of query heads.")] = None,
) -> None:  # fmt: skip
    """Show what a checkpoint is: family, sizes, parameters by part, and which growth would be exact."""
    with people_errors():
        from growkit import inspection
        from growkit.cli import show

        show.inspection(inspection.inspect(source, family, source_heads), as_json)


def main() -> None:
    """Entry point of the `growkit` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show must not end a run
    app(prog_name="growkit")
