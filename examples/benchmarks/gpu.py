"""growkit on one GPU: is it right, how fast is it, what do its stages cost, what does growing save there?

    python examples/benchmarks/compute_saved/study.py examples/benchmarks/compute_saved/grid/gpu-base.toml \\
        --books BOOKS --other TEXT --work DATA --minutes 0                # beforehand, anywhere: makes DATA's tokens
    python examples/benchmarks/gpu.py --data DATA --out OUT [--parts right,fast,stages,saves] [--minutes 20]
    python examples/benchmarks/gpu.py --small --out OUT                   # the same at sizes that a CPU can do

Needs no network and no installation where torch, transformers, accelerate, peft, einops, typer and rich are: the checkout
is on the path. Each part is a process with a time limit of its own, each result a line of OUT/results.jsonl at once, so
that what was cut short still counts; the table of all lines is printed at the end and lies in OUT/table.md, beside the
kernels of a model that trains slowly and the study's tables and pictures. Exit code 1: a check failed, or a part was cut
short. What is already in OUT stays: parts may come in several calls. --work: a folder for models and runs, some 30 GB;
default a temporary one.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LIMITS = {"right": 420, "fast": 520, "stages": 400, "saves": 520}  # seconds, by part
GRACE = 30  # seconds past its limit after which a part is stopped
RESULTS, TABLE = "results.jsonl", "table.md"


def carried_out(part: str, words: argparse.Namespace) -> None:
    """One part, in this process."""
    import torch
    import transformers
    from on_gpu.bed import Bed

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    on_gpu = torch.cuda.is_available()
    bed = Bed(
        part=part, work=words.work, data=data_of(words), lines=words.out / RESULTS, end=time.monotonic() + words.seconds,
        device="cuda" if on_gpu else "cpu", small=words.small,
    )  # fmt: skip
    name = torch.cuda.get_device_name() if on_gpu else "no GPU"
    bed.say("device", device=name, torch=torch.__version__, transformers=transformers.__version__)
    getattr(import_module(f"on_gpu.{part}"), part)(bed)


def data_of(words: argparse.Namespace) -> Path:
    """The dataset: the one that is given, or with --small the excerpt."""
    if words.data:
        return words.data / "data"
    import growkit

    folder: Path = words.work / "text"
    if not folder.exists():
        folder.mkdir()
        text = (ROOT / "examples" / "text" / "excerpt.txt").read_text("utf-8")
        cut = len(text) * 9 // 10
        train, val = folder / "train.txt", folder / "val.txt"
        train.write_text(text[:cut], "utf-8")
        val.write_text(text[cut:], "utf-8")
        growkit.tokenize([train], folder / "data", train_tokenizer=512, val=[val])
        growkit.tokenize([val], folder / "other", tokenizer=folder / "data")
    return folder / "data"


def in_turn(parts: list[str], words: argparse.Namespace) -> None:
    """Each part in a process of its own, stopped where it takes longer than it may."""
    end = time.monotonic() + 60 * words.minutes
    for part in parts:
        left = end - time.monotonic() - GRACE
        if left < 0:
            write(words.out, part, left_out="no time is left")
            continue
        seconds = min(LIMITS[part], left)
        options = ["--alone", part, "--out", words.out, "--work", words.work, "--seconds", f"{seconds:.0f}"]
        options += ["--small"] if words.small else ["--data", words.data]
        if error := alone([sys.executable, __file__, *map(str, options)], seconds + GRACE):
            write(words.out, part, ok=False, error=error)


def alone(command: list[str], seconds: float) -> str:
    """Run a command in at most so many seconds; returns what went wrong, or nothing. What it started ends with it."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, start_new_session=True)
    try:
        code = process.wait(seconds)
        return f"ended with {code}" if code else ""
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds:.0f} s"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def write(out: Path, part: str, **said: Any) -> None:
    """A line about a whole part."""
    with open(out / RESULTS, "a", encoding="utf-8") as file:
        file.write(json.dumps({"part": part, "check": "all of it", **said}) + "\n")


def has_gpu() -> bool:
    """Whether PyTorch finds one."""
    import torch

    return bool(torch.cuda.is_available())


def table(lines: list[dict[str, Any]]) -> str:
    """All results as Markdown."""
    rows = ["| part | check | | figures |", "|---|---|---|---|"]
    for line in lines:
        verdict = {True: "ok", False: "**failed**"}.get(line.get("ok"), "left out" if "left_out" in line else "")
        figures = {key: value for key, value in line.items() if key not in ("part", "check", "ok")}
        told = ", ".join(f"{key} {shown(value)}" for key, value in figures.items())
        rows.append(f"| {line['part']} | {line['check']} | {verdict} | {told.replace('|', '/')} |")
    return "\n".join(rows) + "\n"


def shown(value: Any) -> str:
    """A figure to four places."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with data/ and other/, as study.py --minutes 0 leaves it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--parts", default=",".join(LIMITS))
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--alone", choices=LIMITS, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    words = parser.parse_args(given)
    parts = words.parts.split(",")
    if strange := [part for part in parts if part not in LIMITS]:
        parser.error(f"--parts {strange[0]!r} is none of {', '.join(LIMITS)}")
    if not words.small and (not words.data or not (words.data / "data" / "meta.json").is_file()):
        parser.error(
            "--data should name a folder with data/ and other/, as study.py --minutes 0 leaves it; or say --small"
        )
    if not words.small and not has_gpu():
        parser.error("PyTorch finds no GPU here; --small runs the same at sizes that a CPU can do")
    words.out.mkdir(parents=True, exist_ok=True)
    if words.alone:
        carried_out(words.alone, words)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        words.work = words.work or Path(temporary)
        words.work.mkdir(parents=True, exist_ok=True)
        in_turn(parts, words)
    lines = [json.loads(line) for line in (words.out / RESULTS).read_text("utf-8").splitlines()]
    text = table(lines)
    (words.out / TABLE).write_text(text, "utf-8")
    print(f"\n{text}")
    return int(any(line.get("ok") is False for line in lines))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
