"""What tokenize, init and eval print: tables for people, JSON for machines. Knows rich; ignorant of how anything was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from growkit.cli.show import as_text, err, out, size

if TYPE_CHECKING:
    from growkit.data.tokenize import Dataset
    from growkit.models.evaluate import Evaluation
    from growkit.models.init import Initialised
    from growkit.training.outlook import Outlook

Advance = Callable[[int], None]


@contextmanager
def bars(as_json: bool) -> Iterator[Callable[[str, int], Advance]]:
    """For each part of the work, a bar of bytes read; silent for machines and where there is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    quiet = as_json or not err.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=err, transient=True, disable=quiet) as progress:

        def begin(what: str, total: int) -> Advance:
            task = progress.add_task(what, total=total)
            return lambda read: progress.advance(task, read)

        yield begin


@contextmanager
def bar(what: str, as_json: bool) -> Iterator[Callable[[int], Advance]]:
    """A bar of things done, once their number is known."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=as_json or not err.is_terminal) as progress:

        def begin(total: int) -> Advance:
            task = progress.add_task(what, total=total)
            return lambda done: progress.advance(task, done)

        yield begin


def dataset(made: Dataset, as_json: bool) -> None:
    """What is in a dataset, and where it is."""
    if as_json:
        as_text(made.to_json())
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("split", "documents", "tokens", "text", "bytes per token"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    for name, split in made.meta["splits"].items():
        tokens, text = split["tokens"], split["text_bytes"]
        table.add_row(name, f"{split['documents']:,}", f"{tokens:,}", size(text), f"{text / tokens:.2f}")
    out.print(table)
    out.print(f"vocabulary of {made.meta['vocab_size']:,}, {made.meta['dtype']}", style="dim")
    _notes(made.notes)
    out.print(f"[bold]wrote[/] {escape(str(made.folder))}", soft_wrap=True)


def initialised(made: Initialised, as_json: bool) -> None:
    """What was made of a config, and where it is."""
    if as_json:
        as_text(made.to_json())
        return
    out.print(f"{made.architecture}, {made.parameters:,} parameters, {made.dtype}, seed {made.seed}")
    if not made.tokenizer:
        _notes(["it has no tokenizer: give a checkpoint that has one, or copy the files of one into it"])
    out.print(f"[bold]wrote[/] {escape(str(made.folder))}", soft_wrap=True)


def evaluation(found: Evaluation, as_json: bool) -> None:
    """The figures, and all that must be known to compare them with others."""
    if as_json:
        as_text(found.to_json())
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    where = escape(found.data) + (f", {found.split}" if found.split else "")
    table.add_row("measured", f"{escape(found.checkpoint)} on {where}")
    table.add_row(
        "", f"{found.predicted:,} of {found.tokens:,} tokens, {found.windows:,} windows, float32, {found.device}"
    )
    table.add_row("context", f"{found.context}, stride {found.stride}")
    if found.accuracy is not None:
        table.add_row("masked loss", f"[bold]{found.loss:.4f}[/] nats per masked token")
        table.add_row("accuracy", f"[bold]{found.accuracy:.2%}[/] of masked tokens")
    else:
        table.add_row("loss", f"[bold]{found.loss:.4f}[/] nats per token")
        table.add_row("perplexity", f"[bold]{found.perplexity:.6g}[/] per token")
    if found.bits_per_byte is not None:
        table.add_row("bits per byte", f"[bold]{found.bits_per_byte:.4f}[/]")
        table.add_row("bytes", f"{found.text_bytes:,}: {escape(found.counted)}")
    out.print(table)
    _notes(found.notes)


def outlook(found: Outlook, as_json: bool) -> None:
    """What a run will be: its stages and what they cost."""
    if as_json:
        as_text(found.to_json())
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("stage", "steps", "layers", "run", "learn", "FLOPs"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage in found.stages:
        means = (f"{stage[key]:.4g}" for key in ("depth", "trained"))
        table.add_row(stage["name"], f"{stage['steps']:,}", str(stage["layers"]), *means, f"{stage['flops']:.3g}")
    out.print(table)
    taught = f", the teacher at most {found.teacher_flops:.3g} more" if found.teacher_flops else ""
    out.print(
        f"{found.parameters:,} parameters, {found.tokens:,} tokens ({found.passes:.2f} times the data), {found.warmup:,} steps of warm-up{taught}"
    )
    where = f"{found.processes} processes on {found.device}" if found.processes > 1 else found.device
    out.print(
        f"{where}, {found.precision}; weights, gradient and moments {size(found.state)} and activations beside them"
    )
    out.print(f"disk: {size(found.disk)} at most", style="dim")
    out.print("nothing was written", style="dim")


def _notes(notes: tuple[str, ...] | list[str]) -> None:
    for note in notes:
        out.print(f"[dim]note:[/] {escape(note)}")
