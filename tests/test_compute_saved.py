"""The study of what growing saves: a grid that is killed and taken up comes to the same, and what nobody knows is refused."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from texts import EXCERPT

from growkit.errors import CheckpointError
from growkit.reports.runs import read_run

FOLDER = Path(__file__).parents[1] / "examples" / "benchmarks" / "compute_saved"
sys.path.append(str(FOLDER))

import study  # noqa: E402
import study_cell  # noqa: E402
import study_figures  # noqa: E402
import study_forecast  # noqa: E402
import study_grid  # noqa: E402
from study_arms import ARMS  # noqa: E402

GROWN, LEARNED = "FPI + stack, carried state, relax", "learned (LiGO) + stack"
RATES = {"tried": [1e-2], "pilot": 0.007, "source": 1e-2}
SHAPE = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": 16, "tie_word_embeddings": True,
    "bos_token_id": 0, "eos_token_id": 0, "num_key_value_heads": 1,
}  # fmt: skip


def sizes(hidden, layers):
    return {"hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": layers,
            "num_attention_heads": hidden // 8}  # fmt: skip


def lines(table, *path):
    """A table as TOML."""
    own = "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items() if not isinstance(value, dict))
    inner = (lines(value, *path, key) for key, value in table.items() if isinstance(value, dict))
    return (f"[{'.'.join(path)}]\n" if path else "") + own + "".join(inner)


def grid(folder, **more):
    """A file of a grid of two arms and a handful of steps; more: instead of what it says."""
    narrow, shallow, small = sizes(8, 2), sizes(16, 1), sizes(8, 1)
    said = {
        "vocabulary": 300,
        "base": 0.02,
        "pilot_share": 0.25,
        "cells": [{"arms": ["scratch", GROWN, LEARNED], "budgets": [0.02], "seeds": [0]}],
        "train": {"seq_len": 16, "batch_size": 2, "evaluations": 2, "eval_tokens": 64, "save_every": 2, "device": "cpu"},
        "rates": RATES,
        "sizes": {"tiny": {"shape": SHAPE, "target": sizes(16, 2),
                           "sources": {"narrow": narrow, "shallow": shallow, "small": small}}},
    }  # fmt: skip
    said = {key: value for key, value in (said | more).items() if value is not None}
    blocks = "".join("[[cells]]\n" + lines(block) for block in said.pop("cells"))
    file = folder / "grid.toml"
    file.write_text(lines(said) + blocks)
    return file


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Books of a few pages, and other text."""
    folder = tmp_path_factory.mktemp("text")
    own = EXCERPT.read_text("utf-8")
    for name, part in (("books/train", own[:20000]), ("books/val", own[20000:24000]), ("other", own[:2000].upper())):
        (folder / name).mkdir(parents=True)
        (folder / name / "a.txt").write_text(part, "utf-8")
    return folder


def asked(text, work, file, *more):
    places = ["--books", str(text / "books"), "--other", str(text / "other"), "--work", str(work)]
    return [str(file), *places, *more]


def without_seconds(value):
    """A result, without what no two runs agree on."""
    if isinstance(value, dict):
        return {key: without_seconds(one) for key, one in value.items() if key != "seconds"}
    return [without_seconds(one) for one in value] if isinstance(value, list) else value


def results(work):
    return {file.name: without_seconds(json.loads(file.read_text())) for file in (work / "results").iterdir()}


