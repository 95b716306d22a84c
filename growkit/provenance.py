"""What a result says of itself: growkit.json and the model card. Knows how to write a plan down and read maps back; ignorant
of weights.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from growkit.axes import READ, WRITE
from growkit.checkpoint.source import PROVENANCE, read_json
from growkit.errors import CheckpointError
from growkit.maps import FREE, GATHER, AxisMap, axis_map
from growkit.plan import FORMAT, Exactness, Plan
from growkit.version import __version__


def describe(plan: Plan) -> dict[str, Any]:
    """What growkit.json says of a result: the request, the axes, every map that is not the identity, and their digest.

    Maps are those of the first source; the digest is of the maps of all.
    """
    all_maps = [_changed_maps(member.growth.maps, plan.layers) for member in plan.members]
    lines = [f"{axis} {m.digest()}\n" for maps in all_maps for axis, m in maps.items()]
    return {
        "format": FORMAT,
        "growkit": __version__,
        "command": plan.recipe.command,
        "family": plan.result_family.model_type,
        "request": plan.recipe.to_json(),
        "exactness": str(plan.exactness),
        "axes": [axis.to_json() for axis in plan.axes],
        "maps_digest": hashlib.sha256("".join(lines).encode()).hexdigest(),
        "maps": {axis: map_to_json(m) for axis, m in all_maps[0].items()},
    }


def _changed_maps(maps: Mapping[str, AxisMap], layers: AxisMap) -> dict[str, AxisMap]:
    return {axis: m for axis, m in sorted({**maps, "layer": layers}.items()) if not m.is_identity}


def record_of(folder: Path | None) -> dict[str, Any] | None:
    """What a checkpoint's own growkit.json says of how it was made, without its maps; None where it has none.

    Two records are equal exactly when the same request was made of the same bytes.
    """
    path = folder / PROVENANCE if folder is not None else None
    if path is None or not path.exists():
        return None
    content = read_json(path)
    return {key: content.get(key) for key in ("command", "sources", "request", "exactness", "maps_digest")}


def provenance_text(content: Mapping[str, Any]) -> str:
    """growkit.json: indented for people, except for the maps, one to a line."""
    maps = ",\n".join(f"    {json.dumps(axis)}: {json.dumps(entry)}" for axis, entry in content["maps"].items())
    rest = json.dumps({key: value for key, value in content.items() if key != "maps"}, indent=2, ensure_ascii=False)
    return rest.removesuffix("\n}") + f',\n  "maps": {{\n{maps}\n  }}\n}}\n'


def map_to_json(axis: AxisMap) -> dict[str, Any]:
    """A map as runs [first source, length, write, read, carried]: what a reader needs to collapse the axis again."""
    write, read = axis.sides[WRITE], axis.sides[READ]
    carried = (write.mode == GATHER) & (read.mode == GATHER)
    same = [np.diff(values) == 0 for values in (write.amplitude, read.amplitude, carried.astype(int))]
    follows = np.logical_and.reduce([np.diff(axis.index) == 1, *same])
    starts = np.r_[0, np.flatnonzero(~follows) + 1]
    lengths = np.diff(np.r_[starts, axis.new])
    runs = [
        [int(axis.index[s]), int(n), float(write.amplitude[s]), float(read.amplitude[s]), int(carried[s])]
        for s, n in zip(starts, lengths)
    ]
    return {"old": axis.old, "new": axis.new, "name": axis.name, "runs": runs}


def maps_from_json(content: Any) -> dict[str, AxisMap]:
    """All maps of a growkit.json. Raises CheckpointError for what holds none."""
    if not isinstance(content, dict):
        raise CheckpointError(f"{PROVENANCE} holds a map that cannot be read; verify against an intact result")
    return {axis: map_from_json(entry) for axis, entry in content.items()}


def map_from_json(entry: Mapping[str, Any]) -> AxisMap:
    """The inverse of map_to_json, for the roles it keeps. Raises CheckpointError for what is no such map."""
    try:
        runs = entry["runs"]
        sound = all(first >= 0 and length >= 0 and first + length <= entry["old"] for first, length, *_ in runs)
        if not sound or sum(run[1] for run in runs) != entry["new"]:
            raise ValueError("its runs leave the axis")
        index = np.concatenate([np.arange(first, first + length) for first, length, *_ in runs])
        write, read, carried = (np.repeat([run[k] for run in runs], [run[1] for run in runs]) for k in (2, 3, 4))
        mode = np.where(carried, GATHER, FREE)  # what is not carried has no use but to be known as such
        return axis_map(entry["name"], entry["old"], index, write, read, modes={WRITE: mode, READ: mode})
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{PROVENANCE} holds a map that cannot be read ({error}); verify against an intact result"
        ) from None


def came_from_grown(provenance: Mapping[str, Any]) -> bool:
    """Whether growkit made any of the sources of this result too."""
    return any("record" in entry for entry in _entries(provenance))


def promised(provenance: Mapping[str, Any], hashes: list[str] | None) -> Exactness:
    """The exactness a result promises of a source, known by the sorted hashes of its files: the worst of the growths that
    lie between them. hashes None: of its own sources.

    Raises CheckpointError for a growkit.json that says what growkit never says.
    """
    if hashes is None:
        return _stated(provenance)
    found = _between(provenance, hashes)
    return _worst(provenance) if found is None else found


def _between(record: Mapping[str, Any], hashes: list[str]) -> Exactness | None:
    """The worst exactness from the files with these hashes to this record; None where they are not below it."""
    for entry in _entries(record):
        files = entry.get("files")
        if isinstance(files, dict) and sorted(map(str, files.values())) == hashes:
            return _stated(record)
        below = _between(entry["record"], hashes) if isinstance(entry.get("record"), dict) else None
        if below is not None:
            return max(_stated(record), below)
    return None


def _worst(record: Mapping[str, Any]) -> Exactness:
    below = [_worst(entry["record"]) for entry in _entries(record) if isinstance(entry.get("record"), dict)]
    return max([_stated(record), *below])


def _entries(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    entries = record.get("sources")
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _stated(record: Mapping[str, Any]) -> Exactness:
    known = {str(exactness): exactness for exactness in Exactness}
    said = record.get("exactness", "exact")
    if not isinstance(said, str) or said not in known:
        raise CheckpointError(f"{PROVENANCE} says exactness {said!r}; verify against an intact result")
    return known[said]


def model_card(plan: Plan, names: Sequence[str]) -> str:
    """A short README.md for the result."""
    before, after = plan.parameters()
    rows = "\n".join(
        f"| {a.axis} | {a.old} | {a.new} | {a.how} | {a.exactness} |" for a in plan.axes if a.how != "kept"
    )
    claim = {
        "exact": "It computes the same function as its source, to rounding.",
        "near": "It computes nearly the same function as its source; how nearly is measured by `growkit verify`.",
        "approximate": "It does not compute the same function as before; it is a starting point for training.",
    }[str(plan.exactness)]
    done = {
        "widen": "widened",
        "stack": "deepened",
        "grow": "grown",
        "fuse": "fused",
        "upcycle": "upcycled to a mixture of experts",
    }[plan.recipe.command]
    active = plan.active_parameters()[1]
    at_work = f", of which {active:,} are active for one token" if active != after else ""
    request = json.dumps(plan.recipe.to_json(), ensure_ascii=False)
    return (
        f"---\nlibrary_name: transformers\ntags:\n- growkit\n---\n\n# {' + '.join(names)}, {done}\n\n"
        f"Grown by growkit {__version__} from {' and '.join(f'`{name}`' for name in names)}"
        f" ({plan.family.model_type}, {before:,} parameters) to {after:,} parameters{at_work}. {claim}\n\n"
        f"| axis | from | to | how | function |\n|---|---|---|---|---|\n{rows}\n\n"
        f"Request: `{request}`. Maps, hashes of the source and exactness per axis: `{PROVENANCE}`.\n"
        f"Check it: `growkit verify SOURCE THIS_FOLDER`.\n"
    )
