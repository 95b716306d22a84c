"""From a request to a plan for growing width: sizes, maps, then one rule per tensor. Knows how the parts meet; ignorant of
bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from growkit.axes import GAIN, SHIFT
from growkit.errors import CheckpointError, RequestError
from growkit.families import Family, family_named
from growkit.families.schema import has_language_head
from growkit.plan import Plan, Recipe, TensorPlan
from growkit.planners.choose import choose_maps, write_rotary
from growkit.planners.sizes import read_sizes, target_config, target_sizes
from growkit.rules import Growth, check_shape, grown_shape, tensor_rule

METHODS, MAPPINGS = ("fpi", "aki"), ("cyclic", "random")
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Headers:
    """What planning needs of a checkpoint: a label for messages, shapes and dtypes by name in file order, the config.

    head_is_copy: whether a stored output head equals the embedding; None where either is not stored. body: whether this
    is a base model whatever class its config names. notes: for the plan to show.
    """

    label: str
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, torch.dtype]
    config: dict[str, Any]
    head_is_copy: bool | None = None
    body: bool = False
    notes: tuple[str, ...] = ()


def widen_plan(headers: Headers, recipe: Recipe) -> Plan:
    """Plan a growth in width.

    Raises RequestError for sizes or options that cannot be, CheckpointError for a checkpoint that is not understood.
    """
    _check_recipe(recipe)
    family = family_named(headers.config.get("model_type"))
    check_config(family, headers.config)
    old = read_sizes(family, headers.config)
    new = target_sizes(family, headers.config, recipe.sizes)
    maps, lines, rotary = choose_maps(family, headers.config, old, new, recipe)
    config = target_config(family, headers.config, new)
    write_rotary(config, rotary)
    tied = is_tied(family, headers)
    if headers.head_is_copy is False:
        config["tie_word_embeddings"] = False  # two different tensors cannot be tied; transformers would not either
    growth = Growth(family, maps, tied, recipe.noise, architecture_of(family, headers))
    check_tensors(growth, headers, old["layer"])
    tensors = tuple(
        _tensor_plan(name, headers, growth, recipe, old["layer"])
        for name in headers.shapes
        if not family.is_buffer(name)
    )
    if recipe.dtype is not None:
        key = "torch_dtype" if "torch_dtype" in config else "dtype"
        config[key] = str(recipe.dtype).removeprefix("torch.")
    source_bytes = sum(shape_bytes(headers.shapes[t.name], headers.dtypes[t.name]) for t in tensors)
    return Plan(
        headers.label,
        recipe,
        growth,
        tuple(lines),
        tensors,
        headers.config,
        config,
        headers.shapes,
        source_bytes,
        tuple(name for name in headers.shapes if family.is_buffer(name)),
        tuple(_notes(headers, recipe, tensors)),
    )


def check_config(family: Family, config: Mapping[str, Any]) -> None:
    """Refuse configs whose meaning growkit does not have: quantised weights and the family's own list."""
    if config.get("quantization_config"):
        method = (
            config["quantization_config"].get("quant_method", "quantised")
            if isinstance(config["quantization_config"], dict)
            else "quantised"
        )
        raise CheckpointError(
            f"this checkpoint is quantised ({method}); grow the full-precision one and quantise the result"
        )
    for key, (understood, why) in family.refused.items():
        if config.get(key, understood) != understood:
            raise CheckpointError(
                f"config.json has {key} {config[key]!r}, which growkit cannot grow in {family.model_type}: {why}"
            )


