"""Which families, and which of their growths, the suite takes: so few that every feature is there at least once.

A feature is a fact that sets a family apart from the default, a size, or something that a table says: a word, a mark,
blocks one after another or dealt out, the order in which dimensions are stored. All growths of all families are
check-family's.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, TypeVar

import tiny

from growkit.errors import RequestError
from growkit.families import FAMILIES
from growkit.families.schema import Family
from growkit.growth.width.sizes import OPTIONS, read_sizes, target_sizes
from growkit.maps.notation import parse

Item = TypeVar("Item")
# names of things, settings of small models, and what the tests of refusals and of absent keys go through
_NO_FEATURES = {
    "model_type", "tensors", "prefixes", "architectures", "embedding", "heads", "sizes", "refused", "defaults", "small",
    "variants",
}  # fmt: skip
_NESTED = ("norms", "rotary", "positions", "windows", "experts")


def cover(items: Iterable[Item], of: Callable[[Item], Iterable[Hashable]]) -> tuple[Item, ...]:
    """Items that have every feature that any of them has: each time the one with most that are still missing."""
    features = {item: frozenset(of(item)) for item in items}
    missing, chosen = set().union(*features.values()), []
    while missing:
        chosen.append(max(features, key=lambda item: len(features[item] & missing)))
        missing -= features[chosen[-1]]
    return tuple(chosen)


def _facts(thing: Any, prefix: str = "") -> set[str]:
    """What a dataclass says beside its defaults; of a yes, a no or a kind, which."""
    found = set()
    for field in fields(thing):
        value = getattr(thing, field.name)
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if field.name in _NO_FEATURES or (not prefix and field.name in _NESTED):
            continue
        if default is MISSING or (value != default and isinstance(value, bool)):
            found.add(f"{prefix}{field.name} {value}")
        elif value != default:
            found.add(f"{prefix}{field.name}")
    return found


@cache
def features(name: str) -> frozenset[str]:
    """The features of a family."""
    family: Family = FAMILIES[name]
    found = _facts(family) | {f"size {axis}" for axis in family.sizes} | {f"causal {family.causal}"}
    for part in _NESTED:
        thing = getattr(family, part)
        found |= {f"no {part}"} if thing is None else _facts(thing, f"{part}.")
    for template, pattern in family.tensors.items():
        dimensions = parse(pattern)
        found.add(f"order {' '.join(one.role for one in dimensions)}" + " of each expert" * ("{expert}" in template))
        for one in dimensions:
            found |= {f"word {axis}" for axis in one.axes} | {f"{one.role}{' before the head' * one.before_head}"}
            if len(one.axes) > len(one.blocks):
                found.add("axes in one dimension")
            if len(one.blocks) > 1:
                found.add(f"{len(one.blocks)} blocks" + f", dealt to {one.dealt}" * bool(one.dealt))
    return frozenset(found)


SAMPLE = cover(FAMILIES, features)


def sample(names: Iterable[str]) -> tuple[str, ...]:
    """Those of some families that have every feature that any of them has."""
    return cover(names, features)


def kind(name: str) -> str:
    """What decides how far growth is exact: "post" or "pre" for where its LayerNorms stand, or "RMS"."""
    norms = FAMILIES[name].norms
    return "post" if norms.after else "pre" if norms.kind == "LayerNorm" else "RMS"


def carries_head(name: str) -> bool:
    """Whether the last norm can carry what a tied head cannot: it has a gain."""
    return any(pattern.startswith("~/") for pattern in FAMILIES[name].tensors.values())


@cache
def _config(name: str) -> dict[str, Any]:
    config, settings = tiny.ALL[name]
    return config(**settings).to_dict()


@cache
def sizes(name: str) -> dict[str, int]:
    """The sizes of a family's tiny model."""
    return read_sizes(FAMILIES[name], _config(name))


def can(name: str, **growth: Any) -> bool:
    """Whether a family's tiny model can have the sizes asked for, as growth's keywords."""
    words = {option.strip("-").replace("-", "_"): axis for axis, option in OPTIONS.items()}
    try:
        target_sizes(FAMILIES[name], _config(name), {words[key]: size for key, size in growth.items() if key in words})
    except RequestError:
        return False
    return True


def free(name: str, axis: str) -> bool:
    """Whether heads, kv heads or head_dim of a family grow while hidden stays."""
    old = sizes(name)
    option = OPTIONS[axis].strip("-").replace("-", "_")
    larger = old["head"] if axis == "kv_head" else 2 * old[axis]
    return larger > old[axis] and can(name, **{option: larger, "hidden": old["hidden"]})