def test_a_study_killed_again_and_again_comes_to_the_same(text, tmp_path, monkeypatch, capsys):
    file = grid(tmp_path)
    study.main(asked(text, tmp_path / "whole", file))
    whole, heard = results(tmp_path / "whole"), study_cell.Clock.__call__

    study.main(asked(text, tmp_path / "parts", file, "--minutes", "0"))
    assert "stopped; the same command goes on" in capsys.readouterr().out
    assert not (tmp_path / "parts" / "results").exists()
    kills, left = 0, 0

    def dies(clock, line):
        nonlocal left
        heard(clock, line)
        left -= line["kind"] == "train"
        if left < 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(study_cell.Clock, "__call__", dies)
    for left in (3, 8, *[9] * 9):  # noqa: B007 - told to dies
        try:
            study.main(asked(text, tmp_path / "parts", file))
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills > 1 and results(tmp_path / "parts") == whole
    grown, scratch = (next(one for one in whole.values() if one["cell"]["arm"] == arm) for arm in (GROWN, "scratch"))
    assert grown["source"]["model"] == "small" and scratch["source"] is None
    assert [point["step"] for point in grown["curve"]] == [*range(3, grown["steps"] + 1, 3)]
    (learned,) = (one for one in whole.values() if one["cell"]["arm"] == LEARNED)
    spent = [one["flops"] for one in (learned["before"], *learned["curve"])]
    assert 0 < spent[0] < spent[1] and spent[1] - spent[0] == pytest.approx(grown["curve"][0]["flops"])

    monkeypatch.undo()
    study.main(asked(text, tmp_path / "whole", file, "--tables", str(tmp_path / "out")))
    page = (tmp_path / "out" / "grid.md").read_text()
    assert f"| {GROWN} | 1 |" in page and "Missing" not in page
    other = grid(tmp_path, rates=RATES | {"source": 2e-2})
    with pytest.raises(SystemExit):
        study.main(asked(text, tmp_path / "whole", other))
    assert "was made by another version of growkit, of other data or of other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more, fault",
    [
        (
            {"cells": [{"arms": ["sideways"], "budgets": [1.0], "seeds": [0]}]},
            r"cells\[0\].arms\[0\] as one of \*, scratch, .* not 'sideways'",
        ),
        (
            {"cells": [{"arms": ["*"], "budgets": [1.0], "seeds": [0], "widths": [1]}]},
            "'widths' is none of arms, budgets",
        ),
        ({"cells": [{"arms": ["*"], "budgets": [1.0], "seeds": [0], "sizes": ["big"]}]}, "'big' is none of tiny"),
        ({"vocabulary": 1}, "should have vocabulary as a whole number from 16 to"),
        ({"speed": 1}, "'speed' is none of vocabulary, base"),
    ],
)
def test_a_grid_that_says_what_nobody_knows_is_refused(tmp_path, more, fault):
    with pytest.raises(CheckpointError, match=fault):
        study_grid.read_grid(grid(tmp_path, **more))


def test_every_arm_names_arms_and_sources_that_are_there():
    for arm in ARMS.values():
        assert ARMS[arm.rates_of].rates_of == arm.rates_of and ARMS[arm.against].start == "init"
        assert ARMS[arm.rates_of].source_optimizer == arm.source_optimizer or arm.source is None
        assert (arm.source is None) == (arm.start == "init" and not (arm.inherits or arm.stored))


def test_cells_come_in_the_order_of_the_file_and_once(tmp_path):
    blocks = [
        {"arms": ["scratch", "stack"], "budgets": [1.0], "seeds": [0]},
        {"arms": ["stack", "AKI", "scratch"], "budgets": [1.0], "bases": [0.02, 5.0], "seeds": [0]},
    ]
    cells = study_grid.read_grid(grid(tmp_path, cells=blocks)).cells()
    told = [(cell.arm, cell.base) for cell in cells]
    assert told == [("scratch", 0.02), ("stack", 0.02), ("AKI", 0.02), ("stack", 5.0), ("AKI", 5.0)]
    assert len({cell.name for cell in cells}) == len(cells)


