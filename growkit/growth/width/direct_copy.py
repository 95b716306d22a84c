"""DirectCopy, bert2BERT's baseline (arXiv 2110.07143, section 4): the source in a corner of the larger model, and all
else as a new model begins. Knows maps and what cannot be so; ignorant of how new weights are drawn.

Nothing is copied twice, divided or rescaled, so the larger model begins as another function than the source.
"""

from collections.abc import Mapping

import numpy as np

from growkit.errors import RequestError
from growkit.growth.request import DIRECT_COPY, Recipe
from growkit.growth.width.sizes import Sizes
from growkit.maps.axis import ABSENT, GATHER, AxisMap, axis_map, copy_rank
from growkit.maps.notation import GAIN, READ, SHIFT, WRITE

WHY = "the source lies in a corner and the rest is drawn as transformers draws a new model, by design"


def cornered(maps: Mapping[str, AxisMap]) -> dict[str, AxisMap]:
    """The maps with the first copy of each index as it is, and nothing of the source anywhere else."""
    return {axis: each if each.is_identity else _corner(each) for axis, each in maps.items()}


def _corner(axis: AxisMap) -> AxisMap:
    # a slot that nothing depends on may stand before the one that holds its source
    holds = np.flatnonzero(np.all([(s.mode == GATHER) & (s.amplitude != 0) for s in axis.sides.values()], axis=0))
    mode = np.full(axis.new, ABSENT)
    mode[holds[copy_rank(axis.index[holds]) == 0]] = GATHER
    return axis_map("corner", axis.old, axis.index, 1.0, 1.0, modes=dict.fromkeys((WRITE, READ, GAIN, SHIFT), mode))


def check_direct_copy(recipe: Recipe) -> None:
    """Raises RequestError for options that are about copies."""
    if recipe.noise:
        raise RequestError(f"--noise parts copies, and --method {DIRECT_COPY} makes none: leave it out")
    if recipe.mapping != "cyclic":
        raise RequestError(f"--mapping says what is copied, and --method {DIRECT_COPY} copies nothing: leave it out")


def check_groups(old: Sizes, new: Sizes) -> None:
    """Raises RequestError where a key-value head would have to be in several places."""
    group, new_group = old["head"] // old["kv_head"], new["head"] // new["kv_head"]
    if new_group < group:
        raise RequestError(
            f"--method {DIRECT_COPY} copies nothing, so each kv head keeps its {group} query heads: {new['head']} heads need"
            f" --kv-heads {max(1, new['head'] // group)} at most, not {new['kv_head']}; or take another --method"
        )
