"""Deltas that are stored by themselves: sparse, in growkit's own file, or a LoRA, in PEFT's. Knows how a folder tells
which it is, and the sparse format; ignorant of how deltas are merged.

Sparse, DELTA/delta.safetensors, for each tensor by its stem (its name without the prefix a task model gives its base
model):
    STEM.dense      (elements,)  the whole delta, of tensors of one dimension
    STEM.row_ends   (rows,)      of matrices: how many values there are up to and with each row, int64
    STEM.columns    (values,)    their columns, row after row, int32
    STEM.values     (values,)    the values, already divided by 1 - p, in the dtype of the base's tensor
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch

from growkit.checkpoint.headers import StoredTensor
from growkit.checkpoint.made_for import check_made_for, check_result
from growkit.checkpoint.source import ADAPTER, Checkpoint, open_checkpoint, runs
from growkit.errors import CheckpointError, RequestError
from growkit.families import Family
from growkit.growth.kin import names_of
from growkit.growth.source_headers import FLOATS, Headers, is_tied
from growkit.merging.by_tensor import Number
from growkit.merging.ia3 import ScaledDelta, is_ia3, open_ia3
from growkit.merging.lora import LowRankDelta
from growkit.merging.lora_tensors import open_lora
from growkit.merging.merged_tensor import Giver, MergedTensor
from growkit.models.small.small_file import is_small, read_small

SPARSE, PICKLED = "delta.safetensors", "adapter_model.bin"


@dataclass(frozen=True)
class SparseDelta:
    """A sparse delta as a member."""

    stored: Checkpoint

    def delta(
        self, tensor: MergedTensor, name: str, start: int, stop: int, base: torch.Tensor | None, rows: np.ndarray | None
    ) -> torch.Tensor:
        """Rows [start, stop) as (rows, width) in the tensor's compute dtype."""
        return self._rows(name, start, stop, tensor.width, tensor.compute)

    def change(self, stem: str, rows: np.ndarray, base: torch.Tensor) -> torch.Tensor:
        """What these rows change by. base: what the base has there, (rows, width) in the dtype to compute in."""
        parts = [self._rows(stem, first, first + count, base.shape[1], base.dtype) for first, count in runs(rows)]
        return torch.cat(parts) if parts else torch.zeros_like(base)

    def _rows(self, name: str, start: int, stop: int, width: int, dtype: torch.dtype) -> torch.Tensor:
        if f"{name}.dense" in self.stored.tensors:
            return self.stored.rows(f"{name}.dense", np.arange(start, stop)).to(dtype)
        before = max(start - 1, 0)
        ends = self.stored.rows(f"{name}.row_ends", np.arange(before, stop)).flatten().numpy()
        ends = ends if start else np.concatenate([[0], ends])
        if ends[0] < 0 or (np.diff(ends) < 0).any() or ends[-1] > self.stored.tensors[f"{name}.values"].elements:
            raise self._unsound(f"{name}.row_ends", "should grow from 0 to the number of values")
        places = np.arange(ends[0], ends[-1])
        delta = torch.zeros(stop - start, width, dtype=dtype)
        of_row = torch.from_numpy(np.repeat(np.arange(stop - start), np.diff(ends)))
        columns = self.stored.rows(f"{name}.columns", places).flatten().long()
        if len(columns) and not 0 <= int(columns.min()) <= int(columns.max()) < width:
            raise self._unsound(f"{name}.columns", f"should be from 0 to below {width}")
        delta[of_row, columns] = self.stored.rows(f"{name}.values", places).flatten().to(dtype)
        return delta

    def _unsound(self, name: str, why: str) -> CheckpointError:
        return CheckpointError(f"tensor {name!r} of {self.stored.label!r} {why}; save the delta again")


@dataclass(frozen=True, kw_only=True)
class Skill:
    """A stored delta that was opened. untied: the base's head and embedding, one tensor there, differ in the result."""

    giver: Giver  # what a plan needs of it
    member: SparseDelta | LowRankDelta | ScaledDelta
    stored: Checkpoint
    untied: bool = False


