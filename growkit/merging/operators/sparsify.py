"""Leave out part of a delta. Knows tensors and numbers; ignorant of models, members and where the draws come from.

All work in place on deltas (rows, columns) in float32 or float64 and return them.
"""

import numpy as np
import torch

from growkit.operators.streams import threshold


def drop(delta: torch.Tensor, p: float, draws: np.ndarray) -> torch.Tensor:
    """DARE (arXiv 2311.03099): each element is 0 with probability p, else divided by 1 - p, so that its mean stays.

    draws: (elements,) uniform uint32, one for each element.
    """
    return _keep(delta, draws >= threshold(p)).div_(1 - p)


def keep_top(delta: torch.Tensor, least: float) -> torch.Tensor:
    """TIES' trim (arXiv 2306.01708): only magnitudes of at least `least` stay."""
    return _keep(delta, np.abs(delta.flatten().numpy()) >= least)


def keep_band(delta: torch.Tensor, least: float, above: float) -> torch.Tensor:
    """Breadcrumbs (arXiv 2312.06795): magnitudes from `least` to below `above` stay; the smallest and outliers go."""
    size = np.abs(delta.flatten().numpy())
    return _keep(delta, (size >= least) & (size < above))


def drop_by_rank(delta: torch.Tensor, density: float, epsilon: float, draws: np.ndarray) -> torch.Tensor:
    """DELLA's MagPrune (arXiv 2406.11617): in each row an element stays with probability q and is divided by its own q.

    q goes from density - epsilon for the smallest magnitude of the row to density + epsilon for the largest.
    """
    columns = delta.shape[1]
    order = delta.abs().argsort(dim=1, stable=True)
    place = torch.linspace(0, 1, columns, dtype=torch.float64) if columns > 1 else torch.full((1,), 0.5).double()
    by_rank = (density + epsilon * (2 * place - 1)).expand(delta.shape)
    q = torch.empty(delta.shape, dtype=torch.float64).scatter_(1, order, by_rank)
    return _keep(delta, draws >= threshold(1 - q.flatten().numpy())).div_(q.to(delta.dtype))


def _keep(delta: torch.Tensor, kept: np.ndarray) -> torch.Tensor:
    """Multiply, so that what is not finite stays visible even where it is dropped; numpy does it faster than torch."""
    values = delta.numpy()
    np.multiply(values, kept.reshape(values.shape), out=values)
    return delta
