"""Rotary positions: what a config says of them, how a head's slots grow under them, and what the config says then.
Knows frequencies and config keys; ignorant of tensors and of the other axes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from growkit.errors import CheckpointError, RequestError
from growkit.families import Family
from growkit.maps.heads import HeadSlots, copied_slots, kept_slots, normed_partly_rotary_slots, normed_rotary_slots, rotary_slots

DICTIONARIES = ("rope_parameters", "rope_scaling")  # where a config has rotary settings, if not beside the others
THETA, FRACTION = "rope_theta", "partial_rotary_factor"
BY_EITHER, BY_THETA = ("default", "linear", "llama3"), ("yarn",)  # rope types whose slots move by index too, or not


def rope_value(config: Mapping[str, Any], keys: tuple[str, ...], default: Any) -> Any:
    """A rotary setting under any of its names, in the config or in its rope dictionary.

    Raises CheckpointError for a dictionary that is none or a value that is not of the default's kind.
    """
    for name in DICTIONARIES:
        if not isinstance(config.get(name) or {}, dict):
            raise CheckpointError(f"config.json should hold an object under {name!r}, not {config[name]!r}")
    for place in (*(config.get(name) or {} for name in DICTIONARIES), config):
        for key in keys:
            value = place.get(key)
            if value is None:
                continue
            number = isinstance(value, int | float) and 0 < value < float("inf")
            if not (isinstance(value, str) if isinstance(default, str) else number):
                raise CheckpointError(
                    f"config.json has {key!r} as {value!r}, where {default!r} is an example of what it should be"
                )
            return value
    return default


def _keys(family: Family, name: str) -> tuple[str, ...]:
    """What a setting may be called in a family's config, the general name first."""
    assert family.rotary is not None, "only asked of families with rotary positions"
    own = {THETA: family.rotary.base_key, FRACTION: family.rotary.fraction_key}[name]
    return tuple(dict.fromkeys((name, own)))


def rotary_size(family: Family, config: Mapping[str, Any], head_dim: int) -> int:
    """How many slots of a head carry rotary positions; 0 where positions are absolute."""
    if family.rotary is None:
        return 0
    fraction = rope_value(config, _keys(family, FRACTION), family.rotary.fraction)
    if not 0 < fraction <= 1:
        raise CheckpointError(
            f"config.json has partial_rotary_factor {fraction}, which should be above 0 and at most 1"
        )
    return int(head_dim * fraction)


def head_slots(family: Family, config: Mapping[str, Any], size: int, target: int) -> tuple[HeadSlots, dict[str, Any]]:
    """The maps of head_dim from a size to another, and the rotary settings that go with them as {name: value}.

    Raises RequestError where the frequencies of a head cannot be kept.
    """
    if size == target:
        return kept_slots(size), {}
    stated = {key: family.value(config, key) for key in family.score_keys}
    fixed = any(stated[key] is not None and value in (None, stated[key]) for key, value in family.score_keys.items())
    score = 1.0 if fixed else float(np.sqrt(target / size))
    rotary = rotary_size(family, config, size)
    if rotary % 2:
        raise RequestError(
            f"head_dim cannot grow with {rotary} rotary slots of {size}: they turn in pairs, and one has none"
        )
    if rotary < size:
        normed = family.norms_heads(config)
        slots = (normed_partly_rotary_slots if normed else copied_slots)(size, target, rotary, score)
        return slots, {FRACTION: _share(rotary, target)} if rotary else {}
    kind = rope_value({k: config.get(k) for k in DICTIONARIES}, ("rope_type", "type"), family.rotary.kind if family.rotary else "default")
    if kind not in (*BY_EITHER, *BY_THETA):
        raise RequestError(
            f"head_dim cannot grow under rope type {kind!r}: its frequencies depend on more than base and size"
        )
    if family.norms_heads(config):
        if kind not in BY_EITHER:
            raise RequestError(
                f"head_dim of {family.model_type} cannot grow under rope type {kind!r}; grow heads instead"
            )
        return normed_rotary_slots(size, target, score), {}
    slots = rotary_slots(size, target, score, by_index=target % size == 0 and kind in BY_EITHER)
    assert family.rotary is not None, "a head all of whose slots turn"
    theta = rope_value(config, _keys(family, THETA), family.rotary.base)
    return slots, {} if slots.rope_power == 1.0 else {THETA: float(theta) ** slots.rope_power}


def _share(rotary: int, head_dim: int) -> float:
    """The share of a head that is rotary, such that int(head_dim * share) is that number again."""
    share = rotary / head_dim
    return share if int(head_dim * share) == rotary else float(np.nextafter(share, 1.0))


def slots_why(family: Family, slots: HeadSlots) -> str:
    """What a plan says of how a head's slots grow."""
    if slots.name == "copied slots" and not any("query_dim" in axes for axes in family.tensors.values()):
        return "it is the width of values alone; what reads a slot's copies is divided among them"
    return {
        "copied slots": "q and k are scaled so that scores come out as before",
        "rotary slots by index": "old pairs move to where their frequency now is; the new keys are zero",
        "rotary slots by theta": "the rotary base is raised so that old pairs keep their frequency; the new keys are"
        " zero",
        "normed slots": "norms see whole copies; what does not turn is divided among its copies, the rotary slots' other"
        " copies have no key",
        "normed slots by index": "norms see whole copies; only the copy with the old frequency has a key",
    }.get(slots.name, "unchanged")


def write_rotary(family: Family, config: dict[str, Any], edits: Mapping[str, Any]) -> None:
    """Put rotary settings where the config has them, under the name it has for them."""
    for name, value in edits.items():
        general, *own = _keys(family, name)
        places = [config[k] for k in DICTIONARIES if isinstance(config.get(k), dict)] + [config]
        entries = [(place, key) for place in places for key in (general, *own) if place.get(key) is not None]
        home = next((d for d in places if THETA in d), config)
        for place, key in entries or [(home, own[0] if own and home is config else general)]:
            place[key] = value
    if edits and isinstance(config.get("rope_parameters"), dict):
        _state_at_top(family, config)


def _state_at_top(family: Family, config: dict[str, Any]) -> None:
    """Write rotary settings beside the others too, where transformers 4 reads them; it knows no rope_parameters.

    Not under a rope type of its own, whose other settings transformers 4 would not find either.
    """
    stated = config["rope_parameters"]
    if rope_value(config, ("rope_type", "type"), "default") == "default":
        for name in (THETA, FRACTION):
            if name in stated:
                config[_keys(family, name)[-1]] = stated[name]


def state_theta(config: dict[str, Any], family: Family) -> None:
    """Write the rotary base where either generation of transformers looks for it: classes fill in different ones.

    family: of the model that the rotary settings are of.
    """
    assert family.rotary is not None, "only asked of families with rotary positions"
    config[THETA] = rope_value(config, _keys(family, THETA), family.rotary.base)
    if isinstance(config.get("rope_parameters"), dict):
        config["rope_parameters"].setdefault(THETA, config[THETA])
