"""Runs read as pilots of a forecast: which tokens they and their base saw, and how they were grown. Knows run folders
and the growkit.json of their final models; ignorant of laws, and of torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from growkit.checkpoint.fields import Fields, ListOf, Null, Text, Whole, checked
from growkit.checkpoint.small_files import read_json
from growkit.checkpoint.source import CONFIG, PROVENANCE
from growkit.errors import CheckpointError, RequestError
from growkit.limits import STEPS, TOKENS
from growkit.reports.growth_law import Pilot
from growkit.reports.runs import Curve, check_comparable, read_run

FINAL = "final"
TRAINING = ("pretrain", "tune")
# of a run's settings, those that a law takes as the same in all
ALIKE = ("lr", "decay", "batch_size", "seq_len", "weight_decay", "optimizer", "multipliers", "warmup")
STEPPING = {"steps": Whole(0, STEPS), "seq_len": Whole(1, TOKENS), "batch_size": Whole(1, TOKENS)}
RECORD = Fields(
    {
        "command": Null(Text()),
        "request": Null(Fields({})),
        "sources": Null(ListOf(Fields({"name": Text(), "record": Null(Fields({}))}))),
    }
)
TRAINED = Fields({"request": Fields(STEPPING, tuple(STEPPING))}, ("request",))
WRITTEN_BY = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")


class Lineage(NamedTuple):
    """What lies before a model. tokens: that its small ancestors learned, None where nobody wrote it down. growths: of
    each the command and what was asked, the last first."""

    tokens: float | None
    growths: tuple[tuple[str, dict[str, Any]], ...]


@dataclass(frozen=True, kw_only=True)
class PilotRun:
    """A run that a law is fitted to. base: tokens of its base, as Pilot's. pilots: its losses. flops: of a token.
    growths: as Lineage's. config: of its model, without what depends on who wrote it."""

    curve: Curve
    base: float | None
    pilots: tuple[Pilot, ...]
    flops: float
    growths: tuple[tuple[str, dict[str, Any]], ...]
    config: dict[str, Any]


def read_pilots(paths: Sequence[str | Path]) -> list[PilotRun]:
    """Runs of one large model, from scratch and grown by one recipe.

    Under a constant rate each validation behind the warm-up is a pilot, for a run may end anywhere; under any other
    only the last is. Raises CheckpointError for what is no finished run, RequestError for runs of several models,
    for several ways to grow, and for runs that went on from a trained model.
    """
    runs = [_pilot(path) for path in paths]
    check_comparable([run.curve for run in runs])
    for run in runs:
        key = differing(runs[0].config, run.config)
        if key is not None:
            raise RequestError(
                f"{runs[0].curve.name!r} and {run.curve.name!r} trained models of other sizes: {key}"
                f" {runs[0].config.get(key)!r} and {run.config.get(key)!r}; a forecast is of one, and its --source of another"
            )
    grown = [run for run in runs if run.base is not None]
    for run in grown:
        if run.growths != grown[0].growths:
            raise RequestError(
                f"{grown[0].curve.name!r} and {run.curve.name!r} were grown in other ways:"
                f" {_difference(grown[0].growths, run.growths)}; forecast one at a time"
            )
    if len({run.base for run in grown}) > 1 and any(run.base == 0 for run in grown):
        raise RequestError(
            "some runs were grown from a base of which nobody knows how long it was trained; leave them out"
        )
    return runs


def flops_of_token(curve: Curve) -> float:
    """Operations that a run spent on each token. Raises CheckpointError for a run without training."""
    steps = max((point.step for point in (*curve.train[-1:], *curve.val[-1:])), default=0)
    if not steps or not curve.cost.flops:
        raise CheckpointError(f"{str(curve.path)!r} has no training in it, so it says nothing of what a token costs")
    first, last = (curve.train or curve.val)[0], (curve.train or curve.val)[-1]
    if first.step < last.step:  # without what a growth whose maps learned took before the first step
        return (last.cost.flops - first.cost.flops) / ((last.step - first.step) * _tokens_of_step(curve))
    return curve.cost.flops / (steps * _tokens_of_step(curve))


