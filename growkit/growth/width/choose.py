"""Which map each axis gets, and what that does to the function. Knows the theory of growth; ignorant of tensors and files.

The table of exactness that the README prints is this file, and a test holds each line of it, in both directions.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from growkit.errors import RequestError
from growkit.families import Family
from growkit.families.schema import RMS
from growkit.growth.plan import AxisPlan, Recipe
from growkit.growth.width.sizes import FOLLOWERS, ROPE_DICTS, Sizes, rope_value, rotary_size
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
from growkit.maps.heads import HeadSlots, copied_slots, grouped_heads, kept_slots, normed_rotary_slots, rotary_slots
from growkit.maps.notation import WRITE
from growkit.operators.seeds import stable_seed

EXACT, NEAR, APPROXIMATE = Exactness.EXACT, Exactness.NEAR, Exactness.APPROXIMATE
ROPE_BY_EITHER, ROPE_BY_THETA = ("default", "linear", "llama3"), ("yarn",)


def choose_maps(
    family: Family, config: Mapping[str, Any], old: Sizes, new: Sizes, recipe: Recipe
) -> tuple[dict[str, AxisMap], list[AxisPlan], dict[str, Any]]:
    """A map for every axis word, a plan line for every size that a person can set, and the rotary settings to change."""
    maps: dict[str, AxisMap] = {"vocab": identity(old["vocab"])}
    lines: list[AxisPlan] = []

    def line(axis: str, how: str, exactness: Exactness, why: str) -> None:
        if old[axis] == new[axis]:
            how, exactness, why = "kept", EXACT, "unchanged"
        elif recipe.method == "aki" and old["layer"] > 1:
            exactness, why = APPROXIMATE, "AKI takes the new units of each layer from the layer above, by design"
        lines.append(AxisPlan(axis, old[axis], new[axis], how, exactness, why))

    hidden, exactness, why = _hidden(family, old["hidden"], new["hidden"], recipe)
    maps["hidden"] = hidden
    line("hidden", hidden.name, exactness, why)

    pooled_index = hidden.index
    maps["pooled"] = copies(old["hidden"], pooled_index)
    has_filler = bool((hidden.sides[WRITE].mode == MEAN).any())
    maps["head_hidden"] = (
        head_filler(old["hidden"], new["hidden"]) if has_filler else copies(old["hidden"], pooled_index)
    )

    generator = _generator(recipe, "head") if recipe.mapping == "random" else None
    group, new_group = old["head"] // old["kv_head"], new["head"] // new["kv_head"]
    heads = grouped_heads((old["kv_head"], group), (new["kv_head"], new_group), generator)
    assert heads is not None, "target_sizes lets only possible groupings through"
    maps["head"] = copies(old["head"], heads.query)
    maps["kv_head"] = copies(old["kv_head"], heads.key_value)
    maps["query_head"] = norm_undone_copies(old["head"], heads.query)
    maps["key_head"] = norm_undone_copies(old["kv_head"], heads.key_value)
    line("head", "whole-head copies", EXACT, "what reads a head's copies is divided among them")
    if old["head"] != old["kv_head"] or new["head"] != new["kv_head"]:
        line("kv_head", "whole-group copies", EXACT, "each new query head keeps a copy of its key-value head")

    slots, edits = _slots(family, config, old, new)
    maps |= {"query_dim": slots.query, "key_dim": slots.key, "value_dim": slots.value}
    line("head_dim", slots.name, EXACT, _slots_why(slots))

    maps["ffn"] = copies(old["ffn"], _index(old["ffn"], new["ffn"], recipe, "ffn"))
    line("ffn", "copies", EXACT, "no norm runs over it")
    for axis in FOLLOWERS:
        if axis in old:
            maps[axis] = copies(old[axis], _index(old[axis], new[axis], recipe, axis))
            line(axis, "copies", EXACT, "no norm runs over it; its ratio to the experts' width is kept")
    if family.is_moe:
        maps["expert"] = identity(old["expert"])
        line("expert", "kept", EXACT, "unchanged")
    return maps, lines, edits


def _generator(recipe: Recipe, axis: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(stable_seed(recipe.seed, f"map of {axis}")))


def _index(old: int, new: int, recipe: Recipe, axis: str) -> np.ndarray:
    if recipe.mapping == "random":
        return random_index(old, new, _generator(recipe, axis))
    return cyclic_index(old, new)


def _hidden(family: Family, old: int, new: int, recipe: Recipe) -> tuple[AxisMap, Exactness, str]:
    """The map of the residual stream: the one axis that norms run over in every layer."""
    if old == new:
        return identity(old), EXACT, "unchanged"
    index = _index(old, new, recipe, "hidden")
    even = np.ptp(np.bincount(index, minlength=old)) == 0
    if even:
        return copies(old, index), EXACT, "every entry has equally many copies, so each norm sees the same statistics"
    if family.norm == RMS:
        return even_norm_copies(old, index), EXACT, "copies are scaled so that RMSNorm sees the same mean square"
    if recipe.mapping == "random" or recipe.method == "aki":
        why = f"uneven copies change LayerNorm's statistics; a multiple of {old} or --mapping cyclic with fpi would not"
        return copies(old, index), APPROXIMATE, why
    filler = mean_filler(old, new, family.post_norm)
    if family.post_norm:
        why = (
            "after a post-LayerNorm the stream's mean differs from token to token and no weight can write it into new"
            f" places; exact widths are multiples of {old}"
        )
        return filler, NEAR, why
    return filler, EXACT, "the filler holds the stream's mean, so LayerNorm sees the same mean and variance"


def _slots(family: Family, config: Mapping[str, Any], old: Sizes, new: Sizes) -> tuple[HeadSlots, dict[str, Any]]:
    """The maps of head_dim, and the rotary settings that go with them as {name: value}."""
    size, target = old["head_dim"], new["head_dim"]
    if size == target:
        return kept_slots(size), {}
    stated = {key: config.get(key, family.defaults.get(key)) for key in family.score_keys}
    fixed = any(stated[key] is not None and value in (None, stated[key]) for key, value in family.score_keys.items())
    score = 1.0 if fixed else float(np.sqrt(target / size))
    rotary = rotary_size(family, config, old)
    if rotary % 2:
        raise RequestError(
            f"head_dim cannot grow with {rotary} rotary slots of {size}: they turn in pairs, and one has none"
        )
    if rotary < size:
        edits = {"partial_rotary_factor": _fraction(rotary, target)} if rotary else {}
        return copied_slots(size, target, rotary, score), edits
    kind = rope_value({k: config.get(k) for k in ROPE_DICTS}, ("rope_type", "type"), "default")
    if kind not in (*ROPE_BY_EITHER, *ROPE_BY_THETA):
        raise RequestError(
            f"head_dim cannot grow under rope type {kind!r}: its frequencies depend on more than base and size"
        )
    if family.head_norm:
        if kind not in ROPE_BY_EITHER:
            raise RequestError(
                f"head_dim of {family.model_type} cannot grow under rope type {kind!r}; grow heads instead"
            )
        return normed_rotary_slots(size, target, score), {}
    slots = rotary_slots(size, target, score, by_index=target % size == 0 and kind in ROPE_BY_EITHER)
    theta = rope_value(config, ("rope_theta", "rotary_emb_base"), 10000.0)
    return slots, {} if slots.rope_power == 1.0 else {"rope_theta": float(theta) ** slots.rope_power}


def _fraction(rotary: int, head_dim: int) -> float:
    """The share of a head that is rotary, such that int(head_dim * share) is that number again."""
    share = rotary / head_dim
    return share if int(head_dim * share) == rotary else float(np.nextafter(share, 1.0))


def _slots_why(slots: HeadSlots) -> str:
    return {
        "copied slots": "q and k are scaled so that scores come out as before",
        "rotary slots by index": "old pairs move to where their frequency now is; the new keys are zero",
        "rotary slots by theta": "the rotary base is raised so that old pairs keep their frequency; the new keys are zero",
        "normed slots by index": "norms see whole copies; only the copy with the old frequency has a key",
    }.get(slots.name, "unchanged")


def write_rotary(config: dict[str, Any], edits: Mapping[str, Any]) -> None:
    """Put rotary settings where the config has them, under the name it has for them."""
    names = {
        "rope_theta": ("rope_theta", "rotary_emb_base"),
        "partial_rotary_factor": ("partial_rotary_factor", "rotary_pct"),
    }
    for name, value in edits.items():
        places = [config[k] for k in ROPE_DICTS if isinstance(config.get(k), dict)] + [config]
        found = [(place, key) for place in places for key in names[name] if place.get(key) is not None]
        home = next((d for d in places if "rope_theta" in d), config)
        legacy = "rotary_pct" if config.get("model_type") == "gpt_neox" and home is config else name
        for place, key in found or [(home, legacy)]:
            place[key] = value
