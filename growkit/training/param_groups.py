"""Parameter groups for other trainers. Knows how wrappers rename parameters; ignorant of growkit's own loop."""

from pathlib import Path
from typing import Any

import torch

from growkit.errors import CheckpointError, RequestError
from growkit.growth.optimizer import MULTIPLIERS, kept_rates, read_rates
from growkit.training.optim import parameter_groups

WRAPPERS = ("module.", "_orig_mod.", "base_model.model.")  # of DistributedDataParallel, torch.compile and PEFT
WRAPPED = (".base_layer", "._checkpoint_wrapped_module", "._orig_mod", ".modules_to_save.default")


def groups_for(
    model: torch.nn.Module, checkpoint: str | Path, lr: float, weight_decay: float, eps: float
) -> list[dict[str, Any]]:
    """AdamW's groups of what learns in a model, with the multipliers of a checkpoint's folder; as
    growkit.param_groups says."""
    folder = Path(checkpoint)
    if not folder.is_dir():
        raise CheckpointError(f"{str(checkpoint)!r} is no folder; name the one that the model was loaded from")
    multipliers = read_rates(kept_rates(folder))
    named = {name: _plain(name) for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not named:
        raise RequestError("no parameter of the model needs a gradient, so there is nothing to train")
    if multipliers and not multipliers.keys() & {_plain(name) for name, _ in model.named_parameters()}:
        raise RequestError(
            f"{str(folder / MULTIPLIERS)!r} names {next(iter(multipliers))!r} where the model has"
            f" {next(iter(named.values()))!r}; name the folder that this model was loaded from"
        )
    own = {name: multipliers[plain] for name, plain in named.items() if plain in multipliers}
    groups = parameter_groups(model, weight_decay, eps, own)
    kept = ("params", "weight_decay", "eps")
    return [{"lr": lr * group["scale"], **{word: group[word] for word in kept}} for group in groups]


def _plain(name: str) -> str:
    """A parameter's name without what wrappers put around it."""
    while prefix := next((prefix for prefix in WRAPPERS if name.startswith(prefix)), ""):
        name = name[len(prefix) :]
    for part in WRAPPED:
        name = name.replace(part, "")
    return name
