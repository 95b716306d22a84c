"""Whether models belong together, so that their weights can be subtracted and added. Knows which settings must agree, and
how a tensor is called in all of them; ignorant of values, of tokens and of what is merged how.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch

from growkit.errors import RequestError
from growkit.families import Family, family_named
from growkit.growth.depth.by_layer import difference, is_by_layer
from growkit.growth.rules import Growth, check_shape
from growkit.growth.source_headers import Headers, architecture_of, check_config, check_dtypes, check_tensors, is_tied
from growkit.growth.width.sizes import OPTIONS, Sizes, read_sizes
from growkit.maps.axis import identity
from growkit.maps.notation import BASE, SIZED, base

TOKENS = "token_id"  # settings such as eos_token_id, which members may differ in


def check_alone(family: Family, first: Headers, model: Headers) -> None:
    """Refuse a model of another family than the first's, or one that is not sound."""
    kind = family_named(model.config.get("model_type"))
    if kind is not family:
        raise RequestError(
            f"{first.label!r} is a {family.model_type} and {model.label!r} a {kind.model_type}; only models of one family"
            " can be merged"
        )
    check_config(family, model.config)
    check_dtypes(family, model)
    sizes = read_sizes(family, model.config)
    maps = {axis: identity(sizes[base(axis)]) for axis in (*SIZED, *BASE) if base(axis) in sizes}
    growth = Growth(family, maps, is_tied(family, model), 0.0, architecture_of(family, model))
    check_tensors(growth, model, sizes["layer"])
    for name, shape in model.shapes.items():
        if not family.is_buffer(name):
            check_shape(name, shape, growth)


def check_kin(family: Family, first: Headers, other: Headers) -> list[str]:
    """Refuse a model that is no kin of the first: class, sizes, tying, settings and tensors must agree. Returns notes."""
    pair = f"{first.label!r} and {other.label!r}"
    classes = architecture_of(family, first), architecture_of(family, other)
    if classes[0] != classes[1]:
        raise RequestError(f"{pair} are a {classes[0]} and a {classes[1]}; only models of one class can be merged")
    sizes = read_sizes(family, first.config), read_sizes(family, other.config)
    for axis in (*OPTIONS, "layer"):
        if sizes[0][axis] != sizes[1][axis]:
            raise RequestError(
                f"{pair} have {axis} {sizes[0][axis]} and {sizes[1][axis]}; only models fine-tuned from one base, of the same"
                " sizes, can be merged"
            )
    if is_tied(family, first) != is_tied(family, other):
        raise RequestError(f"{pair}: one has a tied head and one has not; save both alike first")
    key = disagreement(family, first.config, other.config, (*PASSING, TOKENS))
    if key is not None:
        raise RequestError(
            f"{pair} have {key} {first.config.get(key)!r} and {other.config.get(key)!r} in config.json, which must agree;"
            " where that is one setting written in two ways, write it alike in both"
        )
    key = difference(family, first.config, other.config, sizes[0]["layer"])
    if key is not None:
        raise RequestError(f"{pair} differ in {key}; only models whose layers see alike can be merged")
    ours, theirs = names_of(family, first), names_of(family, other)
    strange = sorted({*ours} ^ {*theirs})
    if strange:
        raise RequestError(f"only one of {pair} has tensor {strange[0]!r}; save both from one class first")
    for stem, name in ours.items():
        rows = family.axes_of(name, classes[0])[0].axes == ("vocab",)
        shapes = first.shapes[name], other.shapes[theirs[stem]]
        if shapes[0][rows:] != shapes[1][rows:]:
            raise RequestError(f"{pair} have tensor {name!r} as {list(shapes[0])} and {list(shapes[1])}")
    tokens = sorted(key for key in {*first.config, *other.config} if TOKENS in key)
    return [
        f"{pair} have {key} {first.config.get(key)!r} and {other.config.get(key)!r}; the result has the first's"
        for key in tokens
        if first.config.get(key) != other.config.get(key)
    ]


