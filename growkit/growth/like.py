"""The sizes of another model as a request. Knows where sizes are found: by name, in a config, in a checkpoint; ignorant
of growth.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from growkit.checkpoint.source import read_config
from growkit.errors import RequestError
from growkit.families import Family, family_named
from growkit.families.lacking import layer_counts
from growkit.families.named import NAMED
from growkit.growth.request import Depth, Recipe
from growkit.growth.source_headers import Headers
from growkit.growth.sources import headers_of, open_source
from growkit.growth.width.sizes import OPTIONS, read_sizes

SizeByAxis = dict[str, int]


def with_sizes(recipe: Recipe, source: Headers) -> tuple[Recipe, list[str]]:
    """(the recipe with the sizes of the model that its `like` names, notes); as it is where it names none.

    Raises RequestError for a size that is given too, and as `sizes_like` does.
    """
    if recipe.like is None:
        return recipe, []
    sizes, notes = sizes_like(recipe.like, source)
    given = {**recipe.sizes, "layer": recipe.depth.layers if recipe.depth is not None else None}
    twice = [axis for axis in sizes if given.get(axis) is not None]
    if twice:
        option = OPTIONS.get(twice[0], "--layers")
        raise RequestError(f"--like {str(recipe.like)!r} says all sizes, {option} says one again; give one")
    layers = sizes.pop("layer")
    depth = replace(recipe.depth or Depth(), layers=layers)
    return replace(recipe, sizes={**recipe.sizes, **sizes}, depth=depth, like=None), notes


def sizes_like(target: str | Path, source: Headers) -> tuple[SizeByAxis, list[str]]:
    """(size by axis, "layer" among them, notes) of a target, for growing `source` to it.

    target: a name such as bert-base, a config.json, a checkpoint folder or file, or a hub id. Raises RequestError for a
    target of another family or vocabulary, CheckpointError for one that cannot be read.
    """
    family = family_named(source.config.get("model_type"))
    if str(target) in NAMED and not Path(target).exists():
        kind, sizes = NAMED[str(target)]
        _check_family(str(target), kind, family)
        named = dict(sizes)
        if family.own_head_dim:
            named["head_dim"] = sizes["hidden"] // sizes["head"]
        return {axis: size for axis, size in named.items() if _is_free(family, axis)}, []
    config = _config(target)
    _check_family(str(target), str(config.get("model_type")), family)
    own, wanted = read_sizes(family, source.config), read_sizes(family, config)
    if wanted.get("vocab") != own.get("vocab"):
        raise RequestError(
            f"{str(target)!r} has a vocabulary of {wanted['vocab']}, the source of {own['vocab']}; growkit does not change"
            " vocabularies: give sizes with --hidden, --layers and the like"
        )
    ours, theirs = (
        layer_counts(family, config, size["layer"]) for config, size in ((source.config, own), (config, wanted))
    )
    apart = next((s for s in ours if theirs[s] * own["layer"] != ours[s] * wanted["layer"]), None)
    if apart is not None:
        raise RequestError(
            f"{str(target)!r} has {wanted['layer']} layers and {theirs[apart]} in its {apart.removesuffix('.')}, the source"
            f" {own['layer']} and {ours[apart]}; both grow as many times over: give sizes with --hidden, --layers and the"
            " like"
        )
    if wanted.get("expert") != own.get("expert"):
        raise RequestError(
            f"{str(target)!r} has {wanted['expert']} experts in a layer, the source {own['expert']}; --like keeps their"
            " number: give sizes with --hidden, --experts, --layers and the like"
        )
    ours = source.config
    other = sorted(k for k in {*ours} & {*config} if k not in family.size_keys and ours[k] != config[k] and _matters(k))
    notes = [f"kept as the source has them, though {str(target)!r} differs: {', '.join(other)}"] if other else []
    return {axis: wanted[axis] for axis in (*OPTIONS, "layer") if _is_free(family, axis)}, notes


def _is_free(family: Family, axis: str) -> bool:
    """Whether a size is a person's to set in this family, rather than what others make it."""
    return axis in family.sizes


def _matters(key: str) -> bool:
    return not key.startswith("_") and key not in ("architectures", "transformers_version", "torch_dtype", "dtype")


def _check_family(target: str, kind: str, family: Family) -> None:
    if kind != family.model_type:
        raise RequestError(f"{target!r} is a {kind} and the source a {family.model_type}; a model keeps its family")


def _config(target: str | Path) -> dict[str, Any]:
    config = read_config(target)
    if config is None:
        checkpoint = open_source(target)
        try:
            config = headers_of(checkpoint).config
        finally:
            checkpoint.close()
    return config
