"""Weights of a new model, as transformers draws them, one tensor at a time. Knows stock classes; ignorant of growth's
maps.

What a class draws is its own affair: some divide what ends a layer by its depth, some have a deviation for embeddings
alone, some leave a padding token at 0. So each class is asked, on a model that takes no memory but for the tensor in
hand: one tensor is held at once, and what it holds depends on the seed and on its name alone.
"""

from dataclasses import replace
from typing import Any

import torch

from growkit.errors import CheckpointError
from growkit.growth.plan import Plan, TensorPlan
from growkit.growth.request import DIRECT_COPY
from growkit.models.stock import hushed, unfilled_model
from growkit.operators.draws import Rest
from growkit.operators.seeds import stable_seed
from growkit.training.blank import first_names

REMEDY = f"take another --method than {DIRECT_COPY}"


def with_new_weights(plan: Plan) -> Plan:
    """The plan with what it leaves open drawn as the class of its result draws it.

    Raises CheckpointError where transformers has no such class, or none of its weights is such a tensor.
    """
    named = plan.growth.architecture  # of a config that says none, what its tensors say
    config = plan.config if plan.config.get("architectures") or not named else {**plan.config, "architectures": [named]}
    try:
        model = unfilled_model(config, plan.source, torch.device("meta"), torch.float32)
    except CheckpointError as error:
        raise CheckpointError(f"{error}, so nobody says how new weights are drawn; {REMEDY}") from None
    live = first_names(plan.family, [tensor.name for tensor in plan.tensors], model)

    def drawn(tensor: TensorPlan) -> TensorPlan:
        if not isinstance(tensor.draw, Rest):
            return tensor
        if tensor.name not in live:
            raise CheckpointError(
                f"tensor {tensor.name!r} is no weight of a {type(model).__name__}, so nobody says how what is new of it"
                f" is drawn; {REMEDY}"
            )
        rule = tensor.parts[0].rule
        shape = (rule.columns.new, rule.rows.new) if rule.transposed else (rule.rows.new, rule.columns.new)

        def new(seed: int, name: str = live[tensor.name]) -> torch.Tensor:
            whole = new_weight(model, name, seed).reshape(shape)
            return whole.T if rule.transposed else whole

        return replace(tensor, draw=replace(tensor.draw, new=new))

    return replace(plan, tensors=tuple(map(drawn, plan.tensors)))


def new_weight(model: Any, name: str, seed: int) -> torch.Tensor:
    """A parameter of a model without weights as its class draws it, float32; the model stays as it is."""
    path, _, own = name.rpartition(".")
    modules = [model]
    for part in path.split(".") if path else []:
        modules.append(getattr(modules[-1], part))
    parameters = modules[-1]._parameters
    blank = parameters[own]
    weight = torch.nn.Parameter(torch.zeros(blank.shape, dtype=torch.float32), requires_grad=False)
    try:
        parameters[own] = weight
        with torch.random.fork_rng(devices=[]), torch.no_grad(), hushed():
            torch.manual_seed(stable_seed(seed, f"new {name}"))
            # a class draws what a module has, and then what it would have otherwise of the modules below
            for depth in range(len(modules), 0, -1):
                _drawer(modules[:depth])._init_weights(modules[depth - 1])
    finally:
        parameters[own] = blank
    return weight.detach()


def _drawer(path: list[Any]) -> Any:
    """The stock model that draws the last of these modules, each inside the one before: the innermost one."""
    from transformers import PreTrainedModel

    return next(module for module in reversed(path) if isinstance(module, PreTrainedModel))
