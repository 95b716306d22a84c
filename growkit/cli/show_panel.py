"""What panel prints: tables for people, JSON for machines. Knows rich; ignorant of how anything was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from growkit.cli.terminal import out, print_json, styled

if TYPE_CHECKING:
    from growkit.skills.make_panel import MadePanel


def made(result: MadePanel, as_json: bool) -> None:
    """What a panel holds, and where it is."""
    if as_json:
        print_json(result.to_json())
        return
    header = result.header
    weights = [*header.weights.values()]
    energy = sum(weight.energy for weight in weights) / len(weights)
    out.print(
        styled(
            (f"{len(weights)} weights", "bold"),
            f" that read {len(header.groups)} inputs, rank {header.rank}, basis {header.basis}, scale {header.scale}",
        )
    )
    read = [weight.text_energy for weight in weights if weight.text_energy is not None]
    of_text = f"; of what they make of the text {sum(read) / len(read):.1%}" if read else ""
    out.print(f"kept of the weights, on average: {energy:.1%}{of_text}")
    out.print(f"decompositions exact to {max(weight.error for weight in weights):.1e} of their size", style="dim")
    for note in result.notes:
        out.note(note)
    out.say(("wrote", "bold"), f" {result.folder}; growkit panel show {result.folder} looks at it")
