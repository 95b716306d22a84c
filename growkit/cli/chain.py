"""The command that makes families: chain. Knows what is shown of them; everything else is the library's."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from growkit import api
from growkit.cli.commands import command
from growkit.cli.training import watching

if TYPE_CHECKING:
    from growkit.chains.chain import Chained
    from growkit.chains.chain_plan import PlannedSize


def chaining(call: Callable[..., "Chained"], as_json: bool) -> None:
    """Make a family with a live line of each run, or show what it will be. Of many processes the first one speaks."""
    from growkit.cli.terminal import err, out, print_json

    with watching() as (announce, watch):
        said = (lambda _: None) if as_json else lambda text: err.say(("chain:", "bold"), f" {text}")
        quiet = (lambda _: None) if as_json else watch
        chained = call(doing=said, announce=(lambda _: None) if as_json else announce, watch=quiet)
    if os.environ.get("RANK", "0") != "0":
        return
    if as_json:
        print_json(chained.to_json())
    elif chained.dry_run:
        _plan(chained.sizes)
    elif chained.stopped is not None:
        run, step = chained.stopped
        err.say(f"stopped at step {step} of {run}; the same line with --resume auto goes on")
    else:
        from growkit.cli.report import show_tables

        assert chained.report is not None
        show_tables(chained.report.tables(), chained.report.notes)
        for name, path in chained.finals.items():
            out.say((name, "bold"), f" {path}")
        out.say(("wrote", "bold"), f" {chained.report.folder}")


def _plan(sizes: "tuple[PlannedSize, ...]") -> None:
    """What a family will be, size by size."""
    from growkit.chains.chain_plan import totals
    from growkit.cli.terminal import out, table_of

    headings = ("size", "parameters", "steps", "lr", "seed", "teacher", "FLOPs")
    table = table_of(headings, left=("size", "teacher"), overflow="fold")
    for one in sizes:
        steps = sum(stage["steps"] for stage in one.ahead.stages)
        flops = f"{one.ahead.flops + one.ahead.teacher_flops:.3g}"
        seed = str(one.size.training["seed"])
        table.add_row(one.size.name, f"{one.ahead.parameters:,}", f"{steps:,}", f"{one.ahead.lr:g}", seed,
                      one.size.teacher, flops)  # fmt: skip
    out.print(table)
    for one in sizes:
        if one.grown is not None:
            axes = [f"{axis.axis} {axis.old} to {axis.new}" for axis in one.grown.axes if axis.old != axis.new]
            out.say(f"{one.size.name} grows by {', '.join(axes)}: {one.grown.exactness}")
        for note in (*(one.grown.notes if one.grown else ()), *one.ahead.notes):
            out.note(f"{one.size.name}: {note}")
    sums = totals(sizes)
    out.print(f"{sums['tokens']:,} tokens, {sums['flops']:.3g} FLOPs, those of teachers at most")
    out.print("nothing was written", style="dim")


command(api.chain, chaining, interrupted="interrupted; --resume auto goes on where it was")
