"""Rows of a benchmark that goes on where it was stopped, for the benchmarks beside this file."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers


class KeptRows:
    """The rows of a benchmark that are measured, in WORK/rows.jsonl. work: its folder, made where it is not there."""

    def __init__(self, work: Path):
        work.mkdir(parents=True, exist_ok=True)
        self._file = work / "rows.jsonl"
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def has(self, **key: Any) -> bool:
        """Whether there is a row that says this."""
        return any(all(row[name] == value for name, value in key.items()) for row in self.rows)

    def keep(self, row: dict[str, Any]) -> dict[str, Any]:
        """Keep a row; returns it as it will be read again."""
        line = json.dumps(row)
        with self._file.open("a") as file:
            file.write(line + "\n")
        self.rows.append(json.loads(line))
        return self.rows[-1]


def alone_and_quiet() -> None:
    """One thread, and no word of transformers."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
