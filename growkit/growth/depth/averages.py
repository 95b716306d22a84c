"""Layers that are the mean of their two neighbours, as plans of tensors. Knows plans; ignorant of values and of which
heads meet.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from growkit.errors import RequestError
from growkit.families import Family
from growkit.growth.depth.layers import AVERAGE, between
from growkit.growth.plan import Neighbours, Part, TensorPlan
from growkit.maps.axis import AxisMap
from growkit.operators.rule import Rule

Plans = tuple[TensorPlan, ...]


def averaged(family: Family, layers: AxisMap, planned: Callable[[AxisMap], Plans]) -> Plans:
    """The tensors of a model whose layers are those of a map (see layer_map).

    planned: the tensors where each layer is the one that a map's index names, and no mean. Raises RequestError for two
    layers that have no mean.
    """
    above, lower = between(layers), planned(layers)
    if not above.any():
        return lower
    if family.is_moe:
        raise RequestError(
            f"{AVERAGE} is for dense models; in a {family.model_type} the experts of two layers are no counterparts"
        )
    shifted = replace(layers, index=np.where(above > 0, layers.index + 1, layers.index))
    upper = {tensor.name: tensor for tensor in planned(shifted)}
    shares: dict[tuple[int, float], Rule] = {}

    def share(rule: Rule, of: float) -> Rule:
        return shares.setdefault((id(rule), of), replace(rule, share=of))

    made: dict[tuple[int, int, float], tuple[Part, ...]] = {}
    tensors = []
    for tensor in lower:
        target = family.layer_of(tensor.name)
        if target is None or not above[target]:
            tensors.append(tensor)
            continue
        below, part = int(layers.index[target]), float(above[target])
        other = upper.pop(tensor.name, None)
        if other is None or other.shape != tensor.shape:
            raise _unlike(below, tensor.name)
        key = id(tensor.parts), id(other.parts), part
        if key not in made:
            pair = Neighbours(below, below + 1)
            made[key] = (
                *(replace(one, rule=share(one.rule, 1 - part)) for one in tensor.parts),
                *(replace(one, rule=share(one.rule, part), pair=pair) for one in other.parts),
            )
        tensors.append(replace(tensor, parts=made[key]))
    for name in upper:
        target = family.layer_of(name)
        if target is not None and above[target]:
            raise _unlike(int(layers.index[target]), name)
    return tuple(tensors)


def _unlike(below: int, name: str) -> RequestError:
    return RequestError(
        f"layers {below + 1} and {below + 2} have no mean: {name!r} would come from one of them alone; place new layers"
        " elsewhere with --after, or choose another method"
    )
