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
from growkit.growth.source_headers import FLOATS, Headers
from growkit.merging.lora import LoraChange, LowRankDelta
from growkit.merging.lora_base import LoraBase, is_saved, lora_base
from growkit.merging.lora_config import LoraConfig, read_lora_config
from growkit.merging.lora_experts import WRAPPED, expert_changes

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
    ".token_adapter.trainable_tokens_delta": "tokens",
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
    here = lora_base(headers, family)
    changes: dict[str, LoraChange] = {}
    shared: dict[str, LoraChange] = {}  # stand in the base itself, wherever that uses them
    for module, parts in modules.items():
        experts = expert_changes(config, stored, here, module, parts)
        if experts:
            changes |= experts
            continue
        weight = _weight_change(config, stored, here, module, parts)
        if weight is not None:
            changes[here.stem(f"{module}.weight")] = weight
        if "tokens" in parts:  # where head and embedding are one, PEFT trains them in both
            shared[here.stem(f"{module}.weight")] = _token_change(config, stored, here, module, parts["tokens"])
        if "bias" in parts:
            changes[here.stem(f"{module}.bias")] = _bias_change(config, stored, here, module, parts)
        for kind, ending in (("weight", "weight"), ("bias of its own", "bias")):
            for part in (kind, f"base_layer.{ending}"):
                if part in parts:
                    stem = here.stem(f"{module}.{ending}")
                    copy = LoraChange(base=here.name(config.label, parts[part], stem), copy=parts[part])
                    (changes if part == kind and is_saved(config, module) else shared)[stem] = copy
    untied = here.untie(changes, shared)
    for stem, copy in shared.items():
        changes[stem] = replace(changes[stem], copy=copy.copy, tokens=copy.tokens) if stem in changes else copy
    here.check_saved(config, changes)
    whole = {stem: change.copy if not change.tokens else "" for stem, change in changes.items()}
    shapes = {s: stored.tensors[whole[s]].shape if whole[s] else headers.shapes[c.base] for s, c in changes.items()}
    return OpenLora(
        LowRankDelta(stored, base, changes), {stem: _dtype(stored, c) for stem, c in changes.items()}, shapes, untied
    )


def _modules(config: LoraConfig, stored: Checkpoint) -> dict[str, dict[str, str]]:
    """module -> what is meant -> the tensor's name. Raises for a tensor that is no part of a LoRA."""
    modules: dict[str, dict[str, str]] = {}
    for name, tensor in stored.tensors.items():
        inner = name.removeprefix(PREFIX)
        ending = max((e for e in PARTS if inner.endswith(e)), key=len, default="")
        module = inner.removesuffix(ending)
        bare = module.removesuffix(WRAPPED) if config.content.get("target_parameters") else module
        if not ending or not name.startswith(PREFIX) or not module or any(f".{i}" in f".{bare}" for i in INNER):
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
    config: LoraConfig, stored: Checkpoint, here: LoraBase, module: str, parts: Mapping[str, str]
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
    config: LoraConfig, stored: Checkpoint, here: LoraBase, module: str, parts: Mapping[str, str]
) -> LoraChange:
    stem = here.stem(f"{module}.bias")
    name = here.name(config.label, parts["bias"], stem)
    if not config.bias:
        raise CheckpointError(f"{config.label!r} has {parts['bias']!r} and lora_bias false; save it again")
    _check_shape(config, stored, parts["bias"], here.headers.shapes[name], f"{name!r} of {here.headers.label!r}")
    return LoraChange(base=name, bias=parts["bias"], scale=config.scale_of(module))


def _token_change(config: LoraConfig, stored: Checkpoint, here: LoraBase, module: str, name: str) -> LoraChange:
    base = here.name(config.label, name, here.stem(f"{module}.weight"))
    rows, width = here.headers.shapes[base]
    tokens = config.tokens_of(module)
    _check_shape(config, stored, name, (len(tokens), width), f"trainable_token_indices and {base!r}")
    if any(token >= rows for token in tokens):
        raise RequestError(f"{config.label!r} has rows of token {max(tokens)}, and {here.headers.label!r} has {rows}")
    return LoraChange(base=base, copy=name, tokens=tokens)


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