def check_tensors(growth: Growth, headers: Headers, layers: int) -> None:
    """Raises CheckpointError where a tensor the model needs is not there, or layers are not as many as the config says."""
    family = growth.family
    found = {number for name in headers.shapes if (number := family.layer_of(name)) is not None}
    if found != set(range(layers)):
        raise CheckpointError(f"config.json says {layers} layers but {headers.label!r} has tensors of {len(found)}")
    missing = family.lacking(headers.shapes, layers)
    stems = {family.stem(name) for name in headers.shapes}
    if has_language_head(growth.architecture) and not growth.tied and not stems & set(family.heads):
        missing.append(family.heads[0])
    if missing:
        prefix = next((p for p in family.prefixes for name in headers.shapes if name.startswith(p)), "")
        name = missing[0] if missing[0] in family.heads else prefix + missing[0]
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CheckpointError(
            f"{headers.label!r} lacks tensor {name!r}{more}, which a {growth.architecture} needs; fetch the checkpoint again"
        )


def architecture_of(family: Family, headers: Headers) -> str:
    """The transformers class this checkpoint is of: what its config says, or what its tensors say."""
    stated = headers.config.get("architectures")
    if headers.body:
        return ""
    if not stated:
        return family.architecture(list(headers.shapes))
    if not isinstance(stated, list) or not isinstance(stated[0], str):
        raise CheckpointError(f"config.json should list a class name under 'architectures', not {stated!r}")
    return stated[0]


def is_tied(family: Family, headers: Headers) -> bool:
    """Whether the output head is the embedding: the config says so, the class has a head, and no other head is stored."""
    stated = headers.config.get("tie_word_embeddings", family.tied)
    return bool(stated) and has_language_head(architecture_of(family, headers)) and headers.head_is_copy is not False


def shape_bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """Bytes of a tensor."""
    return torch.Size(shape).numel() * dtype.itemsize


def _tensor_plan(name: str, headers: Headers, growth: Growth, recipe: Recipe, layers: int) -> TensorPlan:
    family, shape, dtype = growth.family, headers.shapes[name], headers.dtypes[name]
    if dtype not in FLOATS:
        raise CheckpointError(
            f"tensor {name!r} has dtype {str(dtype).removeprefix('torch.')}, which is no full-precision weight; grow the"
            " unquantised checkpoint"
        )
    check_shape(name, shape, growth)
    rule = tensor_rule(name, shape, growth)
    layer = family.layer_of(name)
    donor = None
    if recipe.method == "aki" and layer is not None and layer + 1 < layers and not _is_norm(growth, name):
        donor = family.in_layer(name, layer + 1)
        donor = donor if donor in headers.shapes else None
    return TensorPlan(name, grown_shape(name, shape, growth), recipe.dtype or dtype, rule, donor)


def _is_norm(growth: Growth, name: str) -> bool:
    return any(dimension.role in (GAIN, SHIFT) for dimension in growth.dimensions(name))


def _check_recipe(recipe: Recipe) -> None:
    for option, value, known in (("method", recipe.method, METHODS), ("mapping", recipe.mapping, MAPPINGS)):
        if value not in known:
            raise RequestError(f"--{option} {value!r} is not one of {', '.join(known)}")
    if not 0 <= recipe.noise < 1:
        raise RequestError(f"--noise {recipe.noise} should be from 0 (equal parts) to below 1 (all in one copy)")
    if recipe.dtype is not None and recipe.dtype not in FLOATS:
        raise RequestError(f"--dtype should be one of {', '.join(str(d).removeprefix('torch.') for d in FLOATS)}")


def _notes(headers: Headers, recipe: Recipe, tensors: tuple[TensorPlan, ...]) -> list[str]:
    notes = list(headers.notes)
    splits = [t for t in tensors if t.rule.splits]
    if splits:
        notes.append(
            f"read copies are split unevenly by {recipe.noise:g} in {len(splits)} tensors, so that they part in training;"
            " their sums are unchanged"
        )
    elif recipe.method == "fpi" and recipe.noise == 0:
        notes.append(
            "copies are equal and receive equal gradients: under deterministic training they stay equal for ever"
        )
    if headers.head_is_copy is False and headers.config.get("tie_word_embeddings"):
        notes.append("config.json ties the head, but another head is stored: treated as untied, as transformers does")
    return notes
