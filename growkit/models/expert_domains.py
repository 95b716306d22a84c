"""How much the experts that tokens take tell of the domain these tokens are of: mutual information, layer by layer.
Knows counts, and routers of live mixtures; ignorant of losses and of training.

Of n pairs of a token that is shown and one of the k experts it takes, by domain and expert, in nats,

    I(expert; domain) = sum p(d, e) log(p(d, e) / (p(d) p(e))) - (K_de - K_d - K_e + 1) / (2 n)

with K the numbers of cells that are not empty: the correction of Miller and Madow (1955), for counts alone make
independent things look related. It takes pairs for independent draws; neighbouring tokens of a text are not, so of few
texts some of that is left. 0 where experts ignore domains; at most what either has to say, min(log E, H(domain)), and
log D of D domains of one size.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from growkit.data.domains import NOWHERE, Domains
from growkit.models.live_layers import sparse_parts


class TakenExperts:
    """What the routers of a model decide, from now on, counted by domain. domains: of the text that it reads."""

    def __init__(self, model: Any, domains: Domains):
        self._domains, self._counts, self._layers = domains, torch.zeros(0), list[int]()
        self._now: dict[int, tuple[torch.Tensor, int]] = {}  # of the newest pass
        for number, router in sparse_parts(model, experts=False):
            router.register_forward_hook(self._noting(number))

    def add(self, places: np.ndarray) -> None:
        """Count what was decided of a batch, the newest. places: (rows, length), where each token lies in its file; -1
        counts nothing."""
        self._layers = sorted(self._now)
        if self._layers:
            taken, experts = zip(*(self._now[layer] for layer in self._layers))
            shown = torch.from_numpy(self._domains.shown(places)).flatten()
            counts = counted(taken, shown, len(self._domains.names), experts[0])
            self._counts = counts if not len(self._counts) else self._counts + counts

    def told(self) -> dict[str, Any] | None:
        """As `expert_domains` says it; None of a model without experts."""
        return expert_domains(self._layers, self._counts) if self._layers else None

    def _noting(self, layer: int) -> Callable[[Any, Any, Any], None]:
        def note(_: Any, __: Any, said: Any) -> None:
            self._now[layer] = (said[2], said[0].shape[-1])

        return note


def counted(taken: Sequence[torch.Tensor], domains: torch.Tensor, number: int, experts: int) -> torch.Tensor:
    """(layers, number, experts) float64: pairs by domain and expert. taken: of each layer (T, k) int64. domains: (T,)
    uint8; NOWHERE counts nothing."""
    counts = []
    for layer in taken:
        kinds = domains.to(layer.device, torch.int64)
        chosen = (kinds != NOWHERE).nonzero().squeeze(1)
        cells = kinds[chosen, None] * experts + layer[chosen]
        counts.append(torch.bincount(cells.flatten(), minlength=number * experts).view(number, experts).double())
    return torch.stack(counts)


def information(counts: torch.Tensor) -> float:
    """I(expert; domain) in nats of counts (domains, experts), corrected, from 0 to `most`; 0 where there are none."""
    pairs = counts.sum().item()
    if not pairs:
        return 0.0
    domains, experts = counts.sum(1), counts.sum(0)
    plain = _entropy(domains) + _entropy(experts) - _entropy(counts)
    cells, rows, columns = (int((side > 0).sum()) for side in (counts, domains, experts))
    return min(max(0.0, plain - (cells - rows - columns + 1) / (2 * pairs)), most(counts))


def most(counts: torch.Tensor) -> float:
    """min(log E, H(domain)) in nats of counts (domains, experts): the largest that their information can be."""
    return min(math.log(counts.shape[1]), _entropy(counts.sum(1)))


def expert_domains(layers: Sequence[int], counts: torch.Tensor) -> dict[str, Any]:
    """What metrics say of counts (layers, domains, experts): the numbers of the layers, the information of each in
    nats, and the most that it can be."""
    return {"layers": list(layers), "nats": [information(layer) for layer in counts], "most": most(counts[0])}


def _entropy(counts: torch.Tensor) -> float:
    """In nats, of what counts say."""
    shares = counts[counts > 0] / counts.sum()
    return -(shares * shares.log()).sum().item() + 0.0
