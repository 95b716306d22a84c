"""The study of what growing saves, at the papers' sizes: as many cells of its grid as the time holds."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from on_gpu.bed import Bed

FOLDER = Path(__file__).parents[1] / "compute_saved"
TABLES = 40  # seconds that tables and pictures take at most


def saves(bed: Bed) -> None:
    """Go on with the grid, then make its tables of what is there."""
    bed.check("the study's grid", 200, lambda: studied(bed))


def studied(bed: Bed) -> dict[str, Any]:
    """How many cells were measured in the time that is left; tables and pictures lie beside the results."""
    grid, work = FOLDER / "grid" / ("tiny.toml" if bed.small else "gpu-base.toml"), bed.work / "study"
    work.mkdir(exist_ok=True)
    for name in ("data", "other"):
        if not (work / name).exists():
            (work / name).symlink_to((bed.data.parent / name).resolve())
    command = [sys.executable, FOLDER / "study.py", grid, "--books", work, "--other", work, "--work", work]
    minutes = max(0.0, bed.left - TABLES - 60) / 60  # a run that has begun goes to its end: about a minute
    ran = [
        subprocess.run([*map(str, command), *more], capture_output=True, text=True, check=False)
        for more in (["--minutes", f"{minutes:.2f}"], ["--tables", str(bed.lines.parent)])
    ]
    said = [one.stdout.strip().splitlines() for one in ran]
    if any(one.returncode for one in ran):
        raise RuntimeError("; ".join(one.stderr.strip().splitlines()[-1] for one in ran if one.returncode))
    cells = len(list((work / "results").glob("*.json")))
    return {"ok": cells > 0, "cells": cells, "tables": said[1][-1]}
