"""What check-family prints: a line for each family as it is done, then what is wrong. Knows rich; ignorant of how
anything was found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from growkit.cli.terminal import out, print_json, styled, table_of

if TYPE_CHECKING:
    from growkit.family_check.checked_family import FamilyCheck

ORDER = ("exact", "near", "approximate", "refused", "broken")
STYLES = {"exact": "green", "near": "yellow", "approximate": "yellow", "refused": "dim", "broken": "bold red"}


def line(check: FamilyCheck) -> None:
    """One family: whether it is sound, and how many growths were exact, near, refused."""
    found = Counter(growth.exactness for growth in check.growths)
    words = [f"{found[word]} {word}" for word in ORDER if found[word]]
    verdict = ("sound ", "bold green") if check.ok else ("FAULTY", "bold red")
    out.print(styled(verdict, f"  {check.family:<16} ", (", ".join(words), "dim")))


def checks(found: Sequence[FamilyCheck], as_json: bool) -> None:
    """Of one family every growth of the model that it is first tried on; of all the faults."""
    if as_json:
        print_json([check.to_json() for check in found])
        return
    for check in found:
        if len(found) == 1 and check.ok:
            _growths(check)
        for fault in check.faults:
            out.print()
            out.print(styled((check.family, "bold red"), f"  {fault}"))


def _growths(check: FamilyCheck) -> None:
    first = check.growths[0]
    table = table_of(("growth", "the plan says", "difference", "why"), left=("growth", "the plan says", "why"))
    for growth in check.growths:
        if (growth.model, growth.settings, growth.tied) == (first.model, first.settings, first.tied):
            measured = "" if growth.difference is None else f"{growth.difference:.1e}"
            table.add_row(growth.growth, styled((growth.exactness, STYLES[growth.exactness])), measured, growth.reason)
    out.print(table)
    more = len(check.growths) - table.row_count
    out.print(f"{first.model}, head tied; {more} more of other settings and classes, all as the plan says", style="dim")
