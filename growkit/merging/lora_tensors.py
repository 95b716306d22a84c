"""From the tensors of an adapter's file to what it changes of a base. Knows the names that PEFT stores and the shapes
they must have; ignorant of values.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from growkit.checkpoint.source import ADAPTER, Checkpoint, open_state
from growkit.errors import CheckpointError, RequestError
from growkit.families import Family
from growkit.growth.source_headers import FLOATS, Headers, architecture_of, is_tied
from growkit.maps.notation import READ
from growkit.merging.lora import LoraChange, LowRankDelta
from growkit.merging.lora_config import LoraConfig, read_lora_config

PREFIX = "base_model.model."
A, B = ".lora_A.weight", ".lora_B.weight"
PARTS = {  # how the names of what belongs to one module end, and what is meant
    A: "a",
    B: "b",
    ".lora_B.bias": "bias",
    ".lora_embedding_A": "rows",
    ".lora_embedding_B": "width",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
    ".base_layer.weight": "base_layer.weight",
    ".base_layer.bias": "base_layer.bias",
    ".lora_velora_embed": "of training alone",  # VeLoRA's, of its backward pass
    ".weight": "weight",
    ".bias": "bias of its own",
}
INNER = ("lora_", "base_layer", "modules_to_save", "original_module", "token_adapter")  # never of a module's name
EIGHT_BITS = (torch.float8_e4m3fn, torch.float8_e5m2)


@dataclass(frozen=True)
class OpenLora:
    """A LoRA that is understood. untied: head and embedding, one tensor in the base, differ in the result."""

    member: LowRankDelta
    dtypes: dict[str, torch.dtype]  # by stem
    shapes: dict[str, tuple[int, ...]]
    untied: bool


def open_lora(folder: Path, base: Checkpoint, headers: Headers, family: Family) -> OpenLora:
    """What the LoRA in a folder changes of a base. headers: of the base.

    Raises CheckpointError for files that do not hold together, RequestError for what does not fit the base.
    """
    config = read_lora_config(folder)
    stored = open_state(folder / ADAPTER)
    modules = _modules(config, stored)
    here = _base(headers, family)
    changes: dict[str, LoraChange] = {}
    shared: dict[str, LoraChange] = {}  # stand in the base itself, wherever that uses them
    for module, parts in modules.items():
        weight = _weight_change(config, stored, here, module, parts)
        if weight is not None:
            changes[here.stem(f"{module}.weight")] = weight
        if "bias" in parts:
            changes[here.stem(f"{module}.bias")] = _bias_change(config, stored, here, module, parts)
        for kind, ending in (("weight", "weight"), ("bias of its own", "bias")):
            for part in (kind, f"base_layer.{ending}"):
                if part in parts:
                    stem = here.stem(f"{module}.{ending}")
                    copy = LoraChange(base=here.name(config.label, parts[part], stem), copy=parts[part])
                    (changes if part == kind and _is_saved(config, module) else shared)[stem] = copy
    untied = here.untie(changes, shared)
    for stem, copy in shared.items():
        changes[stem] = replace(changes[stem], copy=copy.copy) if stem in changes else copy
    here.check_saved(config, changes)
    shapes = {stem: stored.tensors[c.copy].shape if c.copy else headers.shapes[c.base] for stem, c in changes.items()}
    return OpenLora(
        LowRankDelta(stored, base, changes), {stem: _dtype(stored, c) for stem, c in changes.items()}, shapes, untied
    )


@dataclass(frozen=True)
class _Base:
    """The base as an adapter sees it: by stems, a tied head among them."""

    headers: Headers
    family: Family
    names: Mapping[str, str]  # stem -> the name it is stored under; a tied head is the embedding

    def stem(self, name: str) -> str:
        """A name in the adapter as a stem of the base's."""
        stem = self.family.stem(name)
        heads = [head for head in self.family.heads if head in self.names]
        return heads[0] if stem in self.family.heads and heads else stem

    def name(self, label: str, stored: str, stem: str) -> str:
        """What the base stores a stem as. Raises RequestError where it does not."""
        name = self.names.get(stem)
        if name is None:
            raise RequestError(
                f"{label!r} has tensor {stored!r}, and {self.headers.label!r} has no {stem!r} that it would change; add"
                " it to the base it was made from"
            )
        return name

    def outputs(self, stem: str) -> tuple[bool, bool]:
        """(whether a matrix reads what it multiplies, as a linear layer, whether its outputs are columns)."""
        dimensions = self.family.axes_of(stem, architecture_of(self.family, self.headers))
        linear = any(dimension.role == READ for dimension in dimensions)
        return linear, not linear or dimensions[0].role == READ

    def untie(self, changes: dict[str, LoraChange], shared: dict[str, LoraChange]) -> bool:
        """Whether a tied head must be stored by itself, since the LoRA is on it or on the embedding alone.

        What stands in the base itself stands in both.
        """
        if not is_tied(self.family, self.headers):
            return False
        head, embedding = self.stem(self.family.heads[0]), self.family.embedding
        common = shared.pop(head, None) or shared.pop(embedding, None)
        untied = head in changes or embedding in changes
        if common is not None:
            shared |= dict.fromkeys((head, embedding) if untied else (embedding,), common)
        return untied

    def check_saved(self, config: LoraConfig, changes: Mapping[str, LoraChange]) -> None:
        """Raises CheckpointError for a module that was trained whole, says the config, and is not in the file."""
        for stem in sorted({*self.names} - {*changes}):
            if _is_saved(config, stem.rpartition(".")[0]):
                raise CheckpointError(
                    f"{config.label!r} has modules_to_save {[*config.saved]}, and does not hold {stem!r}; save it again"
                )


