"""The picture of a forecast: pilots, their law and its interval, against tokens. Knows matplotlib, which is an extra;
ignorant of how the law was fitted.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from growkit.reports.expected import Forecast, tokens_text
from growkit.reports.picture import COLOURS


def draw_forecast(forecast: Forecast, path: Path) -> None:
    """Draw pilots as dots, the law as a line, nine in ten of its draws as a band, and where scratch passes; write a
    PNG."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    lengths = [pilot.tokens for pilot in forecast.pilots]
    ends = [one.tokens for one in forecast.expected]
    tokens = np.geomspace(min(lengths), max(*lengths, *ends), 200)
    bases = [one.base for one in forecast.passing]
    for number, base in enumerate([None, *bases]):
        colour = "black" if base is None else COLOURS[(number - 1) % len(COLOURS)]
        name = "scratch" if base is None else "grown" if not base else f"grown after {tokens_text(base)} tokens"
        mine = [pilot for pilot in forecast.pilots if pilot.base == base]
        axes.plot([p.tokens for p in mine], [p.loss for p in mine], "o", color=colour, markersize=4)
        axes.plot(tokens, forecast.fitted.law.losses(base, tokens), color=colour, label=name, linewidth=1.6)
        draws = np.array([law.losses(base, tokens) for law in forecast.fitted.draws])
        low, high = np.quantile(draws, (0.05, 0.95), axis=0)
        axes.fill_between(tokens, low, high, color=colour, alpha=0.15, linewidth=0)
    for number, one in enumerate(forecast.passing):
        if tokens[0] < one.extra < tokens[-1]:
            axes.axvline(one.extra, color=COLOURS[number % len(COLOURS)], linestyle="--", linewidth=0.8)
    axes.axvspan(min(lengths), max(lengths), color="gray", alpha=0.08, linewidth=0)
    axes.set(
        xscale="log", xlabel="tokens of the large model (gray: where the pilots are)", ylabel="loss, nats per token"
    )
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
