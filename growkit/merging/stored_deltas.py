"""Deltas that are stored by themselves: sparse, in growkit's own file, or of low rank, in PEFT's. Knows both formats,
how they are read and how the latter is written; ignorant of how they are merged.

Sparse, DELTA/delta.safetensors, for each tensor by its stem (its name without the prefix a task model gives its base
model):
    STEM.dense      (elements,)  the whole delta, of tensors of one dimension
    STEM.row_ends   (rows,)      of matrices: how many values there are up to and with each row, int64
    STEM.columns    (values,)    their columns, row after row, int32
    STEM.values     (values,)    the values, already divided by 1 - p, in the dtype of the base's tensor
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from growkit.checkpoint.source import Checkpoint, open_checkpoint, read_json
from growkit.checkpoint.stream import write_blocks
from growkit.checkpoint.writer import layout, write_json
from growkit.errors import CheckpointError, RequestError
from growkit.families import Family
from growkit.growth.kin import names_of
from growkit.growth.source_headers import Headers
from growkit.merging.merge_plan import Giver, MergedTensor
from growkit.merging.merger import Merger
from growkit.merging.operators.subspace import low_rank
from growkit.operators.seeds import generator

SPARSE, ADAPTER, ADAPTER_CONFIG = "delta.safetensors", "adapter_model.safetensors", "adapter_config.json"
PREFIX, A, B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class SparseDelta:
    """A sparse delta as a member."""

    stored: Checkpoint

    def delta(
        self, tensor: MergedTensor, name: str, start: int, stop: int, base: torch.Tensor | None, rows: np.ndarray | None
    ) -> torch.Tensor:
        """Rows [start, stop) as (rows, width) in the tensor's compute dtype."""
        if f"{name}.dense" in self.stored.tensors:
            return self.stored.rows(f"{name}.dense", np.arange(start, stop)).to(tensor.compute)
        before = max(start - 1, 0)
        ends = self.stored.rows(f"{name}.row_ends", np.arange(before, stop)).flatten().numpy()
        ends = ends if start else np.concatenate([[0], ends])
        places = np.arange(ends[0], ends[-1])
        delta = torch.zeros(stop - start, tensor.width, dtype=tensor.compute)
        of_row = torch.from_numpy(np.repeat(np.arange(stop - start), np.diff(ends)))
        columns = self.stored.rows(f"{name}.columns", places).flatten().long()
        delta[of_row, columns] = self.stored.rows(f"{name}.values", places).flatten().to(tensor.compute)
        return delta


@dataclass(frozen=True)
class LowRankDelta:
    """A LoRA of PEFT as a member: scale * B A. names: stem -> its path in the adapter. transposed: fan_in_fan_out."""

    stored: Checkpoint
    names: dict[str, str]
    scale: float
    transposed: bool

    def delta(
        self, tensor: MergedTensor, name: str, start: int, stop: int, base: torch.Tensor | None, rows: np.ndarray | None
    ) -> torch.Tensor:
        """Rows [start, stop) as (rows, width) in the tensor's compute dtype."""
        a, b = (self._whole(self.names[name] + part).to(tensor.compute) for part in (A, B))
        left, right = (a.T, b.T) if self.transposed else (b, a)
        return (left[start:stop] @ right).mul_(self.scale)

    def _whole(self, name: str) -> torch.Tensor:
        return self.stored.rows(name, np.arange(self.stored.tensors[name].shape[0]))


def open_skill(path: Path, base: Headers, family: Family, key: str, weight: float) -> tuple[Giver, Any, Checkpoint]:
    """A stored delta: what the plan needs of it, its member, and its open file.

    Raises CheckpointError for what is no delta, RequestError for an adapter that is more than a plain LoRA.
    """
    for name in (SPARSE, ADAPTER):
        if (path / name).is_file():
            stored = open_checkpoint(path / name)
            total = sum(tensor.bytes for tensor in stored.tensors.values())
            member, dtypes, shapes = (_sparse if name == SPARSE else _adapter)(path, stored, base, family)
            names = {stem: stem for stem in dtypes}
            giver = Giver(
                label=str(path), key=key, weight=weight, bytes=total, names=names, dtypes=dtypes, shapes=shapes
            )
            return giver, member, stored
    raise CheckpointError(f"{str(path)!r} holds no delta: expected {SPARSE} (growkit delta --save) or {ADAPTER} (PEFT)")


