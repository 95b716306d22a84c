"""How well a forecast from the study's short runs says what its long ones came to. Knows results; ignorant of files.

The law is that of `growkit forecast`, fitted for each arm to the cells up to a budget, of scratch and of the arm; held out
are the longer ones.
"""

from dataclasses import dataclass
from typing import Any

from study_arms import ARMS
from study_figures import Result

from growkit.errors import RequestError
from growkit.reports.growth_law import FittedLaw, Pilot, fit, interval


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """A cell that a forecast did not see. told: the loss it said, low to high: nine in ten draws; came: the loss that came.
    told_ahead, ahead: whether the arm is below scratch; None for scratch itself."""

    arm: str
    budget: float
    told: float
    low: float
    high: float
    came: float
    told_ahead: bool | None
    ahead: bool | None

    @property
    def within(self) -> bool:
        return self.low <= self.came <= self.high


def held_out(results: list[Result], longest: float, size: str, base: float) -> tuple[list[HeldOut], list[str]]:
    """Every cell of seed 0 beyond a budget of `longest` tokens per parameter that can be forecast, scratch by each arm's
    own fit, and why others cannot."""
    of = [r for r in results if (r["cell"]["size"], r["cell"]["base"], r["cell"]["seed"]) == (size, base, 0)]
    found, refused = [], []
    for arm in dict.fromkeys(result["cell"]["arm"] for result in of if result["source"] is not None):
        both = {name: [r for r in of if r["cell"]["arm"] == name] for name in (ARMS[arm].against, arm)}
        seen = [_pilot(r) for group in both.values() for r in group if r["cell"]["budget"] <= longest]
        later = {name: [r for r in group if r["cell"]["budget"] > longest] for name, group in both.items()}
        if sum(result["cell"]["budget"] <= longest for result in both[arm]) < 2 or not later[arm]:
            continue
        try:
            fitted = fit(seen)
        except RequestError as error:
            refused.append(f"{arm}: {error}")
            continue
        rival = {r["cell"]["budget"]: r for r in later[ARMS[arm].against]}
        for result in [*(rival[r["cell"]["budget"]] for r in later[arm] if r["cell"]["budget"] in rival), *later[arm]]:
            found.append(_row(fitted, arm, result, rival.get(result["cell"]["budget"])))
    return found, refused


def _pilot(result: Result) -> Pilot:
    """A result as what a law is fitted to, counted in steps, which all have one number of tokens."""
    source = result["source"]
    return Pilot(None if source is None else float(source["steps"]), float(result["steps"]), result["loss"])


def _row(fitted: FittedLaw, arm: str, result: Result, rival: Result | None) -> HeldOut:
    base, steps, _ = _pilot(result)
    low, high = interval([draw.loss(base, steps) for draw in fitted.draws])
    told, grown = fitted.law.loss(base, steps), base is not None
    beside: dict[str, Any] = {"told_ahead": None, "ahead": None}
    if grown and rival is not None:
        beside = {"told_ahead": told < fitted.law.loss(None, steps), "ahead": result["loss"] < rival["loss"]}
    return HeldOut(
        arm=arm if grown else f"scratch, beside {arm}", budget=result["cell"]["budget"], told=told, low=low, high=high,
        came=result["loss"], **beside,
    )  # fmt: skip
