"""A grid of the study, read from TOML and made whole: which cells there are, in which order. Knows what may be said;
ignorant of how a cell is measured.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from study_arms import ARMS, NARROW, SHALLOW, SMALL, Arm

import growkit
from growkit.checkpoint.fields import Fields, ListOf, MapOf, Number, OneOf, Text, Whole, checked
from growkit.checkpoint.toml_text import read_toml
from growkit.errors import CheckpointError

FORMAT = 1  # of a result; another one is another study's
SHARE = Number(1e-4, 1e5)  # tokens per parameter of the target
RATE = Number(1e-7, 10.0)
SIZE = {"shape": Fields({}), "target": Fields({}), "sources": MapOf(Fields({}), OneOf((NARROW, SHALLOW, SMALL)))}
TRAIN = {
    "seq_len": Whole(1, 1 << 20),
    "batch_size": Whole(1, 1 << 20),
    "evaluations": Whole(1, 1000),
    "eval_tokens": Whole(1, 1 << 40),
    "save_every": Whole(1, 1 << 40),
    "precision": Text(),
    "device": Text(),
    "weight_decay": Number(0.0, 10.0),
}
RATES = {"tried": ListOf(RATE, 1, 20), "pilot": SHARE, "source": RATE}
CELLS = {
    "arms": ListOf(OneOf(("*", *ARMS)), 1),
    "budgets": ListOf(SHARE, 1),
    "seeds": ListOf(Whole(0, 1 << 31), 1),
    "bases": ListOf(SHARE, 1),
    "sizes": ListOf(Text(), 1),
}
GRID = {
    "vocabulary": Whole(16, 1 << 20),
    "base": SHARE,
    "train": Fields(TRAIN, needed=("seq_len", "batch_size", "evaluations", "eval_tokens")),
    "rates": Fields(RATES, needed=tuple(RATES)),
    "sizes": MapOf(Fields(SIZE, needed=tuple(SIZE)), Text(r"[a-z0-9-]{1,40}", "a name of small letters and digits")),
    "pilots_to": SHARE,  # up to which budget a forecast sees cells
    "pilot_share": Number(1e-3, 1.0),  # of a cell's budget, that pilots of its rate have; without: whole runs choose it
    "whole_runs_of": ListOf(OneOf(tuple(ARMS)), 1),  # the arms whose rate whole runs choose all the same
    "cells": ListOf(Fields(CELLS, needed=("arms", "budgets", "seeds")), 1),
}
MAY = ("pilots_to", "pilot_share", "whole_runs_of")  # be left out
CURE = "mend the grid"


@dataclass(frozen=True)
class Cell:
    """One arm at one size, budget (tokens per parameter of the target), source's budget in the same unit, and seed."""

    arm: str
    size: str
    budget: float
    base: float
    seed: int

    @property
    def name(self) -> str:
        """What its files are called."""
        words = "".join(letter if letter.isalnum() else "-" for letter in self.arm.lower())
        arm = "-".join(filter(None, words.split("-")))
        return f"{self.size}.{arm}.budget-{self.budget:g}.base-{self.base:g}.seed-{self.seed}"


@dataclass(frozen=True)
class Grid:
    """A grid, checked. said: all of the file."""

    name: str
    said: dict[str, Any]

    def cells(self, only: list[str] | None = None) -> list[Cell]:
        """All cells, the most informative first, as the file has them; only: of these arms."""
        found = (cell for block in self.said["cells"] for cell in self._block(block))
        return [cell for cell in dict.fromkeys(found) if not only or cell.arm in only]

    def _block(self, block: dict[str, Any]) -> Iterator[Cell]:
        arms = [name for asked in block["arms"] for name in (ARMS if asked == "*" else (asked,))]
        sizes, bases = block.get("sizes", list(self.said["sizes"])), block.get("bases", [self.said["base"]])
        for seed, budget, size, base, arm in product(block["seeds"], block["budgets"], sizes, bases, arms):
            # a model from scratch has no base
            yield Cell(arm, size, float(budget), float(base if ARMS[arm].source else self.said["base"]), seed)

    def config(self, size: str, model: str, **more: Any) -> dict[str, Any]:
        """The config.json of a size's target, or of one of its sources."""
        of = self.said["sizes"][size]
        own = of["target"] if model == "target" else of["sources"][model]
        return {**of["shape"], "vocab_size": self.said["vocabulary"], **own, **more}

    def pilot_of(self, cell: Cell) -> Cell | None:
        """The short cell that chooses a cell's rate, from the same base: of the share of its budget that the grid says, and
        of no less than its `pilot`. None where whole runs choose."""
        if "pilot_share" not in self.said or cell.arm in self.said.get("whole_runs_of", ()):
            return None
        name = ARMS[cell.arm].rates_of
        base = cell.base if ARMS[name].source else float(self.said["base"])
        budget = max(float(self.said["rates"]["pilot"]), float(cell.budget * self.said["pilot_share"]))
        return Cell(name, cell.size, budget, base, 0)

    def made_by(self, cell: Cell, data: str) -> str:
        """A hash of all that a cell's result follows from. data: the datasets' hash."""
        arm, pilot = ARMS[cell.arm], self.pilot_of(cell)
        of = {
            "format": FORMAT,
            "growkit": growkit.__version__,
            "data": data,
            "cell": asdict(cell),
            "arm": _stated(arm),
            "pilot": [_stated(ARMS[arm.rates_of]), asdict(pilot)] if pilot else None,
            "target": self.config(cell.size, "target"),
            "source": self.config(cell.size, arm.source) if arm.source else None,
            **{key: self.said[key] for key in ("base", "train", "rates")},
        }
        return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:16]


def read_grid(path: Path) -> Grid:
    """A grid from its file. Raises CheckpointError for one that cannot be read, or says what nobody knows."""
    needed = tuple(key for key in GRID if key not in MAY)
    said = checked(read_toml(path, "a grid"), Fields(GRID, needed=needed), path, CURE)
    where = f"{str(path)!r}"
    _known(said, GRID, where)
    for table, known in (("train", TRAIN), ("rates", RATES)):
        _known(said[table], known, f"{where}, [{table}]")
    for name, of in said["sizes"].items():
        _known(of, SIZE, f"{where}, [sizes.{name}]")
        if len(of["sources"]) != len(SIZE["sources"].keys.values):
            raise CheckpointError(f"{where}, size {name!r} should have the sources {NARROW}, {SHALLOW} and {SMALL}")
    for number, block in enumerate(said["cells"], start=1):
        _known(block, CELLS, f"{where}, cells {number}")
        strange = [size for size in block.get("sizes", ()) if size not in said["sizes"]]
        if strange:
            raise CheckpointError(f"{where}, cells {number}: {strange[0]!r} is none of {', '.join(said['sizes'])}")
    return Grid(path.stem, said)


def arm_of(name: str) -> Arm:
    """An arm by its name. Raises CheckpointError for one that is not in the table."""
    if name not in ARMS:
        raise CheckpointError(f"{name!r} is no arm of the study; the arms are {', '.join(ARMS)}")
    return ARMS[name]


def _stated(arm: Arm) -> dict[str, Any]:
    """What an arm says, without what it leaves open, so that what a new one may say is nothing to the others."""
    return {key: value for key, value in asdict(arm).items() if value is not None}


def _known(said: dict[str, Any], known: dict[str, Any], where: str) -> None:
    """Refuse a key that nobody reads, such as an axis that is misspelt."""
    strange = [key for key in said if key not in known]
    if strange:
        raise CheckpointError(f"{where}: {strange[0]!r} is none of {', '.join(known)}")
