"""What growing saved: runs side by side, and what each spent to reach the loss a baseline ended with. Knows how runs
are compared and what is written about it; ignorant of how they were trained, and of torch.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from growkit.checkpoint.new_folder import NOTHING, Contents, contents, new_folder
from growkit.checkpoint.small_files import read_json, real_path
from growkit.errors import CheckpointError, RequestError
from growkit.reports.by_domain import changes
from growkit.reports.runs import Cost, Curve, check_comparable, read_run
from growkit.reports.savings import Compared, Savings, flops_text, time_text

TEXT, DATA, PICTURE = "report.md", "report.json", "report.png"
NO_PICTURE = "no picture without matplotlib: pip install matplotlib, or growkit with its extra: growkit[plot]"


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
    replaces = replaceable(folder)
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
                domains=changes(curve),
                expert_domains=curve.told,
            )
        )
        planned = curve.settings.get("steps")
        if isinstance(planned, int) and planned > curve.final.step:
            notes.append(f"{curve.name} was last validated at step {curve.final.step:,} of {planned:,}")
        if curve.final.domains and curve.val[0].step:
            notes.append(f"{curve.name} was first validated at step {curve.val[0].step:,}, which counts as its entry")
        if curve.val[0].loss <= target and curve is not base:
            notes.append(f"{curve.name} was there at its first validation: it may have spent less, and saved more")
    best = min(base.val, key=lambda point: point.loss)
    if best.loss < target:
        notes.append(
            f"{base.name} was at {best.loss:.4f} after step {best.step:,} and ended at {target:.4f}: what it needed is counted"
            f" until it first came down to that loss, {flops_text(needed.flops)} FLOPs and {time_text(needed.seconds)}"
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


def replaceable(folder: Path, command: str = "report") -> Contents:
    """What may give way to a report of a command's. Refuses to write into what is there and is none. Raises
    RequestError."""
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"output {str(folder)!r} exists and is no folder; choose another --out")
    replaces = contents(folder) if (folder / DATA).is_file() else NOTHING
    if folder.is_dir() and any(folder.iterdir()) and not _is_report(folder, command):
        raise RequestError(f"output {str(folder)!r} exists and is no report of growkit's; choose another --out")
    return replaces


def _is_report(folder: Path, command: str) -> bool:
    """Whether a folder is a report and holds nothing else, so that a new one may take its place."""
    if not (folder / DATA).is_file():
        return False
    own = {DATA, TEXT, PICTURE}
    return read_json(folder / DATA).get("command") == command and {path.name for path in folder.iterdir()} <= own


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
