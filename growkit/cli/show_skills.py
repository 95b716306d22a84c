"""What the commands around skills print: tables for people, JSON for machines. Knows rich; ignorant of how anything was
found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from growkit.cli.show import planned
from growkit.cli.show_merging import print_plan
from growkit.cli.terminal import out, print_json, styled

if TYPE_CHECKING:
    from growkit.skills.gates.plug_gated import Plugged
    from growkit.skills.plug import PluggedModel


def plugged(result: Plugged, as_json: bool) -> None:
    """A bundle's certificate, and where it is."""
    if as_json:
        print_json(result.to_json())
        return
    said, promise = result.said, result.said["promise"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("skill", "strength", "own texts", "held out", "open it", "open others"):
        table.add_column(heading, justify="left" if heading == "skill" else "right")
    for skill in said["skills"]:
        own = skill["own"]
        counts = (f"{own[key]:,}" for key in ("texts", "held", "opened", "others"))
        table.add_row(skill["name"], f"{skill['strength']:g}", *counts)
    out.print(table)
    out.print(
        f"gate: {said['pooling']} of layer {said['layer']}, threshold {promise['threshold']:.6g}, the"
        f" {promise['order']:,}-th smallest level of {promise['texts']:,} general texts"
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


def plugged_model(result: PluggedModel, as_json: bool) -> None:
    """Where the model or the LoRA is; of a dry run its plan."""
    if as_json:
        print_json(result.to_json())
        return
    if result.dry_run:
        planned(result.plan, print_plan, as_json)
        return
    if result.rank is not None:
        for note in result.plan.notes:
            out.note(note)
        out.print(f"one LoRA of rank {result.rank} with {len(result.plan.members)} skills", style="dim")
    out.say(("wrote", "bold"), f" {result.folder}")
