"""What the cells of the study come to beside the model from scratch: losses, and shares of operations and of time that were
saved. Knows curves; ignorant of files and tables.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean
from typing import Any

from study_arms import ARMS

WAYS = ("flops", "seconds")
Result = dict[str, Any]  # as study_cell.Bench.measure returns it


@dataclass(frozen=True, kw_only=True)
class Row:
    """One arm at a size, a budget and a base; means over seeds, None where nothing is known.

    ahead: the loss below scratch's at the end, of each seed. saved: by way of measuring, the share of what scratch spent
    to its final loss that was not needed, the source left out; with_source: counted in; to_total, to_total_with_source:
    the same of scratch's loss after as many tokens as source and arm had together. reached: seeds that got there. alike:
    the tokens per parameter after which a run of scratch planned for them ends at the arm's final loss; planned,
    planned_with_source: the share of that run's FLOPs that was not needed; of seeds with scratch at several budgets.
    """

    arm: str
    size: str
    budget: float
    base: float
    seeds: tuple[int, ...]
    rate: float
    step0: float
    loss: float
    other: float
    ahead: tuple[float, ...]
    reached: int
    saved: dict[str, float | None]
    with_source: dict[str, float | None]
    to_total: dict[str, float | None]
    to_total_with_source: dict[str, float | None]
    alike: float | None
    planned: float | None
    planned_with_source: float | None


def rows_of(results: list[Result]) -> list[Row]:
    """A row for each arm, size, budget and base, in the order of the results."""
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        cell = result["cell"]
        groups.setdefault((cell["arm"], cell["size"], cell["budget"], cell["base"]), []).append(result)
    return [_row(key, group, results) for key, group in groups.items()]


def _row(key: tuple[Any, ...], group: list[Result], every: list[Result]) -> Row:
    arm, size, budget, base = key
    found = [(result, _scratch(every, result)) for result in group]
    pairs = [(result, scratch) for result, scratch in found if scratch is not None]
    ends = [(scratch["loss"], _spent(scratch)) for _, scratch in pairs]
    totals = [_after(every, result, budget + (base if ARMS[arm].source else 0.0)) for result, _ in pairs]
    alone, both = (_saved([result for result, _ in pairs], ends, counted) for counted in (False, True))
    like = [(result, found) for result in group if (found := _alike(every, result))]
    return Row(
        arm=arm, size=size, budget=budget, base=base,
        seeds=tuple(result["cell"]["seed"] for result in group),
        rate=group[0]["rate"],
        step0=mean(result["step0"] for result in group),
        loss=mean(result["loss"] for result in group),
        other=mean(result["other"] for result in group),
        ahead=tuple(scratch["loss"] - result["loss"] for result, scratch in pairs),
        reached=sum(reach(result, loss) is not None for (result, _), (loss, _) in zip(pairs, ends)),
        saved=alone, with_source=both,
        to_total=_saved([result for result, _ in pairs], totals, False),
        to_total_with_source=_saved([result for result, _ in pairs], totals, True),
        alike=mean(of for _, (of, _) in like) if like else None,
        planned=mean(1.0 - _spent(result)["flops"] / flops for result, (_, flops) in like) if like else None,
        planned_with_source=mean(1.0 - _whole(result) / flops for result, (_, flops) in like) if like else None,
    )  # fmt: skip


def reach(result: Result, loss: float) -> dict[str, float] | None:
    """What had been spent when the validation loss first came down to `loss`, on straight lines between validations;
    None where it never did."""
    before = {"loss": result["step0"], **dict.fromkeys(WAYS, 0.0), **result.get("before", {})}
    if before["loss"] <= loss:
        return {way: before[way] for way in WAYS}
    for point in result["curve"]:
        if point["loss"] <= loss:
            share = (before["loss"] - loss) / (before["loss"] - point["loss"])
            return {way: before[way] + share * (point[way] - before[way]) for way in WAYS}
        before = point
    return None


def _saved(
    group: list[Result], ends: list[tuple[float, dict[str, float]] | None], counted: bool
) -> dict[str, float | None]:
    """Mean shares saved on the way to (loss, what scratch spent); counted: the source's cost is. None where an end is
    not known, or some seed never came to it."""
    shares: dict[str, list[float | None]] = {way: [] for way in WAYS}
    for result, end in zip(group, ends):
        spent = reach(result, end[0]) if end else None
        for way in WAYS:
            if end is None or spent is None:
                shares[way].append(None)
                continue
            added = result["source"][way] if counted and result["source"] else 0.0
            shares[way].append(1.0 - (spent[way] + added) / end[1][way])
    known = {way: [share for share in of if share is not None] for way, of in shares.items()}
    return {way: mean(known[way]) if of and len(known[way]) == len(of) else None for way, of in shares.items()}


def _spent(result: Result) -> dict[str, float]:
    return {way: result["curve"][-1][way] for way in WAYS}


def _scratch(every: list[Result], result: Result) -> Result | None:
    """The model from scratch that a result is compared with."""
    return next((one for one in _runs(every, result) if one["cell"]["budget"] == result["cell"]["budget"]), None)


def _runs(every: list[Result], result: Result) -> list[Result]:
    """The runs of scratch that a result is compared with, whatever their budget, the shortest first."""
    cell = result["cell"]
    like = {"arm": ARMS[cell["arm"]].against, "size": cell["size"], "seed": cell["seed"]}
    found = [one for one in every if all(one["cell"][key] == like[key] for key in like)]
    return sorted(found, key=lambda one: one["cell"]["budget"])


def _whole(result: Result) -> float:
    """All FLOPs of a result, its source's too."""
    return _spent(result)["flops"] + (result["source"]["flops"] if result["source"] else 0.0)


def _alike(every: list[Result], result: Result) -> tuple[float, float] | None:
    """(tokens per parameter, FLOPs) of a whole run of scratch that ends at a result's final loss, between two budgets
    that were measured, on a straight line over the logarithm of tokens; None outside of them."""
    found = _runs(every, result)
    for low, high in pairwise(found):
        above, below = low["loss"], high["loss"]
        if above >= result["loss"] >= below and above > below:
            at, to = low["cell"]["budget"], high["cell"]["budget"]
            budget = at * (to / at) ** ((above - result["loss"]) / (above - below))
            part = (budget - at) / (to - at)
            return budget, _spent(low)["flops"] + part * (_spent(high)["flops"] - _spent(low)["flops"])
    return None


def _after(every: list[Result], result: Result, budget: float) -> tuple[float, dict[str, float]] | None:
    """(loss, cost) of scratch at a budget: as it was measured, or between two measured budgets, the loss on a straight
    line over the logarithm of tokens. None beyond what was measured."""
    found = _runs(every, result)
    for low, high in zip(found, [*found[1:], *found[-1:]]):
        at, to = low["cell"]["budget"], high["cell"]["budget"]
        if at <= budget <= to:
            share = math.log(budget / at) / math.log(to / at) if to > at else 0.0
            part = (budget - at) / (to - at) if to > at else 0.0
            spent = {way: _spent(low)[way] + part * (_spent(high)[way] - _spent(low)[way]) for way in WAYS}
            return low["loss"] + share * (high["loss"] - low["loss"]), spent
    return None
