"""IA3 of PEFT (arXiv 2205.05638) as a member: which tensors of a base it scales, and what that changes, block by block.
Knows what PEFT stores and what its merge_and_unload computes; ignorant of what is done with a change.

Of a linear layer PEFT stores ia3_l: (out, 1), by which outputs are multiplied, bias and all, or (1, in), by which
inputs are. Either is a factor on the rows or on the columns of the weight, whichever way that lies.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from growkit.checkpoint.fields import AnyOf, Fields, ListOf, Null, OneOf, Text, checked, shown
from growkit.checkpoint.small_files import read_json
from growkit.checkpoint.source import ADAPTER, ADAPTER_CONFIG, Checkpoint, open_state
from growkit.errors import CheckpointError, RequestError
from growkit.families import Family
from growkit.growth.source_headers import FLOATS, Headers
from growkit.merging.lora import ChangeOfBase
from growkit.merging.lora_base import LoraBase, lora_base
from growkit.merging.lora_tensors import PREFIX

KIND, ENDING = "IA3", ".ia3_l"
_NAMES = Null(AnyOf([Text(), ListOf(Text())]))
SCHEMA = Fields(
    {"peft_type": OneOf([KIND]), "target_modules": _NAMES, "feedforward_modules": _NAMES, "exclude_modules": _NAMES},
    needed=("peft_type",),
)
# which model it was, how it was trained, how it is held in memory; the rest is seen from the tensors
HARMLESS = (
    *SCHEMA.kinds, "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "fan_in_fan_out", "init_ia3_weights",
)  # fmt: skip


@dataclass(frozen=True)
class Scaling:
    """What one tensor of the base is multiplied by. vector: the tensor in the file. rows: of it, else its columns."""

    vector: str
    rows: bool


@dataclass
class ScaledDelta(ChangeOfBase):
    """An IA3 as a member. changes: by stem of the tensor."""

    stored: Checkpoint
    changes: Mapping[str, Scaling]

    def __post_init__(self) -> None:
        self._vector = lru_cache(maxsize=4)(self._read)

    def change(self, stem: str, rows: np.ndarray, base: torch.Tensor) -> torch.Tensor:
        """What these rows change by. base: what the base has there, (rows, width) in the dtype to compute in."""
        this = self.changes[stem]
        factor = self._vector(this.vector, base.dtype) - 1
        return base * (factor[torch.from_numpy(rows), None] if this.rows else factor)

    def _read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        return self.stored.whole(name).flatten().to(dtype)


def is_ia3(folder: Path) -> bool:
    """Whether a folder's adapter_config.json says that it is an IA3. Raises CheckpointError where it cannot be read."""
    path = folder / ADAPTER_CONFIG
    return path.is_file() and read_json(path).get("peft_type") == KIND


def open_ia3(
    folder: Path, headers: Headers, family: Family
) -> tuple[ScaledDelta, dict[str, torch.dtype], dict[str, tuple[int, ...]]]:
    """The member, and dtypes and shapes by stem of what it changes of a base. headers: of the base.

    Raises CheckpointError for files that do not hold together, RequestError for what does not fit the base.
    """
    _check_config(folder)
    stored = open_state(folder / ADAPTER)
    here = lora_base(headers, family)
    changes: dict[str, Scaling] = {}
    for name in stored.tensors:
        changes |= _scalings(folder, stored, here, name)
    if not changes:
        raise CheckpointError(f"{str(folder)!r} holds no tensors: nothing was saved in its {ADAPTER}")
    wide = torch.float64 in {stored.tensors[change.vector].dtype for change in changes.values()}
    dtypes = dict.fromkeys(changes, torch.float64 if wide else torch.float32)
    return ScaledDelta(stored, changes), dtypes, {stem: headers.shapes[here.names[stem]] for stem in changes}


def _check_config(folder: Path) -> None:
    content = checked(read_json(folder / ADAPTER_CONFIG), SCHEMA, folder / ADAPTER_CONFIG)
    for key, value in content.items():
        if value and key not in HARMLESS:
            raise RequestError(f"{str(folder)!r} has {key} {shown(value)}, which growkit cannot add to a model")


def _scalings(folder: Path, stored: Checkpoint, here: LoraBase, name: str) -> dict[str, Scaling]:
    """What a tensor of the file scales, by stem: a weight, and a bias with its outputs."""
    tensor, module = stored.tensors[name], name.removeprefix(PREFIX).removesuffix(ENDING)
    if not name.startswith(PREFIX) or not name.endswith(ENDING) or here.family.layer_of(module) is None:
        raise RequestError(f"{str(folder)!r} has tensor {name!r}, which is not of an IA3 of a model's layers")
    if tensor.dtype not in FLOATS:
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise CheckpointError(f"tensor {name!r} of {str(folder)!r} has dtype {dtype}, which is no weight's")
    stem, bias = here.stem(f"{module}.weight"), here.stem(f"{module}.bias")
    base = here.name(str(folder), name, stem)
    shape = here.headers.shapes[base]
    linear, across = here.outputs(stem)
    out, into = (shape[::-1] if across else shape) if len(shape) == 2 and linear else (0, 0)
    if tensor.shape not in ((out, 1), (1, into)):
        raise CheckpointError(
            f"tensor {name!r} of {str(folder)!r} has shape {list(tensor.shape)} where {base!r} of {here.headers.label!r}"
            f" asks for {[out, 1]} or {[1, into]}; it is of another base"
        )
    outputs = tensor.shape == (out, 1)
    scaled = {stem: Scaling(name, rows=outputs != across)}
    return scaled | ({bias: Scaling(name, rows=True)} if outputs and bias in here.names else {})