def _base(headers: Headers, family: Family) -> _Base:
    names = {family.stem(name): name for name in headers.shapes if not family.is_buffer(name)}
    if is_tied(family, headers) and not {*names} & {*family.heads}:
        names[family.heads[0]] = names[family.embedding]
    return _Base(headers, family, names)


def _is_saved(config: LoraConfig, module: str) -> bool:
    """Whether a module, or one that it is part of, was trained whole. As peft.utils.other._set_trainable."""
    steps = module.split(".")
    return any(".".join(steps[: end + 1]).endswith(name) for end in range(len(steps)) for name in config.saved)


def _modules(config: LoraConfig, stored: Checkpoint) -> dict[str, dict[str, str]]:
    """module -> what is meant -> the tensor's name. Raises for a tensor that is no part of a LoRA."""
    modules: dict[str, dict[str, str]] = {}
    for name, tensor in stored.tensors.items():
        inner = name.removeprefix(PREFIX)
        ending = max((e for e in PARTS if inner.endswith(e)), key=len, default="")
        module = inner.removesuffix(ending)
        if not ending or not name.startswith(PREFIX) or not module or any(f".{i}" in f".{module}" for i in INNER):
            raise RequestError(
                f"{config.label!r} has tensor {name!r}, which is not of a LoRA of linear layers or embeddings as PEFT"
                " stores it, nor of a module saved whole"
            )
        if tensor.dtype not in (*FLOATS, *EIGHT_BITS):
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(f"tensor {name!r} of {config.label!r} has dtype {dtype}, which is no weight's")
        modules.setdefault(module, {})[PARTS[ending]] = name
    if not modules:
        raise CheckpointError(f"{config.label!r} holds no tensors: nothing was saved in its {ADAPTER}")
    return modules


def _weight_change(
    config: LoraConfig, stored: Checkpoint, here: _Base, module: str, parts: Mapping[str, str]
) -> LoraChange | None:
    """What A and B, or those of an embedding, do to a module's weight; None where it has neither."""
    pairs = [pair for pair in (("a", "b"), ("rows", "width")) if set(pair) & parts.keys()]
    if not pairs:
        if set(parts) & {"bias", "magnitude"}:
            raise CheckpointError(f"{config.label!r} has {next(iter(parts.values()))!r} without its A and B")
        return None
    pair = pairs[-1]
    one = next(parts[part] for part in pair if part in parts)
    absent = [ending for ending, part in PARTS.items() if part in pair and part not in parts]
    if absent:
        raise CheckpointError(f"{config.label!r} has {one!r} without its {absent[0][1:]}; save it again")
    stem = here.stem(f"{module}.weight")
    name = here.name(config.label, one, stem)
    shape = here.headers.shapes[name]
    linear, across = here.outputs(stem)
    if len(shape) != 2 or linear != (pairs == [("a", "b")]):
        kind = "no matrix" if len(shape) != 2 else "a linear layer" if linear else "an embedding"
        raise RequestError(f"{config.label!r} has {one!r}, and {name!r} of {here.headers.label!r} is {kind}")
    if not config.adapts(module):
        raise RequestError(
            f"{config.label!r} has {one!r}, and by its config PEFT would adapt no {module!r}; correct target_modules,"
            " exclude_modules or layers_to_transform"
        )
    out, into = shape[::-1] if across else shape
    rank = config.rank_of(module)
    asked: dict[str, tuple[int, ...]] = {pair[0]: (rank, into), pair[1]: (out, rank)}
    if config.bias and linear and "bias" not in parts:
        raise CheckpointError(f"{config.label!r} has lora_bias true and no lora_B.bias of {module!r}; save it again")
    if config.dora != ("magnitude" in parts):
        raise CheckpointError(
            f"{config.label!r} has use_dora {config.dora} and {'a' if 'magnitude' in parts else 'no'}"
            f" lora_magnitude_vector of {module!r}; save it again"
        )
    if config.dora:
        asked["magnitude"] = (out,)
    for part, expected in asked.items():
        _check_shape(config, stored, parts[part], expected, f"rank {rank} and {name!r} of {here.headers.label!r}")
    return LoraChange(
        base=name,
        a=parts[pair[0]],
        b=parts[pair[1]],
        magnitude=parts.get("magnitude", ""),
        scale=config.scale_of(module),
        across=across,
    )


def _bias_change(
    config: LoraConfig, stored: Checkpoint, here: _Base, module: str, parts: Mapping[str, str]
) -> LoraChange:
    stem = here.stem(f"{module}.bias")
    name = here.name(config.label, parts["bias"], stem)
    if not config.bias:
        raise CheckpointError(f"{config.label!r} has {parts['bias']!r} and lora_bias false; save it again")
    _check_shape(config, stored, parts["bias"], here.headers.shapes[name], f"{name!r} of {here.headers.label!r}")
    return LoraChange(base=name, bias=parts["bias"], scale=config.scale_of(module))


def _check_shape(config: LoraConfig, stored: Checkpoint, name: str, expected: tuple[int, ...], why: str) -> None:
    shape = stored.tensors[name].shape
    if shape != expected:
        raise CheckpointError(
            f"tensor {name!r} of {config.label!r} has shape {list(shape)} where {why} ask for {list(expected)}; it is of"
            " another base, or its config of another adapter"
        )


def _dtype(stored: Checkpoint, change: LoraChange) -> torch.dtype:
    """float64 where any part is, else float32, in which all others are added."""
    names = (change.copy, change.a, change.b, change.bias, change.magnitude)
    wide = any(stored.tensors[name].dtype == torch.float64 for name in names if name)
    return torch.float64 if wide else torch.float32
