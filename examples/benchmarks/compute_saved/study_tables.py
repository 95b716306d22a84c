"""The study's results as a page of tables, pictures and one JSON, from the cells that are there. Knows how figures are
shown; ignorant of how they were found.
"""

import json
import platform
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from study_arms import ARMS, PUBLISHED
from study_cell import Bench
from study_figures import WAYS, Result, Row, rows_of
from study_forecast import HeldOut, held_out
from study_grid import Cell, Grid
from study_pictures import draw_all

import growkit

Lines = list[str]
HEADS = (
    "", "seeds", "rate", "step 0", "at the end", "below scratch", "other text", "FLOPs saved", "with source", "time saved",
    "with source", "FLOPs saved, same tokens in all", "with source", "ends as scratch after", "FLOPs saved, so", "with source",
)  # fmt: skip


def write_tables(grid: Grid, bench: Bench, out: Path) -> None:
    """Write GRID.md, GRID.json and pictures into a folder."""
    cells = grid.cells()
    found = [(cell, bench.result(cell)) for cell in cells]
    results = [result for _, result in found if result is not None]
    missing = [cell for cell, result in found if result is None]
    rows = rows_of(results)
    out.mkdir(parents=True, exist_ok=True)
    pictures = draw_all(grid.name, rows, results, out)
    text = page(grid, rows, results, missing, pictures)
    (out / f"{grid.name}.md").write_text(text, "utf-8")
    said = {
        "grid": grid.name,
        "growkit": growkit.__version__,
        "machine": machine(grid),
        "missing": [cell.name for cell in missing],
        "rows": [asdict(row) for row in rows],
        "results": [{**result, "curve": [_short(point) for point in result["curve"]]} for result in results],
    }
    (out / f"{grid.name}.json").write_text(json.dumps(said, indent=None, separators=(",", ":")) + "\n", "utf-8")
    print(f"{len(results)} of {len(cells)} cells; wrote {out}")


def page(grid: Grid, rows: list[Row], results: list[Result], missing: list[Cell], pictures: list[str]) -> str:
    """All tables as Markdown."""
    lines = [
        f"# {grid.name}\n",
        f"{len(results)} of {len(results) + len(missing)} cells are measured, on {machine(grid)}, one thread a run; growkit"
        f" {growkit.__version__}. Cells of one seed say so.\n",
    ]
    for size in grid.said["sizes"]:
        for budget in sorted({row.budget for row in rows if row.size == size}):
            of = [row for row in rows if (row.size, row.budget) == (size, budget) and row.base == grid.said["base"]]
            lines += [
                f"## {size}, {budget:g} tokens per parameter of the target\n",
                *_table(HEADS, map(_cells, of)),
                "",
            ]
        bases = [row for row in rows if row.size == size and row.base != grid.said["base"]]
        if bases:
            bases.sort(key=lambda row: (row.budget, row.base))
            heads = ("", "tokens per parameter", "base", *HEADS[1:])
            lines += [f"## {size}, other bases\n", *_table(heads, map(_with_base, bases)), ""]
    for size in grid.said["sizes"] if "pilots_to" in grid.said else ():
        lines += _forecasts(*held_out(results, grid.said["pilots_to"], size, grid.said["base"]), size)
    lines += ["## Sources\n", *_table(("source", "steps", "loss", "FLOPs", "seconds"), _sources(results)), ""]
    for title, heads, found in (
        ("Pilots", ("arm", "budget", "base", "loss by rate", "chosen", "FLOPs", "seconds"), _pilots(results)),
        ("Whole runs that chose a rate", ("arm", "budget", "base", "seed", "loss by rate", "chosen"), _whole(results)),
    ):
        lines += [f"## {title}\n", *_table(heads, found), ""] if found else []
    lines += ["## Published\n", *_table(("arm", "where", "saved", "from"), PUBLISHED), ""]
    if missing:
        lines += ["## Missing\n", ", ".join(f"`{cell.name}`" for cell in missing), ""]
    lines += [f"![{name}]({name})\n" for name in pictures]
    return "\n".join(lines)


def _forecasts(rows: list[HeldOut], refused: list[str], size: str) -> Lines:
    """What a forecast said of cells it had not seen, and how often it was right."""
    if not rows:
        return []
    sides = [row for row in rows if row.ahead is not None]
    within, right = sum(row.within for row in rows), sum(row.told_ahead == row.ahead for row in sides)
    off = sum(abs(row.told - row.came) for row in rows) / len(rows)
    return [
        f"## {size}, forecast\n",
        f"{within} of {len(rows)} held-out losses lie within the interval, {off:.3f} nats off on average; which of scratch"
        f" and the grown model is ahead was told right {right} times of {len(sides)}.\n",
        *_table(
            ("", "budget", "forecast", "nine in ten", "came", "within", "ahead of scratch: told, came"),
            map(_told, rows),
        ),
        "",
        *refused,
    ]


