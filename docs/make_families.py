"""The page of families: what each growth does to each family, measured on small stock models.

python docs/make_families.py          # checks every family and rewrites docs/families.md; some five minutes
"""

from pathlib import Path

from make_pages import replaced

import growkit
from growkit.family_check.checked_family import FamilyCheck

PAGE, MATRIX = Path(__file__).with_name("families.md"), "the matrix"
# heading -> the growths that it stands for, the first of which a family has is its
COLUMNS = {
    "hidden, a multiple": ("hidden x2",),
    "hidden, any width": ("hidden x1.5",),
    "heads": ("heads x2",),
    "kv heads": ("kv heads to heads",),
    "head_dim, a multiple": ("head_dim x2",),
    "head_dim, any": ("head_dim +4",),
    "ffn": ("ffn",),
    "experts": ("experts x2",),
    "identity layers": ("layers",),
    "AKI": ("hidden x2, aki",),
}
SHORT = {"exact": "exact", "near": "near", "approximate": "appr.", "refused": "refused"}


def row(check: FamilyCheck) -> str:
    """A line of the matrix: what was measured of the language model with its head tied, and not where that differs."""
    cells = [f"`{check.family}`"]
    for names in COLUMNS.values():
        found = {tied: _word(check, names[0], tied) for tied in (True, False)}
        both = found[True] == found[False]
        cells.append(found[True] if both else f"{found[False]}; tied {found[True]}")
    worst = max((g.difference or 0.0 for g in check.growths if g.exactness == "exact"), default=0.0)
    return f"| {' | '.join(cells)} | {worst:.0e} |"


def _word(check: FamilyCheck, growth: str, tied: bool) -> str:
    model = check.growths[0].model
    found = [g for g in check.growths if (g.model, g.growth, g.tied, dict(g.settings)) == (model, growth, tied, {})]
    return SHORT[found[0].exactness] if found else "-"


def matrix(checks: tuple[FamilyCheck, ...]) -> str:
    """The table, and the reasons of what is refused, each once."""
    heads = ["family", *COLUMNS, "worst of exact"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *(row(check) for check in checks)]
    growths = sum(len(check.growths) for check in checks)
    return "\n".join([f"{len(checks)} families, {growths:,} growths measured.", "", *lines])


if __name__ == "__main__":
    found = growkit.check_family(every=True, done=lambda check: print(check.family, "sound" if check.ok else "FAULTY"))
    assert all(check.ok for check in found), "mend what is faulty first"
    PAGE.write_text(replaced(PAGE.read_text("utf-8"), MATRIX, matrix(found), "docs/make_families.py"), "utf-8")
