"""Maps as plain data: runs of entries that follow one another. Knows AxisMap and what a reader needs of it; ignorant of
files."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from growkit.errors import CheckpointError
from growkit.limits import AXIS
from growkit.maps.axis import FREE, GATHER, AxisMap, axis_map
from growkit.maps.notation import READ, WRITE


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
        raise CheckpointError("growkit.json holds a map that cannot be read; verify against an intact result")
    return {axis: map_from_json(entry) for axis, entry in content.items()}


def map_from_json(entry: Mapping[str, Any]) -> AxisMap:
    """The inverse of map_to_json, for the roles it keeps. Raises CheckpointError for what is no such map."""
    try:
        runs, sizes = entry["runs"], (entry["old"], entry["new"])
        if not all(type(size) is int and 0 < size <= AXIS for size in sizes):
            raise ValueError(f"sizes {sizes}")
        sound = all(first >= 0 and length >= 0 and first + length <= entry["old"] for first, length, *_ in runs)
        if not sound or sum(run[1] for run in runs) != entry["new"]:
            raise ValueError("its runs leave the axis")
        index = np.concatenate([np.arange(first, first + length) for first, length, *_ in runs])
        write, read, carried = (np.repeat([run[k] for run in runs], [run[1] for run in runs]) for k in (2, 3, 4))
        mode = np.where(carried, GATHER, FREE)  # what is not carried has no use but to be known as such
        return axis_map(entry["name"], entry["old"], index, write, read, modes={WRITE: mode, READ: mode})
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"growkit.json holds a map that cannot be read ({error}); verify against an intact result"
        ) from None