def unlike(runs: Sequence[PilotRun]) -> list[str]:
    """Notes on settings in which runs differ."""
    notes = []
    for key in ALIKE:
        values = {str(run.curve.settings.get(key)) for run in runs}
        if len(values) > 1:
            notes.append(f"the pilots differ in {key} ({', '.join(sorted(values))}), and are taken as alike")
    return notes


def lineage(record: dict[str, Any], where: Path) -> Lineage:
    """What lies before a model that a growkit.json, or a record in one, tells of.

    Raises CheckpointError for what growkit never says.
    """
    said = checked(record, RECORD, where)
    tokens: float | None = 0.0
    growths: list[tuple[str, dict[str, Any]]] = []
    for source in said.get("sources") or []:
        inner = source.get("record")
        if inner is None:
            tokens = None
            continue
        command, request = inner.get("command"), inner.get("request") or {}
        before = lineage(inner, where)
        own = 0.0
        if command in TRAINING:
            stated = checked(inner, TRAINED, where)["request"]
            own = float(stated["steps"] * stated["seq_len"] * stated["batch_size"])
        elif command != "init":
            growths.append((str(command), request))
        tokens = None if tokens is None or before.tokens is None else tokens + before.tokens + own
        growths += before.growths
    return Lineage(tokens, tuple(growths))


def model_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what depends on who wrote it."""
    return {key: value for key, value in config.items() if key not in WRITTEN_BY}


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """The first key in which two models' configs differ; None where they are alike."""
    return next((key for key in sorted({*one, *other}) if one.get(key) != other.get(key)), None)


def base_of(before: Lineage, name: str) -> float | None:
    """A Pilot's base, by what lies before it. Raises RequestError for a trained model that was not grown."""
    if before.growths:
        return before.tokens or 0.0
    if before.tokens:
        raise RequestError(
            f"{name!r} goes on from a trained model that was not grown, so it is neither from scratch nor grown; leave it out"
        )
    return None


def _pilot(path: str | Path) -> PilotRun:
    curve = read_run(path)
    if not curve.val:
        raise CheckpointError(
            f"{str(curve.path)!r} has no validation losses; tokenize with --val-fraction and train with --eval-every"
        )
    provenance = curve.path / FINAL / PROVENANCE
    if not provenance.is_file():
        raise CheckpointError(
            f"{str(curve.path)!r} has not ended: it has no {FINAL}/{PROVENANCE}; let it, or leave it out"
        )
    before = lineage(read_json(provenance), provenance)
    base = base_of(before, curve.name)
    rates = checked(curve.settings, Fields({"decay": Null(Text()), "warmup": Null(Whole(0, STEPS))}), curve.path)
    points = [point for point in curve.val if point.step > (rates.get("warmup") or 0)]
    if rates.get("decay") != "constant":
        points = [curve.final] if curve.final.step else []
    size = _tokens_of_step(curve)
    pilots = tuple(Pilot(base, float(point.step * size), point.loss) for point in points)
    return PilotRun(
        curve=curve,
        base=base,
        pilots=pilots,
        flops=flops_of_token(curve),
        growths=before.growths,
        config=model_of(read_json(curve.path / FINAL / CONFIG)),
    )


def _tokens_of_step(curve: Curve) -> int:
    kinds = {key: kind for key, kind in STEPPING.items() if key != "steps"}
    settings = checked(curve.settings, Fields(kinds, tuple(kinds)), curve.path / "run.json")
    return settings["seq_len"] * settings["batch_size"]


def _difference(one: Sequence[tuple[str, dict[str, Any]]], other: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Where two ways to grow part, in a few words."""
    commands = [" and ".join(command for command, _ in reversed(growths)) for growths in (one, other)]
    if commands[0] != commands[1]:
        return f"{commands[0]}, {commands[1]}"
    for (command, ours), (_, theirs) in zip(one, other):
        for key in sorted({*ours, *theirs}):
            if ours.get(key) != theirs.get(key):
                return f"{command} {key} {ours.get(key)!r}, {theirs.get(key)!r}"
    return "one request, another place"
