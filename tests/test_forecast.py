"""What short runs say of long ones: a law that is known is found again, and what cannot be forecast is refused."""

import json
import math
from pathlib import Path

import pytest
import tiny
import torch
from piloting import CONFIG, LAW, grown_from, pilot, pilots
from refusing import cases, refused, run

import growkit
from growkit.reports.growth_law import Pilot, fit

LENGTHS, BASES = (1e5, 4e5, 2e6), (1e5, 3e6)
SOUND = [Pilot(None, tokens, LAW.loss(None, tokens)) for tokens in (1e5, 3e5, 1e6, 3e6)]
SOUND += [Pilot(base, tokens, LAW.loss(base, tokens)) for base in BASES for tokens in LENGTHS]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def noisy(size):
    generator = torch.Generator().manual_seed(0)
    factors = torch.exp(size * torch.randn(len(SOUND), generator=generator, dtype=torch.float64))
    return [pilot._replace(loss=pilot.loss * float(factor)) for pilot, factor in zip(SOUND, factors)]


def test_a_law_is_found_again_from_its_own_losses():
    fitted = fit(SOUND)
    assert fitted.worst < 1e-4
    for base in (None, *BASES):
        assert fitted.law.loss(base, 3e7) == pytest.approx(LAW.loss(base, 3e7), abs=1e-3)


def test_the_interval_grows_with_the_noise_and_the_same_seed_gives_the_same():
    wide = []
    for size in (1e-4, 1e-3, 1e-2):
        ends = [law.loss(1e5, 1e7) for law in fit(noisy(size)).draws]
        wide.append(max(ends) - min(ends))
    assert 0 < 3 * wide[0] < wide[1] and 3 * wide[1] < wide[2]
    assert fit(noisy(1e-3), seed=1) == fit(noisy(1e-3), seed=1) != fit(noisy(1e-3), seed=2)


@pytest.mark.parametrize("base", BASES)
def test_scratch_passes_where_the_two_laws_cross(base):
    """frontier: ln D2* = (ln(A0 / A) + a1 ln D1) / (a0 - a2 + a3 ln D1)."""
    (ln_a0, minus_a0), (ln_a, minus_a1, minus_a2, a3) = LAW.scratch, LAW.grown
    crossing = math.exp((ln_a0 - ln_a - minus_a1 * math.log(base)) / (minus_a2 - minus_a0 + a3 * math.log(base)))
    assert LAW.passed(base, 1e3, 1e15) == pytest.approx(crossing, rel=1e-4)
    assert LAW.passed(base, crossing * 2, 1e15) == crossing * 2 and LAW.passed(base, 1e3, crossing / 2) == math.inf
    there = LAW.passed(base, 1e3, 1e15, before=base)
    assert there < crossing and LAW.loss(None, there + base) == pytest.approx(LAW.loss(base, there), rel=1e-6)


def test_tokens_to_a_loss_turn_the_law_around():
    for tokens in LENGTHS:
        assert LAW.tokens_to(1e5, LAW.loss(1e5, tokens)) == pytest.approx(tokens)
    assert LAW.tokens_to(1e5, LAW.floor) == math.inf


def of(scratch, *grown):
    return [Pilot(None, tokens, 3.0) for tokens in scratch] + [Pilot(base, tokens, 3.0) for base, tokens in grown]


FEW = [
    (of([1, 2], (5, 1), (5, 2), (5, 3)), "needs 1 more from scratch, of other lengths; there are 2 from scratch and 3 grown"),
    (of([1, 2, 2], (5, 1)), "needs 1 more from scratch, of other lengths and 2 more grown"),
    (of([1, 2, 3], (5, 1), (6, 1), (5, 2)), "needs 2 more grown, of other lengths; there are 3 from scratch and 3 grown from 2 bases"),
    (of([1, 2, 3], *((n, 1) for n in (1, 2, 3, 4, 5))), "needs one more grown, so that two bases have two lengths each"),
]  # fmt: skip


@pytest.mark.parametrize("given, says", FEW)
def test_too_few_pilots_are_refused_with_how_many_more(given, says):
    with pytest.raises(growkit.RequestError, match=says):
        fit(given)


def test_losses_that_do_not_fall_are_no_law():
    with pytest.raises(growkit.RequestError, match="losses of the scratch pilots do not fall with tokens"):
        fit([one._replace(loss=3 + one.tokens * 1e-7) if one.base is None else one for one in SOUND])


