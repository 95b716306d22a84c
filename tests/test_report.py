"""What growing saved, on made-up metrics: where curves cross, what the sources add, and what is said where nothing was
reached."""

import builtins
import json
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
from refusing import cases, refused, run

import growkit
from growkit.reports.runs import Cost, read_run

VAL = [
    (100, 5.0),
    (200, 4.0),
    (300, 3.0),
]  # (step, loss); a step costs 10 FLOPs and half a second unless said otherwise


def line(kind, step, loss, flops=10.0, seconds=0.5):
    return {"kind": kind, "step": step, "loss": loss, "flops": flops * step, "elapsed_s": seconds * step}


def make(name, val=VAL, flops=10.0, seconds=0.5, settings=None):
    """A run in the current folder, with a training line before each validation."""
    folder = Path(name)
    folder.mkdir(parents=True)
    about = {"steps": val[-1][0] if val else 0, "seq_len": 128, "hashes": {"data": "abc", "tokens": 9}}
    (folder / "run.json").write_text(json.dumps({"growkit": "0", "settings": about | (settings or {})}))
    lines = [{"kind": "note", "text": "begun"}]
    for step, loss in val:
        lines += [line("train", step, loss + 0.1, flops, seconds), line("val", step, loss, flops, seconds)]
    write(name, [*lines, {"kind": "save", "step": 1, "path": "x"}])
    return folder