def test_a_rate_is_not_the_outermost_of_those_tried(text, tmp_path, monkeypatch):
    """Pilots go on by the same factor until the best has both neighbours, and keep what they came to."""
    bench = study_cell.Bench(study_grid.read_grid(grid(tmp_path, rates=RATES | {"tried": [1e-2, 2e-2]})), tmp_path / "work",
                             text / "books", [text / "other"], lambda: None)  # fmt: skip
    for best, rates in ((3e-3, [1e-2, 2e-2, 5e-3, 2.5e-3, 1.25e-3]), (5e-2, [1e-2, 2e-2, 4e-2, 8e-2])):
        ran = []

        def run(self, cell, arm, folder, rate, order, best=best, ran=ran):
            ran.append(rate)
            folder.mkdir(parents=True)
            return {"curve": [{"loss": abs(math.log(rate / best)), "flops": 1.0, "seconds": 1.0}]}

        monkeypatch.setattr(study_cell.Bench, "_run", run)
        cell = study_grid.Cell("scratch", "tiny", best, 0.02, 0)
        for _ in "once", "again":
            rate, pilots = bench._rate(cell)
            assert rate == sorted(rates, key=lambda one: abs(math.log(one / best)))[0]
            assert list(pilots["losses"]) == ran == rates and pilots["flops"] == len(rates)


def test_without_pilots_whole_runs_choose_the_rate(text, tmp_path):
    said = {"cells": [{"arms": ["scratch"], "budgets": [0.02], "seeds": [0]}], "rates": RATES | {"tried": [1e-2, 2e-2]}}
    study.main(asked(text, tmp_path / "work", grid(tmp_path, pilot_share=None, **said)))
    (found,) = results(tmp_path / "work").values()
    whole = {float(rate): loss for rate, loss in found["whole"].items()}
    assert found["pilots"] is None and not (tmp_path / "work" / "pilots").exists()
    assert list(whole)[:2] == [1e-2, 2e-2] and len(set(whole.values())) == len(whole) > 2
    assert found["loss"] == min(whole.values()) == whole[found["rate"]]
    assert min(whole) < found["rate"] < max(whole)  # gone beyond until it is not an outermost one
    study.main(asked(text, tmp_path / "work", tmp_path / "grid.toml", "--tables", str(tmp_path / "out")))
    page = (tmp_path / "out" / "grid.md").read_text()
    assert "## Whole runs that chose a rate" in page and f"| {found['rate']:g} |" in page and "## Pilots" not in page


def test_a_pilot_has_its_share_of_the_budget(tmp_path):
    read = study_grid.read_grid(grid(tmp_path))
    of = study_grid.Cell("interleave", "tiny", 40.0, 5.0, 2)
    assert read.pilot_of(of) == study_grid.Cell("stack", "tiny", 10.0, 5.0, 0)
    assert read.pilot_of(replace(of, budget=0.02)).budget == RATES["pilot"]
    some = study_grid.read_grid(grid(tmp_path, whole_runs_of=[of.arm]))
    assert some.pilot_of(of) is None and some.pilot_of(replace(of, arm="stack")) is not None


def one(arm, losses, step0=8.0, budget=1.0, source=None):
    """A result whose every step costs 10 operations and a second."""
    curve = [{"step": n, "loss": loss, "flops": 10.0 * n, "seconds": 1.0 * n} for n, loss in enumerate(losses, start=1)]
    cell = {"arm": arm, "size": "tiny", "budget": budget, "base": 1.0, "seed": 0}
    return {
        "cell": cell,
        "rate": 1e-3,
        "step0": step0,
        "loss": losses[-1],
        "other": 9.0,
        "curve": curve,
        "source": source,
    }


def test_a_forecast_sees_short_cells_and_is_held_against_long_ones():
    """Cells that lie on a law: told to a thousandth; one that was moved lies outside."""
    source = {"model": "small", "steps": 100, "flops": 10.0, "seconds": 3.0}
    found = []
    for budget in (0.25, 0.5, 0.7, 1.0, 5.0, 10.0):
        steps = 400 * budget
        off = 0.4 if budget == 10.0 else 0.001 * (-1) ** int(4 * budget)
        for arm, loss, of in (("scratch", 3 + 9 * steps**-0.3, None), ("stack", 3 + 4 * steps**-0.2 + off, source)):
            found.append(one(arm, [loss], budget=budget, source=of) | {"steps": steps})
    rows, refused = study_forecast.held_out(found, 1.0, "tiny", 1.0)
    assert not refused and len(rows) == 4
    told = {(row.arm, row.budget): row for row in rows}
    assert told["stack", 5.0].within and not told["stack", 10.0].within
    assert told["stack", 5.0].told == pytest.approx(told["stack", 5.0].came, abs=0.02)
    assert told["stack", 5.0].ahead == (4 * 2000**-0.2 < 9 * 2000**-0.3) == told["stack", 5.0].told_ahead
    assert told["scratch, beside stack", 5.0].ahead is None
    assert study_forecast.held_out(found[:8], 1.0, "tiny", 1.0) == ([], [])


