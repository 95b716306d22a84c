"""What planning needs of a checkpoint, and whether a checkpoint is sound. Knows families and configs; ignorant of
growth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import reduce
from typing import Any

import torch

from growkit.errors import CheckpointError, RequestError
from growkit.families import Family, family_named
from growkit.families.lacking import lacking, layer_counts
from growkit.families.naming import ENCODERS
from growkit.families.text_part import BESIDE, TEXT
from growkit.growth.plan import Member
from growkit.growth.rules import Growth

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, kw_only=True)
class Headers:
    """What planning needs of a checkpoint."""

    label: str  # for messages
    shapes: Mapping[str, tuple[int, ...]]  # by name, in the order of the file
    dtypes: Mapping[str, torch.dtype]
    config: dict[str, Any]
    _: KW_ONLY
    head_is_copy: bool | None = None  # whether a stored output head equals the embedding; None: either is not stored
    body: bool = False  # a base model whatever class its config names
    notes: tuple[str, ...] = ()  # for the plan to show
    origin: str = ""  # where the weights lie, the same for two labels of one checkpoint; "" where that is not known


def one_family(sources: Sequence[Headers], what: str) -> Family:
    """The family of sources that are to become one. what: the end of the sentence "only models of one family ...".

    Raises RequestError where they have several, or a config that cannot be grown, and CheckpointError for dtypes that
    are none.
    """
    first = family_named(sources[0].config.get("model_type"))
    for source in sources:
        kind = family_named(source.config.get("model_type"))
        if kind is not first:
            raise RequestError(
                f"{sources[0].label!r} is a {first.model_type} and {source.label!r} a {kind.model_type}; only models of"
                f" one family {what}"
            )
        check_config(first, source.config)
        check_dtypes(first, source)
    return first


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
    if config.get("per_layer_config"):
        raise CheckpointError(
            "config.json has per_layer_config, settings of single layers, which growkit does not carry to others"
        )
    if family.is_moe:
        taken, experts = family.number(config, family.experts.top_k), family.number(config, family.sizes["expert"])
        if taken > experts:
            raise CheckpointError(
                f"config.json has {family.experts.top_k} {taken}, more than its {experts} experts; one is wrong"
            )
    if family.beside is not None:
        texts = family.beside.texts
        text = config[BESIDE][TEXT].get("model_type", texts[0]) if BESIDE in config else None
        if text not in texts:
            found = f"a {text}" if text else "none"
            raise CheckpointError(
                f"config.json has {found} under {TEXT!r}; the text model of a {family.model_type} that growkit grows is a"
                f" {' or a '.join(texts)}"
            )
    for key, (understood, why) in family.refused.items():
        if config.get(key, understood) != understood:
            raise CheckpointError(
                f"config.json has {key} {config[key]!r}, which growkit cannot grow in {family.model_type}: {why}"
            )


def check_tensors(growth: Growth, headers: Headers, layers: int) -> None:
    """Raises CheckpointError where a tensor the model needs is not there, or layers are not as the config says."""
    family = growth.family
    for stack, count in layer_counts(family, headers.config, layers).items():
        names = [name for name in headers.shapes if family.stem(name).startswith(stack)]
        numbers = {number for name in names if (number := family.layer_of(name)) is not None}
        alone = not names and stack in list(family.stacks)[1:] and growth.architecture.endswith(ENCODERS)
        if numbers != set(range(count)) and not alone:
            where = f" of its {stack.removesuffix('.')}" if stack else ""
            raise CheckpointError(
                f"config.json says {count} layers{where} but {headers.label!r} has tensors of {len(numbers)}"
            )
    missing = lacking(family, headers.shapes, layers, headers.config)
    stems = {family.stem(name) for name in headers.shapes}
    if family.has_language_head(growth.architecture) and not growth.tied and not stems & set(family.heads):
        missing.append(family.heads[0])
    if missing:
        prefix = family.prefix_of(headers.shapes)
        name = missing[0] if missing[0] in family.heads else prefix + missing[0]
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CheckpointError(
            f"{headers.label!r} lacks tensor {name!r}{more}, which a {growth.architecture} needs; fetch the checkpoint"
            " again"
        )


def check_tied_head(family: Family, headers: Headers, widened: bool) -> None:
    """Raises RequestError where the stream is widened of a model whose head is tied and has no norm with a gain before
    it, which alone can carry what a tied head cannot.
    """
    normed = family.has_axes(headers.shapes, "~/") or any(map(family.ends_layer, headers.shapes))
    if widened and is_tied(family, headers) and not normed:
        raise RequestError(
            f"hidden of {family.model_type} cannot grow while its head is the embedding: no norm before it has a gain"
            " that could carry what such a head cannot"
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
    """Whether the output head is the embedding: the config says so, the class has one, and no other is stored."""
    stated = headers.config.get("tie_word_embeddings", family.tied)
    if not family.has_language_head(architecture_of(family, headers)) or headers.head_is_copy is False:
        return False
    return bool(stated) or any(headers.config.get(key) == value for key, value in family.always_tied.items())


def check_dtypes(family: Family, headers: Headers) -> None:
    """Raises CheckpointError for weights that are stored as anything but floating-point numbers."""
    for name, dtype in headers.dtypes.items():
        if dtype not in FLOATS and not family.is_buffer(name):
            raise CheckpointError(
                f"tensor {name!r} has dtype {str(dtype).removeprefix('torch.')}, which is no full-precision weight;"
                " grow the unquantised checkpoint"
            )


def member_of(source: Headers, growth: Growth) -> Member:
    """A source as a plan has it."""
    dropped = tuple(name for name in source.shapes if growth.family.is_buffer(name))
    kept = [name for name in source.shapes if name not in dropped]
    stored = sum(torch.Size(source.shapes[name]).numel() * source.dtypes[name].itemsize for name in kept)
    return Member(
        label=source.label, config=source.config, shapes=source.shapes, bytes=stored, growth=growth, dropped=dropped
    )


def state_dtype(config: dict[str, Any], sources: Sequence[Headers], asked: torch.dtype | None) -> None:
    """Let a config say in which dtype its weights are, where that is asked for, or where sources differ and meet."""
    stored = {dtype for source in sources for dtype in source.dtypes.values() if dtype in FLOATS}
    dtype = asked or (reduce(torch.promote_types, stored) if len(sources) > 1 and len(stored) > 1 else None)
    if dtype is not None:
        config["torch_dtype" if "torch_dtype" in config else "dtype"] = str(dtype).removeprefix("torch.")
