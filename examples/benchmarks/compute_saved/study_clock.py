"""What the steps of a run took, and in which of them it had a teacher. Knows the lines a run writes; ignorant of the study."""

import json
import time
from pathlib import Path
from typing import Any


class Clock:
    """Seconds of training at each step, kept beside a run: of the processor where that is what computes, so that other
    programs on the machine do not count, else of the wall."""

    def __init__(self, file: Path, device: str):
        self._file, self._device = file, device
        self.seconds: dict[int, float] = {0: 0.0}
        for line in file.read_text().splitlines() if file.exists() else []:
            step, _, seconds = line.partition(" ")
            if seconds:
                self.seconds[int(step)] = float(seconds)
        self._last = self.now(device)

    @staticmethod
    def now(device: str) -> float:
        """Seconds since some moment."""
        return time.process_time() if device == "cpu" else time.monotonic()

    def __call__(self, line: dict[str, Any]) -> None:
        """Hear a line of metrics; the time before one that is no step is validation's, or a checkpoint's."""
        now, before = self.now(self._device), self._last
        if line["kind"] == "train":
            self.seconds[line["step"]] = self.seconds[line["step"] - 1] + now - before
            with self._file.open("a") as file:
                file.write(f"{line['step']} {self.seconds[line['step']]:.4f}\n")
        self._last = self.now(self._device)


def taught_steps(run: Path) -> set[int]:
    """The steps of a run in which its teacher had a weight."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {line["step"] for line in lines if line["kind"] == "train" and line["alpha"] > 0}
