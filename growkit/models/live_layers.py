"""Where a live stock model keeps its layers, its routers and its experts: its family's table says it. Ignorant of what
is done with them.
"""

from typing import Any

import torch

from growkit.families import family_named


def layers_path(model: Any) -> str:
    """Where a stock model's base model keeps its layers, such as "encoder.layer"; of a text model beside a tower, such
    as "language_model.layers".
    """
    family = family_named(model.config.model_type)
    template = next(name for name in family.tensors if "{layer}" in name)
    place = "" if family.beside is None else f"{family.beside.place}."
    return place + template.split(".{layer}")[0]


def layers_of(model: Any) -> torch.nn.ModuleList:
    """The layers of a stock model, in order."""
    return model.base_model.get_submodule(layers_path(model))


def sparse_parts(model: Any, experts: bool) -> list[tuple[int, Any]]:
    """The routers of a model's layers, or what holds their experts, with the numbers of the layers; none of a dense
    model's."""
    family = family_named(model.config.model_type)
    if not family.is_moe:
        return []
    # "layers.{layer}.mlp.gate.weight" belongs to "mlp.gate" of a layer
    paths = {
        live.split("{layer}.")[1].rpartition(".")[0]
        for live, stored in family.experts.fused.items()
        if family.of_each_expert(stored[0]) == experts
    }
    modules = [(n, *named) for n, layer in enumerate(layers_of(model)) for named in layer.named_modules()]
    return [(n, module) for n, name, module in modules if name in paths]
