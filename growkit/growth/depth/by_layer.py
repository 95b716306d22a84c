"""What a config says layer by layer, carried to other layers. Knows the keys that do so; ignorant of why layers
move.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from growkit.errors import CheckpointError, RequestError
from growkit.families import Family
from growkit.families.stock_config import stated_under, stock_value
from growkit.growth.depth.layers import place
from growkit.maps.axis import AxisMap

ENTRIES = ("layer_types", "no_rope_layers", "attention_layers", "mlp_layer_types")  # one entry per layer
NUMBERS = ("mlp_only_layers",)  # the numbers of some layers
TYPES = "layer_types"
SLIDING, FULL = "sliding_attention", "full_attention"


def is_by_layer(key: str) -> bool:
    """Whether a config key speaks of layers one by one."""
    return key in (*ENTRIES, *NUMBERS)


def difference(family: Family, one: Mapping[str, Any], other: Mapping[str, Any], count: int) -> str | None:
    """The first thing that two configs of `count` layers each say differently layer by layer, or None."""
    stack = next((key for key in family.stacks.values() if family.value(one, key) != family.value(other, key)), None)
    if stack is not None:
        return stack
    if kinds_of_attention(family, one, count) != kinds_of_attention(family, other, count):
        return TYPES
    listed = (
        key for key in ENTRIES[1:] if (listed_by(family, one, key) or None) != (listed_by(family, other, key) or None)
    )
    numbers = (key for key in NUMBERS if (one.get(key) or None) != (other.get(key) or None))
    return next(listed, next(numbers, None))


def deepen_config(
    family: Family,
    config: dict[str, Any],
    sources: Sequence[Mapping[str, Any]],
    old: Sequence[int],
    stacks: Mapping[str, AxisMap],
) -> list[str]:
    """Give a config its new number of layers and carry along all that it says layer by layer; returns notes for the
    plan.

    sources: the configs whose layers these are, `old` layers each; stacks: the map of each stack of layers, the one of
    these first. Raises CheckpointError where layers cannot move.
    """
    layers = next(iter(stacks.values()))
    if layers.is_identity and len(old) == 1:
        return []
    for source, count in zip(sources, old):
        _check(family, source, count)
    for key in family.keys("layer"):
        config |= dict.fromkeys(stated_under(family.model_type, config, key, family.size_keys), layers.new)
    for stack, key in family.stacks.items():
        if config.get(key) is not None or family.value(config, key) != stacks[stack].new:
            config[key] = stacks[stack].new
    places = [place(number, old) for number in layers.index]
    _carry_stages(config, old[0])
    notes: list[str] = []
    for key in ENTRIES[1:]:
        lists = [listed_by(family, source, key) for source in sources]
        stated = [found for found in lists if found is not None]
        if stated and len(stated) < len(lists):
            raise CheckpointError(f"only some of the sources list {key!r} in config.json; write it in all of them")
        if stated and family.windows.runs:  # of which the list itself is made
            config[family.windows.runs] = [[[stated[source][layer] for source, layer in places], 1]]
        if stated:
            notes += _list(family, config, key, [stated[source][layer] for source, layer in places])
    for key in NUMBERS:
        if any(source.get(key) for source in sources):
            named = [source.get(key) or () for source in sources]
            config[key] = [number for number, (source, layer) in enumerate(places) if layer in named[source]]
    notes += _carry_experts(family, config, [(sources[source], layer) for source, layer in places])
    types = [kinds_of_attention(family, source, count) for source, count in zip(sources, old)]
    return notes + _list(family, config, TYPES, [types[source][layer] for source, layer in places])


def _carry_stages(config: dict[str, Any], old: int) -> None:
    """Leave out which layers' outputs an image model gives, where that is the last alone, for that follows. Raises
    CheckpointError where it is another.
    """
    if config.get("out_indices") not in (None, [old]) or config.get("out_features") not in (None, [f"stage{old}"]):
        raise CheckpointError(
            "config.json names layers whose outputs the model gives under 'out_indices' and 'out_features', which growkit"
            " does not carry to others; remove them if they do not matter"
        )
    for key in ("stage_names", "out_indices", "out_features"):
        config.pop(key, None)


def _list(family: Family, config: dict[str, Any], key: str, wanted: list[Any]) -> list[str]:
    """State something of each layer where a config states it, or where the family's rule would give something else;
    returns notes for the plan.
    """
    if config.get(key) is not None:
        config[key] = wanted
        return []
    by_rule = kinds_of_attention(family, config, len(wanted)) if key == TYPES else listed_by(family, config, key)
    if wanted == by_rule:
        return []
    config[key] = wanted
    return [f"config.json now lists {key}, because the rule of {family.model_type} would give others"]


def listed_by(family: Family, config: Mapping[str, Any], key: str) -> list[Any] | None:
    """What a config, or its class by a rule of its own, lists of each layer under a key; None for nothing.

    Raises CheckpointError where the class must be asked and does not take the config.
    """
    if config.get(key) is None and key in family.windows.listed:
        silent = {name: value for name, value in config.items() if name not in (key, TYPES)}  # which follow from others
        return list(stock_value(family.model_type, silent, key))
    return config.get(key)


def _carry_experts(
    family: Family, config: dict[str, Any], places: Sequence[tuple[Mapping[str, Any], int]]
) -> list[str]:
    """Let each layer have experts where the (config, layer) it comes from has them; returns notes for the plan."""
    wanted = [family.is_sparse(source, layer) for source, layer in places]
    if wanted == [family.is_sparse(config, number) for number in range(len(places))]:
        return []
    if family.experts.first_dense:
        first = wanted.index(True) if True in wanted else len(wanted)
        if not all(wanted[first:]):
            raise RequestError(
                f"layer {first + 1 + wanted[first:].index(False)} of the result would have no experts and one below it"
                f" has, which a {family.model_type} cannot say: it has layers without experts only below all others"
                f" ({family.experts.first_dense}); choose layers with --slices"
            )
        config[family.experts.first_dense] = first
        if family.experts.last:
            config[family.experts.last] = len(wanted) - 1
        return [f"config.json now has {family.experts.first_dense} {first}, because layers without experts moved"]
    config[family.experts.sparse_step] = 1
    config[family.experts.dense_layers] = [number for number, sparse in enumerate(wanted) if not sparse]
    return [
        f"config.json now lists layers without experts under {family.experts.dense_layers}, because every one moved"
    ]


def kinds_of_attention(family: Family, config: Mapping[str, Any], count: int) -> list[str]:
    """The kind of attention of each layer, stated or by the family's rule."""
    listed = listed_by(family, config, TYPES)
    if listed is not None:
        return list(listed)
    if family.windows.layer_cycle:
        return [family.windows.layer_cycle[number % len(family.windows.layer_cycle)] for number in range(count)]
    full = family.windows.full_layers
    on = full and family.value(config, "use_sliding_window") and family.value(config, "sliding_window") is not None
    if on:
        first = family.value(config, full)
        return [FULL if number < first else SLIDING for number in range(count)]
    return [FULL] * count


