"""A family made: each size grown from the one before, taught by it and trained, and a report of what all of it cost.
Knows the order of things; every step is a public function.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growkit.chains.chain_plan import Doors, PlannedSize, growing, plan_family, training
from growkit.chains.sizes_file import CHAIN, REPORT, Generations
from growkit.checkpoint.record import record_of
from growkit.checkpoint.small_files import read_json
from growkit.checkpoint.source import PROVENANCE
from growkit.checkpoint.writer import write_json
from growkit.errors import RequestError
from growkit.growth.prepare import AUTO
from growkit.growth.sources import open_source
from growkit.reports.family import FamilyCosts, family_report
from growkit.training.machine import Machine, this_machine
from growkit.training.run_folder import FINAL
from growkit.version import __version__

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Chained:
    """What a chain left, or with `dry_run` what it will be. sizes: as they were planned. finals: the trained models, by
    name, as far as it came. stopped: of which run it was stopped in, at which step; None where it is whole."""

    folder: Path
    sizes: tuple[PlannedSize, ...]
    finals: Mapping[str, Path]
    report: FamilyCosts | None = None
    stopped: tuple[str, int] | None = None
    dry_run: bool = False

    def to_json(self) -> dict[str, Any]:
        """The chain as plain data."""
        return {
            "folder": str(self.folder),
            "sizes": [size.to_json() for size in self.sizes],
            "finals": {name: str(path) for name, path in self.finals.items()},
            "report": None if self.report is None else self.report.to_json(),
            "stopped": None if self.stopped is None else {"run": self.stopped[0], "step": self.stopped[1]},
        }


@dataclass(frozen=True, kw_only=True)
class Watching:
    """What a chain calls as it goes. doing: with what is done now. announce, watch: as of `growkit.pretrain`."""

    doing: Say
    announce: Callable[[Any], None]
    watch: Callable[[dict[str, Any]], None]


def chain(
    family: Generations,
    data: str | Path,
    out: str | Path,
    doors: Doors,
    watching: Watching,
    *,
    alone: bool = False,
    resume: bool = False,
    dry_run: bool = False,
) -> Chained:
    """Make a family, or plan it. All processes of a torchrun call it alike. Raises RequestError for what cannot be,
    before anything is made, and what its steps raise; what is done by then stays, and the same call with resume goes
    on."""
    folder = Path(out)
    sizes = plan_family(family, data, folder, doors, resume, alone)
    if dry_run:
        return Chained(folder=folder, sizes=sizes, finals={}, dry_run=True)
    first = sizes[0].size.training
    machine = this_machine(first.get("device", "auto"), first.get("precision", "auto"))
    machine.agreed(lambda: _begin(folder))
    making = _Making(data, doors, watching, machine)
    finals: dict[str, Path] = {}
    before = Path(family.origin)
    for number, one in enumerate(sizes):
        stopped = making.grown(one, before)
        if stopped is None and alone and (number or not family.drawn):
            stopped = making.alone(one)
        if stopped is not None:
            return Chained(folder=folder, sizes=sizes, finals=finals, stopped=stopped)
        finals[one.size.name] = before = one.place.final
    compared = [(one.size.name, one.ahead.parameters, one.place.run, _alone_run(one, number, family, alone))
                for number, one in enumerate(sizes)]  # fmt: skip
    notes = [] if family.drawn else [f"what {family.origin} had cost before is not in it"]
    report = machine.agreed(lambda: family_report(compared, folder / REPORT, notes))
    return Chained(folder=folder, sizes=sizes, finals=finals, report=report)


def _alone_run(one: PlannedSize, number: int, family: Generations, alone: bool) -> Path | None:
    """The run of a size by itself: the first one's own where it began with random weights."""
    if number == 0 and family.drawn:
        return one.place.run
    return one.place.alone if alone else None


def _begin(folder: Path) -> None:
    """Make the folder, and say in it whose it is. Raises RequestError where the disk fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / CHAIN).exists():
            partial = folder / f"{CHAIN}.partial"
            write_json(partial, {"format": 1, "growkit": __version__, "command": "chain"})
            os.replace(partial, folder / CHAIN)
    except OSError as error:
        raise RequestError(f"cannot write into {str(folder)!r}: {error.strerror or error}") from None


class _Making:
    """Sizes as they are made, one after another."""

    def __init__(self, data: str | Path, doors: Doors, watching: Watching, machine: Machine):
        self.data, self.doors, self.watching, self.machine = data, doors, watching, machine

    def grown(self, one: PlannedSize, before: Path) -> tuple[str, int] | None:
        """Make a size, grown from the model before, or of the family's config. Returns (run, step) where it was
        stopped."""
        size, place = one.size, one.place
        self.machine.agreed(lambda: self._start(one, before))
        teacher = {} if size.teacher == "none" else {"teacher": before}
        if size.teacher == "stored":
            self._doing(f"{size.name}: its teacher is written down")
            words = {key: size.training[key] for key in ("seq_len", "temperature", "device") if key in size.training}
            self.doors.teach(before, self.data, place.store, seed=size.training["seed"], resume="auto", **words)
            teacher = {"teacher": place.store}
        return self._train(one, place.start, place.run, **teacher)

    def alone(self, one: PlannedSize) -> tuple[str, int] | None:
        """The same size from random weights, trained as long and alike, without a teacher; as `grown`."""
        place, words = one.place, one.size.training

        def start() -> None:
            if not place.alone_start.exists():
                self.doors.init(place.start, place.alone_start, seed=words["seed"], dtype="float32")

        self.machine.agreed(start)
        return self._train(one, place.alone_start, place.alone)

    def _train(self, one: PlannedSize, start: Path, run: Path, **teacher: Path) -> tuple[str, int] | None:
        if self.machine.agreed((run / FINAL).exists):  # as it should be: its plan was asked
            return None
        self._doing(f"{run.name} is trained")
        told = {"announce": self.watching.announce, "watch": self.watching.watch}
        ended = self.doors.pretrain(start, self.data, run, **training(one.size, **teacher), **told, resume="auto")
        return (run.name, ended.step) if ended.folder is None else None

    def _start(self, one: PlannedSize, before: Path) -> None:
        """Make the model that a run begins with; one that is there must be what would be made."""
        size, start = one.size, one.place.start
        if start == before:
            return
        if start.exists():
            if not self._is_made(one, before):
                raise RequestError(
                    f"{str(start)!r} is there, and is not what {str(before)!r} grows to now; move it away and go on"
                    " with --resume auto"
                )
        elif one.grown is None:
            self._doing(f"{size.name}: random weights")
            self.doors.init(before, start, seed=size.training["seed"])
        else:
            self._doing(f"{size.name}: grown from {before.parent.name}")
            self.doors.grow(before, start, **growing(size), optimizer=AUTO)

    def _is_made(self, one: PlannedSize, before: Path) -> bool:
        """Whether a start is what its size asks for, made of the bytes before it."""
        said = read_json(one.place.start / PROVENANCE) if record_of(one.place.start) else {}
        if one.grown is None:
            return said.get("command") == "init" and said.get("request", {}).get("seed") == one.size.training["seed"]
        source = open_source(before)
        source.close()
        entries = said.get("sources") or [{}]
        return said.get("request") == one.grown.recipe.to_json() and entries[0].get("files") == source.hashes()

    def _doing(self, what: str) -> None:
        if self.machine.is_first:
            self.watching.doing(what)
