"""Which layers of a checkpoint a growth inserted as identities (LLaMA-Pro, arXiv 2401.02415). Knows growkit.json;
ignorant of what they are for.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from growkit.checkpoint.fields import Fields, ListOf, Whole, checked
from growkit.checkpoint.record import INSERTED
from growkit.checkpoint.small_files import read_json
from growkit.checkpoint.source import PROVENANCE
from growkit.errors import CheckpointError
from growkit.limits import LAYERS
from growkit.maps.axis import AxisMap
from growkit.maps.map_json import map_from_json
from growkit.maps.notation import WRITE

SCHEMA = Fields({INSERTED: ListOf(Whole(1, LAYERS), 1, LAYERS)})


def inserted_layers(folder: Path | None, layers: int) -> tuple[int, ...]:
    """Those layers, from 0, of a checkpoint of so many: by its last growth, whose map says it, and by those before, of
    which it keeps a list. Raises CheckpointError for a growkit.json that says what growkit never says."""
    path = folder / PROVENANCE if folder is not None else None
    if path is None or not path.exists():
        return ()
    said = checked(read_json(path), SCHEMA, path)
    numbers = {number - 1 for number in said.get(INSERTED, ())}
    maps = said.get("maps")
    if isinstance(maps, dict) and isinstance(maps.get("layer"), dict):
        numbers |= set(silent_layers(map_from_json(maps["layer"])))
    if numbers and max(numbers) >= layers:
        raise CheckpointError(f"{str(path)!r} speaks of layer {max(numbers) + 1}, and the model has {layers}")
    return tuple(sorted(numbers))


def silent_layers(layers: AxisMap) -> tuple[int, ...]:
    """The layers, from 0, that a map inserts as identities."""
    return tuple(np.flatnonzero(layers.sides[WRITE].amplitude == 0).tolist())


def carried(before: Sequence[int], layers: AxisMap) -> tuple[int, ...]:
    """Where layers that were inserted before are after a growth: each copy that still computes."""
    came = np.isin(layers.index, before)
    return tuple(np.flatnonzero(came & (layers.sides[WRITE].amplitude != 0)).tolist())