def _check(family: Family, config: Mapping[str, Any], count: int) -> None:
    forbidden = family.forbidden(config).get("layer")
    if forbidden is not None:
        raise CheckpointError(forbidden)
    for key in family.by_number:
        if family.value(config, key) and config.get(TYPES) is None:
            raise CheckpointError(
                f"config.json has {key} {family.value(config, key)!r}: a layer computes by its number, so it cannot stand elsewhere;"
                f" {family.model_type} grows in depth without it"
            )
    if family.passes:
        raise CheckpointError(
            f"{family.model_type} passes the {'layer' if count == 1 else f'{count} layers'} it has"
            f" {family.value(config, family.passes)} times: it grows in width; a larger {family.passes} in config.json makes"
            " it deeper, which is not exact"
        )
    if config.get("pruned_heads"):
        raise CheckpointError("config.json has pruned_heads: layers of different heads cannot be copied to one another")
    for key, value in config.items():
        if key in ENTRIES and value is not None and (not isinstance(value, list) or len(value) != count):
            raise CheckpointError(f"config.json should list {count} entries under {key!r}, one for each layer")
        if key in NUMBERS and not (value is None or _are_layers(value, count)):
            raise CheckpointError(f"config.json should list layers from 0 to {count - 1} under {key!r}, not {value!r}")
        if "layer" in key and isinstance(value, list | dict) and value and not is_by_layer(key):
            raise CheckpointError(
                f"config.json says something of single layers under {key!r}, which growkit does not know how to carry to"
                " others; remove it if it does not matter"
            )


def _are_layers(value: Any, count: int) -> bool:
    return isinstance(value, list) and all(type(number) is int and 0 <= number < count for number in value)
