"""`auto`: what a study found best is taken, and said; what the study's results say is what is taken."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest

from growkit.errors import RequestError
from growkit.growth.request import AUTO, grow_recipe, recipe, stack_recipe
from growkit.growth.studied import BEST, OF_MIXTURES, as_studied

STUDY = Path(__file__).parents[1] / "examples" / "benchmarks" / "compute_saved"
sys.path.insert(0, str(STUDY))

from study_arms import ARMS, NARROW, SHALLOW, SMALL  # noqa: E402

SOURCES = {(True, False): NARROW, (False, True): SHALLOW, (True, True): SMALL}


def losses():
    """Arm -> mean loss of its seeds, of those that were measured with all three, at the budget with most cells."""
    said = json.loads((STUDY / "results" / "cpu-small.json").read_text())
    budgets = [row["budget"] for row in said["rows"]]
    main = max(set(budgets), key=budgets.count)
    base = min(row["base"] for row in said["rows"] if row["budget"] == main and row["arm"] == "scratch")
    found = {}
    for result in said["results"]:
        cell = result["cell"]
        if (cell["budget"], cell["base"]) == (main, base):
            found.setdefault(cell["arm"], {})[cell["seed"]] = result["loss"]
    return {arm: mean(of.values()) for arm, of in found.items() if len(of) == len(found["scratch"])}


@pytest.mark.parametrize("grows", BEST)
def test_auto_takes_the_best_that_was_measured_with_all_seeds(grows):
    """Of plain runs under AdamW that growkit can begin by itself, exact multipliers if a state is carried."""
    measured, best = losses(), BEST[grows]
    fair = {
        name: loss
        for name, loss in measured.items()
        if (arm := ARMS[name]).source == SOURCES[grows] and arm.start == "grow"
        if not (arm.train.keys() - {"multipliers"} or arm.learn or arm.relax or arm.inherits)
    }
    assert len(fair) > 2 and best.row == min(fair, key=fair.__getitem__)
    assert best.below == pytest.approx(measured["scratch"] - fair[best.row], abs=0.005)


@pytest.mark.parametrize("best", [*BEST.values(), *OF_MIXTURES.values()])
def test_rows_are_what_the_study_did(best):
    said = ARMS[best.row].grow
    if best.width is not None:
        assert said.get("method", "fpi") == best.width
    if best.depth is not None:
        assert said.get("depth", "stack") == best.depth
    assert ARMS[best.row].source == SOURCES[best.width is not None, best.depth is not None]


@pytest.mark.parametrize(
    "asked, grows",
    [
        (recipe(hidden=64, method=AUTO), (True, False)),
        (stack_recipe(layers=4, method=AUTO), (False, True)),
        (grow_recipe(hidden=64, layers=4, method=AUTO, depth=AUTO), (True, True)),
    ],
)
@pytest.mark.parametrize("mixture", [False, True])
def test_a_recipe_left_open_is_the_one_of_the_row(asked, grows, mixture):
    best = (OF_MIXTURES if mixture else BEST)[grows]
    taken, (note,) = as_studied(asked, mixture)
    assert (taken.method if grows[0] else None) == best.width
    assert (taken.depth.method if grows[1] else None) == best.depth
    assert repr(best.row) in note and f"{best.below:.2f} nats" in note and ("dense" in note) == mixture
    named = recipe(hidden=64, method=taken.method)
    assert not grows[0] or taken.noise == named.noise
    assert as_studied(taken, mixture) == (taken, [])


def test_half_of_it_left_open():
    taken, (note,) = as_studied(grow_recipe(hidden=64, layers=4, method="aki", depth=AUTO), False)
    assert taken.method == "aki" and taken.depth.method == BEST[True, True].depth
    assert "took stack" in note and "otherwise in the other direction" in note and "nats" not in note
    taken, _ = as_studied(grow_recipe(hidden=64, layers=4, method=AUTO, depth="identity"), False)
    assert taken.method == BEST[True, True].width and taken.depth.method == "identity"


def test_nothing_to_choose_is_refused():
    with pytest.raises(RequestError, match="--method auto chooses how to widen, and no size is asked for"):
        as_studied(grow_recipe(layers=4, method=AUTO), False)
    with pytest.raises(RequestError, match="--method auto chooses --noise too"):
        recipe(hidden=64, method=AUTO, noise=0.2)
    with pytest.raises(RequestError, match="--keep is for --method shrink-perturb, not for auto"):
        recipe(hidden=64, method=AUTO, keep=0.2)
    assert as_studied(replace(recipe(hidden=64), seed=3), False)[1] == []
