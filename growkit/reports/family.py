"""What a family of models cost: each size grown from the one before, beside the same sizes trained alone. Knows runs
and their costs; ignorant of how they were made, and of torch.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growkit.checkpoint.new_folder import new_folder
from growkit.reports.report import DATA, TEXT, replaceable
from growkit.reports.runs import Cost, Curve, check_comparable, read_run
from growkit.reports.savings import Table, flops_text, page, time_text
from growkit.version import __version__

FORMAT = 1
NOT_ALONE = "what the same sizes cost alone was not measured: add --alone"
COUNTED = (
    "a family's FLOPs to that loss are all that its smaller sizes spent, and the last one's until it was where it ends"
    " alone; operations of a step and of a teacher beside it are counted, validation and the writing down of a teacher"
    " are not"
)


@dataclass(frozen=True, kw_only=True)
class SizeCost:
    """One size of a family. loss, spent: its last validation loss, None where nothing was validated, and all its run
    spent. alone: the same of the size trained alone, None where it was not. reached: what the size had spent when it
    first came down to the loss that it ended with alone, None where it never did; needed: what alone had."""

    name: str
    parameters: int
    steps: int
    loss: float | None
    spent: Cost
    alone_loss: float | None = None
    alone: Cost | None = None
    reached: Cost | None = None
    needed: Cost | None = None


@dataclass(frozen=True, kw_only=True)
class FamilyCosts:
    """A family's sizes, and what all of them cost together. alone: what they cost alone, None where not all were
    measured. reached: what all sizes but the last spent, and the last until it came down to the loss that it ended with
    alone; None where that is not known."""

    sizes: tuple[SizeCost, ...]
    spent: Cost
    alone: Cost | None
    reached: Cost | None
    notes: tuple[str, ...]
    folder: Path

    def to_json(self) -> dict[str, Any]:
        """The report as plain data: what report.json holds."""
        sizes = [{key: _plain(value) for key, value in vars(size).items()} for size in self.sizes]
        return {
            "format": FORMAT,
            "growkit": __version__,
            "command": "chain",
            "sizes": sizes,
            "spent": self.spent._asdict(),
            "alone": _plain(self.alone),
            "reached": _plain(self.reached),
            "notes": list(self.notes),
        }

    def tables(self) -> list[Table]:
        """The tables for people."""
        measured = any(size.alone is not None for size in self.sizes)
        headings = ("size", "parameters", "steps", "validation loss", "FLOPs", "time")
        rows: list[tuple[str, ...]] = [
            (
                s.name,
                f"{s.parameters:,}",
                f"{s.steps:,}",
                _loss(s.loss),
                flops_text(s.spent.flops),
                time_text(s.spent.seconds),
            )
            for s in self.sizes
        ]
        rows.append(("the family", "", "", "", flops_text(self.spent.flops), time_text(self.spent.seconds)))
        tables: list[Table] = [("Grown one from another", headings, rows)]
        beside: list[tuple[str, ...]]
        if not measured:
            return tables
        beside = [
            (
                s.name,
                _loss(s.loss),
                _loss(s.alone_loss),
                _flops(s.alone),
                _flops(s.reached),
                _share(s.reached, s.needed),
            )
            for s in self.sizes
        ]
        beside.append(
            ("the family", "", "", _flops(self.alone), _flops(self.reached), _share(self.reached, self.alone))
        )
        title = "Beside the same sizes trained alone"
        columns = ("size", "loss", "alone", "FLOPs alone", "FLOPs to that loss", "saved")
        return [*tables, (title, columns, beside)]

    def markdown(self) -> str:
        """What report.md holds."""
        return page("A family of models", self.tables(), self.notes)


def family_report(
    runs: Sequence[tuple[str, int, Path, Path | None]], out: Path, notes: Sequence[str] = ()
) -> FamilyCosts:
    """Read a family's runs and write report.md and report.json into `out`.

    runs: of each size its name, parameters, run, and the run of the same size alone, which may be the same. Raises
    CheckpointError for what is no run, RequestError where losses cannot be compared.
    """
    replaces = replaceable(out, "chain")
    curves = [(name, parameters, read_run(run), alone) for name, parameters, run, alone in runs]
    beside = {path: read_run(path) for _, _, _, path in curves if path is not None}
    check_comparable([*(run for _, _, run, _ in curves), *beside.values()])
    sizes = tuple(_size(name, number, run, beside[path] if path else None) for name, number, run, path in curves)
    alone = None if any(size.alone is None for size in sizes) else _sum([size.alone for size in sizes])
    said = [*notes, NOT_ALONE if alone is None else COUNTED]
    last = sizes[-1].reached
    reached = None if last is None or alone is None else _sum([*(size.spent for size in sizes[:-1]), last])
    costs = FamilyCosts(
        sizes=sizes,
        spent=_sum([size.spent for size in sizes]),
        alone=alone,
        reached=reached,
        notes=tuple(said),
        folder=out,
    )
    with new_folder(out, replaces) as folder:
        (folder / TEXT).write_text(costs.markdown(), "utf-8")
        (folder / DATA).write_text(json.dumps(costs.to_json(), indent=2) + "\n", "utf-8")
    return costs


def _size(name: str, parameters: int, run: Curve, alone: Curve | None) -> SizeCost:
    """The figures of one size."""
    steps = max((point.step for point in (*run.train[-1:], *run.val[-1:])), default=0)
    loss = run.final.loss if run.val else None
    usual = SizeCost(name=name, parameters=parameters, steps=steps, loss=loss, spent=run.cost)
    if alone is None:
        return usual
    ends = alone.final.loss if alone.val else None
    measured = {"alone_loss": ends, "alone": alone.cost}
    if ends is not None:
        measured |= {"reached": run.reach(ends), "needed": alone.reach(ends)}
    return SizeCost(**{**vars(usual), **measured})


def _sum(costs: Sequence[Cost | None]) -> Cost:
    return Cost(*(sum(cost[axis] for cost in costs if cost is not None) for axis in (0, 1)))


def _loss(loss: float | None) -> str:
    return "-" if loss is None else f"{loss:.4f}"


def _flops(cost: Cost | None) -> str:
    return "-" if cost is None else flops_text(cost.flops)


def _share(spent: Cost | None, needed: Cost | None) -> str:
    return f"{1.0 - spent.flops / needed.flops:.1%}" if spent and needed and needed.flops else "-"


def _plain(value: Any) -> Any:
    return value._asdict() if isinstance(value, Cost) else value
