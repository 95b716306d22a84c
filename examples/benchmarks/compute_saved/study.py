"""What growing saves: every start, schedule and handling of the optimizer that growkit has, on one grid.

    python examples/benchmarks/compute_saved/study.py GRID.toml --books DIR --other TEXT --work DIR [--minutes M]
    python examples/benchmarks/compute_saved/study.py GRID.toml --books DIR --other TEXT --work DIR --tables OUT

GRID: a file of grid/. BOOKS: a folder with train/ and val/ of .txt files; OTHER: text of another kind, for the losses out
of domain. A cell that is measured has its JSON in WORK/results; stopped or killed anywhere, the same command goes on, and
--minutes stops it by itself, 0 as soon as the datasets are there. --only ARM, several times, measures those arms. --tables
writes tables, pictures and one JSON of what is there, and says what is missing.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
import transformers
from study_cell import Bench, Stopped
from study_grid import Grid, arm_of, read_grid
from study_tables import write_tables

from growkit.errors import GrowkitError


def run(grid: Grid, bench: Bench, only: list[str] | None) -> int:
    """Measure the cells that are not measured yet, in order; the number of them."""
    cells, measured = grid.cells(only), 0
    for number, cell in enumerate(cells, start=1):
        if bench.result(cell) is None:
            bench.due()
            began = time.monotonic()
            loss = bench.measure(cell)["loss"]
            took = time.monotonic() - began
            print(f"{number}/{len(cells)} {cell.name}: {loss:.4f}, {took:.0f} s", flush=True)
            measured += 1
    return measured


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path)
    parser.add_argument("--books", type=Path, required=True)
    parser.add_argument("--other", type=Path, nargs="+", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--only", nargs="+", metavar="ARM")
    parser.add_argument("--tables", type=Path, metavar="OUT")
    asked = parser.parse_args(words)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    end = time.monotonic() + 60 * asked.minutes if asked.minutes is not None else float("inf")

    def due() -> None:
        if time.monotonic() > end:
            raise Stopped

    try:
        for name in asked.only or ():
            arm_of(name)
        grid = read_grid(asked.grid)
        bench = Bench(grid, asked.work, asked.books, asked.other, due)
        if asked.tables:
            write_tables(grid, bench, asked.tables)
        else:
            run(grid, bench, asked.only)
    except Stopped:
        print("stopped; the same command goes on", flush=True)
    except GrowkitError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
