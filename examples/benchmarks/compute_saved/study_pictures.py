"""Pictures of the study: losses against operations, what was saved, and losses over budgets. Knows matplotlib, which is an
extra; ignorant of how figures were found.
"""

from pathlib import Path
from typing import Any

from study_arms import ARMS, NARROW, SHALLOW, SMALL
from study_figures import Result, Row

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#7F3C8D", "#11A579", "#A5AA99")
PANELS = (("wider", NARROW), ("deeper", SHALLOW), ("wider and deeper", SMALL))


def draw_all(name: str, rows: list[Row], results: list[Result], out: Path) -> list[str]:
    """Draw what there is to draw; the names of the files, none without matplotlib or results."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return []
    names = []
    for drawn, what in (
        (_curves(Figure, results), "curves"),
        (_bars(Figure, rows), "saved"),
        (_budgets(Figure, rows), "budgets"),
    ):
        if drawn is not None:
            names.append(f"{name}.{what}.png")
            drawn.savefig(out / names[-1], dpi=110)
    return names


def _first(rows: list[Any]) -> list[Any]:
    """Of the size and budget that most rows are of, with the grid's own base, which is most rows' too."""
    keys = [(row.size, row.budget, row.base) for row in rows]
    chosen = max(set(keys), key=keys.count) if keys else None
    return [row for row, key in zip(rows, keys) if key == chosen]


def _panel(name: str) -> str | None:
    """The panel an arm is drawn in, told by a source; None for scratch, which is in all."""
    arm = ARMS[name]
    if name == "scratch":
        return None
    return arm.source or (SMALL if arm.layers is None else SHALLOW)


def _curves(figure_of: Any, results: list[Result]) -> Any:
    """Validation losses against operations, one panel for each kind of source; scratch in all."""
    keys = [(one["cell"]["size"], one["cell"]["budget"], one["cell"]["base"]) for one in results]
    if not keys:
        return None
    chosen, seed = max(set(keys), key=keys.count), min(one["cell"]["seed"] for one in results)
    shown = [one for one, key in zip(results, keys) if key == chosen and one["cell"]["seed"] == seed]
    figure = figure_of(figsize=(15, 5.5), layout="constrained")
    for axes, (title, source) in zip(figure.subplots(1, len(PANELS), sharey=True), PANELS):
        own = [one for one in shown if _panel(one["cell"]["arm"]) in (source, None)]
        for number, one in enumerate(sorted(own, key=lambda one: one["cell"]["arm"] != "scratch")):
            points = [{"flops": 0.0, "loss": one["step0"]}, *one["curve"]]
            colour = "black" if one["cell"]["arm"] == "scratch" else COLOURS[number % len(COLOURS)]
            style = "-" if number < len(COLOURS) else "--"
            axes.plot([p["flops"] for p in points], [p["loss"] for p in points], style, color=colour, linewidth=1.3,
                      label=one["cell"]["arm"])  # fmt: skip
        axes.set(title=title, xlabel="FLOPs, the source's left out")
        axes.legend(fontsize=7)
        axes.grid(alpha=0.25)
    figure.axes[0].set_ylabel("validation loss, nats per token")
    lowest = min(point["loss"] for one in shown for point in one["curve"])
    figure.axes[0].set_ylim(lowest - 0.05, lowest + 2.0)
    return figure


def _bars(figure_of: Any, rows: list[Row]) -> Any:
    """Share of operations saved on the way to scratch's final loss, the source left out and counted in."""
    shown = [row for row in _first(rows) if row.saved["flops"] is not None and ARMS[row.arm].against != row.arm]
    if not shown:
        return None
    shown.sort(key=lambda row: row.saved["flops"])
    figure = figure_of(figsize=(9, 0.28 * len(shown) + 1.2), layout="constrained")
    axes = figure.subplots()
    places = range(len(shown))
    axes.barh(
        [place + 0.2 for place in places],
        [row.saved["flops"] for row in shown],
        0.4,
        color=COLOURS[0],
        label="source left out",
    )
    axes.barh(
        [place - 0.2 for place in places],
        [row.with_source["flops"] for row in shown],
        0.4,
        color=COLOURS[1],
        label="source counted in",
    )
    axes.set_yticks(list(places), [row.arm for row in shown], fontsize=8)
    axes.set_ylim(-1, len(shown))
    axes.set(xlabel="share of scratch's FLOPs saved to scratch's final loss", xlim=(max(-1.0, axes.get_xlim()[0]), 1.0))
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.legend(fontsize=8, loc="lower right")
    axes.grid(alpha=0.25, axis="x")
    return figure


def _budgets(figure_of: Any, rows: list[Row]) -> Any:
    """The final loss over budgets, of arms that were trained for several."""
    base = _first(rows)[0].base if rows else None
    lines: dict[str, list[Row]] = {}
    for row in rows:
        if row.base == base:
            lines.setdefault(row.arm, []).append(row)
    lines = {
        arm: sorted(of, key=lambda row: row.budget) for arm, of in lines.items() if len({row.budget for row in of}) > 1
    }
    if not lines:
        return None
    figure = figure_of(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for number, (arm, of) in enumerate(lines.items()):
        colour = "black" if arm == "scratch" else COLOURS[number % len(COLOURS)]
        axes.plot([row.budget for row in of], [row.loss for row in of], "o-", color=colour, label=arm, linewidth=1.3)
    axes.set(xscale="log", xlabel="tokens per parameter of the target", ylabel="final validation loss")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.25, which="both")
    return figure
