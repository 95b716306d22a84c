"""What of a tensor is drawn at random, or given, rather than copied. Knows tensors and generators; ignorant of names,
experts and files.

Every draw is a pure function of (seed, key, first row of the block), so a file can be streamed in any order.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from einops import repeat

from growkit.operators.seeds import generator, stable_seed

Blocks = Iterable[tuple[int, torch.Tensor]]  # (first row, rows) of a whole tensor
Filling = Callable[[torch.Tensor, int], torch.Tensor]  # a block and its first row -> the block with what is drawn


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

    def filling(self, blocks: Blocks, seed: int, key: str) -> Filling:
        """What draws the entries of a block of rows anew, in its own dtype. blocks: of the whole tensor, for the mean
        and deviation of what is there."""
        moments = self._moments(blocks)
        return lambda block, start: self._drawn(block, start, *moments, seed, self.key or key)

    def _moments(self, blocks: Blocks) -> tuple[float, float]:
        """Mean and standard deviation of the entries that are drawn anew."""
        count, total, squares = 0, 0.0, 0.0
        for start, block in blocks:
            entries = block[self._chosen(start, block)].double()
            count, total = count + entries.numel(), total + entries.sum().item()
            squares += entries.square().sum().item()
        mean = total / max(1, count)
        return mean, max(0.0, squares / max(1, count) - mean**2) ** 0.5

    def _drawn(
        self, block: torch.Tensor, start: int, mean: float, deviation: float, seed: int, key: str
    ) -> torch.Tensor:
        chosen = self._chosen(start, block)
        shape = block[chosen].shape
        drawn = torch.randn(shape, generator=generator(seed, f"{key}/{start}"), dtype=block.dtype)
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Rest:
    """What a source in a corner leaves open: all that is in these rows or columns, as a new tensor has it.

    rows, columns: bool for each of them. new: from a seed to the whole new tensor, of rows x columns; None until
    somebody who knows live models says it.
    """

    rows: np.ndarray
    columns: np.ndarray
    new: Callable[[int], torch.Tensor] | None = None

    def filling(self, blocks: Blocks, seed: int, key: str) -> Filling:
        """What puts a new tensor's entries where a block of rows is open; the tensor is drawn once, and held."""
        assert self.new is not None, f"nobody said how {key!r} is drawn"
        new, columns, rows = self.new(seed), torch.from_numpy(self.columns), torch.from_numpy(self.rows)

        def filled(block: torch.Tensor, start: int) -> torch.Tensor:
            places = slice(start, start + len(block))
            return torch.where(rows[places, None] | columns, new[places].to(block.dtype), block)

        return filled


def any_units(count: int, share: float, seed: int, key: str) -> np.ndarray:
    """floor(share * count) of the numbers below count, ascending, drawn without repetition."""
    draws = np.random.Generator(np.random.PCG64(stable_seed(seed, key)))
    return np.sort(draws.permutation(count)[: int(share * count)])