def _sparse(path: Path, stored: Checkpoint, base: Headers, family: Family) -> tuple[Any, dict, dict]:
    dtypes, shapes = {}, {}
    ours = names_of(family, base)
    for name, tensor in stored.tensors.items():
        stem, _, part = name.rpartition(".")
        if part in ("dense", "values"):
            dtypes[stem] = tensor.dtype
            shape = base.shapes.get(ours.get(stem, ""), ())
            rows = tensor.shape[0] if part == "dense" else stored.tensors[f"{stem}.row_ends"].shape[0]
            shapes[stem] = (rows, *shape[1:])
    return SparseDelta(stored), dtypes, shapes


def _adapter(path: Path, stored: Checkpoint, base: Headers, family: Family) -> tuple[Any, dict, dict]:
    config = read_json(path / ADAPTER_CONFIG)
    for key in ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "layer_replication"):
        if config.get(key):
            raise RequestError(f"{str(path)!r} has {key} {config[key]!r}; growkit applies plain LoRA")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if config.get("peft_type") != "LORA" or not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise RequestError(f"{str(path / ADAPTER_CONFIG)!r} is of no LoRA with r and lora_alpha")
    names, dtypes, shapes, transposed = {}, {}, {}, bool(config.get("fan_in_fan_out"))
    for name, tensor in stored.tensors.items():
        module, part = next(((name[: -len(p)], p) for p in (A, B) if name.endswith(p)), ("", ""))
        if not module.startswith(PREFIX):
            raise RequestError(f"{str(path)!r} has tensor {name!r}; growkit applies plain LoRA of linear layers")
        if part == A:
            stem = family.stem(module.removeprefix(PREFIX) + ".weight")
            other = stored.tensors.get(module + B)
            if other is None:
                raise CheckpointError(f"{str(path)!r} has {name!r} without its lora_B; save it again")
            out, into = other.shape[0], tensor.shape[1]
            names[stem], dtypes[stem], shapes[stem] = module, tensor.dtype, (into, out) if transposed else (out, into)
    scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    return LowRankDelta(stored, names, scale, transposed), dtypes, shapes


def save_low_rank(merger: Merger, folder: Path, rank: int, linears: dict[str, bool], base: str) -> dict[str, float]:
    """Write the one member's delta as a LoRA that stock PEFT loads; returns each module's relative Frobenius error.

    linears: stem -> whether it is stored (in, out), of all linear layers. One tensor is held at a time; A and B are
    float32.
    """
    entries: list[tuple[str, torch.dtype, tuple[int, ...]]] = []
    tensors = [tensor for tensor in merger.plan.tensors if tensor.stem in linears]
    for tensor in tensors:
        out, into = tensor.shape[::-1] if linears[tensor.stem] else tensor.shape
        module = PREFIX + tensor.names[0].removesuffix(".weight")
        entries += [(module + A, torch.float32, (rank, into)), (module + B, torch.float32, (out, rank))]
    errors: dict[str, float] = {}

    def work() -> Iterator[tuple[list[tuple[str, int]], list[tuple[int, Callable[[], torch.Tensor]]]]]:
        for tensor in tensors:
            delta = torch.cat(list(merger.deltas(tensor, 0)))
            delta = delta.T if linears[tensor.stem] else delta
            b, a = low_rank(delta, rank, generator(merger.plan.request.seed, f"rank/{tensor.stem}"))
            module = tensor.names[0].removesuffix(".weight")
            errors[module] = float((delta - b @ a).norm() / delta.norm().clamp_min(1e-30))
            for part, matrix in ((A, a), (B, b)):
                whole = matrix.float().contiguous()
                yield [(PREFIX + module + part, 4)], [(0, lambda whole=whole: whole)]  # type: ignore[misc]

    headers, slots, sizes = layout(entries, 1 << 62, ADAPTER)
    write_blocks(work(), folder, headers, slots, sizes)
    modules = sorted({stem.removesuffix(".weight").rsplit(".", 1)[-1] for stem in linears})
    task = "CAUSAL_LM" if "CausalLM" in json.dumps(merger.plan.config.get("architectures")) else None
    config: dict[str, Any] = {
        "peft_type": "LORA", "task_type": task,
        "base_model_name_or_path": base, "r": rank, "lora_alpha": rank, "target_modules": modules, "lora_dropout": 0.0,
        "bias": "none", "fan_in_fan_out": any(linears.values()), "use_rslora": False, "use_dora": False,
        "modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {}, "inference_mode": True,
    }  # fmt: skip
    write_json(folder / ADAPTER_CONFIG, config)
    return errors
