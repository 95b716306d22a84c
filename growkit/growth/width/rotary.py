"""Rotary positions: what a config says of them, how a head's slots grow under them, and what the config says then.
Knows frequencies and config keys; ignorant of tensors and of the other axes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from growkit.errors import CheckpointError, RequestError
from growkit.families import Family
from growkit.families.stock_config import stock_value
from growkit.maps.heads import (
    HeadSlots,
    copied_slots,
    in_pairs,
    kept_slots,
    normed_partly_rotary_slots,
    normed_rotary_slots,
    rotary_slots,
)

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
    if family.rotary.size_key:
        return min(family.number(config, family.rotary.size_key), head_dim)
    fraction = rope_value(config, _keys(family, FRACTION), family.rotary.fraction)
    for name, settings in _nested(config).items():
        if settings.get(FRACTION, fraction) != fraction:
            raise CheckpointError(
                f"config.json has {FRACTION} {settings[FRACTION]!r} for {name}; growkit grows models where it is the same"
                f" in all layers, {fraction}"
            )
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
    score = 1.0 if fixed or not family.scaled_scores else float(np.sqrt(target / size))
    rotary = rotary_size(family, config, size)
    if rotary % 2:
        raise RequestError(
            f"head_dim cannot grow with {rotary} rotary slots of {size}: they turn in pairs, and one has none"
        )
    assert family.rotary is not None or not rotary, "only rotary families have slots that turn"
    if rotary < size and family.norms_heads(config):
        return normed_partly_rotary_slots(size, target, rotary, score), {FRACTION: _share(rotary, target)}
    of_number = family.rotary is not None and bool(family.rotary.size_key)
    if rotary < size or of_number:
        return copied_slots(size, target, rotary, score), {} if of_number or not rotary else {
            FRACTION: _share(rotary, target)
        }
    assert family.rotary is not None, "a head all of whose slots turn"
    by_type = _by_type(family, config)
    flat: dict[str, Any] = {k: config.get(k) for k in DICTIONARIES}
    each: list[dict[str, Any]] = [{"rope_parameters": one} for one in by_type.values()]
    kinds = {rope_value(settings, ("rope_type", "type"), family.rotary.kind) for settings in each or [flat]}
    unknown = kinds - {*BY_EITHER, *BY_THETA}
    if unknown:
        raise RequestError(
            f"head_dim cannot grow under rope type {min(unknown)!r}: its frequencies depend on more than base and size"
        )
    fixed_base = kinds - {*BY_EITHER}
    if family.norms_heads(config):
        if fixed_base:
            raise RequestError(
                f"head_dim of {family.model_type} cannot grow under rope type {min(fixed_base)!r}; grow heads instead"
            )
        return _laid_out(family, normed_rotary_slots(size, target, score)), {}
    slots = _laid_out(family, rotary_slots(size, target, score, by_index=target % size == 0 and not fixed_base))
    if slots.rope_power == 1.0:
        return slots, {}
    if by_type:
        return slots, {THETA: {name: float(one[THETA]) ** slots.rope_power for name, one in by_type.items()}}
    theta = rope_value(config, _keys(family, THETA), family.rotary.base)
    return slots, {THETA: float(theta) ** slots.rope_power}


def _laid_out(family: Family, slots: HeadSlots) -> HeadSlots:
    """Slots where the family has them."""
    return in_pairs(slots) if family.rotary is not None and family.rotary.pairs else slots


def _nested(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Rotary settings of types of layers, where a config states them so."""
    stated = config.get("rope_parameters") or {}
    return {name: settings for name, settings in stated.items() if isinstance(settings, dict)}


def _by_type(family: Family, config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The rotary settings of each type of layers, completed by the config class; none where all layers share theirs.

    Raises CheckpointError where a family that has one for all is stated to have several, or where the class does not
    take the config.
    """
    assert family.rotary is not None, "only asked of families with rotary positions"
    if not family.rotary.by_type:
        if _nested(config):
            raise CheckpointError(
                f"config.json has rotary settings by type of layer, which a {family.model_type} has not"
            )
        return {}
    whole = stock_value(family.model_type, config, "rope_parameters")
    return {name: settings for name, settings in whole.items() if isinstance(settings, dict)}


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
        "added slots": "the old slots turn as before; the new keys are zero",
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
        if isinstance(value, dict):
            _write_by_type(family, config, name, value)
            continue
        general, *own = _keys(family, name)
        places = [config[k] for k in DICTIONARIES if isinstance(config.get(k), dict)] + [config]
        places += _nested(config).values()
        entries = [(place, key) for place in places for key in (general, *own) if place.get(key) is not None]
        home = next((d for d in places if THETA in d), config)
        for place, key in entries or [(home, own[0] if own and home is config else general)]:
            place[key] = value
    if edits and isinstance(config.get("rope_parameters"), dict) and not _nested(config):
        _state_at_top(family, config)


def _write_by_type(family: Family, config: dict[str, Any], name: str, values: Mapping[str, Any]) -> None:
    """Give each type of layers its own value of a rotary setting, and under the older name where the config has it."""
    assert family.rotary is not None, "only asked of families with rotary positions"
    settings = _by_type(family, config)
    config["rope_parameters"] = {kind: {**one, name: values[kind]} for kind, one in settings.items()}
    for kind, key in family.rotary.by_type.items():
        if key in config and kind in values:
            config[key] = values[kind]


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
