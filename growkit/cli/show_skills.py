"""What the commands around skills print: tables for people, JSON for machines. Knows rich; ignorant of how anything was
found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from growkit.cli import show_merging
from growkit.cli.show import bytes_bar, planned
from growkit.cli.terminal import Terminal, err, out, print_json, styled, table_of

if TYPE_CHECKING:
    from growkit.skills.carry import CarriedOver
    from growkit.skills.dial import Dialed
    from growkit.skills.gates.plug_gated import Plugged
    from growkit.skills.plug import PluggedModel


def plugged(result: Plugged, as_json: bool) -> None:
    """A bundle's certificate, and where it is."""
    if as_json:
        print_json(result.to_json())
        return
    said, promise = result.said, result.said["promise"]
    table = table_of(("skill", "strength", "threshold", "own texts", "held out", "open it", "open others"))
    for skill in said["skills"]:
        own = skill["own"]
        counts = (f"{own[key]:,}" for key in ("texts", "held", "opened", "others"))
        table.add_row(skill["name"], f"{skill['strength']:g}", f"{skill['threshold']:.6g}", *counts)
    out.print(table)
    out.print(
        f"gate: of layer {said['layer']}; thresholds: the {promise['order']:,}-th smallest score of"
        f" {promise['texts']:,} general texts"
    )
    out.print(
        styled(
            (f"P(a skill opens) <= {promise['alpha']:.4g}", "bold"),
            " for text exchangeable with these; wherever none does, the base, bit for bit",
        )
    )
    if promise["fresh"]:
        out.print(
            f"confirmed on {promise['fresh']:,} fresh texts: {promise['opened']:,} opened one, at most"
            f" {promise['bound']:.2%} with {promise['confidence']:.0%} confidence (Clopper-Pearson)"
        )
    for pair in said["together"]:
        out.print(f"{' and '.join(pair)} may open at once", style="dim")
    for note in result.notes:
        out.note(note)
    out.say(("wrote", "bold"), f" {result.folder}")


@contextmanager
def writing(as_json: bool) -> Iterator[tuple[Callable[[PluggedModel], None], Callable[[int], None]]]:
    """(announce, progress) for weights or a LoRA: what will be plugged, then a bar of bytes written; silent for
    machines."""
    if as_json:
        yield (lambda _: None), (lambda _: None)
        return
    with bytes_bar("plugging", err) as (begin, advance):

        def announce(todo: PluggedModel) -> None:
            print_model(todo, out)
            begin(todo.plan.bytes)

        yield announce, advance


def print_model(todo: PluggedModel, console: Terminal) -> None:
    """The tables of what will be plugged."""
    show_merging.print_plan(todo.plan, console)
    for pair in todo.pairs:
        rho = "-" if pair.mean is None else f"{pair.mean:.3f}"
        console.print(f"rho({pair.source} -> {pair.target}) {rho}, {pair.band}", style="dim")


def model(result: PluggedModel, as_json: bool) -> None:
    """Where weights or a LoRA are; of a dry run what they would be."""
    if result.dry_run:
        planned(result, print_model, as_json)
        return
    if as_json:
        print_json(result.to_json())
        return
    for note in result.notes:
        out.note(note)
    what = "" if result.rank is None else f", a LoRA of rank {result.rank}"
    out.say(("wrote", "bold"), f" {result.folder}{what}")


def carried(result: CarriedOver, as_json: bool) -> None:
    """What was carried over a growth, and where it is."""
    if as_json:
        print_json(result.to_json())
        return
    out.print(f"{result.kind} of rank {result.rank} on {result.weights} weights; the growth is {result.exactness}")
    for note in result.notes:
        out.note(note)
    out.say(("wrote", "bold"), f" {result.folder}")


def dialed(result: Dialed, as_json: bool) -> None:
    """Losses, a row for each strength and a column for each domain; the least of each is bold."""
    if as_json:
        print_json(result.to_json())
        return
    table = table_of(("strength", *result.losses), left=(), overflow="fold")
    best = {domain: result.best(domain) for domain in result.losses}
    for number, strength in enumerate(result.strengths):
        losses = (
            styled((f"{each[number]:.4f}", "bold" if best[domain] == strength else ""))
            for domain, each in result.losses.items()
        )
        table.add_row(f"{strength:+.2f}", *losses)
    out.print(table)
    if result.picture is not None:
        out.say(("wrote", "bold"), f" {result.picture}")
