"""What merge, delta and apply print: tables for people, JSON for machines. Knows rich; ignorant of how anything was
found.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from growkit.cli import show
from growkit.cli.show import bytes_bar, planned
from growkit.cli.terminal import Terminal, err, out, print_json, styled, table_of
from growkit.growth.plan import Plan
from growkit.merging.by_tensor import in_words
from growkit.merging.delta_sizes import THRESHOLDS
from growkit.units import size

if TYPE_CHECKING:
    from growkit.growth.carry_out import Grown
    from growkit.merging.merge import MeasuredDelta, Merged
    from growkit.merging.merge_plan import MergePlan


def print_plan(todo: MergePlan, console: Terminal) -> None:
    """The tables of a plan."""
    request = todo.request
    options = ", ".join(f"{name} {value:g}" for name, value in request.options.items() if not request.by_member)
    seed = f"seed {request.seed}" if request.row.draws else ""
    settings = ", ".join(
        part for part in (options, f"scale {in_words(request.scale)}", seed, request.row.paper) if part
    )
    console.print(styled((request.method, "bold"), f"  {todo.family.model_type}, {settings}"))
    table = table_of(("", "model", "weight", "weights on disk"), left=("", "model"))
    if todo.base is not None:
        table.add_row("base", todo.base.label, "", "")
    for member, own in zip(todo.members, request.by_member or [{}] * len(todo.members)):
        said = [in_words(member.weight), *(f"{name} {in_words(number)}" for name, number in own.items())]
        table.add_row("member", member.label, ", ".join(said), size(member.bytes))
    console.print(table)
    if request.row.draws and not request.vectors:
        console.print("norms and biases are merged whole: nothing is dropped from them (--drop-vectors)", style="dim")
    if request.row.whole:
        matrices = sum(tensor.whole for tensor in todo.tensors)
        console.print(
            f"{request.method} merges {matrices} matrices; embeddings, head, norms and biases are averaged",
            style="dim",
        )
    console.print(
        f"{todo.parameters:,} parameters, {size(todo.bytes)} to write, peak memory about {size(todo.peak_bytes)}"
    )
    if todo.changed:
        console.print(styled(("config:", "dim"), f" {json.dumps(todo.changed)}"))
    for note in todo.notes:
        console.note(note)


@contextmanager
def writing(as_json: bool) -> Iterator[tuple[Callable[[MergePlan | Plan], None], Callable[[int], None]]]:
    """(announce, progress) for a merge: the plan when it is known, then a bar of bytes written; silent for machines."""
    if as_json:
        yield (lambda _: None), (lambda _: None)
        return
    with bytes_bar("merging", err) as (begin, advance):

        def announce(todo: MergePlan | Plan) -> None:
            _print_any(todo, out)
            begin(todo.bytes)

        yield announce, advance


def _print_any(todo: MergePlan | Plan, console: Terminal) -> None:
    """The tables of a plan, which for a recipe by passthrough is a growth's."""
    show.print_plan(todo, console) if isinstance(todo, Plan) else print_plan(todo, console)


def merged(result: Merged | Grown, as_json: bool) -> None:
    """Where the result is; of a dry run its plan."""
    if isinstance(result.plan, Plan):
        show.grown(result, as_json)
        return
    if result.dry_run:
        planned(result.plan, print_plan, as_json)
        return
    if as_json:
        print_json(
            {"folder": str(result.folder), **result.plan.to_json(), "notes": [*result.plan.notes, *result.notes]}
        )
        return
    for note in result.notes:
        out.note(note)
    out.say(("wrote", "bold"), f" {result.folder}")


def delta(measured: MeasuredDelta, as_json: bool) -> None:
    """How large a delta is, what may be dropped of it, and where it was saved."""
    report = measured.report
    if as_json:
        folder = str(measured.folder) if measured.folder else None
        print_json({**report.to_json(), "folder": folder, "rank_errors": measured.errors})
        return
    out.print(styled((report.member, "bold"), f" less {report.base}"))
    sizes = table_of(("changes", "elements", "rms", "of weights", "largest"), no_wrap=True)
    shares = table_of(("share of them", "none", *(f"< {t:g}" for t in THRESHOLDS)), no_wrap=True)
    for kind in report.kinds:
        ratio = f"{kind.rms / kind.base_rms:.2%}" if kind.base_rms else "-"
        sizes.add_row(kind.kind, f"{kind.elements:,}", f"{kind.rms:.2e}", ratio, f"{kind.largest:.2e}")
        shares.add_row(kind.kind, *(f"{share:.1%}" for share in (kind.unchanged, *kind.below)))
    for table in (sizes, shares):
        out.print(table)
        out.print()
    for decade, share in report.histogram:
        out.print(styled((f"1e{decade:+03d}..", "dim"), f" {share:6.1%} {'#' * round(40 * share)}"))
    if report.histogram:
        noise = ", ".join(f"{share:.1%} at p {p:g}" for p, share in report.noise)
        out.print()
        out.print(f"noise that dropping adds, beside the size of the weights: {noise}")
        verdict = f"--drop up to {report.safe_drop:g}" if report.safe_drop else "nothing: merge it whole, or by ties"
        out.print(styled("safe to drop: ", (verdict, "bold")))
        out.print(
            f"  99.9 % of changes lie below {report.q999:.2e}; DARE's authors dropped 0.9 of those below 0.005 and failed above"
            " 0.03 (arXiv 2311.03099)",
            style="dim",
        )
    for note in report.notes:
        out.note(note)
    if measured.errors:
        worst = max(measured.errors, key=lambda name: measured.errors[name])  # type: ignore[index]
        mean = sum(measured.errors.values()) / len(measured.errors)
        out.print(f"relative error of the LoRA: {mean:.2%} in the mean, {measured.errors[worst]:.2%} in {worst}")
    if measured.folder is not None:
        out.say(("wrote", "bold"), f" {measured.folder}")
