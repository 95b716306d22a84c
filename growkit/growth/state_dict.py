"""A live model's weights grown in memory, by the plan that files are grown by. Knows state dicts; ignorant of
folders.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from growkit.checkpoint.stream import StateSource
from growkit.errors import CheckpointError
from growkit.families import family_named
from growkit.families.naming import name_of_today
from growkit.families.stacked import join_experts, split_experts
from growkit.families.text_part import flattened, nested
from growkit.growth.depth.matching import matched
from growkit.growth.execute import grow_tensor
from growkit.growth.grow_plan import grow_plan
from growkit.growth.plan import Plan
from growkit.growth.request import Recipe
from growkit.growth.source_headers import Headers
from growkit.growth.sources import head_and_embedding


def grown_state(
    state: Mapping[str, torch.Tensor], config: Any, recipe: Recipe, settle: Callable[[Plan], Plan] = lambda plan: plan
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(new state, new config) of a state dict, names to tensors as its model shapes them, and a config or its dict.

    settle: what live models without weights add to a plan. Raises CheckpointError for a state that is no model of a
    known family, RequestError for what cannot be grown.
    """
    plan, grown = planned_and_grown(state, config, recipe, settle)
    return grown, nested(plan.config)


def planned_and_grown(
    state: Mapping[str, torch.Tensor], config: Any, recipe: Recipe, settle: Callable[[Plan], Plan] = lambda plan: plan
) -> tuple[Plan, dict[str, torch.Tensor]]:
    """(the plan, the new state) of a state dict and a config or its dict. Raises as grown_state does."""
    content = flattened(config.to_dict() if hasattr(config, "to_dict") else config)
    family = family_named(content.get("model_type"))
    tensors = split_experts(family, {name_of_today(name): tensor for name, tensor in state.items()})
    head, embedding = head_and_embedding(family, tensors)
    if len(family.stacks) > 1 and head is None and not content.get("architectures"):
        raise CheckpointError(
            f"a {family.model_type} without a head of its own may have a tied one or none: say which class it is under"
            " 'architectures' in its config"
        )
    headers = Headers(
        label="the state dict",
        shapes={name: tuple(tensor.shape) for name, tensor in tensors.items()},
        dtypes={name: tensor.dtype for name, tensor in tensors.items()},
        config=content,
        head_is_copy=torch.equal(tensors[head], tensors[embedding]) if head and embedding else None,
        # names without a prefix are a base model's own, whatever class its config remembers; with several stacks of
        # layers a head makes no difference to names
        body=head is None and not family.stacks and not any(name.startswith(family.prefixes) for name in tensors),
    )
    sources = [StateSource(tensors)]
    todo = matched(settle(grow_plan([headers], recipe)), sources)
    grown = {tensor.name: grow_tensor(tensor, sources, todo.recipe.seed) for tensor in todo.tensors}
    return todo, grown if tensors.keys() == state.keys() else join_experts(family, grown)
