"""What growing saved: runs side by side, and what each spent to reach the loss a baseline ended with. Knows how runs
are compared and what is written about it; ignorant of how they were trained, and of torch.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from growkit.checkpoint.new_folder import NOTHING, Contents, contents, new_folder
from growkit.checkpoint.small_files import read_json, real_path
from growkit.errors import CheckpointError, RequestError
from growkit.reports.runs import Cost, Curve, ExpertLoads, check_comparable, read_run
from growkit.version import __version__

TEXT, DATA, PICTURE = "report.md", "report.json", "report.png"
FORMAT = 1
NO_PICTURE = "no picture without matplotlib: pip install matplotlib, or growkit with its extra: growkit[plot]"
Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]  # title, headings, rows


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One run beside the baseline. final_loss, flops, seconds: its last validation loss, and all it spent. added: the
    sources' cost. reached: what it had spent when its validation loss first came down to the baseline's final one, None
    where it never did. experts: how a mixture routed at the end. saved: the share of what the baseline spent to get
    there that the run did not need. with_sources: `added` on top.
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
            {k: v._asdict() if isinstance(v, Cost | ExpertLoads) else v for k, v in asdict(run).items()}
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
            (run.name, f"{run.steps:,}", f"{run.final_loss:.4f}", _flops(run.flops), _time(run.seconds))
            for run in self.runs
        ]
        with_sources = ("with source",) if self.sources else ()
        headings = ("run", "FLOPs", "saved", *with_sources, "time", "saved", *with_sources)
        rows = []
        for run in self.runs:
            row = [run.name]
            for axis, form in ((0, _flops), (1, _time)):
                row.append(form(run.reached[axis]) if run.reached else "not reached")
                row.append(_share(run.saved, axis))
                row += [_share(run.saved_with_sources, axis)] if self.sources else []
            rows.append(tuple(row))
        spent = [(f"source {name}", "", "", _flops(cost.flops), _time(cost.seconds)) for name, cost in self.sources]
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
        return tables

    def markdown(self) -> str:
        """What report.md holds."""
        parts = ["# Training runs compared\n"]
        for title, headings, rows in self.tables():
            lines = [headings, ("---", *("---:" for _ in headings[1:])), *rows]
            cells = [[_cell(cell) for cell in line] for line in lines]
            parts.append(f"## {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n")
        parts += ["\n".join(f"- {note}" for note in self.notes) + "\n"] if self.notes else []
        parts += [f"![loss against FLOPs and against time]({self.picture.name})\n"] if self.picture else []
        return "\n".join([*parts, f"Made by growkit {__version__}.\n"])


def report(
    runs: str | Path | Sequence[str | Path],
    out: str | Path,
    baseline: str | Path | None = None,
    sources: Sequence[str | Path] = (),
) -> Savings:
    """Compare runs of `growkit pretrain` and write report.md, report.json and report.png into `out`.

    baseline: the run to measure against, default the first. sources: runs whose cost comes on top of every run's but
    the baseline's, such as the one that trained the small model. Raises RequestError for what cannot be compared,
    CheckpointError for what cannot be read.
    """
    named = [runs] if isinstance(runs, (str, Path)) else list(runs)
    named = [baseline, *named] if baseline is not None and not _is_among(baseline, named) else named
    if not named:
        raise RequestError("no run to report on; name the --out folders of growkit pretrain")
    folder = Path(out)
    replaces = _check_out(folder)
    curves = [read_run(run) for run in named]
    _check_names(curves)
    for curve in curves:
        if not curve.val:
            raise CheckpointError(
                f"{str(curve.path)!r} has no validation losses; tokenize with --val-fraction and train with --eval-every"
            )
    check_comparable(curves)
    spent = [read_run(source) for source in sources]
    _check_names(spent)
    for source in spent:
        if not source.cost.flops:
            raise CheckpointError(f"{str(source.path)!r} has no training in it, so it cannot be counted as a source")
    base = next(curve for curve in curves if baseline is None or _is_among(baseline, [curve.path]))
    savings = _compare(curves, base, spent, folder)
    return _write(savings, curves, replaces)


def _compare(curves: list[Curve], base: Curve, spent: list[Curve], folder: Path) -> Savings:
    """The figures, before a picture is drawn."""
    target = base.final.loss
    needed = base.reach(target)
    assert needed is not None, "a run reaches its own last loss"
    if not min(needed):
        raise RequestError(
            f"baseline {base.name!r} had its final loss of {target:.4f} before it trained; choose another with --baseline"
        )
    added = Cost(*(sum(curve.cost[axis] for curve in spent) for axis in (0, 1)))
    compared, notes = [], []
    for curve in curves:
        reached = curve.reach(target)
        is_bare = curve is base or _is_among(curve.path, [source.path for source in spent])
        extra = Cost(0.0, 0.0) if is_bare else added
        whole = Cost(reached.flops + extra.flops, reached.seconds + extra.seconds) if reached else None
        compared.append(
            Compared(
                name=curve.name,
                folder=str(curve.path),
                steps=curve.final.step,
                final_loss=curve.final.loss,
                flops=curve.cost.flops,
                seconds=curve.cost.seconds,
                added=extra,
                reached=reached,
                reached_with_sources=whole,
                saved=_saved(reached, needed),
                saved_with_sources=_saved(whole, needed),
                experts=curve.experts,
            )
        )
        planned = curve.settings.get("steps")
        if isinstance(planned, int) and planned > curve.final.step:
            notes.append(f"{curve.name} was last validated at step {curve.final.step:,} of {planned:,}")
        if curve.val[0].loss <= target and curve is not base:
            notes.append(f"{curve.name} was there at its first validation: it may have spent less, and saved more")
    best = min(base.val, key=lambda point: point.loss)
    if best.loss < target:
        notes.append(
            f"{base.name} was at {best.loss:.4f} after step {best.step:,} and ended at {target:.4f}: what it needed is counted"
            f" until it first came down to that loss, {_flops(needed.flops)} FLOPs and {_time(needed.seconds)}"
        )
    sources = tuple((curve.name, curve.cost) for curve in spent)
    return Savings(
        baseline=base.name,
        target=target,
        runs=tuple(compared),
        sources=sources,
        notes=tuple(notes),
        folder=folder,
        picture=None,
    )


def _write(savings: Savings, curves: list[Curve], replaces: Contents) -> Savings:
    """Draw and write, whole or not at all."""
    with new_folder(savings.folder, replaces) as folder:
        try:
            from growkit.reports.picture import draw
        except ImportError:
            savings = replace(savings, notes=(*savings.notes, NO_PICTURE))
        else:
            draw(curves, savings.baseline, savings.target, [run.added for run in savings.runs], folder / PICTURE)
            savings = replace(savings, picture=savings.folder / PICTURE)
        (folder / TEXT).write_text(savings.markdown(), "utf-8")
        (folder / DATA).write_text(_json(savings), "utf-8")
    return savings


def _json(savings: Savings) -> str:
    return json.dumps(savings.to_json(), indent=2) + "\n"


def _check_out(folder: Path) -> Contents:
    """What may give way to a report. Refuses to write into what is there and is no report. Raises RequestError."""
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"output {str(folder)!r} exists and is no folder; choose another --out")
    replaces = contents(folder) if (folder / DATA).is_file() else NOTHING
    if folder.is_dir() and any(folder.iterdir()) and not _is_report(folder):
        raise RequestError(f"output {str(folder)!r} exists and is no report of growkit's; choose another --out")
    return replaces


def _is_report(folder: Path) -> bool:
    """Whether a folder is a report and holds nothing else, so that a new one may take its place."""
    if not (folder / DATA).is_file():
        return False
    own = {DATA, TEXT, PICTURE}
    return read_json(folder / DATA).get("command") == "report" and {path.name for path in folder.iterdir()} <= own


def _check_names(curves: list[Curve]) -> None:
    """Refuse two runs that a table could not tell apart. Raises RequestError."""
    seen: dict[str, Curve] = {}
    for curve in curves:
        if curve.name in seen:
            both = f"{str(seen[curve.name].path)!r} and {str(curve.path)!r}"
            raise RequestError(f"two runs are called {curve.name!r}, {both}; name each once, or rename a folder")
        seen[curve.name] = curve


def _is_among(path: str | Path, others: Sequence[str | Path]) -> bool:
    return real_path(Path(path)) in [real_path(Path(other)) for other in others]


def _saved(spent: Cost | None, needed: Cost) -> Cost | None:
    return Cost(*(1.0 - a / b for a, b in zip(spent, needed))) if spent else None


def _share(saved: Cost | None, axis: int) -> str:
    return f"{saved[axis]:.1%}" if saved else "-"


def _flops(number: float) -> str:
    return f"{number:.3g}"


def _time(seconds: float) -> str:
    """Seconds for people: 93.1 s, 12.3 min, 4.5 h."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
