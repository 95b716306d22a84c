"""More experts for a mixture: what its router makes of copies, and what config.json says then. Knows how routers weigh
what a token takes; ignorant of tensors.

The experts are copied as a whole set, m times, and the router's rows with them. Equal rows give equal scores, so that
a token that takes m times as many takes all copies of what it took. Their weights add up to the old one: of a softmax
over all experts each copy has 1/m, of one over those taken too, and of what is divided by its sum; sigmoids that are
not are m times too much, which the routed scaling factor takes back. Where a token takes as many as before, it takes
all copies of the few it likes best, except where a router looks for experts in groups: then each set is a group of
which it takes one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from growkit.errors import RequestError
from growkit.families import Family
from growkit.growth.request import Recipe
from growkit.maps.axis import AxisMap, copies, cyclic_index
from growkit.maps.exactness import Exactness

TIE = (
    "the sets of copies tie, so that one of them may get all tokens until the routers part: in training, balance them,"
    " as DeepSeek does with e_score_correction_bias"
)
ROUNDED = (
    "where a router computes in bfloat16 two different experts may tie, and such a token takes copies of both: keep it in"
    " float32"
)


@dataclass(frozen=True, kw_only=True)
class MoreExperts:
    """What comes of more experts.

    settings: what config.json says then. all_copies: whether a token takes all copies of what it took, so that they may
    be unequal as long as their sum stays.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    exactness: Exactness = Exactness.EXACT
    why: str = "unchanged"
    all_copies: bool = False
    note: str = ""  # for the plan


def routing(family: Family, config: Mapping[str, Any], old: int, new: int, recipe: Recipe) -> MoreExperts:
    """How tokens take experts once there are `new` for `old`. Raises RequestError for numbers that cannot be."""
    taken = family.number(config, family.experts.top_k)
    wanted = taken if recipe.top_k is None else recipe.top_k
    if new == old:
        if recipe.top_k is not None:
            raise RequestError(f"--top-k {wanted} is for more experts: give --experts too")
        return MoreExperts()
    if recipe.method == "aki":
        raise RequestError(
            "--experts copies the experts of each layer; --method aki would take them from the layer above"
        )
    if not taken <= wanted <= new:
        raise RequestError(
            f"--top-k {wanted} should be from the source's {taken}, since growkit only grows, to --experts {new}"
        )
    settings = {**dict.fromkeys(family.keys("expert"), new), family.experts.top_k: wanted}
    if recipe.copies:
        why = (
            "experts have unequal numbers of copies, by what they do for the text, and so unequal shares of the weights"
        )
        return MoreExperts(settings=settings, exactness=Exactness.APPROXIMATE, why=why)
    times, rest = divmod(new, old)
    if rest:
        raise RequestError(
            f"--experts {new} is no multiple of the source's {old}, of which each gets as many copies; take"
            f" {times * old or old} or {(times + 1) * old}, or --text FILE for copies where the text needs them"
        )
    if wanted == times * taken or (taken == wanted == 1 and not _halves(family, config)):
        return _every_copy(family, config, times, settings, times * taken)
    groups = _one_group_each(family, config, times) if wanted == taken else None
    if groups is not None:
        why = f"each of the {times} sets of copies is a group, of which a token takes one, and in it what it took"
        return MoreExperts(settings={**settings, **groups}, why=why, note=TIE)
    different = -(-wanted // times)
    if different == taken:
        why = f"a copy alone has 1/{times} of the weight; --top-k {times * taken} is exact"
        return MoreExperts(settings=settings, exactness=Exactness.APPROXIMATE, why=why)
    why = (
        f"equal copies are taken together, so of the {taken} different experts a token took it takes {different};"
        f" --top-k {times * taken} is exact"
    )
    return MoreExperts(settings=settings, exactness=Exactness.APPROXIMATE, why=why)


def experts_map(old: int, new: int, numbers: Sequence[int] = ()) -> AxisMap:
    """Whole sets of copies one after another; or so many of each, the originals first. Routers weigh the copies, so
    that what writes scores carries no amplitude; what is added to shares of a softmax is shared among the copies.
    """
    more = np.repeat(np.arange(old), np.array(numbers) - 1) if numbers else cyclic_index(old, new - old)
    return copies(old, np.concatenate([np.arange(old), more]))


def _halves(family: Family, config: Mapping[str, Any]) -> bool:
    """Whether a copy alone has less weight than the expert had: of a softmax over all experts, not divided by what is
    taken."""
    return family.experts.gates == "all" and not _divided(family, config)


def _divided(family: Family, config: Mapping[str, Any]) -> bool:
    """Whether the weights of what a token takes are divided by their sum."""
    divided = family.experts.divided
    return bool(family.value(config, divided)) if isinstance(divided, str) else divided


def _every_copy(
    family: Family, config: Mapping[str, Any], times: int, settings: dict[str, Any], every: int
) -> MoreExperts:
    """A token takes all copies of what it took, `every` experts, or of a single expert one copy."""
    keys, whole = family.experts, settings[family.experts.top_k] == every
    if whole and keys.gates == "sigmoid" and not _divided(family, config):
        settings[keys.scale] = family.value(config, keys.scale) / times
    if _grouped(family, config):
        settings |= {key: family.value(config, key) * times for key in keys.groups}
    if not whole:
        return MoreExperts(settings=settings, why="a token takes one copy of the expert it took, with its weight")
    why = f"a token takes all {times} copies of what it took, whose weights add up to the old one"
    return MoreExperts(settings=settings, why=why, all_copies=True, note=ROUNDED)


def _grouped(family: Family, config: Mapping[str, Any]) -> bool:
    """Whether a token takes experts of some groups only."""
    keys = family.experts
    if not keys.groups or any(family.value(config, key) != value for key, value in keys.grouped_where.items()):
        return False
    groups, looked_into = (family.value(config, key) or 1 for key in keys.groups)
    return bool(looked_into < groups)


def _one_group_each(family: Family, config: Mapping[str, Any], times: int) -> dict[str, Any] | None:
    """Settings that make each set of copies a group of which a token takes one; None where the class has no groups, or
    the model has others already."""
    keys = family.experts
    if not keys.groups or _grouped(family, config):
        return None
    settings = {**keys.grouped_where, **dict(zip(keys.groups, (times, 1)))}
    if _halves(family, config):  # a copy has 1/times of the softmax over all
        settings[keys.scale] = family.value(config, keys.scale) * times
    return settings