def test_what_is_saved_by_hand():
    """Scratch comes to 5 after 40 operations; the grown model is there halfway through its second step, its source having
    cost 10; scratch at twice the tokens comes to 4 after 80, the grown model after 30; another ends where a run of scratch
    of between once and twice the tokens would."""
    source = {"flops": 10.0, "seconds": 3.0}
    found = [
        one("scratch", [7.0, 6.0, 5.5, 5.0]),
        one("scratch", [7.0, 6.5, 6.0, 5.5, 5.0, 4.6, 4.2, 4.0], budget=2.0),
        one("stack", [5.5, 4.5, 4.0, 3.9], step0=6.0, source=source),
        one("AKI", [7.0, 6.0, 5.6, 5.2], step0=9.0, source=source),
        one("FPI", [7.0, 6.0, 5.5, 4.5], step0=9.0, source=source),
    ]
    scratch, _, stack, aki, fpi = study_figures.rows_of(found)
    assert scratch.saved == {"flops": 0.0, "seconds": 0.0} and scratch.ahead == (0.0,)
    assert stack.saved == pytest.approx({"flops": 1 - 15 / 40, "seconds": 1 - 1.5 / 4})
    assert stack.with_source == pytest.approx({"flops": 1 - 25 / 40, "seconds": 1 - 4.5 / 4})
    assert stack.to_total["flops"] == pytest.approx(1 - 30 / 80)
    assert stack.to_total_with_source["flops"] == pytest.approx(1 - 40 / 80)
    assert (aki.reached, aki.saved["flops"]) == (0, None) and aki.ahead == pytest.approx((-0.2,))
    spent = 40 + (2**0.5 - 1) * 40  # of a run of scratch from 5 halfway down to 4
    assert (fpi.alike, fpi.planned, fpi.planned_with_source) == pytest.approx((2**0.5, 1 - 40 / spent, 1 - 50 / spent))
    assert (scratch.alike, scratch.planned) == (1.0, 0.0) and stack.alike is aki.alike is None
    begun = study_figures.reach(one("stack", [5.0], step0=4.0), 4.5)
    assert begun == {"flops": 0.0, "seconds": 0.0}
    learned = one("learned (LiGO)", [5.0], step0=4.0) | {"before": {"flops": 7.0, "seconds": 1.0}}
    assert study_figures.reach(learned, 4.5) == learned["before"]


def test_what_a_store_says_is_paid_for(text, tmp_path, monkeypatch):
    """As long as it teaches, a stored teacher costs what a live one does, though a run with a store does not count it."""
    arms = [f"AKI + stack, inherit, {how}" for how in ("stored", "live")]
    for arm in arms:
        monkeypatch.setitem(ARMS, arm, replace(ARMS[arm], train={"teacher_weight": 0.5}))
    study.main(asked(text, tmp_path / "work", grid(tmp_path, cells=[{"arms": arms, "budgets": [0.02], "seeds": [0]}])))
    came = {
        one["cell"]["arm"]: [point["flops"] for point in one["curve"]] for one in results(tmp_path / "work").values()
    }
    assert came[arms[0]] == pytest.approx(came[arms[1]], rel=1e-6)
    alone = read_run(next((tmp_path / "work" / "cells").glob("*stored*")) / "run").val
    assert alone[-1].cost.flops < came[arms[0]][-1]
