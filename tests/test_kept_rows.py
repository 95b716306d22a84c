"""Rows of a stopped benchmark count where the same code made them with the same arguments, and nowhere else."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def kept_rows():
    spec = importlib.util.spec_from_file_location("kept_rows", EXAMPLES / "benchmarks" / "kept_rows.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rows_of_other_arguments_or_code_are_refused(kept_rows, tmp_path, monkeypatch):
    asked = {"work": tmp_path, "steps": 3, "seeds": [0]}
    kept = kept_rows.KeptRows(tmp_path, asked)
    kept.keep({"arm": "one", "seed": 0})
    again = kept_rows.KeptRows(tmp_path, asked | {"seeds": [0, 1], "work": Path(".")})
    assert again.has(arm="one", seed=0) and not again.has(arm="one", seed=1) and again.rows == kept.rows
    with pytest.raises(SystemExit, match="has 1 rows that other code or other arguments made; name another --work"):
        kept_rows.KeptRows(tmp_path, asked | {"steps": 4})
    more = SimpleNamespace(
        __file__=str(EXAMPLES / "rule_tasks.py")
    )  # a part of the benchmark that was not there before
    monkeypatch.setitem(sys.modules, "more_code", more)
    with pytest.raises(SystemExit, match="other code"):
        kept_rows.KeptRows(tmp_path, asked)
