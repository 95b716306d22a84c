"""A config for tensors that came without one, from their names and shapes. Knows what a shape can tell and says what it
cannot; ignorant of values.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from growkit.errors import CheckpointError, RequestError
from growkit.families import FAMILIES, Family, family_named
from growkit.families.lacking import lacking
from growkit.families.schema import LAYER
from growkit.maps.notation import UNSIZED, base

Shapes = Mapping[str, tuple[int, ...]]


def infer_family(shapes: Shapes, named: str | None = None) -> Family:
    """The one family whose table has all these names, or the one that was named.

    Raises CheckpointError where none fits and RequestError where several do.
    """
    if named is not None:
        return family_named(named)
    read = ((family, _live(family, shapes)) for family in FAMILIES.values())
    fitting = [(family, live) for family, live in read if _has_all(family, live)]
    # a prefix such as "bert." settles what bare names would leave open
    prefixed = [
        (f, s) for f, s in fitting if any(n.startswith(f.prefixes) for n in shapes) or not any("." in n for n in shapes)
    ]
    fitting = prefixed or fitting
    for agrees in (_agrees, _norms_alike):
        if len(fitting) > 1:
            fitting = [one for one in fitting if agrees(*one)] or fitting
    fits = [family for family, _ in fitting]
    if not fits:
        name = next(iter(shapes), "")
        raise CheckpointError(
            f"no config.json, and names such as {name!r} fit none of the {len(FAMILIES)} families growkit knows; put the"
            " model's config.json beside the file"
        )
    if len(fits) > 1 and any(_unnamed(f) != _unnamed(fits[0]) for f in fits):
        names = ", ".join(sorted(f.model_type for f in fits))
        raise RequestError(
            f"no config.json, and these tensors could be {names}, which compute differently: say which with --family, or"
            " put config.json beside the file"
        )
    return fits[0]


def _has_all(family: Family, shapes: Shapes) -> bool:
    """Whether these are a family's tensors, all that one of its layers needs, and some of what sets it apart from a
    text model or a dense one, its tower or its experts."""
    apart = [{name for name in family.tensors if "*" in name} if family.beside else set()]
    apart += [{name for name in family.tensors if "expert" in family.words(name)} if family.is_moe else set()]
    there = {family.template(name) for name in shapes}
    return (
        all(family.knows(name) for name in shapes)
        and not lacking(family, shapes, 1)
        and all(not names or names & there for names in apart)
    )


def _live(family: Family, shapes: Shapes) -> Shapes:
    """Shapes under the names that stock models have for them, where a family's files have others."""
    if not family.stored_as:
        return shapes
    pieces = {name: family.pieces(name) for name in shapes}
    return {
        own: (shapes[name][0] // len(owns), *shapes[name][1:]) if shapes[name] else ()
        for name, owns in pieces.items()
        for own in owns
    }


def _agrees(family: Family, shapes: Shapes) -> bool:
    """Whether all dimensions of one axis alone have one size, as in no family that has them the other way round."""
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        if family.is_buffer(name):
            continue
        dimensions = family.axes_of(name)
        if len(dimensions) != len(shape):
            return False
        for dimension, size in zip(dimensions, shape):
            alone = len(dimension.axes) == 1 and dimension.axes[0] not in UNSIZED
            if alone and sizes.setdefault(base(dimension.axes[0]), size) != size:
                return False
    return True


def _norms_alike(family: Family, shapes: Shapes) -> bool:
    """Whether the norms of layers have shifts, as LayerNorm has, just where a family's norms are of that kind."""
    shifts = {name for name, axes in family.tensors.items() if axes == "+hidden" and "{layer}" in name}
    return any(family.template(name) in shifts for name in shapes) == (family.norms.kind == LAYER)


def _unnamed(family: Family) -> Family:
    """All that a family computes by: two that are equal but for their names are taken for the first."""
    return replace(family, model_type="", architectures=())


def infer_config(shapes: Shapes, family: Family, heads: int | None) -> dict[str, Any]:
    """A config.json for these tensors: sizes from shapes; settings no shape shows are left to transformers' defaults.

    heads: number of query heads of the source, needed where head_dim does not show. Raises RequestError without it and
    CheckpointError for shapes that do not fit together.
    """
    if family.reads_pixels:
        raise RequestError(
            f"no config.json, and the size of the images that a {family.model_type} reads cannot be seen in shapes: put the"
            " model's config.json beside the file"
        )
    if family.is_moe:
        raise RequestError(
            f"no config.json, and how many experts a token of a {family.model_type} takes cannot be seen in shapes: put the"
            " model's config.json beside the file"
        )
    if family.stacks:
        raise RequestError(
            f"no config.json, and how a {family.model_type} scales its embeddings or gates its layers cannot be seen in"
            " shapes: put the model's config.json beside the file"
        )
    products = _axis_products(shapes, family)
    sizes: dict[str, int] = {axes[0]: size for axes, size in products.items() if len(axes) == 1}
    queries = products.get(("head", "head_dim"), 0)
    if "head_dim" in sizes and queries:
        heads = queries // sizes["head_dim"]
    if heads is None:
        raise RequestError(
            "no config.json, and the number of attention heads cannot be seen in shapes: give it with --source-heads"
        )
    if heads < 1 or queries % heads:
        raise RequestError(f"--source-heads {heads} does not divide the {queries} rows of the query projection")
    sizes |= {"head": heads, "head_dim": queries // heads}
    if products.get(("kv_head", "head_dim")):
        sizes["kv_head"] = products["kv_head", "head_dim"] // sizes["head_dim"]
    sizes["layer"] = 1 + max((family.layer_of(name) or 0 for name in shapes), default=0)
    config: dict[str, Any] = {"architectures": [family.architecture(list(shapes))], "model_type": family.model_type}
    if "position" in sizes:
        sizes["position"] -= family.positions.extra_rows
    for axis in family.sizes:
        if axis in sizes:
            config |= dict.fromkeys(family.keys(axis), sizes[axis])
    templates = {family.template(name) for name in shapes}
    config |= {switch: template in templates for switch, template in family.switches.items()}
    has_head = any(family.stem(name) in family.heads for name in shapes)
    config["tie_word_embeddings"] = family.has_language_head(config["architectures"][0]) and not has_head
    return config


def _axis_products(shapes: Shapes, family: Family) -> dict[tuple[str, ...], int]:
    """Base axes of a block -> its size, for every dimension of every tensor; they must agree. Of a dimension of several
    blocks, where others say all but one kind of them, that kind's.
    """
    products: dict[tuple[str, ...], int] = {}
    fused: list[tuple[list[tuple[str, ...]], int]] = []
    for name, shape in shapes.items():
        if family.is_buffer(name):
            continue
        dimensions = family.axes_of(name)
        if len(dimensions) != len(shape):
            raise CheckpointError(
                f"tensor {name!r} has shape {list(shape)}, but a {family.model_type} has it in {len(dimensions)}-d"
            )
        for dimension, size in zip(dimensions, shape):
            blocks = [tuple(base(axis) for axis in block) for block in dimension.blocks]
            axes = blocks[0]
            if axes[0] in UNSIZED and axes[0] != "position":
                continue
            if len(blocks) > 1:
                fused.append((blocks, size))
                continue
            if products.setdefault(axes, size) != size:
                raise CheckpointError(
                    f"tensor {name!r} has {size} for {' x '.join(axes)} where others have {products[axes]}; the file"
                    f" mixes models, or is no {family.model_type}"
                )
    for blocks, size in fused:
        unknown = [block for block in blocks if block not in products]
        rest = size - sum(products[block] for block in blocks if block in products)
        if len({*unknown}) == 1 and rest % len(unknown) == 0:
            products[unknown[0]] = rest // len(unknown)
    return products
