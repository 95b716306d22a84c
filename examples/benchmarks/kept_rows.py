"""Rows of a benchmark that goes on where it was stopped, for the benchmarks beside this file."""

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

import growkit

EXAMPLES = Path(__file__).resolve().parents[1]
CHOOSING = {"work", "seeds", "seed", "arms"}  # which rows there are, not what is in one


class KeptRows:
    """The rows of a benchmark that are measured, in WORK/rows.jsonl. work: its folder, made where it is not there.

    arguments: what the benchmark was called with. Rows count where the same code made them with the same arguments; where
    there are others the program ends and says so, for the models in the folder would be theirs as well.
    """

    def __init__(self, work: Path, arguments: Mapping[str, Any] = {}):
        work.mkdir(parents=True, exist_ok=True)
        self._file, self._made = work / "rows.jsonl", made_by(arguments)
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
        others = sum(row.get("made_by") != self._made for row in self.rows)
        if others:
            raise SystemExit(
                f"{str(self._file)!r} has {others} rows that other code or other arguments made; name another --work, or"
                " delete this one"
            )

    def has(self, **key: Any) -> bool:
        """Whether there is a row that says this."""
        return any(all(row[name] == value for name, value in key.items()) for row in self.rows)

    def keep(self, row: dict[str, Any]) -> dict[str, Any]:
        """Keep a row; returns it as it will be read again."""
        line = json.dumps({**row, "made_by": self._made})
        with self._file.open("a") as file:
            file.write(line + "\n")
        self.rows.append(json.loads(line))
        return self.rows[-1]


def made_by(arguments: Mapping[str, Any]) -> str:
    """A hash of growkit's code, of the benchmark's and of the arguments that a row depends on."""
    found = (getattr(module, "__file__", None) for module in [*sys.modules.values()])
    own = {path for path in map(Path.resolve, map(Path, filter(None, found))) if path.is_relative_to(EXAMPLES)}
    state = hashlib.sha256()
    for path in sorted(Path(growkit.__file__).parent.rglob("*.py")) + sorted(own):
        state.update(path.read_bytes())
    said = {name: str(value) for name, value in sorted(arguments.items()) if name not in CHOOSING}
    state.update(json.dumps(said).encode())
    return state.hexdigest()[:16]


def alone_and_quiet() -> None:
    """One thread, and no word of transformers."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
