"""AdamW for grown models: parameter groups, rates by step, state in and out. Knows torch's optimizer and how growkit stores its
state; ignorant of losses and of data.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor, distribute_tensor

from growkit.errors import CheckpointError
from growkit.families import family_named
from growkit.families.stacked import join_experts

DECAYS = ("cosine", "linear", "wsd", "constant")
Multipliers = Mapping[str, Mapping[str, float]]


def rate(step: int, total: int, warmup: int, decay: str, final: float = 0.1) -> float:
    """The factor on the learning rate at a step of `total`: a linear rise over `warmup` steps, then a fall to `final`.

    decay: cosine, linear, wsd (constant, then linear over the last fifth) or constant.
    """
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    if decay == "constant":
        return 1.0
    if decay == "wsd":
        return 1.0 if done < 0.8 else 1.0 - (1.0 - final) * (done - 0.8) / 0.2
    if decay == "linear":
        return 1.0 - (1.0 - final) * done
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * done))


def adamw(
    model: torch.nn.Module,
    weight_decay: float,
    betas: tuple[float, float],
    eps: float,
    multipliers: Multipliers | None = None,
) -> torch.optim.AdamW:
    """AdamW over all parameters; no decay on vectors (norms, biases). Each group's "scale" is its factor on the rate.

    multipliers: lr, weight_decay and eps factors by parameter name, as growkit writes them in lr_multipliers.json.
    """
    groups: dict[tuple[float, float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        own = (multipliers or {}).get(name, {})
        decays = weight_decay * own.get("weight_decay", 1.0) if parameter.dim() > 1 else 0.0
        key = (own.get("lr", 1.0), decays, eps * own.get("eps", 1.0))
        group = groups.setdefault(key, {"params": [], "scale": key[0], "weight_decay": key[1], "eps": key[2]})
        group["params"].append(parameter)
    optimizer = torch.optim.AdamW(list(groups.values()), lr=0.0, betas=betas, fused=True)
    _prime(optimizer)
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group, times its scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]


def _prime(optimizer: torch.optim.AdamW) -> None:
    """Give every parameter its state now. A layer that no step has sampled yet would have none, and a saved state with holes
    cannot be loaded."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    set_rate(optimizer, 0.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for state in optimizer.state.values():
        state["step"].zero_()


def load_state(optimizer: torch.optim.AdamW, model: torch.nn.Module, file: Path) -> None:
    """Take over a grown or saved state: <parameter>.exp_avg, <parameter>.exp_avg_sq, <parameter>.step,
    by the names of a live model or of a checkpoint.

    Raises CheckpointError for entries of no parameter or of another shape.
    """
    named = dict(model.named_parameters(remove_duplicate=False))
    family = family_named(getattr(model, "config").model_type)  # noqa: B009 - a stock model
    for name, value in join_experts(family, load_file(file)).items():
        parameter, _, kind = name.rpartition(".")
        target = optimizer.state.get(named[parameter]) if parameter in named else None
        if target is None or kind not in target:
            raise CheckpointError(f"{str(file)!r} has {name!r}, which is no state of a parameter of this model")
        if target[kind].numel() != value.numel():
            raise CheckpointError(
                f"{str(file)!r} has {name!r} with shape {list(value.shape)}, the model {list(target[kind].shape)}"
            )
        value = value.view(target[kind].shape)
        if isinstance(target[kind], DTensor):
            value = distribute_tensor(value.to(target[kind].device), target[kind].device_mesh, target[kind].placements)
        target[kind].copy_(value)


def stored_state(optimizer: torch.optim.AdamW, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state as load_state and the commands that grow take it, whole, in every process."""
    return {
        f"{name}.{kind}": (value.full_tensor() if isinstance(value, DTensor) else value).detach().cpu().clone()
        for name, parameter in model.named_parameters()
        for kind, value in optimizer.state[parameter].items()
    }
