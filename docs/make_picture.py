"""The picture of the README: validation loss against operations, of runs that examples/grow_and_train.sh left.

    SOURCE_STEPS=200 STEPS=120 EVAL_EVERY=10 examples/grow_and_train.sh BOOKS WORK
    python docs/make_picture.py WORK      # needs growkit[plot]; prints the figures of the caption

The larger BOOKS is, the better; steps are few so that it takes minutes.
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure

from growkit.reports.picture import COLOURS
from growkit.reports.runs import read_run

TARGET = Path(__file__).parent / "assets" / "loss-against-flops.png"


def main() -> None:
    """Draw WORK/scratch and WORK/grown, this also with what its source cost before it."""
    work = Path(sys.argv[1])
    scratch, grown, small = (read_run(work / name) for name in ("scratch", "grown", "small-run"))
    before = small.val[-1].cost.flops
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for curve, label, added, style, colour in (
        (scratch, "from scratch", 0.0, "-o", "black"),
        (grown, "grown from a model a sixth of its size", 0.0, "-o", COLOURS[0]),
        (grown, "the same, with what the small model cost", before, ":", COLOURS[0]),
    ):
        costs = [point.cost.flops + added for point in curve.val]
        axes.plot(costs, [point.loss for point in curve.val], style, color=colour, label=label, markersize=3.5)
    target = scratch.val[-1].loss
    axes.axhline(target, color="gray", linestyle="--", linewidth=0.8)
    axes.set(xlabel="floating-point operations", ylabel="validation loss, nats per token", xlim=(0, None))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(TARGET, dpi=150)
    reached = {"scratch": scratch.cost.flops, "grown": getattr(grown.reach(target), "flops", float("nan"))}
    for curve, extra in ((scratch, 0.0), (grown, before)):
        spent = reached[curve.name]
        saved, with_source = (1 - cost / scratch.cost.flops for cost in (spent, spent + extra))
        print(
            f"{curve.name}: loss {curve.final.loss:.3f}, {curve.cost.flops:.3g} FLOPs, {spent:.3g} to {target:.3f}",
            end="",
        )
        print(f", saved {saved:.1%}, {with_source:.1%} with the source's {extra:.3g}")


if __name__ == "__main__":
    main()
