"""What skill check prints: tables for people, JSON for machines. Knows rich; ignorant of how anything was found."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from rich.table import Table

from growkit.cli.terminal import out, print_json, styled, table_of

if TYPE_CHECKING:
    from growkit.skills.checking.rho import Interference
    from growkit.skills.checking.skill_table import SkillCheck

STYLES = {"green": "green", "amber": "yellow", "red": "bold red"}


def check(result: SkillCheck, as_json: bool) -> None:
    """Every skill on every other's data, the worst weights, losses, and who goes with whom."""
    if as_json:
        print_json(result.to_json())
        return
    names = [skill.name for skill in result.skills]
    out.print("rho, mean over weights: each skill (row) on the data of another (column)", style="bold")
    table = _table("", *names)
    for source in names:
        table.add_row(source, *(styled(_cell(result, source, target)) for target in names))
    table.add_row(
        "lost by all, about",
        *("all" if skill.lost >= 1 else f"{skill.lost:.1%}" for skill in result.skills),
        style="dim",
    )
    _show(table)
    through = any(pair.kl is not None for pair in result.pairs)
    table = _table("skill", "on", "mean", "max", *(("KL", "network") if through else ()), "band", "most on")
    start = shared_start([name for pair in result.pairs for name in pair.rho])
    for pair in result.pairs:
        network = (_small(pair.kl), _number(pair.network)) if through else ()
        worst = next((name[len(start) :].removesuffix(".weight") for name, _ in pair.worst(1)), "-")
        table.add_row(
            pair.source, pair.target, _number(pair.mean), _number(pair.largest), *network, styled(_band(pair)), worst
        )
    _show(table)
    _losses(result)
    for note in result.notes:
        out.note(note)
    for source in names:
        targets = [pair.target for pair in result.red if pair.source == source]
        cure = f"learn {source} again with {' '.join(f'--protect {target}' for target in targets)}"
        if any(skill.name == source and skill.kind == "lora" for skill in result.skills):
            cure = f"mend {source} with --repair"
        if targets:
            said = (source, "bold"), f" on the data of {', '.join(targets)} is ", ("red", "bold red")
            out.say(*said, f": gate them, {cure}, or leave one out")
    for one, other in result.together:
        out.say(
            f"{one} and {other} are ", ("green", "green"), f" both ways: --together {one},{other} in a gated bundle"
        )
    if result.repaired is not None:
        mended = result.repaired
        fell = ", ".join(f"{before:.3f} to {after:.3f} on {name}" for name, (before, after) in mended.rho.items())
        out.say(
            ("wrote", "bold"),
            f" {mended.folder}: {mended.skill} without {mended.directions:.1f} directions of its inputs, which takes"
            f" {mended.lost:.1%} of what it puts out on its own data; rho {fell}",
        )


def shared_start(names: Sequence[str]) -> str:
    """What all names of weights begin with, up to a dot: "model.layers."; nothing where there are none."""
    alike = takewhile(lambda parts: len({*parts}) == 1, zip(*(name.split(".")[:-1] for name in names)))
    return "".join(f"{part}." for part, *_ in alike)


def _losses(result: SkillCheck) -> None:
    own = [(skill.name, skill.losses) for skill in result.skills if skill.losses is not None]
    if own:
        out.print("nats per token of each skill's own data", style="bold")
        table = _table("skill", "base", "alone", "all plugged", "gain kept")
        for name, losses in own:
            kept = "-" if losses.kept is None else f"{losses.kept:.1%}"
            table.add_row(name, *(f"{loss:.4f}" for loss in (losses.base, losses.alone, losses.plugged)), kept)
        _show(table)
    if result.general is not None:
        general = result.general
        out.print("nats per token of general text", style="bold")
        table = _table("with", "loss", "change")
        table.add_row("no skill", f"{general.base:.4f}", "")
        for name, loss in (*general.alone.items(), ("all plugged", general.plugged)):
            table.add_row(name, f"{loss:.4f}", f"{loss - general.base:+.4f}")
        _show(table)


def _cell(result: SkillCheck, source: str, target: str) -> tuple[str, str]:
    if source == target:
        return "-", "dim"
    pair = result.pair(source, target)
    return _number(pair.mean), STYLES[pair.band]


def _band(pair: Interference) -> tuple[str, str]:
    return pair.band, STYLES[pair.band]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _small(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def _show(table: Table) -> None:
    out.print(table)
    out.print()


def _table(*headings: str) -> Table:
    return table_of(headings, left=(*headings[:1], "on", "band", "most on"), overflow="fold")
