"""A check of skills as a page for a browser: heat maps of rho by pair, by layer and by kind of weight, and the tables.
Knows what a check says; ignorant of how it was found.
"""

from collections.abc import Callable
from pathlib import Path

from growkit.errors import RequestError
from growkit.reports.heat_map import heat_map, html_page, html_table
from growkit.skills.checking.rho import FINE, TOO_MUCH, Interference
from growkit.skills.checking.skill_table import SkillCheck

ENDING = ".html"
# (rho, red, green, blue) between which colours are mixed; lightness falls too, for eyes that see no red
STOPS = ((0.0, 198, 232, 204), (FINE, 226, 240, 190), (TOO_MUCH, 250, 205, 120), (1.0, 222, 90, 70))


def check_report(path: Path) -> None:
    """Refuse a report that could not be written. Raises RequestError."""
    if path.suffix != ENDING:
        raise RequestError(f"--report {str(path)!r} should end in {ENDING}")
    if path.exists() or not path.parent.is_dir():
        what = "exists" if path.exists() else "is in a folder that does not exist"
        raise RequestError(f"--report {str(path)!r} {what}; choose another name")


def write_report(checked: SkillCheck, path: Path) -> None:
    """Write the page. Raises RequestError for the disk."""
    try:
        path.write_text(page_of(checked), "utf-8")
    except OSError as error:
        raise RequestError(f"cannot write --report {str(path)!r}: {error.strerror or error}") from None


def page_of(checked: SkillCheck) -> str:
    """The page as text."""
    names = [skill.name for skill in checked.skills]
    by_pair = [[None if s == t else checked.pair(s, t).mean for t in names] for s in names]
    parts = [
        ("rho of each skill (row) on the data of another (column)", heat_map(names, names, by_pair, colour_of)),
        ("By layer", _grouped(checked, _layer, "layer")),
        ("By kind of weight", _grouped(checked, _kind, "weight")),
        ("Pairs", _pairs(checked)),
        ("Skills", _skills(checked)),
    ]
    if checked.general is not None:
        general = checked.general
        rows = [("no skill", general.base), *general.alone.items(), ("all plugged", general.plugged)]
        table = [(name, f"{loss:.4f}", f"{loss - general.base:+.4f}") for name, loss in rows]
        parts.append(("General text, nats per token", html_table(("with", "loss", "change"), table)))
    scale = f"Green up to {FINE:g}, amber up to {TOO_MUCH:g}, red above."
    return html_page("What skills do to each other", parts, [scale, *checked.notes])


def colour_of(rho: float) -> str:
    """The colour of a number, mixed between the stops on its two sides."""
    rho = min(max(rho, STOPS[0][0]), STOPS[-1][0])
    place = next(number for number in range(1, len(STOPS)) if rho <= STOPS[number][0])
    (low, *one), (high, *other) = STOPS[place - 1], STOPS[place]
    share = (rho - low) / (high - low)
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(one, other))


def _grouped(checked: SkillCheck, key: Callable[[str], str], what: str) -> str:
    """The mean rho of the weights that a key puts together, of each pair."""
    columns = [*dict.fromkeys(key(weight) for pair in checked.pairs for weight in pair.rho)]
    columns.sort(key=lambda name: (name.isdigit(), int(name) if name.isdigit() else 0))
    rows = [f"{pair.source} on {pair.target}" for pair in checked.pairs]
    values = [
        [_mean([rho for weight, rho in pair.rho.items() if key(weight) == name]) for name in columns]
        for pair in checked.pairs
    ]
    return heat_map(rows, columns, values, colour_of, what)


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _layer(weight: str) -> str:
    """Its layer, counted from 1."""
    return next((str(int(part) + 1) for part in weight.split(".") if part.isdigit()), "-")


def _kind(weight: str) -> str:
    """What it is called within its layer."""
    return weight.removesuffix(".weight").rpartition(".")[2]


def _pairs(checked: SkillCheck) -> str:
    headings = ("skill", "on", "band", "mean", "max", "KL, nats per token", "network", "worst weights")
    return html_table(headings, [_pair(pair) for pair in checked.pairs])


def _pair(pair: Interference) -> list[str]:
    numbers = ["-" if value is None else f"{value:.3g}" for value in (pair.mean, pair.largest, pair.kl, pair.network)]
    worst = ", ".join(f"{name} {rho:.3g}" for name, rho in pair.worst(5))
    return [pair.source, pair.target, pair.band, *numbers, worst]


def _skills(checked: SkillCheck) -> str:
    headings = ("skill", "folder", "strength", "lost by all, about", "base", "alone", "all plugged", "gain kept")
    rows = []
    for skill in checked.skills:
        own = ["-"] * 4
        if skill.losses is not None:
            own = [f"{loss:.4f}" for loss in (skill.losses.base, skill.losses.alone, skill.losses.plugged)]
            own.append("-" if skill.losses.kept is None else f"{skill.losses.kept:.1%}")
        rows.append([skill.name, skill.folder, f"{skill.strength:g}", f"{skill.lost:.1%}", *own])
    return html_table(headings, rows)
