"""What all parts of the GPU's benchmark stand on: where they work, what time is left, the lines they leave. Knows runs and
clocks; ignorant of what is measured.
"""

import gc
import json
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

import growkit

NEVER = 10**9  # as a number of steps


@dataclass(frozen=True, kw_only=True)
class Bed:
    """Where one part is measured. work: its folder; data: a dataset of growkit tokenize; lines: the file of results; end:
    when it has to be done, on the monotonic clock; small: sizes that a CPU can do."""

    part: str
    work: Path
    data: Path
    lines: Path
    end: float
    device: str
    small: bool

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def check(self, name: str, seconds: float, work: Callable[[], dict[str, Any]]) -> None:
        """Carry one out and write down what it came to: figures, and `ok` where it can fail. One that does not fit into
        the time that is left, by the seconds it takes on the card, is left out and says so; one that raises has failed."""
        if self.left < (0 if self.small else seconds):
            self.say(name, left_out=f"needs {seconds:.0f} s, {self.left:.0f} are left")
            return
        began = time.monotonic()
        try:
            figures = work()
        except Exception as error:
            traceback.print_exc()
            figures = {"ok": False, "error": f"{type(error).__name__}: {error}"[:500]}
        free()
        self.say(name, **figures, seconds=round(time.monotonic() - began, 1))

    def say(self, name: str, **figures: Any) -> None:
        """Write a line of results."""
        line = json.dumps({"part": self.part, "check": name, **figures})
        with open(self.lines, "a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def model(self, name: str, config: dict[str, Any], seed: int = 0) -> Path:
        """A checkpoint of random weights with the data's tokenizer, made where it is not there."""
        folder, said = self.work / name, self.work / f"{name}.config"
        if not folder.exists():
            shutil.copytree(self.data / "tokenizer", said, dirs_exist_ok=True)
            (said / "config.json").write_text(json.dumps(config))
            growkit.init(said, folder, seed=seed)
        return folder


class _Enough(Exception):
    """All steps that were wanted are done; what a run would keep is not."""


def steps_of(
    bed: Bed, checkpoint: Path, steps: int, each: Callable[[], object] = lambda: None, **options: Any
) -> list[dict[str, Any]]:
    """Lines of a run's steps; its folder is gone again, and nothing was saved in it. each: called after every step.
    options: of growkit.pretrain, or with `train` of growkit.tune."""
    lines: list[dict[str, Any]] = []

    def watch(line: dict[str, Any]) -> None:
        if line["kind"] == "train":
            lines.append(line)
            each()
            if len(lines) == steps:
                raise _Enough

    folder = bed.work / "run"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        (growkit.tune if "train" in options else growkit.pretrain)(
            checkpoint, options.pop("data", bed.data), folder, steps=steps + 1, device=bed.device, watch=watch,
            save_every=NEVER, eval_every=NEVER, eval_tokens=1, **options,
        )  # fmt: skip
    except _Enough:
        shutil.rmtree(folder)
    return lines


def speed(bed: Bed, checkpoint: Path, steps: int, skipped: int, **options: Any) -> dict[str, Any]:
    """What steps take, the first ones left out, which compile and warm up.

    step: mean seconds from the end of one to the end of the next, all that lies between them counted; tokens a second and,
    where the device's peak is known, MFU (executed operations, PaLM arXiv 2204.02311 appendix B) are by it. median: of
    steps alone, which one that compiles once more does not change. memory: peak, in GB.
    """
    free()
    ends: list[float] = []
    lines = steps_of(bed, checkpoint, steps, each=lambda: ends.append(time.monotonic()), **options)
    timed, took = lines[skipped:], (ends[-1] - ends[skipped - 1]) / (steps - skipped)
    said = {
        "step": took,
        "median": median(line["seconds"] for line in timed),
        "tokens_per_second": (lines[1]["tokens"] - lines[0]["tokens"]) / took,
        "flops": (timed[-1]["flops"] - lines[skipped - 1]["flops"]) / len(timed),
        "first": lines[0]["loss"],
        "last": lines[-1]["loss"],
    }
    if timed[0]["alpha"]:
        said["taught"] = timed[-1]["kd_loss"]
    if timed[0].get("mfu"):
        said["mfu"] = sum(line["mfu"] * line["seconds"] for line in timed) / (len(timed) * took)
    return said | memory(bed.device)


def memory(device: str) -> dict[str, float]:
    """The most that was allocated on a GPU since all was given back, in GB; nothing on a CPU."""
    return {"memory": torch.cuda.max_memory_allocated() / 1e9} if device == "cuda" else {}


def free() -> None:
    """Give back what the last run held, and count memory anew; a compiled layer would be found again."""
    gc.collect()
    if "torch._dynamo" in sys.modules:  # seconds to load where nothing was compiled
        torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