def test_a_forecast_of_runs_finds_their_law():
    made = growkit.forecast(pilots(), "out", budget=3_000_000, source="small")
    assert len(made.pilots) == 4 + 3 + 3, "under a constant rate all validations behind the warm-up"
    for one in made.expected:
        assert (one.scratch, one.grown) == pytest.approx((LAW.loss(None, 3e6), LAW.loss(one.base, 3e6)), abs=2e-3)
        needed = LAW.tokens_to(one.base, LAW.loss(None, 3e6))
        assert one.saved == pytest.approx(1 - needed / 3e6, abs=0.02)
        assert one.saved_with_source == pytest.approx(one.saved - one.base / 3 / 3e6)
    assert [one.base for one in made.passing] == [2e4, 2e5] and made.share == pytest.approx(1 / 3)
    said = json.loads(Path("out/report.json").read_text())
    assert said["command"] == "forecast" and "| 3.0 M | 20.0 k |" in Path("out/report.md").read_text()
    assert Path("out/report.png").exists() and not Path("out/forecast").exists()
    before = Path("out/report.json").read_bytes()
    assert run("forecast", *pilots_there(), "-o", "out", "--budget", 3_000_000, "--source", "small").exit_code == 0
    assert Path("out/report.json").read_bytes() == before


def pilots_there():
    return ["scratch", "early", "late"]


def test_under_a_falling_rate_only_the_end_is_a_pilot():
    for number, steps in enumerate((100, 300, 1000)):
        pilot(f"s{number}", [0, 50, steps], decay="cosine")
        pilot(f"g{number}", [0, 50, steps], base=200, decay="cosine")
    made = growkit.forecast([f"{kind}{n}" for kind in "sg" for n in range(3)], "out")
    assert sorted(pilot.tokens for pilot in made.pilots) == [1e4, 1e4, 3e4, 3e4, 1e5, 1e5]
    assert any("own cost is left out" in note for note in made.notes) and made.passing[0].total is None


def without_end():
    Path("late/final/growkit.json").unlink()


def otherwise(key, value):
    pilot("other", [0, 100, 400, 1500], base=200, **{key: value})
    return ["other"]


def continued():
    pilot("on", [0, 100])
    about = json.loads(Path("on/final/growkit.json").read_text())
    about["sources"][0]["record"] = grown_from(5)["sources"][0]["record"]
    Path("on/final/growkit.json").write_text(json.dumps(about))
    return ["on"]


def spoilt():
    about = json.loads(Path("late/final/growkit.json").read_text())
    about["sources"][0]["record"]["sources"][0]["record"]["request"]["steps"] = "many"
    Path("late/final/growkit.json").write_text(json.dumps(about))


BAD = [
    (without_end, "'late' has not ended: it has no final/growkit.json"),
    (lambda: otherwise("config", {**CONFIG, "hidden_size": 64}), "trained models of other sizes: hidden_size 32 and 64"),
    (lambda: otherwise("method", "aki"), "were grown in other ways: widen method None, 'aki'; forecast one at a time"),
    (continued, "'on' goes on from a trained model that was not grown"),
    (spoilt, "'late/final/growkit.json' should have request.steps as a whole number"),
    (lambda: ["small"], "trained models of other sizes: hidden_size 32 and 16"),
    (lambda: ["nosuch"], "'nosuch' does not exist"),
    (lambda: ["--source", "nosuch"], "'nosuch' does not exist"),
    (lambda: ["--budget", "0"], "--budget 0 should be from 1"),
]  # fmt: skip


@pytest.mark.parametrize("trouble, says", cases(BAD))
def test_what_cannot_be_forecast_is_refused_in_a_sentence(trouble, says):
    runs = pilots()
    more = trouble() or []
    refused("forecast", *runs, *more, "-o", "out", says=says)


def test_a_dry_run_says_what_a_forecast_expects(world):
    model = tiny.make("llama", dtype=torch.float32)
    model.save_pretrained("big")
    config = json.loads(Path("big/config.json").read_text())
    pilot("scratch", [100, 300, 1000], config=config)
    pilot("grown", [100, 400, 1500], base=200, config=config)
    growkit.forecast(["scratch", "grown"], "ahead")
    ask = ["pretrain", "big", "--data", world / "data", "--seq-len", 10, "--batch-size", 10, "--tokens", 5_000_000]
    shown = run(*ask, "--out", "x", "--dry-run", "--forecast", "ahead")
    assert f"the forecast: a validation loss of {LAW.loss(None, 5e6):.3f} (" in shown.output, shown.output
    refused(*ask, "--out", "x", "--forecast", "ahead", says="--forecast is for --dry-run")
    refused(*ask, "--out", "x", "--dry-run", "--forecast", "scratch", says="report.json")
    Path("big/growkit.json").write_text(json.dumps(grown_from(200)))
    ours = growkit.pretrain(
        "big", world / "data", "x", seq_len=10, batch_size=10, steps=50_000, dry_run=True, forecast="ahead"
    )
    end = ours.outlook.foreseen
    assert (end.loss, end.scratch) == pytest.approx((LAW.loss(2e4, 5e6), LAW.loss(None, 5e6)), abs=0.02)
    Path("big/growkit.json").write_text(json.dumps(grown_from(300)))
    refused(
        *ask,
        "--out",
        "x",
        "--dry-run",
        "--forecast",
        "ahead",
        says="from a base that had 20,000 tokens, and this one's had 30,000",
    )
