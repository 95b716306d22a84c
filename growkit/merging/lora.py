"""A LoRA of PEFT as a member: which tensors of a base it changes, and by how much, block by block. Knows what PEFT
stores and what its merge_and_unload computes; ignorant of what is done with a change.

Of a module, PEFT stores A (rank, in) and B (out, rank) of a linear layer, which may have a bias; of an embedding,
lora_embedding_A (rank, rows) and lora_embedding_B (width, rank). What was trained whole lies under its own name, and
copies of the base's tensors under base_layer. DoRA (arXiv 2402.09353, section 4) adds a magnitude for each output:

    W' = magnitude * (W + scale B A) / |W + scale B A|        the norm is of all that one output reads

Where outputs are rows, that is known row by row; for embeddings, and matrices stored (in, out), norms are found in a
pass of their own over the base. Memory holds the factors of a tensor or two, and blocks.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from growkit.checkpoint.source import Checkpoint
from growkit.merging.merged_tensor import BLOCK_ELEMENTS, MergedTensor


@dataclass(frozen=True, kw_only=True)
class LoraChange:
    """What becomes of one tensor of the base: names in the adapter's file, "" for what it does not hold."""

    base: str  # what the base stores it as
    copy: str = ""  # stands in the place of the base's tensor
    tokens: tuple[int, ...] = ()  # the copy is of these rows alone, in this order
    a: str = ""
    b: str = ""
    bias: str = ""  # is added to a bias
    magnitude: str = ""
    scale: float = 1.0
    expert: tuple[int, int, int] | None = None  # of A and B of all experts: which, of how many, B's first row for it
    across: bool = False  # outputs are columns: an embedding, or a matrix stored (in, out)


class ChangeOfBase(ABC):
    """A member that is a change of a base, which it must have read."""

    def delta(
        self, tensor: MergedTensor, name: str, start: int, stop: int, base: torch.Tensor | None, rows: np.ndarray | None
    ) -> torch.Tensor:
        """Rows [start, stop) as (rows, width) in the tensor's compute dtype."""
        assert base is not None, "a stored delta is of a base"
        return self.change(name, np.arange(start, stop), base)

    @abstractmethod
    def change(self, stem: str, rows: np.ndarray, base: torch.Tensor) -> torch.Tensor:
        """What these rows change by. base: what the base has there, (rows, width) in the dtype to compute in."""


@dataclass
class LowRankDelta(ChangeOfBase):
    """A LoRA as a member. changes: by stem of the tensor."""

    stored: Checkpoint
    base: Checkpoint
    changes: Mapping[str, LoraChange]

    def __post_init__(self) -> None:
        # blocks of a tensor are computed one after another, on two threads
        self._factors = lru_cache(maxsize=2)(self._read_factors)
        self._stacked = lru_cache(maxsize=2)(self._whole)  # of all experts of a layer
        self._norms = lru_cache(maxsize=2)(self._read_norms)

    def change(self, stem: str, rows: np.ndarray, base: torch.Tensor) -> torch.Tensor:
        """What these rows change by. base: what the base has there, (rows, width) in the dtype to compute in."""
        this = self.changes[stem]
        if not this.copy and not this.magnitude:
            return self._added(this, rows, base.dtype)
        new = self._start(this, rows, base)
        if this.magnitude:
            magnitude = self._whole(this.magnitude, base.dtype).flatten()
            if this.across:
                norms = self._norms(this, base.dtype)
            else:
                norms, magnitude = torch.linalg.vector_norm(new, dim=1), magnitude[torch.from_numpy(rows)]
            # where all is 0, so is what is scaled
            factor = torch.where(norms == 0, torch.zeros_like(norms), magnitude / norms)
            new = new * (factor if this.across else factor[:, None])
        return new.sub_(base)

    def _start(self, this: LoraChange, rows: np.ndarray, base: torch.Tensor) -> torch.Tensor:
        """The base's rows, or those that stand in their place, and what A and B add to them."""
        start = base
        if this.tokens:
            start, places = base.clone(), {token: place for place, token in enumerate(this.tokens)}
            there = [number for number, row in enumerate(rows.tolist()) if row in places]
            from_file = np.array([places[int(rows[number])] for number in there], dtype=np.int64)
            start[there] = self.stored.rows(this.copy, from_file).to(base.dtype)
        elif this.copy:
            start = self.stored.rows(this.copy, rows).to(base.dtype)
        return start + self._added(this, rows, base.dtype) if this.a or this.bias else start.clone()

    def _added(self, this: LoraChange, rows: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
        if this.bias:
            return self.stored.rows(this.bias, rows).to(dtype).mul_(this.scale)
        left, right = self._factors(this, dtype)
        return (left[torch.from_numpy(rows)] @ right).mul_(this.scale)

    def _read_factors(self, this: LoraChange, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """(rows, rank) and (rank, width) whose product is what A and B add."""
        if this.expert is not None:
            expert, experts, first = this.expert
            rank = self.stored.tensors[this.a].shape[0] // experts
            a = self.stored.rows(this.a, np.arange(expert * rank, (expert + 1) * rank)).to(dtype)
            height = self.base.tensors[this.base].shape[0]
            return self._stacked(this.b, dtype)[first : first + height, expert::experts], a
        a, b = self._whole(this.a, dtype), self._whole(this.b, dtype)
        return (a.T.contiguous(), b.T.contiguous()) if this.across else (b, a)

    def _read_norms(self, this: LoraChange, dtype: torch.dtype) -> torch.Tensor:
        """(width,) norms of the columns of the base with A and B added, in one pass over the base."""
        height, width = self.base.tensors[this.base].shape
        squares = torch.zeros(width, dtype=torch.float64)
        step = max(1, BLOCK_ELEMENTS // max(1, width))
        for first in range(0, height, step):
            rows = np.arange(first, min(first + step, height))
            new = self._start(this, rows, self.base.rows(this.base, rows).to(dtype))
            squares += new.double().square().sum(0)
        return squares.sqrt().to(dtype)

    def _whole(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        return self.stored.rows(name, np.arange(self.stored.tensors[name].shape[0])).to(dtype)