def stem_of(family: Family, model: Headers, name: str) -> str:
    """What a tensor is known by in every member: its stem, or the embedding's for a stored copy of it."""
    stem = family.stem(name)
    return family.embedding if stem in family.heads and is_tied(family, model) else stem


def names_of(family: Family, model: Headers) -> dict[str, str]:
    """stem -> the name this model stores it under, in the order of its file, buffers left out."""
    found: dict[str, str] = {}
    for name in model.shapes:
        if not family.is_buffer(name):
            found.setdefault(stem_of(family, model, name), name)
    return found


def dtypes_of(family: Family, model: Headers) -> dict[str, torch.dtype]:
    """stem -> dtype."""
    return {stem: model.dtypes[name] for stem, name in names_of(family, model).items()}


def bytes_of(family: Family, model: Headers) -> int:
    """Bytes of weights, copies not counted."""
    return sum(prod(model.shapes[name]) * model.dtypes[name].itemsize for name in names_of(family, model).values())


# settings of training, loading or storing, which say nothing of the function that is computed
PASSING = ("dropout", "pdrop", "initializer", "layerdrop", "cache", "_name_or_path", "transformers_version", "dtype")


def check_members(family: Family, sources: Sequence[Headers], sizes: Sequence[Sizes], same: tuple[str, ...]) -> None:
    """Refuse sources of one family that are no kin: class, tying, settings, tensors and the sizes in `same` must agree."""
    first = sources[0]
    for other, other_sizes in zip(sources[1:], sizes[1:]):
        pair = f"{first.label!r} and {other.label!r}"
        classes = architecture_of(family, first), architecture_of(family, other)
        if classes[0] != classes[1]:
            raise RequestError(f"{pair} are a {classes[0]} and a {classes[1]}; only models of one class become one")
        for axis in same:
            if sizes[0].get(axis) != other_sizes.get(axis):
                raise RequestError(
                    f"{pair} have {axis} {sizes[0][axis]} and {other_sizes[axis]}, which must be the same" + _cure(axis)
                )
        if is_tied(family, first) != is_tied(family, other):
            raise RequestError(f"{pair}: one has a tied head and one has not; save both alike first")
        key = disagreement(family, first.config, other.config)
        if key is not None:
            values = first.config.get(key), other.config.get(key)
            raise RequestError(
                f"{pair} have {key} {values[0]!r} and {values[1]!r} in config.json, which must"
                " agree; where that is one setting written in two ways, write it alike in both"
            )
        key = difference(family, first.config, other.config, sizes[0]["layer"]) if "layer" in same else None
        if key is not None:
            raise RequestError(f"{pair} differ in {key}: layers that become one must see alike; fuse models that agree")
        strange = _names(family, first) ^ _names(family, other)
        if strange:
            raise RequestError(f"only one of {pair} has tensor {sorted(strange)[0]!r}; save both from one class first")


def _cure(axis: str) -> str:
    if axis == "vocab":
        return "; growkit joins models of one tokenizer"
    if axis == "layer":
        return "; deepen the other first, with growkit stack --method identity where that is exact"
    return f"; widen one first, with growkit widen {OPTIONS[axis]}" if axis != "head_dim" else ""


def disagreement(
    family: Family, one: Mapping[str, Any], other: Mapping[str, Any], passing: tuple[str, ...] = PASSING
) -> str | None:
    """The first setting that two configs do not share, sizes and what is passing left out."""
    for key in sorted({*one, *other}):
        if key in family.size_keys or is_by_layer(key) or key in ("model_type", "architectures", "tie_word_embeddings"):
            continue
        if not any(word in key for word in passing) and one.get(key) != other.get(key):
            return key
    return None


def _names(family: Family, headers: Headers) -> set[str]:
    """Names as they are stored, each layer's as if it were the first."""
    names = [name for name in headers.shapes if not family.is_buffer(name)]
    return {name if family.layer_of(name) is None else family.in_layer(name, 0) for name in names}
