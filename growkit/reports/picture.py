"""The picture of a report: loss against FLOPs and against time. Knows matplotlib, which is an extra; ignorant of what
the curves come to.
"""

import warnings
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from growkit.reports.runs import Cost, Curve

# Okabe and Ito's, told apart by colour-blind eyes too; black is the baseline's
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
WAYS = (("flops", "FLOPs executed"), ("seconds", "seconds of training"))


def draw(curves: list[Curve], baseline: str, target: float, added: list[Cost], path: Path) -> Path:
    """Draw validation losses as lines, training losses faintly behind them, and the loss to reach; write a PNG.

    added: of each curve, what its sources cost. Dotted: the same validation losses with the sources' cost before them.
    """
    figure = Figure(figsize=(12, 5), layout="constrained")
    others = [curve.name for curve in curves if curve.name != baseline]
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(others)} | {baseline: "black"}
    losses = [point.loss for curve in curves for point in curve.val]
    margin = 0.08 * (max(losses) - min(losses)) or 0.5
    for axes, (way, label) in zip(figure.subplots(1, 2, sharey=True), WAYS):
        for curve, before in zip(curves, added):
            _lines(axes, curve, way, getattr(before, way), colours[curve.name])
        axes.axhline(target, color="black", linestyle="--", linewidth=0.8, alpha=0.6)
        axes.set(xlabel=label, ylim=(min(losses) - margin, max(losses) + margin))
        axes.grid(alpha=0.25)
    first = figure.axes[0]
    first.set_ylabel("loss, nats per token")
    handles = [first.plot([], [], color=colours[curve.name], marker="o", markersize=3)[0] for curve in curves]
    names = [_plain(curve.name) + " (baseline)" * (curve.name == baseline) for curve in curves]
    handles.append(first.plot([], [], color="black", linestyle="--", linewidth=0.8, alpha=0.6)[0])
    names.append("the loss to reach")
    if any(before.flops for before in added):
        handles.append(first.plot([], [], color="gray", linestyle=":", linewidth=1.4)[0])
        names.append("the sources' cost counted in")
    figure.legend(handles, names, loc="outside upper center", ncols=min(5, len(names)), frameon=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters of a name that the font has not
        figure.savefig(path, dpi=150)
    return path


def _lines(axes: Any, curve: Curve, way: str, added: float, colour: str) -> None:
    """One run: training losses, validation losses, and these with the sources' cost before them."""
    costs = [getattr(point.cost, way) for point in curve.val]
    losses = [point.loss for point in curve.val]
    trained = [getattr(point.cost, way) for point in curve.train]
    axes.plot(trained, [point.loss for point in curve.train], color=colour, linewidth=0.6, alpha=0.25)
    axes.plot(costs, losses, color=colour, marker="o", markersize=3, linewidth=1.6)
    if added:
        axes.plot([cost + added for cost in costs], losses, color=colour, linestyle=":", linewidth=1.4)


def _plain(name: str) -> str:
    """A name as it is: no formula between dollars, and no underscore in front, which would hide it."""
    return " " * name.startswith("_") + name.replace("$", r"\$")
