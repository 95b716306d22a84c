"""What a report says: each run beside the baseline, as plain data, as tables and as a page. Knows figures; ignorant of
how they were found, and of torch.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from growkit.reports.by_domain import DomainChange, domain_table, told_table
from growkit.reports.runs import Cost, ExpertLoads, ToldDomains
from growkit.version import __version__

FORMAT = 1
Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]  # title, headings, rows


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One run beside the baseline. final_loss, flops, seconds: its last validation loss, and all it spent. added: the
    sources' cost. reached: what it had spent when its validation loss first came down to the baseline's final one, None
    where it never did. experts: how a mixture routed at the end. domains: what it gained or forgot of each.
    expert_domains: what a mixture's experts told of them. saved: the share of what the baseline spent to get there that
    the run did not need. with_sources: `added` on top.
    """

    name: str
    folder: str
    steps: int
    final_loss: float
    flops: float
    seconds: float
    added: Cost
    reached: Cost | None
    reached_with_sources: Cost | None
    saved: Cost | None
    saved_with_sources: Cost | None
    experts: ExpertLoads | None = None
    domains: tuple[DomainChange, ...] = ()
    expert_domains: tuple[ToldDomains, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Savings:
    """Runs compared. target: the baseline's final validation loss. sources: what each cost. picture: None where none
    was drawn."""

    baseline: str
    target: float
    runs: tuple[Compared, ...]
    sources: tuple[tuple[str, Cost], ...]
    notes: tuple[str, ...]
    folder: Path
    picture: Path | None

    def to_json(self) -> dict[str, Any]:
        """The report as plain data: what report.json holds."""
        runs = [
            {key: _plain(value) for key, value in asdict(run).items() if value or key != "expert_domains"}
            for run in self.runs
        ]
        return {
            "format": FORMAT,
            "growkit": __version__,
            "command": "report",
            "baseline": self.baseline,
            "target_loss": self.target,
            "runs": runs,
            "sources": [{"name": name, **cost._asdict()} for name, cost in self.sources],
            "notes": list(self.notes),
            "picture": self.picture.name if self.picture else None,
        }

    def tables(self) -> list[Table]:
        """The tables for people: what each run came to, and what it spent to reach the baseline's final loss."""
        ends = [
            (run.name, f"{run.steps:,}", f"{run.final_loss:.4f}", flops_text(run.flops), time_text(run.seconds))
            for run in self.runs
        ]
        with_sources = ("with source",) if self.sources else ()
        headings = ("run", "FLOPs", "saved", *with_sources, "time", "saved", *with_sources)
        rows = []
        for run in self.runs:
            row = [run.name]
            for axis, form in ((0, flops_text), (1, time_text)):
                row.append(form(run.reached[axis]) if run.reached else "not reached")
                row.append(_share(run.saved, axis))
                row += [_share(run.saved_with_sources, axis)] if self.sources else []
            rows.append(tuple(row))
        spent = [
            (f"source {name}", "", "", flops_text(cost.flops), time_text(cost.seconds)) for name, cost in self.sources
        ]
        title = f"Spent to reach a validation loss of {self.target:.4f}, the last of {self.baseline}"
        routed: list[tuple[str, ...]] = [
            (run.name, f"{e.most:.2f}", f"{e.least:.2f}", str(e.dead), f"{e.entropy:.0%}")
            for run in self.runs
            if (e := run.experts)
        ]
        experts: tuple[str, ...] = (
            "run",
            "most loaded",
            "least loaded",
            "dead",
            "router entropy, of an undecided one's",
        )
        tables: list[Table] = [
            ("At the end", ("run", "steps", "validation loss", "FLOPs", "time"), [*ends, *spent]),
            (title, headings, rows),
        ]
        if routed:
            tables.append(("Experts on the last validation text; a load of 1 is even", experts, routed))
        told = told_table([(run.name, run.expert_domains) for run in self.runs])
        return [*tables, *domain_table([(run.name, run.domains) for run in self.runs]), *told]

    def markdown(self) -> str:
        """What report.md holds."""
        return page("Training runs compared", self.tables(), self.notes, self.picture)


def page(title: str, tables: Sequence[Table], notes: Sequence[str], picture: Path | None = None) -> str:
    """A report as a page of Markdown."""
    parts = [f"# {title}\n"]
    for heading, headings, rows in tables:
        lines = [headings, ("---", *("---:" for _ in headings[1:])), *rows]
        cells = [[_cell(cell) for cell in line] for line in lines]
        parts.append(f"## {heading}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n")
    parts += ["\n".join(f"- {note}" for note in notes) + "\n"] if notes else []
    parts += [f"![loss against FLOPs and against time]({picture.name})\n"] if picture else []
    return "\n".join([*parts, f"Made by growkit {__version__}.\n"])


def _share(saved: Cost | None, axis: int) -> str:
    return f"{saved[axis]:.1%}" if saved else "-"


def flops_text(number: float) -> str:
    """Operations for people: 2.5e+15."""
    return f"{number:.3g}"


def time_text(seconds: float) -> str:
    """Seconds for people: 93.1 s, 12.3 min, 4.5 h."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _plain(value: Any) -> Any:
    if isinstance(value, Cost | ExpertLoads | DomainChange | ToldDomains):
        return value._asdict()
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
