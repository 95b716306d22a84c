"""What of a tensor is drawn at random, or given, rather than copied. Knows tensors and generators; ignorant of names,
experts and files.

Every draw is a pure function of (seed, key, first row of the block), so a file can be streamed in any order.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from einops import repeat

from growkit.operators.seeds import generator, stable_seed

Moments = tuple[float, float]  # mean and standard deviation


@dataclass(frozen=True)
class Fill:
    """A whole tensor from N(0, std); each drawn row stands `repeat` times in succession."""

    shape: tuple[int, int]
    std: float
    repeat: int = 1

    def values(self, seed: int, key: str, dtype: torch.dtype) -> torch.Tensor:
        """The tensor, drawn in float32."""
        rows, columns = self.shape
        drawn = torch.randn(rows // self.repeat, columns, generator=generator(seed, key)) * self.std
        return repeat(drawn, "row column -> (row repeat) column", repeat=self.repeat).to(dtype)


@dataclass(frozen=True, eq=False)
class Given:
    """A whole tensor that was computed beforehand."""

    tensor: torch.Tensor

    def values(self, seed: int, key: str, dtype: torch.dtype) -> torch.Tensor:
        """The tensor."""
        return self.tensor.to(dtype)


@dataclass(frozen=True, kw_only=True)
class Redraw:
    """Entries drawn from a normal distribution with the moments of those they are drawn for.

    rows, columns: whose entries are drawn anew, None where that dimension does not choose (one of them is None). added:
    None to put what is drawn in place of what was there (Drop-Upcycling, arXiv 2502.19261, where mean and deviation are
    those of exactly the entries replaced), else that share of the deviation is added to it, without the mean. kept:
    what was there is multiplied by this, where something is added. key: what seeds the draw, None: the tensor's name.
    """

    rows: np.ndarray | None = None
    columns: np.ndarray | None = None
    added: float | None = None
    kept: float = 1.0
    key: str | None = None

    def moments(self, blocks: Iterable[tuple[int, torch.Tensor]]) -> Moments:
        """Mean and standard deviation of the entries that are drawn anew, over (first row, block) of the whole
        tensor."""
        count, total, squares = 0, 0.0, 0.0
        for start, block in blocks:
            entries = block[self._chosen(start, block)].double()
            count, total = count + entries.numel(), total + entries.sum().item()
            squares += entries.square().sum().item()
        mean = total / max(1, count)
        return mean, max(0.0, squares / max(1, count) - mean**2) ** 0.5

    def apply(self, block: torch.Tensor, start: int, moments: Moments, seed: int, key: str) -> torch.Tensor:
        """A block of rows with its entries drawn anew, in its own dtype."""
        chosen, (mean, deviation) = self._chosen(start, block), moments
        shape = block[chosen].shape
        drawn = torch.randn(shape, generator=generator(seed, f"{self.key or key}/{start}"), dtype=block.dtype)
        block = block.clone()
        if self.kept != 1.0:  # the length of the whole stays: both parts have the root mean square of what was there
            block, deviation = self.kept * block, float(np.hypot(mean, deviation))
        block[chosen] = (
            mean + deviation * drawn if self.added is None else block[chosen] + self.added * deviation * drawn
        )
        return block

    def _chosen(self, start: int, block: torch.Tensor) -> tuple[slice | torch.Tensor, ...]:
        if self.rows is not None:
            inside = self.rows[(self.rows >= start) & (self.rows < start + len(block))]
            return (torch.from_numpy(inside - start),)
        return (slice(None), slice(None) if self.columns is None else torch.from_numpy(self.columns))


def any_units(count: int, share: float, seed: int, key: str) -> np.ndarray:
    """floor(share * count) of the numbers below count, ascending, drawn without repetition."""
    draws = np.random.Generator(np.random.PCG64(stable_seed(seed, key)))
    return np.sort(draws.permutation(count)[: int(share * count)])
