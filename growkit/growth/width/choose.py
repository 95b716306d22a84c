"""Which map each axis gets, and what that does to the function. Knows the theory of growth; ignorant of tensors and
files.

The table of exactness that the README prints is this file, and a test holds each line of it, in both directions.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from growkit.families import Family
from growkit.families.schema import RMS
from growkit.growth.plan import AxisPlan, Recipe
from growkit.growth.request import DIRECT_COPY, SHRINK_PERTURB
from growkit.growth.width.direct_copy import WHY, check_groups, cornered
from growkit.growth.width.more_experts import MoreExperts, experts_map, routing
from growkit.growth.width.rotary import head_slots, slots_why
from growkit.growth.width.sizes import FOLLOWERS, Sizes
from growkit.maps.axis import (
    MEAN,
    AxisMap,
    copies,
    cyclic_index,
    even_norm_copies,
    head_filler,
    identity,
    mean_filler,
    norm_undone_copies,
    random_index,
)
from growkit.maps.exactness import Exactness
from growkit.maps.heads import grouped_heads
from growkit.maps.notation import KEPT, PAIR, WRITE
from growkit.operators.seeds import stable_seed

EXACT, NEAR, APPROXIMATE = Exactness.EXACT, Exactness.NEAR, Exactness.APPROXIMATE


def choose_maps(
    family: Family, config: Mapping[str, Any], old: Sizes, new: Sizes, recipe: Recipe, names: Iterable[str]
) -> tuple[dict[str, AxisMap], list[AxisPlan], dict[str, Any], MoreExperts]:
    """A map for every axis word, a plan line for every size that can be set, the rotary settings to change, and what
    comes of more experts.

    names: of the tensors that there are.
    """
    maps: dict[str, AxisMap] = {"vocab": identity(old["vocab"])} if "vocab" in old else {}
    lines: list[AxisPlan] = []

    def line(axis: str, how: str, exactness: Exactness, why: str) -> None:
        if old[axis] == new[axis]:
            how, exactness, why = "kept", EXACT, "unchanged"
        elif recipe.method == "aki" and old["layer"] > 1:
            exactness, why = APPROXIMATE, "AKI takes the new units of each layer from the layer above, by design"
        elif recipe.method == SHRINK_PERTURB:
            exactness = APPROXIMATE
            why = f"all weights are multiplied by {recipe.keep:g} and as long a random part is added, by design"
        elif recipe.method == DIRECT_COPY:
            how, exactness, why = "corner", APPROXIMATE, WHY
        lines.append(AxisPlan(axis=axis, old=old[axis], new=new[axis], how=how, exactness=exactness, why=why))

    hidden, exactness, why = _hidden(family, old["hidden"], new["hidden"], recipe, names)
    maps["hidden"] = hidden
    line("hidden", hidden.name, exactness, why)
    has_filler = bool((hidden.sides[WRITE].mode == MEAN).any())
    maps["normed"] = mean_filler(old["hidden"], new["hidden"], post_norm=True) if has_filler else hidden

    pooled_index = hidden.index
    maps["pooled"] = copies(old["hidden"], pooled_index)
    maps["head_hidden"] = (
        head_filler(old["hidden"], new["hidden"]) if has_filler else copies(old["hidden"], pooled_index)
    )

    if "embedding" in old:
        joined = old["embedding"] != new["embedding"]  # else it never grows
        maps["embedding"] = maps["hidden"] if joined else identity(old["embedding"])
        maps["head_embedding"] = maps["head_hidden"] if joined else maps["embedding"]

    generator = _generator(recipe, "head") if recipe.mapping == "random" else None
    group, new_group = old["head"] // old["kv_head"], new["head"] // new["kv_head"]
    heads = grouped_heads((old["kv_head"], group), (new["kv_head"], new_group), generator)
    assert heads is not None, "target_sizes lets only possible groupings through"
    if recipe.method == DIRECT_COPY:
        check_groups(old, new)
    maps["head"] = copies(old["head"], heads.query)
    maps["kv_head"] = copies(old["kv_head"], heads.key_value)
    maps["query_head"] = norm_undone_copies(old["head"], heads.query)
    maps["key_head"] = norm_undone_copies(old["kv_head"], heads.key_value)
    line("head", "whole-head copies", EXACT, "what reads a head's copies is divided among them")
    if old["head"] != old["kv_head"] or new["head"] != new["kv_head"]:
        line("kv_head", "whole-group copies", EXACT, "each new query head keeps a copy of its key-value head")

    slots, edits = head_slots(family, config, old["head_dim"], new["head_dim"])
    maps |= {"query_dim": slots.query, "key_dim": slots.key, "value_dim": slots.value}
    line("head_dim", slots.name, EXACT, slots_why(family, slots))

    maps["ffn"] = copies(old["ffn"], _index(old["ffn"], new["ffn"], recipe, "ffn"))
    line("ffn", "copies", EXACT, "no norm runs over it")
    for axis in FOLLOWERS:
        if axis in old:
            maps[axis] = copies(old[axis], _index(old[axis], new[axis], recipe, axis))
            line(axis, "copies", EXACT, "no norm runs over it; its ratio to the experts' width is kept")
    maps |= {axis: identity(old[axis]) for axis in KEPT if axis in old} | {PAIR: identity(2)}
    if recipe.method == DIRECT_COPY:
        maps = cornered(maps)
    routed = MoreExperts()
    if family.is_moe:
        maps["expert"] = identity(old["expert"])
        routed = routing(family, config, old["expert"], new["expert"], recipe)
        if new["expert"] != old["expert"]:
            maps["expert"] = experts_map(old["expert"], new["expert"])
        line("expert", maps["expert"].name, routed.exactness, routed.why)
    return maps, lines, edits, routed


def _generator(recipe: Recipe, axis: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(stable_seed(recipe.seed, f"map of {axis}")))


def _index(old: int, new: int, recipe: Recipe, axis: str) -> np.ndarray:
    if recipe.mapping == "random":
        return random_index(old, new, _generator(recipe, axis))
    return cyclic_index(old, new)


def _hidden(family: Family, old: int, new: int, recipe: Recipe, names: Iterable[str]) -> tuple[AxisMap, Exactness, str]:
    """The map of the residual stream: the one axis that norms run over in every layer."""
    if old == new:
        return identity(old), EXACT, "unchanged"
    index = _index(old, new, recipe, "hidden")
    even = np.ptp(np.bincount(index, minlength=old)) == 0
    if even:
        return copies(old, index), EXACT, "every entry has equally many copies, so each norm sees the same statistics"
    if family.norms.kind == RMS:
        return even_norm_copies(old, index), EXACT, "copies are scaled so that RMSNorm sees the same mean square"
    if recipe.mapping == "random" or recipe.method == "aki":
        why = f"uneven copies change LayerNorm's statistics; a multiple of {old} or --mapping cyclic with fpi would not"
        return copies(old, index), APPROXIMATE, why
    begins_normed = family.has_axes(names, "normed")
    filler = mean_filler(old, new, family.norms.after, begins_normed)
    if family.norms.after:
        why = (
            "after a post-LayerNorm the stream's mean differs from token to token and no weight can write it into new"
            f" places; exact widths are multiples of {old}"
        )
        return filler, NEAR, why
    if begins_normed:
        why = (
            "a norm or an activation behind the embeddings writes the stream, whose mean differs from token to token and no"
            f" weight can write it into new places; exact widths are multiples of {old}"
        )
        return filler, NEAR, why
    if family.has_axes(names, "~/head_"):
        why = (
            "the head's own LayerNorm runs over units that no number of copies evens out; exact widths are"
            f" multiples of {old}"
        )
        return filler, NEAR, why
    return filler, EXACT, "the filler holds the stream's mean, so LayerNorm sees the same mean and variance"