def open_skill(
    path: Path, base: Checkpoint, headers: Headers, family: Family, key: str = "", weight: Number = 1.0
) -> Skill:
    """Open a stored delta. headers: of the base.

    Raises CheckpointError for what is no delta or a damaged one, RequestError for an adapter that is more than a LoRA,
    or of another base.
    """
    untied = False
    member: SparseDelta | LowRankDelta | ScaledDelta
    if is_small(path):
        raise RequestError(
            f"{str(path)!r} is a {read_small(path).kind}: how its experts are mixed depends on each token, which no plain"
            " weights can do; generate --adapter uses it"
        )
    check_made_for(path, base)
    if (path / SPARSE).is_file():
        stored = open_checkpoint(path / SPARSE)
        member, dtypes, shapes, untied = _sparse(path, stored, headers, family)
    elif (path / ADAPTER).is_file() and is_ia3(path):
        member, dtypes, shapes = open_ia3(path, headers, family)
        stored = member.stored
    elif (path / ADAPTER).is_file():
        lora = open_lora(path, base, headers, family)
        member, dtypes, shapes, untied = lora.member, lora.dtypes, lora.shapes, lora.untied
        stored = lora.member.stored
    elif (path / PICKLED).is_file():
        raise CheckpointError(
            f"{str(path / PICKLED)!r} is a pickle, which can run code when it is read; load the adapter with PEFT where you"
            f" trust it, and save it again as {ADAPTER}"
        )
    else:
        check_result(path)
        raise CheckpointError(
            f"{str(path)!r} holds no delta: expected {SPARSE} (growkit delta --save) or {ADAPTER} (PEFT)"
        )
    giver = Giver(
        label=str(path),
        key=key,
        weight=weight,
        bytes=sum(tensor.bytes for tensor in stored.tensors.values()),
        names={stem: stem for stem in dtypes},
        dtypes=dtypes,
        shapes=shapes,
    )
    return Skill(giver=giver, member=member, stored=stored, untied=untied)


def _sparse(path: Path, stored: Checkpoint, base: Headers, family: Family) -> tuple[SparseDelta, dict, dict, bool]:
    """The last says whether it changes a head that is tied in the base. Raises CheckpointError for tensors that are no
    parts of a sparse delta, or do not belong together.
    """
    dtypes, shapes = {}, {}
    ours = dict(names_of(family, base))
    parts: dict[str, dict[str, StoredTensor]] = {}
    for name, tensor in stored.tensors.items():
        stem, _, part = name.rpartition(".")
        parts.setdefault(stem, {})[part] = tensor
    own = [stem for stem in parts if stem in family.heads] if is_tied(family, base) else []
    if own:
        ours |= dict.fromkeys(own, ours[family.embedding])  # where its head lies, before it has one of its own
    for stem, there in parts.items():
        held = there.get("dense", there.get("values"))
        if held is None or held.dtype not in FLOATS or not (len(there) == 1 if "dense" in there else _is_csr(there)):
            raise CheckpointError(
                f"{str(path)!r} has {', '.join(sorted(there))} of {stem!r}: expected dense, or row_ends (int64), columns"
                " (int32) and values of one length, in a floating-point dtype; save the delta again"
            )
        dtypes[stem] = held.dtype
        rest = base.shapes.get(ours.get(stem, ""), ())[1:]
        rows = (held if "dense" in there else there["row_ends"]).shape[:1]
        shapes[stem] = held.shape if "dense" in there and held.elements != prod(rows + rest) else rows + rest
    if not parts:
        raise CheckpointError(f"{str(path)!r} holds no tensors: nothing was saved in its {SPARSE}")
    return SparseDelta(stored), dtypes, shapes, bool(own)


def _is_csr(there: Mapping[str, StoredTensor]) -> bool:
    """Whether these are the three parts of a matrix."""
    if {*there} != {"row_ends", "columns", "values"} or any(len(tensor.shape) != 1 for tensor in there.values()):
        return False
    kinds = there["row_ends"].dtype, there["columns"].dtype
    return kinds == (torch.int64, torch.int32) and there["columns"].shape == there["values"].shape
