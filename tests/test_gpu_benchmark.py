"""The GPU's benchmark in its CPU form: what it leaves, and what becomes of what fails, is slow, or does not fit."""

import json
import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "examples" / "benchmarks"))

import gpu
from on_gpu.bed import Bed


def lines(out):
    return [json.loads(line) for line in (out / gpu.RESULTS).read_text("utf-8").splitlines()]


def test_stages_are_measured_beside_a_full_step_and_told_as_a_table(tmp_path, capsys):
    assert gpu.main(["--small", "--parts", "stages", "--out", str(tmp_path)]) == 0
    found = {line["check"]: line for line in lines(tmp_path)}
    assert [line for line in found.values() if "error" in line or "left_out" in line] == []
    full, first = found["full step"], found["a step of the first stage, L/4"]
    assert full["of_a_full_step"] == 1 and first["flops"] < full["flops"]
    live, stored = found["with a live teacher of a third"], found["with that teacher's store"]
    assert live["flops"] > full["flops"] == stored["flops"] and live["taught"] > 0 < stored["taught"]
    assert (
        found["as a mixture of 8, top 2"]["flops"] > full["flops"] and found["teach"]["seconds_per_billion_tokens"] > 0
    )
    text = (tmp_path / gpu.TABLE).read_text("utf-8")
    assert text in capsys.readouterr().out and all(f"| {name} |" in text for name in found)


def test_a_part_that_takes_too_long_is_stopped_and_counts_as_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "LIMITS", {"right": 0.0})
    monkeypatch.setattr(gpu, "GRACE", 1.0)
    assert gpu.main(["--small", "--out", str(tmp_path)]) == 1
    assert lines(tmp_path) == [{"part": "right", "check": "all of it", "ok": False, "error": "stopped after 1 s"}]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--small", "--parts", "right,quick"], "--parts 'quick' is none of right, fast, stages, saves"),
        ([], "--data should name a folder with data/ and other/"),
    ],
)
def test_what_cannot_be_asked(tmp_path, capsys, words, said):
    with pytest.raises(SystemExit, match="2"):
        gpu.main([*words, "--out", str(tmp_path / "out")])
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_large_sizes_are_refused(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.json").write_text("{}")
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert "no GPU here; --small" in capsys.readouterr().err


def test_a_check_that_fails_or_does_not_fit_says_so_and_the_others_go_on(tmp_path):
    file = tmp_path / "lines"
    bed = Bed(
        part="p", work=tmp_path, data=tmp_path, lines=file, end=time.monotonic() + 1000, device="cpu", small=False
    )
    bed.check("divided", 1, lambda: {"by zero": 1 / 0})
    bed.check("long", 100_000, lambda: {"ok": True})
    bed.check("fine", 1, lambda: {"ok": True, "figure": 2.0})
    divided, long, fine = map(json.loads, file.read_text("utf-8").splitlines())
    assert divided["ok"] is False and divided["error"] == "ZeroDivisionError: division by zero"
    assert "ok" not in long and long["left_out"].startswith("needs 100000 s")
    assert fine["ok"] is True and fine["figure"] == 2.0