def write(name, lines):
    Path(name, "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines))


def only(made, name):
    return next(row for row in made.runs if row.name == name)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_curve_is_a_straight_line_between_validations():
    make("run")
    curve = read_run("run")
    assert curve.reach(3.5) == Cost(2500.0, 125.0)
    assert curve.reach(4.0) == Cost(2000.0, 100.0), "at a validation: there"
    assert curve.reach(3.0) == curve.cost == Cost(3000.0, 150.0)
    assert curve.reach(5.5) == Cost(1000.0, 50.0), "before the first validation: what was spent until then"
    assert curve.reach(2.9) is None


def test_the_first_time_counts_where_a_curve_goes_up_and_down():
    make("run", [(100, 5.0), (200, 3.0), (300, 4.0), (400, 2.0)])
    assert read_run("run").reach(3.5).flops == 1750.0


def test_reaching_a_higher_loss_never_costs_more():
    draw = random.Random(0)
    make("run", [(step, draw.uniform(2, 5)) for step in range(10, 200, 10)])
    curve = read_run("run")
    costs = [curve.reach(loss / 10) for loss in range(50, 19, -1)]
    reached = [cost.flops for cost in costs if cost]
    assert reached == sorted(reached) and None not in costs[: len(reached)]


@pytest.mark.parametrize("val", [VAL, [(100, 5.0), (200, 2.5), (300, 3.0)], [(100, 3.0)]])
def test_a_baseline_saves_nothing_against_itself(val):
    make("scratch", val)
    make("twin", val)
    made = growkit.report(["scratch", "twin"], "out")
    assert made.baseline == "scratch" and made.target == 3.0
    assert [row.saved for row in made.runs] == [Cost(0.0, 0.0)] * 2
    assert only(made, "scratch").saved_with_sources == Cost(0.0, 0.0)


def test_what_a_grown_model_saves_and_what_its_source_cost():
    make("scratch")
    make("grown", [(100, 4.0), (200, 2.0)], flops=8.0, seconds=0.25)
    make("source", [(100, 4.5)], flops=2.0, seconds=0.125)
    made = growkit.report(["scratch", "grown"], "out", sources=["source"])
    grown, scratch = only(made, "grown"), only(made, "scratch")
    assert grown.reached == Cost(1200.0, 37.5) and grown.added == Cost(200.0, 12.5)
    assert grown.saved == pytest.approx(Cost(1 - 1200 / 3000, 1 - 37.5 / 150))
    assert grown.saved_with_sources == pytest.approx(Cost(1 - 1400 / 3000, 1 - 50 / 150))
    assert (grown.final_loss, grown.flops, grown.seconds, grown.steps) == (2.0, 1600.0, 50.0, 200)
    assert scratch.added == Cost(0.0, 0.0) and scratch.saved_with_sources == Cost(0.0, 0.0)
    make("other", [(50, 4.5)], flops=2.0, seconds=0.125)
    both = growkit.report(["scratch", "grown"], "out", sources=["source", "other"])
    assert only(both, "grown").added == Cost(300.0, 18.75)


def test_a_source_that_is_compared_too_pays_for_itself_once():
    make("scratch")
    make("source", [(100, 3.0)], flops=2.0)
    made = growkit.report(["scratch", "source"], "out", sources=["source"])
    assert only(made, "source").saved == only(made, "source").saved_with_sources


def test_growing_that_cost_more_is_shown_as_a_loss_and_what_never_got_there_as_that():
    make("scratch")
    make("slow", [(100, 5.0), (600, 3.0)])
    make("never", [(100, 5.0), (200, 3.1)])
    made = growkit.report(["scratch", "slow", "never"], "out")
    assert only(made, "slow").saved.flops == -1.0
    never = only(made, "never")
    assert never.reached is None and never.saved is None and never.saved_with_sources is None
    text = Path("out/report.md").read_text()
    assert "| slow | 6e+03 | -100.0% |" in text and "| never | not reached | - | not reached | - |" in text
    assert json.loads(Path("out/report.json").read_text())["runs"][2]["saved"] is None


def test_an_early_arrival_and_a_baseline_that_got_worse_are_noted():
    make("scratch", [(100, 5.0), (200, 2.0), (300, 3.0)], settings={"steps": 900})
    make("grown", [(100, 2.5)])
    notes = " ".join(growkit.report(["scratch", "grown"], "out").notes)
    assert "grown was there at its first validation" in notes
    assert "scratch was at 2.0000 after step 200 and ended at 3.0000" in notes
    assert "scratch was last validated at step 300 of 900" in notes


def test_the_later_line_counts_after_a_resume():
    make("run")
    old = [json.loads(text) for text in Path("run/metrics.jsonl").read_text().splitlines()]
    stale = [line("train", 250, 9.0, 99.0), line("val", 250, 9.0, 99.0), line("train", 350, 9.0), line("val", 350, 9.0)]
    again = [entry for entry in old if entry.get("step", 0) >= 200 and entry["kind"] != "save"]
    clean = read_run("run")
    write("run", [*old[:5], *stale, {"kind": "note", "text": "resumed at step 199"}, *again])
    resumed = read_run("run")
    assert resumed.train == clean.train and resumed.val == clean.val
    write("run", [*old, *stale, old[1]])  # begun again, and not yet validated: what was there is no more
    assert len(read_run("run").train) == 1 and not read_run("run").val


def test_a_named_baseline_need_not_be_first_or_among_the_runs():
    make("scratch")
    make("grown", [(100, 2.0)])
    assert growkit.report(["grown", "scratch"], "out", baseline="./scratch").baseline == "scratch"
    made = growkit.report("grown", "out", baseline="scratch")
    assert [row.name for row in made.runs] == ["scratch", "grown"] and made.baseline == "scratch"
    assert growkit.report(["grown"], "out").baseline == "grown"


def test_what_is_written_and_printed(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("scratch", "grown_$x_[bold]"):
        make(name)
    make("_source", VAL[:1])
    args = ["report", "scratch", "grown_$x_[bold]", "--source", "_source", "--out", "out/deep"]
    shown = run(*args)
    assert shown.exit_code == 0, shown.output
    assert "grown_$x_[bold]" in shown.stdout and "wrote out/deep" in shown.stdout and "source _source" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    said = run(*args, "--json")
    assert said.exit_code == 0 and not said.stderr
    data = json.loads(said.stdout)
    assert data == json.loads(Path("out/deep/report.json").read_text())
    assert data["runs"][1]["saved_with_sources"] == {"flops": pytest.approx(-1 / 3), "seconds": pytest.approx(-1 / 3)}
    assert data["sources"] == [{"name": "_source", "flops": 1000.0, "seconds": 50.0}] and data["target_loss"] == 3.0
    assert (data["picture"] is not None) == Path("out/deep/report.png").exists()


def test_the_picture():
    pytest.importorskip("matplotlib")
    for name in ("scratch", "$grown^{", "_grown"):
        make(name)
    make("flat", [(100, 3.0)])
    made = growkit.report(["scratch", "$grown^{", "_grown", "flat"], "out", sources=["_grown"])
    assert made.picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and "report.png" in Path("out/report.md").read_text()


def test_without_matplotlib_there_is_the_table_and_a_sentence(monkeypatch):
    make("scratch")
    growkit.report("scratch", "out")
    Path("out/report.png").write_bytes(b"of other runs")
    real = builtins.__import__

    def without(name, *args, **more):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.delitem(sys.modules, "growkit.reports.picture", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    shown = run("report", "scratch", "--out", "out")
    assert shown.exit_code == 0 and "growkit[plot]" in " ".join(shown.stdout.split())
    assert sorted(path.name for path in Path("out").iterdir()) == ["report.json", "report.md"]


def test_a_report_needs_no_torch():
    make("scratch")
    code = (
        "import sys, growkit; growkit.report('scratch', 'out'); assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


def spoil(text, number=3):
    """Line `number` of the grown run's metrics, replaced."""
    path = Path("grown/metrics.jsonl")
    lines = path.read_text().splitlines()
    lines[number - 1] = text
    path.write_text("\n".join(lines) + "\n")


def without(key):
    spoil(json.dumps({k: v for k, v in line("val", 100, 4.0).items() if k != key}))


def settings(**changes):
    path = Path("grown/run.json")
    said = json.loads(path.read_text())
    path.write_text(json.dumps({"settings": said["settings"] | changes}))


def elsewhere():
    make("elsewhere/grown")


def foreign():
    Path("out").mkdir()
    Path("out/thesis.tex").write_text("all of it")


BAD = [
    (lambda: None, ["nosuch"], "'nosuch' does not exist; name the --out folder"),
    (lambda: Path("folder").mkdir(), ["folder"], "'folder' is no run: it has no run.json"),
    (lambda: Path("grown/metrics.jsonl").unlink(), [], "'grown' has no metrics.jsonl: nothing was trained in it yet"),
    (lambda: Path("grown/run.json").write_text("{"), [], "'grown/run.json' is no valid JSON"),
    (lambda: spoil('{"kind": "val", "st'), [], "line 3 of 'grown/metrics.jsonl' is no valid JSON"),
    (lambda: spoil("[1]"), [], "line 3 of 'grown/metrics.jsonl' should hold an object with kind, not [1]"),
    (lambda: spoil(json.dumps(line("val", 1.5, 4.0)), 2), [], "line 2 of 'grown/metrics.jsonl' should have step as a whole"),
    (lambda: spoil(json.dumps(line("val", 9, float("nan")))), [], "should have loss as a finite number from -1e+09 to 1e+09, not nan"),
    (lambda: without("flops"), [], "line 3 of 'grown/metrics.jsonl' lacks 'flops', a finite number"),
    (lambda: without("elapsed_s"), [], "lacks 'elapsed_s'"),
    (lambda: write("grown", [line("train", 1, 4.0)]), [], "'grown' has no validation losses; tokenize with --val-fraction"),
    (lambda: write("grown", []), [], "'grown' has no validation losses"),
    (elsewhere, ["elsewhere/grown"], "two runs are called 'grown', 'grown' and 'elsewhere/grown'"),
    (lambda: None, ["./grown"], "two runs are called 'grown'"),
    (lambda: None, ["--source", "grown", "--source", "grown"], "two runs are called 'grown'"),
    (lambda: write(make("empty"), []), ["--source", "empty"], "'empty' has no training in it"),
    (lambda: settings(seq_len=64), [], "'scratch' and 'grown' were validated on different data: seq_len 128 and 64"),
    (lambda: settings(hashes={"data": "xyz"}), [], "different data: hashes.data 'abc' and 'xyz'"),
    (foreign, [], "output 'out' exists and is no report of growkit's; choose another --out"),
    (lambda: Path("out").write_text(""), [], "output 'out' exists and is no folder"),
    (lambda: make("bad", [(0, 1.0), (9, 2.0)]), ["--baseline", "bad"], "had its final loss of 2.0000 before it trained"),
]  # fmt: skip


@pytest.mark.parametrize("trouble, args, says", cases(BAD))
def test_what_cannot_be_compared_is_refused_in_a_sentence(trouble, args, says):
    make("scratch")
    make("grown")
    trouble()
    refused("report", "scratch", "grown", *args, "--out", "out", says=says)


def test_no_run_at_all():
    assert run("report", "--out", "out").exit_code == 2
    with pytest.raises(growkit.RequestError, match="no run to report on"):
        growkit.report([], "out")


def test_a_run_whose_settings_say_nothing_can_be_compared():
    make("scratch")
    make("grown")
    Path("grown/run.json").write_text("{}")
    assert len(growkit.report(["scratch", "grown"], "out").runs) == 2


EXAMPLE = Path(__file__).parents[1] / "examples" / "grow_and_train.sh"


@pytest.mark.parametrize(
    "args, says", [(["nosuch"], "nosuch does not exist"), ([], "grow-and-train exists; remove it")]
)
def test_the_example_refuses_before_it_begins(args, says):
    Path("grow-and-train").mkdir()
    done = subprocess.run(["bash", str(EXAMPLE), *args], capture_output=True, text=True, timeout=600)
    assert done.returncode == 2 and says in done.stderr and not done.stdout
    assert [path.name for path in Path().iterdir()] == ["grow-and-train"] and not list(Path("grow-and-train").iterdir())


def test_experts_have_a_table():
    """Loads of the last validation that speaks of them, in report.md and report.json; dense runs have no row."""
    make("dense")
    make("mixture")
    lines = [json.loads(entry) for entry in Path("mixture/metrics.jsonl").read_text().splitlines()]
    for loads, entry in zip(
        ([[4.0, 0, 0, 0]], [[1.5, 1.0, 1.45, 0.05], [1.0] * 4]), [e for e in lines if e["kind"] == "val"][-2:]
    ):
        entry |= {"expert_load": loads, "router_entropy": [0.5 * math.log(4)] * len(loads), "dead_experts": [[0, 3]]}
    write("mixture", lines)
    made = growkit.report(["dense", "mixture"], "out")
    assert made.runs[0].experts is None and made.runs[1].experts == pytest.approx((1.5, 0.05, 1, 0.5))
    text = Path("out/report.md").read_text()
    assert "| mixture | 1.50 | 0.05 | 1 | 50% |" in text and "| dense | 1." not in text
    assert json.loads(Path("out/report.json").read_text())["runs"][1]["experts"]["dead"] == 1


def test_what_experts_tell_of_domains_has_a_table():
    """Of the last validation, its layers counted from 1; report.json has it of mixtures on tagged text alone."""
    make("plain")
    for name, nats in (("first", [0.1, 0.2]), ("second", [0.3, 0.6])):
        make(name)
        lines = [json.loads(entry) for entry in Path(name, "metrics.jsonl").read_text().splitlines()]
        vals = [entry for entry in lines if entry["kind"] == "val"]
        vals[0]["expert_domains"] = {"layers": [1, 3], "nats": [0.0, 0.0], "most": 0.8}
        vals[-1]["expert_domains"] = {"layers": [1, 3], "nats": nats, "most": 0.8}
        write(name, lines)
    made = growkit.report(["plain", "first", "second"], "out")
    title, headings, rows = made.tables()[-1]
    assert title.endswith("tell of their domains: mutual information") and headings[0] == "layer"
    assert rows == [
        ("2", "first", "0.1000", "0.8000", "12%"),
        ("2", "second", "0.3000", "0.8000", "37%"),
        ("4", "first", "0.2000", "0.8000", "25%"),
        ("4", "second", "0.6000", "0.8000", "75%"),
    ]
    runs = json.loads(Path("out/report.json").read_text())["runs"]
    assert "expert_domains" not in runs[0]
    assert runs[1]["expert_domains"][1] == {"layer": 3, "nats": 0.2, "most": 0.8}


def told(name, val, **more):
    """A run whose validations tell losses by domain: (step, loss, {domain: loss})."""
    folder = make(name, [point[:2] for point in val], **more)
    lines = [json.loads(entry) for entry in Path(name, "metrics.jsonl").read_text().splitlines()]
    for entry in lines:
        entry |= {"domains": next(d for s, _, d in val if s == entry["step"])} if entry["kind"] == "val" else {}
    write(name, lines)
    return folder


ADAPTING = [(0, 5.0, {"books": 3.0, "code": 7.0}), (100, 4.0, {"books": 3.25, "code": 4.75})]


def test_what_was_gained_and_forgotten_of_each_domain():
    told("alone", ADAPTING)
    told("taught", [ADAPTING[0], (100, 3.9, {"books": 3.5, "code": 4.25})], settings={"teacher": {"code": "small"}})
    told("late", [(50, 4.5, {"books": 3.0, "code": 5.0}), ADAPTING[1]], settings={"teacher": "other"})
    make("untagged")
    made = growkit.report(["alone", "taught", "late", "untagged"], "out")
    rows = json.loads(Path("out/report.json").read_text())["runs"]
    assert rows[1]["domains"] == [
        {"domain": "books", "teacher": None, "entry": 3.0, "end": 3.5, "gain": -0.5},
        {"domain": "code", "teacher": "small", "entry": 7.0, "end": 4.25, "gain": 2.75},
    ]
    assert rows[3]["domains"] == [] and rows[2]["domains"][0]["teacher"] == "other"
    title, headings, lines = made.tables()[-1]
    assert title == "By domain, nats per token of validation text" and headings[-2:] == ("gained", "forgotten")
    assert lines == [
        ("books", "alone", "none", "3.0000", "3.2500", "", "0.2500"),
        ("books", "taught", "none", "3.0000", "3.5000", "", "0.5000"),
        ("books", "late", "other", "3.0000", "3.2500", "", "0.2500"),
        ("code", "alone", "none", "7.0000", "4.7500", "2.2500", ""),
        ("code", "taught", "small", "7.0000", "4.2500", "2.7500", ""),
        ("code", "late", "other", "5.0000", "4.7500", "0.2500", ""),
    ]
    assert made.notes[0] == "late was first validated at step 50, which counts as its entry"
    assert "| code | taught | small | 7.0000 | 4.2500 | 2.7500 |  |" in Path("out/report.md").read_text()


def test_tagged_text_and_untagged_are_measured_on_other_windows():
    make("untagged")
    told("tagged", ADAPTING, settings={"hashes": {"data": "abc", "domains": ["d"]}})
    refused("report", "untagged", "tagged", "-o", "out", says="different data: hashes.domains 'none' and ['d']")


def test_losses_by_domain_that_are_none():
    told("run", [(0, 5.0, {"books": "low"})])
    refused("report", "run", "-o", "out", says="should have domains.'books' as a finite number")
    told("other", ADAPTING, settings={"teacher": 5})
    refused("report", "other", "-o", "out", says="should have settings.teacher as")
