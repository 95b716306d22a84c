"""The modules of a small module, apart from the model they go on. Knows what PEFT and growkit put around a live model's
layers; ignorant of gates.

It is put on the model and taken off again: what then stands where a layer of the model stood is the skill's part there,
which holds that layer and computes what the model would with the skill on it, to the last bit.
"""

from pathlib import Path
from typing import Any

import torch

from growkit.errors import CheckpointError
from growkit.models.adapters import adapted

Parts = dict[str, torch.nn.Module]  # by the name of the base's module that each is around


def parts_of(model: Any, folder: str | Path) -> Parts:
    """The parts of the small module in a folder; the model is afterwards as it was.

    Raises CheckpointError for one that does not fit the model, changes its own weights, which no gate could close, or
    is not on modules, as prompt tuning is not.
    """
    before = {name: module for name, module in model.named_modules() if name}
    homes = {name: (before.get(name.rpartition(".")[0], model), name.rpartition(".")[2]) for name in before}
    learning = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    states, attributes = _states(model), {*vars(model)}
    adapted(model, folder)
    parts = {}
    for name, (home, own) in homes.items():
        if home._modules[own] is not before[name]:
            part = home._modules[own]
            assert part is not None
            parts[name] = part.eval().requires_grad_(False)
            home._modules[own] = before[name]
    for name in {*vars(model)} - attributes:  # what PEFT notes on a model
        delattr(model, name)
    if _states(model) != states:
        raise CheckpointError(
            f"{str(folder)!r} changes weights of the base itself (such as its biases), which no gate can close; train it"
            " without that"
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(learning[name])
    if not parts:
        raise CheckpointError(
            f"{str(folder)!r} is on none of the base's modules; a gate opens and closes what is, as LoRA and IA3 are"
        )
    return parts


def _states(model: Any) -> dict[str, tuple[int, ...]]:
    """What changes where somebody writes into a parameter or a buffer, or puts another in its place."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: (id(tensor), tensor.data_ptr(), tensor._version) for name, tensor in named}
