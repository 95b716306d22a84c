"""What panel and panel show print: tables for people, JSON for machines. Knows rich; ignorant of how anything was
found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.table import Table

from growkit.cli.terminal import out, print_json, styled, table_of
from growkit.models.small.targets import endings

if TYPE_CHECKING:
    from growkit.skills.look import Look
    from growkit.skills.make_panel import MadePanel
    from growkit.skills.turns import Turned

BARS, WIDE = "▁▂▃▄▅▆▇█", 32  # a spectrum in one line of so many characters
LOWEST = 1e-2  # of the largest, what the lowest bar stands for


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


def look(seen: Look, as_json: bool) -> None:
    """What a panel keeps, its spectra, and what its directions do."""
    if as_json:
        print_json(seen.to_json())
        return
    view = seen.view
    _shares("energy kept of the weights", view.energy)
    if view.text_energy:
        _shares("kept of what they make of the text", view.text_energy)
    out.print("spectra, from the largest direction to the last", style="bold")
    table = Table(box=None, pad_edge=False, show_header=False)
    for kind, values in view.spectra.items():
        table.add_row(kind, _bars(values), f"{values[-1]:.1%} of the largest")
    out.print(table)
    for one in seen.turned:
        _turned(one)
    if seen.picture is not None:
        out.say(("wrote", "bold"), f" {seen.picture}")


def _shares(title: str, shares: Mapping[int, Mapping[str, float]]) -> None:
    """A table of layers and kinds of weights, each by the end of its name that no other has."""
    kinds = [*dict.fromkeys(kind for row in shares.values() for kind in row)]
    table = table_of(("layer", *(endings(kinds, [kind])[kind] for kind in kinds)), left=())
    table.title, table.title_justify, table.title_style = title, "left", "bold"
    for layer, row in shares.items():
        table.add_row(str(layer), *(f"{row[kind]:.1%}" if kind in row else "" for kind in kinds))
    out.print(table)
    out.print()


def _bars(values: list[float]) -> str:
    """A falling line of bars, in decades from the largest down."""
    places = [number * len(values) // WIDE for number in range(WIDE)] if len(values) > WIDE else range(len(values))
    heights = [1 - math.log(max(values[place], LOWEST)) / math.log(LOWEST) for place in places]
    return "".join(BARS[min(len(BARS) - 1, max(0, round(height * (len(BARS) - 1))))] for height in heights)


def _turned(one: Turned) -> None:
    """The tokens that a direction moved."""
    out.print()
    pair = f"{one.write}" if one.read is None else f"{one.write} from direction {one.read} of the input"
    out.say(
        (one.weight, "bold"),
        f" direction {pair}, turned by {one.by:+g} of its {one.size:.3g}: {one.kl:.4f} nats a token",
    )
    headings = ("likelier", "before", "after", "rarer", "before", "after")
    table = table_of(headings, left=("likelier", "rarer"), overflow="fold")
    for up, down in zip(one.likelier, one.rarer):
        table.add_row(
            *(word for moved in (up, down) for word in (moved.token, f"{moved.before:.3%}", f"{moved.after:.3%}"))
        )
    out.print(table)
