"""The folder of a bundle of skills: certificate.json, gate.safetensors, and a copy of each skill. Knows the format and
its bounds; ignorant of how a gate is made and of live models.

The certificate can be checked from the folder alone: the scores that set the thresholds and those that confirm them
lie in gate.safetensors, and a threshold, a count or a bound that does not follow from them is refused, as is a file
of a skill that is not the one the certificate names.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.fields import checked
from growkit.checkpoint.headers import file_hash
from growkit.checkpoint.made_for import check_same_weights
from growkit.checkpoint.small_files import check_inside, read_json, real_path
from growkit.checkpoint.source import CERTIFICATE, Checkpoint, open_state
from growkit.checkpoint.writer import write_json
from growkit.errors import CheckpointError
from growkit.limits import AXIS
from growkit.skills.gates.certificate_words import (
    AGAIN,
    FORMAT,
    KEPT,
    SCHEMA,
    SKILLS,
    promise_words,
)
from growkit.skills.gates.certify import Promise
from growkit.skills.gates.conformal import texts_needed
from growkit.skills.gates.gate import Gate, OwnRange
from growkit.skills.gates.own_file import GATE_WEIGHTS
from growkit.skills.gates.own_texts import MOST_TEXTS
from growkit.skills.gates.shrunk_metric import ShrunkMetric
from growkit.skills.small_tensors import check_names, check_tensor, read_tensor, write_tensors_file
from growkit.version import __version__

METRIC = ("scale", "directions", "shares")  # what is stored of a range's


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle on disk. said: what certificate.json says. folders: of the skills, in the gate's order."""

    folder: Path
    said: Mapping[str, Any]
    gate: Gate
    strengths: tuple[float, ...]
    folders: tuple[Path, ...]

    @property
    def base(self) -> str:
        """Where its base lies: as it was named, from the bundle's folder on where it is no hub id."""
        source = str(self.said["base"]["source"])
        beside = self.folder / source
        return str(beside) if beside.exists() else source

    def check_base(self, base: Checkpoint) -> None:
        """Refuse a model that it was not made for. Raises RequestError with both hashes."""
        check_same_weights(self.folder, self.said["base"]["name"], self.said["base"]["files"], base, CERTIFICATE)


def is_bundle(folder: str | Path) -> bool:
    """Whether a folder holds a bundle of skills."""
    return (Path(folder) / CERTIFICATE).is_file()


def write_bundle(
    place: Path, gate: Gate, promise: Promise, skills: Sequence[tuple[Path, float]], more: Mapping[str, Any]
) -> dict[str, Any]:
    """Put a bundle into a folder that is there; returns what certificate.json says. skills: folder and strength of
    each, in the gate's order. more: base, general, seed, and own by skill."""
    entries = []
    for name, (folder, strength), threshold, own in zip(gate.names, skills, gate.thresholds.tolist(), gate.ranges):
        copy = place / SKILLS / name
        copy.mkdir(parents=True)
        for file in (folder / kept for kept in KEPT if (folder / kept).is_file()):
            check_inside(file)
            shutil.copyfile(file, copy / file.name)
        files = {path.name: file_hash(path) for path in sorted(copy.iterdir())}
        entries.append({
            "name": name, "strength": strength, "threshold": threshold, "limit": own.limit,
            "shrinkage": own.metric.shrinkage, "files": files, "own": more["own"][name],
        })  # fmt: skip
    tensors = {"directions": gate.directions, "offsets": gate.offsets, "calibration": promise.calibration}
    tensors |= {"fresh": promise.fresh} if len(promise.fresh) else {}
    for name, own in zip(gate.names, gate.ranges):
        tensors |= {f"{name}.mean": own.mean} | {f"{name}.{part}": getattr(own.metric, part) for part in METRIC}
    write_tensors_file(place / GATE_WEIGHTS, tensors)
    said = {
        "format": FORMAT,
        "growkit": __version__,
        "base": more["base"],
        "layer": gate.layer,
        "seed": more["seed"],
        "promise": promise_words(promise),
        "general": more["general"],
        "skills": entries,
        "together": [[gate.names[one], gate.names[other]] for one, other in sorted(gate.together)],
        "tensors": file_hash(place / GATE_WEIGHTS),
    }
    write_json(place / CERTIFICATE, said)
    return said


def read_bundle(folder: str | Path) -> Bundle:
    """Open a bundle. Raises CheckpointError where there is none, and for one that is not as the format says or whose
    certificate does not follow from its files."""
    path = Path(folder) / CERTIFICATE
    if not path.is_file():
        raise CheckpointError(
            f"{str(folder)!r} is no bundle: it has no {CERTIFICATE}; make one with growkit skill plug"
        )
    said = checked(read_json(path), SCHEMA, path, AGAIN)
    names = tuple(entry["name"] for entry in said["skills"])
    pairs = [pair for pair in said["together"] if pair[0] == pair[1] or not {*pair} <= {*names}]
    if len({*names}) < len(names) or pairs:
        what = f"together has {pairs[0]}, which are no two of its skills" if pairs else "it names a skill twice"
        raise CheckpointError(f"{str(path)!r} contradicts itself: {what}; {AGAIN}")
    folders = tuple(_checked_skill(Path(folder), entry) for entry in said["skills"])
    check_inside(path.with_name(GATE_WEIGHTS))
    if file_hash(path.with_name(GATE_WEIGHTS)) != said["tensors"]:
        raise CheckpointError(
            f"{str(path)!r} is the certificate of another {GATE_WEIGHTS} than lies beside it; {AGAIN}"
        )
    with closing(open_state(path.with_name(GATE_WEIGHTS))) as stored:
        gate, promise = _gate(stored, said, names)
    follows = promise_words(promise) | {f"threshold of {n}": t for n, t in zip(names, promise.thresholds.tolist())}
    stated = said["promise"] | {f"threshold of {entry['name']}": entry["threshold"] for entry in said["skills"]}
    for key, value in follows.items():
        if stated[key] != value:
            raise CheckpointError(
                f"{str(path)!r} promises what its scores do not say: {key} {stated[key]} where they give {value}; {AGAIN}"
            )
    strengths = tuple(float(entry["strength"]) for entry in said["skills"])
    return Bundle(folder=Path(folder), said=said, gate=gate, strengths=strengths, folders=folders)


