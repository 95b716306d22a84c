"""How a mixture of experts routes while it learns: what keeps its experts in use, and what is said of it. Knows routers
and experts of stock models; ignorant of steps and of growth.

Per layer, over T tokens that each take k of N experts, f_i the share of (token, slot) pairs on expert i, P_i the mean
probability the router gives it, x_t its logits:

    balance  N * sum_i f_i P_i                 1 when balanced, N/k at worst (Switch, arXiv 2101.03961 equation 4)
    z        mean_t (logsumexp x_t)^2          (ST-MoE, arXiv 2202.08906 equation 5)

What rows are filled up with is no token. Both are means over the layers that learn. transformers' own loss pools the
layers before the product, so that two layers collapsed onto different experts look balanced to it; it is not used.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from growkit.families import family_named
from growkit.models.expert_domains import counted
from growkit.models.live_layers import sparse_parts

DEAD = 0.1  # an expert with less than this share of an even load


class Routing:
    """What the routers of a forward pass decided. Of each sparse layer, in order: its number, logits (T, N), experts
    taken (T, k). held: of which positions, None of all."""

    def __init__(self, held: torch.Tensor | None = None) -> None:
        self.held = held
        self.layers: list[int] = []
        self.logits: list[torch.Tensor] = []
        self.taken: list[torch.Tensor] = []

    def losses(self) -> torch.Tensor | None:
        """(balance, z), each a mean over the layers that learn; None where none does."""
        learning = [pair for pair in zip(self.logits, self.taken) if pair[0].requires_grad]
        if not learning:
            return None
        return torch.stack([torch.stack([balance_loss(*pair), z_loss(pair[0])]) for pair in learning]).mean(0)

    def tallies(self) -> torch.Tensor | None:
        """(sparse layers, N + 3) float64: the layer's number times tokens, pairs on each expert, the sum of the
        router's entropies in nats, and tokens; None for a dense model."""
        rows = []
        for layer, logits, taken in zip(self.layers, self.logits, self.taken):
            chances = torch.log_softmax(logits.detach().float(), -1)
            counts = torch.bincount(taken.flatten(), minlength=logits.shape[-1]).double()
            entropy = -(chances.exp() * chances).double().sum()
            number, tokens = counts.new_tensor([layer]), counts.new_tensor([len(taken)])
            rows.append(torch.cat([number * tokens, counts, entropy[None], tokens]))
        return torch.stack(rows) if rows else None

    def by_domain(self, domains: torch.Tensor, number: int) -> torch.Tensor | None:
        """(sparse layers, number, N) float64: pairs by domain and expert; None for a dense model. domains: (rows,
        length) uint8, one of `number` for each position, or NOWHERE, which counts nothing."""
        if not self.taken:
            return None
        return counted(self.taken, _at(self.held, domains.flatten()), number, self.logits[0].shape[-1])


def balance_loss(logits: torch.Tensor, taken: torch.Tensor) -> torch.Tensor:
    """N * sum f P of router logits (T, N) and the experts taken (T, k); f carries no gradient."""
    experts = logits.shape[-1]
    shares = torch.bincount(taken.flatten(), minlength=experts).float() / taken.numel()
    return experts * (shares * torch.softmax(logits.float(), -1).mean(0)).sum()


def z_loss(logits: torch.Tensor) -> torch.Tensor:
    """Mean square of the log-partition of router logits (T, N)."""
    return torch.logsumexp(logits.float(), -1).square().mean()


def is_mixture(model: Any) -> bool:
    """Whether a stock model is a mixture of experts."""
    return family_named(model.config.model_type).is_moe


def experts_of(model: Any) -> int:
    """How many experts a stock model's sparse layers have."""
    family = family_named(model.config.model_type)
    return family.number(model.config.to_dict(), family.sizes["expert"])


@contextmanager
def routing(model: Any, held: torch.Tensor | None = None) -> Iterator[Routing]:
    """Within the block, what the model's routers decide is noted; nothing for a dense model. held: of which positions,
    as a batch says it; None: of all."""
    noted = Routing(held)

    def noting(layer: int) -> Callable[[Any, Any, Any], None]:
        def note(_: Any, __: Any, output: Any) -> None:
            noted.layers.append(layer)
            noted.logits.append(_at(held, output[0]))
            noted.taken.append(_at(held, output[2]))

        return note

    hooks = [module.register_forward_hook(noting(layer)) for layer, module in sparse_parts(model, False)]
    try:
        yield noted
    finally:
        for hook in hooks:
            hook.remove()


def _at(held: torch.Tensor | None, rows: torch.Tensor) -> torch.Tensor:
    return rows if held is None else rows[held.to(rows.device)]


def drop_in_experts(model: Any, rate: float) -> None:
    """Inverted dropout on the hidden activation of routed experts while training (ST-MoE, section 4.2); names stay."""
    for _, experts in sparse_parts(model, True):
        experts.act_fn = torch.nn.Sequential(experts.act_fn, torch.nn.Dropout(rate))


def described(tallies: torch.Tensor) -> dict[str, Any]:
    """What metrics say of tallies, of each sparse layer: its number, each expert's load (1 is even), the router's
    entropy in nats; and [layer, expert] of those that hardly any token takes."""
    tokens = tallies[:, -1]
    layers, entropies, counts = (tallies[:, 0] / tokens).long(), tallies[:, -2] / tokens, tallies[:, 1:-2]
    loads = counts / counts.sum(-1, keepdim=True) * counts.shape[-1]
    return {
        "sparse_layers": layers.tolist(),
        "expert_load": [[round(share, 4) for share in row] for row in loads.tolist()],
        "router_entropy": entropies.tolist(),
        "dead_experts": [[int(layers[row]), expert] for row, expert in (loads < DEAD).nonzero().tolist()],
    }


def dead_note(routed: dict[str, Any]) -> str | None:
    """A sentence on experts that hardly any token takes, of what described says; None where all are used."""
    dead = routed.get("dead_experts", [])
    if not dead:
        return None
    where = ", ".join(f"{expert} of layer {layer}" for layer, expert in dead[:4])
    more = f" and {len(dead) - 4} more" if len(dead) > 4 else ""
    return f"hardly any token takes expert {where}{more}; a higher --balance would use them"
