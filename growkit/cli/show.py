"""What the commands print: tables for people, JSON for machines. Knows rich; ignorant of how anything was found."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.padding import Padding
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from growkit.cli.terminal import Terminal, Words, err, out, print_json, styled, table_of
from growkit.growth.carry_out import Grown
from growkit.growth.inspect import Inspection
from growkit.growth.plan import Plan
from growkit.models.verify import Verification
from growkit.units import count, size

COLOURS = {"exact": "green", "near": "yellow", "approximate": "red", "refused": "dim"}


def print_plan(todo: Plan, console: Terminal) -> None:
    """The tables of a plan."""
    console.print(styled((todo.source, "bold"), f"  {_families(todo)}, {_how(todo)}"))
    table = table_of(("axis", "from", "to", "map", "exactness"), left=("axis", "map", "exactness"))
    for axis in todo.axes:
        grows = axis.how != "kept"
        colour = COLOURS[str(axis.exactness)] if grows else "dim"
        exactness = styled((str(axis.exactness), colour)) if grows else "-"
        row = (axis.axis, f"{axis.old:,}", f"{axis.new:,}", axis.how, exactness)
        table.add_row(*row, style=None if grows else "dim")
    console.print(table)
    console.print()
    grown = [axis for axis in todo.axes if axis.how != "kept"]
    for why in dict.fromkeys(axis.why for axis in grown):
        axes = ", ".join(axis.axis for axis in grown if axis.why == why)
        console.print(Padding(styled((f"{axes}:", "dim"), f" {why}"), (0, 0, 0, 2)))
    console.print()
    console.print(_before_after(todo))
    console.print()
    console.print(styled(("config:", "dim"), f" {json.dumps(todo.changed)}"))
    for note in todo.notes:
        console.note(note)
    dropped = todo.members[0].dropped
    if dropped:
        names = f" {', '.join(dropped[:3])}{' ...' * (len(dropped) > 3)}"
        console.print(styled(("left out, transformers recomputes them:", "dim"), names))


def _families(todo: Plan) -> str:
    """The family, or the one that becomes another."""
    return " -> ".join(dict.fromkeys((todo.family.model_type, todo.result_family.model_type)))


def _how(todo: Plan) -> str:
    """The request in a few words."""
    recipe = todo.recipe
    words = []
    if recipe.experts is not None:
        wanted = recipe.experts
        return f"{wanted.count} experts, {wanted.top_k} for each token, router {wanted.router}, seed {recipe.seed}"
    if recipe.mode is not None:
        words.append(f"fused {recipe.mode}")
    elif recipe.widens or recipe.depth is None:
        words.append(recipe.method)
    if words and recipe.mode != "side-by-side":
        copied = [] if recipe.corners else [f"{recipe.mapping} mapping", f"noise {recipe.noise}"]
        words += [*copied, f"seed {recipe.seed}"]
    if recipe.depth is not None:
        words.append(f"depth by {todo.layers.name if todo.layers.name != 'kept' else recipe.depth.method}")
    return ", ".join(words)


def _before_after(todo: Plan) -> Table:
    table = table_of(("", "before", "after", "ratio"))
    rows: list[tuple[str, tuple[int, int], Callable[[int], str]]] = [
        ("parameters", todo.parameters(), lambda n: f"{n:,}"),
        ("active parameters", todo.active_parameters(), lambda n: f"{n:,}"),
        ("weights", (todo.source_bytes, todo.bytes), size),
        ("FLOPs per token", todo.flops_per_token(), count),
    ]
    for name, (before, after), form in rows:
        if name == "active parameters" and (before, after) == todo.parameters():
            continue  # every token passes all of a dense model
        table.add_row(name, form(before), form(after), f"{after / before:.2f}x" if before else "")
    table.add_row("peak memory", "", f"about {size(todo.peak_bytes)}", "")
    return table


@contextmanager
def writing(as_json: bool) -> Iterator[tuple[Callable[[Plan], None], Callable[[int], None]]]:
    """(announce, progress) for a growth: the plan when it is known, then a bar of bytes written; silent for
    machines."""
    if as_json:
        yield (lambda _: None), (lambda _: None)
        return
    with bytes_bar("growing", err) as (begin, advance):

        def announce(todo: Plan) -> None:
            print_plan(todo, out)
            begin(todo.bytes)

        yield announce, advance


@contextmanager
def bytes_bar(what: str, console: Terminal) -> Iterator[tuple[Callable[[int], None], Callable[[int], None]]]:
    """(begin with a total, advance) of a bar of bytes written, which is gone when all are."""
    columns = (Words("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None, visible=False)

        def advance(written: int) -> None:
            bar.advance(task, written)
            if bar.finished:
                bar.update(task, visible=False)  # what follows, such as a proof, writes nothing

        yield lambda total: bar.update(task, total=total, visible=True), advance


def planned(todo: Any, tables: Callable[[Any, Terminal], None], as_json: bool) -> None:
    """What a dry run found out: a plan by its tables, or for machines."""
    if as_json:
        print_json(todo.to_json())
        return
    tables(todo, out)
    out.print()
    out.print("Dry run: nothing was written.", style="dim")


def grown(result: Grown, as_json: bool) -> None:
    """Where the result is, and its proof; of a dry run its plan."""
    if result.dry_run:
        planned(result.plan, print_plan, as_json)
        return
    if as_json:
        report = result.report.to_json() if result.report else None
        carried = {"optimizer": [str(file) for file in result.carried]} if result.carried else {}
        print_json(
            {"folder": str(result.folder), **result.plan.to_json(), **carried, "verify": report,
             "unverified": result.unverified}
        )  # fmt: skip
        return
    if result.report is not None:
        out.print()
        report_table(result.report)
    elif result.unverified:
        out.print(styled(("not verified:", "yellow"), f" {result.unverified}"))
    state = ", with AdamW's state" if result.carried else ""
    out.say(("wrote", "bold"), f" {result.folder}{state}")


def report(measured: Verification, as_json: bool) -> None:
    """A comparison of two checkpoints."""
    if as_json:
        print_json(measured.to_json())
        return
    report_table(measured)


def report_table(measured: Verification) -> None:
    """The figures of a comparison and its verdict."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row(
        "compared",
        f"{measured.compared}, {measured.tokens} {'' if 'images' in measured.text else 'tokens, '}{measured.text}",
    )
    table.add_row("max |difference|", f"{measured.max_difference:.3g}  ({measured.relative:.2g} of the largest value)")
    table.add_row("mean |difference|", f"{measured.mean_difference:.3g}")
    if measured.kl is not None and measured.top1 is not None:
        table.add_row("KL divergence", f"{measured.kl:.3g} nats")
        table.add_row("top-1 agreement", f"{measured.top1:.2%}")
    if measured.cosine is not None:
        table.add_row("cosine, mean-pooled", f"{measured.cosine:.6f}")
    for label, loss in measured.members:
        if loss is not None:
            table.add_row(f"loss of {label}", f"{loss:.4f}")
    if measured.loss_source is not None and measured.loss_target is not None:
        before = "of their mean logits" if measured.members else "before"
        table.add_row("loss", f"{measured.loss_source:.4f} {before}, {measured.loss_target:.4f} after (nats per token)")
    out.print(table)
    for note in measured.notes:
        out.note(note)
    for key in measured.keys:
        out.print(styled(("key", "red"), f" {key}"))
    if measured.tolerance is None:
        out.print(styled(("not judged", "yellow"), f"  the plan says {measured.exactness}; judge with --tolerance"))
        return
    verdict = "same function" if measured.exactness == "exact" else "near"
    limit = f"tolerance {measured.tolerance:.2g}"
    if math.isinf(measured.relative):
        limit = "anything: what comes out is not finite"
    why = "transformers missed keys or found unknown ones" if measured.keys else f"beyond {limit}"
    good, bad = ((verdict, "bold green"), f"  within {limit}"), (("FAILED", "bold red"), f"  {why}")
    out.print(styled(*(good if measured.ok else bad)))