def _told(row: HeldOut) -> tuple[str, ...]:
    ahead = "" if row.ahead is None else ", ".join("yes" if one else "no" for one in (row.told_ahead, row.ahead))
    between = f"{row.low:.3f} to {row.high:.3f}"
    return (
        row.arm,
        f"{row.budget:g}",
        f"{row.told:.3f}",
        between,
        f"{row.came:.3f}",
        "yes" if row.within else "no",
        ahead,
    )


def machine(grid: Grid) -> str:
    """What computes here, in words: the device that the grid asks for."""
    device = grid.said["train"].get("device", "auto")
    if device != "cpu" and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    if device == "cuda":
        return "a GPU"  # of another machine: tables are made where one likes
    info = Path("/proc/cpuinfo")
    named = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _cells(row: Row) -> tuple[str, ...]:
    """A row of the table; where not every seed came to scratch's loss, in how many that was."""
    ahead = sum(row.ahead) / len(row.ahead) if row.ahead else None
    spread = f" ({min(row.ahead):+.3f} to {max(row.ahead):+.3f})" if len(row.ahead) > 1 else ""
    saved: list[str] = []
    for way in WAYS:
        saved += [_share(row.saved[way], row), _share(row.with_source[way], row)]
    total = [_percent(row.to_total["flops"]), _percent(row.to_total_with_source["flops"])]
    return (
        row.arm, str(len(row.seeds)), f"{row.rate:g}", f"{row.step0:.3f}", f"{row.loss:.3f}",
        "" if ahead is None else f"{ahead:+.3f}{spread}", f"{row.other:.3f}", *saved, *total,
        "" if row.alike is None else f"{row.alike:.2f}", _percent(row.planned), _percent(row.planned_with_source),
    )  # fmt: skip


def _with_base(row: Row) -> tuple[str, ...]:
    arm, *rest = _cells(row)
    return (arm, f"{row.budget:g}", f"{row.base:g}", *rest)


def _share(value: float | None, row: Row) -> str:
    if value is None and row.ahead:
        return "not reached" if not row.reached else f"reached by {row.reached} of {len(row.ahead)}"
    return _percent(value)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Lines:
    heads = tuple(heads)
    return [f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *map(tuple, rows))]


def _sources(results: list[Result]) -> list[tuple[str, ...]]:
    """Each source, means of nothing: one line for each model, optimizer, base and seed."""
    lines = {}
    for result in results:
        if source := result["source"]:
            cell, arm = result["cell"], ARMS[result["cell"]["arm"]]
            name = f"{source['model']}, {arm.source_optimizer}, base {cell['base']:g}, seed {cell['seed']}"
            lines[name] = (name, str(source["steps"]), f"{source['loss']:.3f}", f"{source['flops']:.3g}",
                           f"{source['seconds']:.0f}")  # fmt: skip
    return list(lines.values())


def _pilots(results: list[Result]) -> list[tuple[str, ...]]:
    lines: dict[tuple[str, ...], tuple[str, ...]] = {}
    for result in results:
        pilots = result["pilots"]
        if pilots is None:
            continue
        losses = _losses(pilots["losses"])
        base = "" if pilots["base"] is None else f"{pilots['base']:g}"
        of = (pilots["arm"], f"{pilots['budget']:g}", base)
        lines[of] = (*of, losses, f"{result['rate']:g}", f"{pilots['flops']:.3g}", f"{pilots['seconds']:.0f}")
    return list(lines.values())


def _whole(results: list[Result]) -> list[tuple[str, ...]]:
    """Of each cell that was run whole at several rates, what came of them."""
    return [
        (cell["arm"], f"{cell['budget']:g}", f"{cell['base']:g}", str(cell["seed"]), _losses(result["whole"]),
         f"{result['rate']:g}")
        for result in results
        if (cell := result["cell"]) and len(result.get("whole", ())) > 1
    ]  # fmt: skip


def _losses(by_rate: dict[str, float]) -> str:
    return ", ".join(
        f"{rate:g}: {loss:.3f}" for rate, loss in sorted((float(rate), loss) for rate, loss in by_rate.items())
    )


def _short(point: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if key in ("loss", "seconds") else value for key, value in point.items()}
