"""Muon for matrices and AdamW for all else, as one optimizer for grown models. Knows torch's Muon and how growkit
states rates by index; ignorant of losses and of data.

Matrices are moved by torch.optim.Muon with the rate scaled as "match_rms_adamw" does (arXiv 2502.16982), so that one
rate serves both. Embeddings, heads, gains and biases are AdamW's.
"""

from collections.abc import Sequence
from typing import Any

import torch

from growkit.families import Family
from growkit.growth.muon_rules import BY_INDEX, is_muons, spread
from growkit.training.optim import Multipliers, groups_of, prime

MOMENTUM, EPS = 0.95, 1e-7  # torch's own


class AdamWByIndex(torch.optim.Optimizer):
    """AdamW with a rate and an eps for each index of a parameter's last dimension, relative to its group's: "index_lr"
    and "index_eps", to the power of "exponent"."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step."""
        for group in self.param_groups:
            (beta1, beta2), power = group["betas"], group["exponent"]
            (parameter,) = group["params"]
            if (gradient := parameter.grad) is None:
                continue
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            state["step"] += 1
            first, second, step = state["exp_avg"], state["exp_avg_sq"], state["step"].item()
            first.lerp_(gradient, 1 - beta1)
            second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            root = (second / (1 - beta2**step)).sqrt() + group["eps"] * group["index_eps"] ** power
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.sub_(first / (1 - beta1**step) / root * (group["lr"] * group["index_lr"] ** power))


class MuonAndAdamW(torch.optim.Optimizer):
    """Several optimizers of one model as one: their groups and their state are its own."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]):
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = parts
        for part in parts:
            part.state = self.state

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of each."""
        for part in self.parts:
            part.step()


def muon_and_adamw(
    model: torch.nn.Module,
    family: Family,
    weight_decay: float,
    betas: tuple[float, float],
    eps: float,
    multipliers: Multipliers | None = None,
) -> MuonAndAdamW:
    """Muon over the matrices that learn, AdamW over all else that does; multipliers as growkit writes them."""
    said = multipliers or {}
    learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [(name, p) for name, p in learning if p.dim() == 2 and is_muons(family, name)]
    by_index = [(name, p) for name, p in learning if BY_INDEX in said.get(name, {})]
    taken = {name for name, _ in (*matrices, *by_index)}
    rest = [(name, p) for name, p in learning if name not in taken]
    parts: list[torch.optim.Optimizer] = []
    if matrices:
        groups = groups_of(matrices, weight_decay, EPS, said)
        parts.append(torch.optim.Muon(groups, lr=0.0, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw"))
    if rest:
        parts.append(torch.optim.AdamW(groups_of(rest, weight_decay, eps, said), lr=0.0, betas=betas, fused=True))
    if by_index:
        parts.append(AdamWByIndex([_indexed(*one, weight_decay, eps, said) for one in by_index], {"betas": betas}))
    optimizer = MuonAndAdamW(parts)
    prime(optimizer)
    return optimizer


def _indexed(
    name: str, parameter: torch.nn.Parameter, weight_decay: float, eps: float, said: Multipliers
) -> dict[str, Any]:
    """The group of one parameter with rates by index."""
    (group,) = groups_of([(name, parameter)], weight_decay, eps, said)
    for word in ("lr", "eps"):
        along = spread(said[name], word, parameter.shape[-1]) / said[name].get(word, 1.0)
        group[f"index_{word}"] = torch.from_numpy(along).to(parameter)
    return {**group, "exponent": 1.0, "lr": 0.0}
