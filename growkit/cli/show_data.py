"""What tokenize, init, eval and teach print: tables for people, JSON for machines. Knows rich; ignorant of how anything
was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from growkit.cli.terminal import Words, err, out, print_json, styled, table_of
from growkit.units import size

if TYPE_CHECKING:
    from growkit.data.tokenize import Dataset
    from growkit.models.evaluate import Evaluation
    from growkit.models.init import Initialised
    from growkit.training.outlook import Outlook
    from growkit.training.teachers.teach import Written

Advance = Callable[[int], None]


@contextmanager
def bars(as_json: bool) -> Iterator[Callable[[str, int], Advance]]:
    """For each part of the work, a bar of bytes read; silent for machines and where there is no terminal."""
    columns = (Words("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    quiet = as_json or not err.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=err, transient=True, disable=quiet) as progress:

        def begin(what: str, total: int) -> Advance:
            task = progress.add_task(what, total=total or None)  # 0: nobody knows
            return lambda read: progress.advance(task, read)

        yield begin


@contextmanager
def bar(what: str, as_json: bool) -> Iterator[Callable[[int], Advance]]:
    """A bar of things done, once their number is known."""
    columns = (Words("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=as_json or not err.is_terminal) as progress:

        def begin(total: int) -> Advance:
            task = progress.add_task(what, total=total or None)  # 0: nobody knows
            return lambda done: progress.advance(task, done)

        yield begin


def dataset(result: Dataset, as_json: bool) -> None:
    """What is in a dataset, and where it is."""
    if as_json:
        print_json(result.to_json())
        return
    chat = "chat" in result.meta
    last = ("conversations", "tokens", "learned") if chat else ("documents", "tokens", "text", "bytes per token")
    table = table_of(("split", *last))
    for name, split in result.meta["splits"].items():
        for part, counts in (
            (name, split),
            *((f"  {domain}", own) for domain, own in split.get("domains", {}).items()),
        ):
            tokens, text = counts["tokens"], counts["text_bytes"]
            each = f"{text / tokens:.2f}" if tokens else ""
            told = (f"{counts['learned']:,}",) if chat else (size(text), each)
            table.add_row(part, f"{counts['documents']:,}", f"{tokens:,}", *told)
    out.print(table)
    out.print(f"vocabulary of {result.meta['vocab_size']:,}, {result.meta['dtype']}", style="dim")
    _notes(result.notes)
    out.say(("wrote", "bold"), f" {result.folder}")


def initialised(checkpoint: Initialised, as_json: bool) -> None:
    """What was made of a config, and where it is."""
    if as_json:
        print_json(checkpoint.to_json())
        return
    out.print(
        f"{checkpoint.architecture}, {checkpoint.parameters:,} parameters, {checkpoint.dtype}, seed {checkpoint.seed}"
    )
    _notes(checkpoint.notes)
    if not checkpoint.tokenizer:
        _notes(["it has no tokenizer: give a checkpoint that has one, or copy the files of one into it"])
    out.say(("wrote", "bold"), f" {checkpoint.folder}")


def evaluation(figures: Evaluation, as_json: bool) -> None:
    """The figures, and all that must be known to compare them with others."""
    if as_json:
        print_json(figures.to_json())
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    where = figures.data + (f", {figures.split}" if figures.split else "")
    table.add_row("measured", f"{figures.checkpoint} on {where}")
    table.add_row(
        "",
        f"{figures.predicted:,} of {figures.tokens:,} tokens, {figures.windows:,} windows, float32, {figures.device}",
    )
    table.add_row("context", f"{figures.context}, stride {figures.stride}")
    if figures.accuracy is not None:
        table.add_row("masked loss", styled((f"{figures.loss:.4f}", "bold"), " nats per masked token"))
        table.add_row("accuracy", styled((f"{figures.accuracy:.2%}", "bold"), " of masked tokens"))
    else:
        table.add_row("loss", styled((f"{figures.loss:.4f}", "bold"), " nats per token"))
        table.add_row("perplexity", styled((f"{figures.perplexity:.6g}", "bold"), " per token"))
    for domain, loss in (figures.domains or {}).items():
        table.add_row(f"  {domain}", f"{loss:.4f} nats per token")
    if (told := figures.expert_domains) is not None:
        nats = ", ".join(f"{layer}: {own:.3f}" for layer, own in zip(told["layers"], told["nats"]))
        table.add_row("experts", f"tell of the domain, by layer, in nats of at most {told['most']:.3f}: {nats}")
    if figures.bits_per_byte is not None:
        table.add_row("bits per byte", styled((f"{figures.bits_per_byte:.4f}", "bold")))
        table.add_row("bytes", f"{figures.text_bytes:,}: {figures.counted}")
    out.print(table)
    _notes(figures.notes)


def written(store: Written, as_json: bool) -> None:
    """What a store holds, and where it is."""
    if as_json:
        print_json(store.to_json())
        return
    header, each = store.header, store.header.record.itemsize
    positions = header.windows * header.predicted
    out.print(
        f"{positions:,} positions in windows of {header.seq_len}: {header.head} entries of each, {header.tail} drawn;"
        f" {each} bytes each, {size(sum(header.sizes.values()))}"
    )
    if store.loss is not None:
        out.print(
            styled("the teacher's validation loss is ", (f"{store.loss:.4f}", "bold"), " nats per predicted token")
        )
    out.say(("wrote", "bold"), f" {store.folder}")


def outlook(ahead: Outlook, as_json: bool) -> None:
    """What a run will be: its stages and what they cost."""
    if as_json:
        print_json(ahead.to_json())
        return
    table = table_of(("stage", "steps", "layers", "run", "learn", "FLOPs"))
    for stage in ahead.stages:
        means = (f"{stage[key]:.4g}" for key in ("depth", "trained"))
        table.add_row(stage["name"], f"{stage['steps']:,}", str(stage["layers"]), *means, f"{stage['flops']:.3g}")
    out.print(table)
    taught = f", the teacher at most {ahead.teacher_flops:.3g} more" if ahead.teacher_flops else ""
    learn = f", of which {ahead.learning:,} learn" if ahead.learning != ahead.parameters else ""
    out.print(
        f"{ahead.parameters:,} parameters{learn}, {ahead.tokens:,} tokens ({ahead.passes:.2f} times the data), {ahead.warmup:,} steps of warm-up{taught}"
    )
    if (rows := ahead.rows) is not None:
        out.print(
            f"{rows['conversations']:,} conversations in {rows['rows']:,} rows: {rows['padded']:,} places padded,"
            f" {rows['tokens_cut']:,} tokens and {rows['answers_cut']:,} of {rows['answers']:,} answers cut,"
            f" {rows['dropped']:,} conversations dropped"
        )
    where = f"{ahead.processes} processes on {ahead.device}" if ahead.processes > 1 else ahead.device
    out.print(
        f"{where}, {ahead.precision}; weights, gradient and moments {size(ahead.state)} and activations beside them"
    )
    if (end := ahead.foreseen) is not None:
        low, high = end.between
        scratch = "" if end.scratch is None else f"; from scratch {end.scratch:.3f}"
        out.print(f"the forecast: a validation loss of {end.loss:.3f} ({low:.3f} to {high:.3f}){scratch}")
    _notes(ahead.notes)
    out.print(f"disk: {size(ahead.disk)} at most", style="dim")
    out.print("nothing was written", style="dim")


def _notes(notes: tuple[str, ...] | list[str]) -> None:
    for note in notes:
        out.note(note)