def inspection(checkpoint: Inspection, as_json: bool) -> None:
    """What a checkpoint is and how it could grow."""
    if as_json:
        print_json(checkpoint.to_json())
        return
    total = sum(checkpoint.parameters.values())
    tied = "tied" if checkpoint.tied else "not tied"
    kind = f"  {checkpoint.family}, {checkpoint.architecture}, head {tied}, {', '.join(checkpoint.dtypes)}"
    out.print(styled((checkpoint.source, "bold"), kind))
    sizes = table_of([*checkpoint.sizes], left=())
    sizes.add_row(*(f"{n:,}" for n in checkpoint.sizes.values()))
    out.print(sizes)
    parts = table_of(("part", "parameters", "share"))
    for part, weights in sorted(checkpoint.parameters.items(), key=lambda item: -item[1]):
        parts.add_row(part, f"{weights:,}", f"{weights / total:.1%}")
    parts.add_row(styled(("total", "bold")), styled((f"{total:,}", "bold")), size(checkpoint.bytes))
    out.print(parts)
    if checkpoint.active_parameters != total:
        out.print(f"{checkpoint.active_parameters:,} parameters active for one token")
    out.print(f"{count(checkpoint.flops_per_token)}FLOPs per token forward, attention scores left out")
    out.print()
    growth = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("growth", "exactness", "why"):
        growth.add_column(heading, overflow="fold", no_wrap=heading != "why")
    for g in checkpoint.growths:
        growth.add_row(g.option, styled((g.exactness, COLOURS[g.exactness])), g.why)
    out.print(growth)
