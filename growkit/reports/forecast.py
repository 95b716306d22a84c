"""`growkit forecast`: from short runs, how loss goes on, what growing saves at a budget, and when scratch passes. Knows
pilots and their law; ignorant of how runs were trained, and of torch.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from growkit.checkpoint.new_folder import new_folder
from growkit.errors import RequestError
from growkit.reports.expected import Expected, Forecast, Passing
from growkit.reports.growth_law import HORIZON, FittedLaw, fit, interval
from growkit.reports.pilots import flops_of_token, read_pilots, unlike
from growkit.reports.report import DATA, NO_PICTURE, PICTURE, TEXT, replaceable
from growkit.reports.runs import read_run

USUAL = (3.0, 10.0)  # budgets where none is asked for, times the longest pilot
LOOSE = 0.05  # nats that a pilot may lie off the law without a word
FAR = 10.0  # a budget of more times the longest pilot is said to be far


def forecast(
    runs: Sequence[str | Path],
    out: str | Path,
    budget: int | None = None,
    source: str | Path | None = None,
    seed: int = 0,
) -> Forecast:
    """Fit the law of pilots and write report.md, report.json and report.png into `out`.

    budget: tokens of the large model. source: a run of the small model, which says what its tokens cost. Raises
    RequestError for runs that no law can be fitted to, CheckpointError for what cannot be read.
    """
    folder = Path(out)
    replaces = replaceable(folder, "forecast")
    pilots = read_pilots(runs)
    fitted = fit([pilot for run in pilots for pilot in run.pilots], seed)
    lengths = [pilot.tokens for run in pilots for pilot in run.pilots]
    own = sum(run.flops for run in pilots) / len(pilots)
    share = None if source is None else flops_of_token(read_run(source)) / own
    asked = [times * max(lengths) for times in USUAL] if budget is None else [float(budget)]
    bases = sorted({run.base for run in pilots if run.base is not None})
    notes = unlike(pilots)
    notes += [] if share is not None else ["the small model's own cost is left out: name a run of it by --source"]
    if share is not None and 0.0 in bases:
        raise RequestError("--source says what the base's tokens cost, and nobody knows how many it had; leave it out")
    if fitted.worst > LOOSE:
        notes.append(f"a pilot is {fitted.worst:.2f} nats from the law: these runs are perhaps too short for it")
    if max(asked) > FAR * max(lengths):
        notes.append(
            f"{max(asked):,.0f} tokens are more than {FAR:.0f} times the longest pilot: the law is far from what it saw"
        )
    made = Forecast(
        pilots=tuple(pilot for run in pilots for pilot in run.pilots),
        names=tuple(run.curve.name for run in pilots),
        flops=own,
        share=share,
        model=pilots[0].config,
        fitted=fitted,
        expected=tuple(_expected(fitted, base, tokens, share) for tokens in asked for base in bases),
        passing=tuple(_passing(fitted, base, min(lengths), HORIZON * max(lengths), share) for base in bases),
        horizon=HORIZON * max(lengths),
        notes=tuple(notes),
        folder=folder,
    )
    with new_folder(folder, replaces) as place:
        try:
            from growkit.reports.forecast_picture import draw_forecast
        except ImportError:
            made = made.noting(NO_PICTURE)
        else:
            draw_forecast(made, place / PICTURE)
        (place / TEXT).write_text(made.markdown(), "utf-8")
        (place / DATA).write_text(json.dumps(made.to_json(), indent=2) + "\n", "utf-8")
    return made


def _expected(fitted: FittedLaw, base: float, budget: float, share: float | None) -> Expected:
    """What a budget comes to, from scratch and grown from a base."""
    laws = (fitted.law, *fitted.draws)
    scratch = [law.loss(None, budget) for law in laws]
    grown = [law.loss(base, budget) for law in laws]
    needed = [law.tokens_to(base, loss) for law, loss in zip(laws, scratch)]
    cost = 0.0 if share is None else share * base
    saved = [1.0 - tokens / budget for tokens in needed]
    return Expected(
        tokens=budget,
        base=base,
        scratch=scratch[0],
        scratch_between=interval(scratch[1:]),
        grown=grown[0],
        grown_between=interval(grown[1:]),
        saved=saved[0],
        saved_between=interval(saved[1:]),
        saved_with_source=None if share is None else saved[0] - cost / budget,
    )


def _passing(fitted: FittedLaw, base: float, first: float, last: float, share: float | None) -> Passing:
    """When scratch passes a grown model, at as many tokens and at as many operations in all."""
    laws = (fitted.law, *fitted.draws)
    extra = [law.passed(base, first, last) for law in laws]
    total = [] if share is None else [law.passed(base, first, last, share * base) for law in laws]
    return Passing(
        base=base,
        first=first,
        extra=extra[0],
        extra_between=interval(extra[1:]),
        never=sum(map(math.isinf, extra[1:])) / len(fitted.draws),
        total=total[0] if total else None,
        total_between=interval(total[1:]) if total else None,
    )
