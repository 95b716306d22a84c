"""What the commands around skills print: tables for people, JSON for machines. Knows rich; ignorant of how anything was
found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from growkit.cli.terminal import out, print_json, styled

if TYPE_CHECKING:
    from growkit.skills.gates.plug_gated import Plugged


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