def base_source(base: str | Path, out: Path) -> str:
    """How a bundle names its base: a path from the bundle's own folder on, so that both may move together, or a hub
    id."""
    if not Path(base).exists():
        return str(base)
    return os.path.relpath(real_path(Path(base)), real_path(out))


def _checked_skill(folder: Path, entry: Mapping[str, Any]) -> Path:
    """The folder of a skill, whose files are those that the certificate names and no others."""
    place, files = folder / SKILLS / entry["name"], entry["files"]
    strange = [name for name in files if name not in KEPT]
    there = {path.name for path in place.iterdir()} if place.is_dir() else set()
    for name in sorted(there ^ files.keys()) or strange:
        what = f"holds {name!r}, which its certificate does not name" if name in there else f"lacks {name!r}"
        raise CheckpointError(f"{str(place)!r} {what}; {AGAIN}")
    for name, wanted in files.items():
        check_inside(place / name)
        if file_hash(place / name) != wanted:
            raise CheckpointError(f"{str(place / name)!r} is not the file that the certificate was made for; {AGAIN}")
    return place


def _gate(stored: Checkpoint, said: Mapping[str, Any], names: tuple[str, ...]) -> tuple[Gate, Promise]:
    """A bundle's gate and promise, of tensors that have the shapes and the ranges they should."""
    count, promised = len(names), said["promise"]
    whole = {"directions", "offsets", "calibration"} | ({"fresh"} if promised["fresh"] else set())
    check_names(stored, whole | {f"{name}.{part}" for name in names for part in ("mean", *METRIC)}, AGAIN)
    hidden = next(iter(stored.tensors[f"{names[0]}.mean"].shape), 0)
    for name in names:
        rank = next(iter(stored.tensors[f"{name}.directions"].shape), 0)
        for part in ("mean", "scale"):
            check_tensor(stored, f"{name}.{part}", torch.float32, (hidden, min(hidden, AXIS)), (), AGAIN)
        check_tensor(stored, f"{name}.directions", torch.float32, (1, min(hidden, MOST_TEXTS)), (hidden,), AGAIN)
        check_tensor(stored, f"{name}.shares", torch.float32, (rank, rank), (), AGAIN)
    check_tensor(stored, "directions", torch.float64, (count, count), (hidden,), AGAIN)
    check_tensor(stored, "offsets", torch.float64, (count, count), (), AGAIN)
    check_tensor(stored, "calibration", torch.float64, (promised["texts"],) * 2, (count,), AGAIN)
    if promised["fresh"]:
        check_tensor(stored, "fresh", torch.float64, (promised["fresh"],) * 2, (count,), AGAIN)
    held = {name: read_tensor(stored, name) for name in stored.tensors}
    sound: dict[str, bool] = {name: bool((held[name] >= 0).all()) for name in ("calibration", "fresh") if name in held}
    for name in names:
        shares = held[f"{name}.shares"]
        sound[f"{name}.scale"] = bool((held[f"{name}.scale"] > 0).all())
        sound[f"{name}.shares"] = bool(((shares >= 0) & (shares <= 1)).all())
    wrong = next((name for name, right in sound.items() if not right), None)
    if wrong is not None:
        raise CheckpointError(f"tensor {wrong!r} of {stored.label!r} is out of its range; {AGAIN}")
    needed = texts_needed(promised["alpha"], count)
    if promised["texts"] < needed:
        raise CheckpointError(
            f"{stored.label!r} has {promised['texts']} calibration texts, and alpha {promised['alpha']:g} for {count} skills"
            f" needs {needed}; {AGAIN}"
        )
    promise = Promise(
        alpha=promised["alpha"],
        calibration=held["calibration"],
        fresh=held.get("fresh", torch.zeros(0, count, dtype=torch.float64)),
    )
    pairs = (sorted(names.index(name) for name in pair) for pair in said["together"])
    gate = Gate(
        layer=said["layer"],
        names=names,
        ranges=tuple(_range(entry, held) for entry in said["skills"]),
        directions=held["directions"],
        offsets=held["offsets"],
        thresholds=promise.thresholds,
        together=frozenset((one, other) for one, other in pairs),
    )
    return gate, promise


def _range(entry: Mapping[str, Any], held: Mapping[str, torch.Tensor]) -> OwnRange:
    """The range of a skill, of what the certificate and the tensors say."""
    scale, directions, shares = (held[f"{entry['name']}.{part}"] for part in METRIC)
    metric = ShrunkMetric(scale=scale, directions=directions, shares=shares, shrinkage=float(entry["shrinkage"]))
    return OwnRange(mean=held[f"{entry['name']}.mean"], metric=metric, limit=float(entry["limit"]))
