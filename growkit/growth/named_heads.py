"""Heads of single layers that generation settings name, as Whisper's do those that tell when a word is said: carried to
where they are in a grown model. Knows plans and generation_config.json; ignorant of what such heads are used for.
"""

from pathlib import Path
from typing import Any

import numpy as np

from growkit.checkpoint.companions import GENERATION
from growkit.checkpoint.fields import Fields, ListOf, Whole, checked
from growkit.checkpoint.small_files import read_json
from growkit.growth.plan import Plan
from growkit.limits import AXIS, LAYERS
from growkit.maps.notation import WRITE

NAMED = "alignment_heads"  # pairs: a layer of the decoder, a head of it, both from 0
SCHEMA = Fields({NAMED: ListOf(ListOf(Whole(0, AXIS), 2, 2), most=LAYERS * 64)})


def carried_settings(plan: Plan, folder: Path | None) -> dict[str, dict[str, Any]]:
    """The name of a settings file beside a source -> its content for the result, where that must be another.

    Of copies of a head the first is named; heads whose layer is gone are no longer. Raises CheckpointError for a file
    that does not name heads soundly.
    """
    file = None if folder is None else folder / GENERATION
    if file is None or not plan.family.stacks or len(plan.members) > 1 or not file.is_file():
        return {}
    said = read_json(file)
    if said.get(NAMED) is None:
        return {}
    layers, heads = [*plan.stacks.values()][-1], plan.growth.maps["head"]
    own = np.where(layers.sides[WRITE].amplitude == 0, -1, layers.index)  # not those that start as the identity
    named = []
    for layer, head in checked(said, SCHEMA, file)[NAMED]:
        places = np.flatnonzero(own == layer), np.flatnonzero(heads.index == head)
        if all(len(found) for found in places):
            named.append([int(found[0]) for found in places])
    return {} if named == said[NAMED] else {GENERATION: {**said, NAMED: named}}
