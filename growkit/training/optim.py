"""AdamW for grown models: parameter groups, rates by step, state in and out. Knows torch's optimizer and how growkit
stores its state; ignorant of losses and of data.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.source import open_state
from growkit.errors import CheckpointError
from growkit.families import family_named
from growkit.families.stacked import live_name
from growkit.growth.muon_rules import ADAMW, MUON
from growkit.growth.optimizer import is_muon_state
from growkit.growth.source_headers import FLOATS
from growkit.growth.sources import split_stored
from growkit.models.small.targets import unwrapped
from growkit.training.blank import pieces_of
from growkit.training.sharing import fill_tensor

DECAYS = ("cosine", "linear", "wsd", "constant")
FACTORS, SCALED = ("lr", "weight_decay", "eps"), ("scale", "weight_decay", "eps")  # in a file, and in a group
Multipliers = Mapping[str, Mapping[str, Any]]


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
    """AdamW over the parameters that learn; no decay on vectors (norms, biases). Each group's "scale" is its factor on
    the rate.

    multipliers: lr, weight_decay and eps factors by parameter name, as growkit writes them in lr_multipliers.json.
    """
    groups = parameter_groups(model, weight_decay, eps, multipliers)
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=True)
    prime(optimizer)
    return optimizer


def parameter_groups(
    model: torch.nn.Module, weight_decay: float, eps: float, multipliers: Multipliers | None = None
) -> list[dict[str, Any]]:
    """The groups of adamw: what learns, by its rate ("scale"), weight decay and eps, which are "plain" times "own"."""
    # a tied tensor goes by whichever of its names has multipliers
    every = model.named_parameters(remove_duplicate=False)
    rated = {id(parameter): name for name, parameter in every if name in (multipliers or {})}
    learning = [(rated.get(id(p), name), p) for name, p in model.named_parameters() if p.requires_grad]
    return groups_of(learning, weight_decay, eps, multipliers or {})


def groups_of(
    named: Sequence[tuple[str, torch.nn.Parameter]], weight_decay: float, eps: float, multipliers: Multipliers
) -> list[dict[str, Any]]:
    """The same of some parameters."""
    groups: dict[tuple[float, ...], dict[str, Any]] = {}
    for name, parameter in named:
        said = multipliers.get(name, {})
        own = tuple(said.get(word, 1.0) for word in FACTORS)
        plain = (1.0, weight_decay if parameter.dim() > 1 else 0.0, eps)
        key = tuple(value * factor for value, factor in zip(plain, own))
        group = groups.setdefault(key, {"params": [], **dict(zip(SCALED, key)), "plain": plain, "own": own})
        group["params"].append(parameter)
    return list(groups.values())


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group, times its scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]


def relax(optimizer: torch.optim.Optimizer, exponent: float) -> None:
    """Let the multipliers m of every group act as m^exponent from now on, on rate, weight decay and eps alike."""
    for group in optimizer.param_groups:
        for word, plain, own in zip(SCALED, group["plain"], group["own"]):
            group[word] = plain * own**exponent
        group["exponent"] = exponent


def prime(optimizer: torch.optim.Optimizer) -> None:
    """Give every parameter its state now. A layer that no step has sampled yet would have none, and a saved state with
    holes cannot be loaded."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    set_rate(optimizer, 0.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for state in optimizer.state.values():
        if "step" in state:  # Muon counts none
            state["step"].zero_()


def load_state(optimizer: torch.optim.Optimizer, model: torch.nn.Module, file: Path) -> None:
    """Take over a grown or saved state: <parameter>.exp_avg, <parameter>.exp_avg_sq, <parameter>.step, of Muon's
    matrices <parameter>.momentum_buffer, by the names of a live model or of a checkpoint. Each process reads its own
    rows; what does not learn is left out.

    Raises CheckpointError for entries of no parameter, of another shape, quantised, or of another optimizer.
    """
    family = family_named(getattr(model, "config").model_type)  # noqa: B009 - a stock model
    named = dict(model.named_parameters(remove_duplicate=False))
    frozen = {unwrapped(name): parameter for name, parameter in named.items() if not parameter.requires_grad}
    targets = {
        f"{name}.{kind}": value
        for name, parameter in named.items()
        for kind, value in optimizer.state.get(parameter, {}).items()
    }
    state = open_state(file)
    if family.is_moe:
        state.tensors = split_stored(family, state.tensors)
    learned = [name for name in state.tensors if live_name(family, name)[0].rpartition(".")[0] not in frozen]
    if learned:
        check_whose(learned, file, MUON if is_muon_state(targets) else ADAMW)
    for name, stored in state.tensors.items():
        live = live_name(family, name)[0]
        if stored.dtype not in FLOATS and not name.endswith(".step"):
            raise CheckpointError(
                f"{str(file)!r} has {name!r} as {str(stored.dtype).removeprefix('torch.')}; give it in full precision"
            )
        if live not in targets and live.rpartition(".")[0] not in frozen:
            raise CheckpointError(f"{str(file)!r} has {live!r}, which is no state of a parameter of this model")
    for live, pieces in pieces_of(family, state.tensors, targets).items():
        target, shape = targets[live], pieces.shape(state)
        alone = not pieces.stacked and math.prod(shape) == target.numel() == 1  # a step may have shape [1]
        if shape != tuple(target.shape) and not alone:
            raise CheckpointError(
                f"{str(file)!r} has {live!r} with shape {list(shape)}, the model {list(target.shape)}"
            )
        if alone:
            name = pieces.names[0][0]
            state.tensors = {**state.tensors, name: replace(state.tensors[name], shape=tuple(target.shape))}
        fill_tensor(target, state, pieces)
    state.close()


def check_whose(stored: Iterable[str], file: Path, optimizer: str) -> None:
    """Refuse a state that is another optimizer's. Raises CheckpointError."""
    whose = MUON if is_muon_state(stored) else ADAMW
    if whose != optimizer:
        raise CheckpointError(
            f"{str(file)!r} is {whose}'s state, and this run is {optimizer}'s: go on with --optimizer {whose.lower()}, or"
            f" move it away to begin {optimizer} anew"
        )


def moments(optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state by parameter name, as load_state and the commands that grow take it, each process with its own rows."""
    return {
        f"{name}.{kind}": value
        for name, parameter in model.named_parameters()
        for kind, value in optimizer.state.get(parameter, {}).items()
    }
