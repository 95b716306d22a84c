"""One growth of one small model, measured. Knows plans and live models; ignorant of what should come out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from growkit.families import Family
from growkit.families.text_part import flattened
from growkit.family_check.outputs import OF_IMAGES, relative, stepwise, whole
from growkit.family_check.small_models import rebuilt, stored
from growkit.growth.plan import Plan
from growkit.growth.request import grow_recipe
from growkit.growth.state_dict import planned_and_grown
from growkit.maps.axis import AxisMap
from growkit.models.compare import collapse

NO_MORE_THAN = 1e-10  # of the largest value, in float64, where the function is the same


@dataclass(frozen=True, kw_only=True)
class MeasuredGrowth:
    """A growth: its plan, the model that came of it, and the largest difference over the largest value."""

    plan: Plan
    grown: Any
    difference: float

    @property
    def exactness(self) -> str:
        return str(self.plan.exactness)


def grown_small(family: Family, model: Any, growth: Mapping[str, Any]) -> MeasuredGrowth:
    """Grow a model and compare what both put out, whole and, of a decoder with a head, through the cache.

    All this within float32_parts_in_double. Raises RequestError or CheckpointError where growth refuses,
    AssertionError where the result does not load.
    """
    state = stored(family, model)
    config = {**flattened(model.config.to_dict()), "architectures": [type(model).__name__]}
    plan, new = planned_and_grown(state, config, grow_recipe(**growth))
    grown = rebuilt(family, model, new, plan.config)
    ours, theirs = (whole(one, family) for one in (model, grown))
    difference = max(
        relative(value, _on_one_footing(family, name, value, theirs[name], plan.growth.maps))
        for name, value in ours.items()
    )
    if (family.causal or family.stacks) and family.has_language_head(type(model).__name__):
        through = {name: (ours[name], value) for name, value in stepwise(grown, family).items()}
        steps = (relative(one, other[:, : one.shape[1]]) for one, other in through.values())
        difference = max(difference, *steps)
    return MeasuredGrowth(plan=plan, grown=grown, difference=difference)


def _on_one_footing(
    family: Family, name: str, ours: torch.Tensor, theirs: torch.Tensor, maps: Mapping[str, AxisMap]
) -> torch.Tensor:
    """What the grown model puts out, hidden states collapsed to the source's width."""
    axis = family.output_axes.get(name.removeprefix("encoder_").removesuffix(OF_IMAGES))
    return collapse(theirs, maps[axis]) if ours.shape != theirs.shape and axis is not None else theirs
