"""Which tensors a model needs and does not have. Knows families' tables and configs; ignorant of values and of
files.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from growkit.families.schema import Family

_SPARSE, _DENSE = {"expert", "shared", "shared_ffn", "gate"}, {"dense_ffn"}  # axes that only one kind of layer has


def lacking(family: Family, names: Iterable[str], layers: int, config: Mapping[str, Any] | None = None) -> list[str]:
    """Stems of the weights that a base model of so many layers needs and that are not among the names.

    config: which layers have experts, and how many; without it, all have, and one is enough.
    """
    there = {family.stem(name) for name in names}
    weights = [name for name in family.tensors if not name.endswith("bias")]
    in_layers = [name for name in weights if "{layer}" in name and family.is_stored(name, config)]
    experts = family.number(config, family.sizes["expert"]) if family.is_moe and config is not None else 1
    needed = []
    counts = layer_counts(family, config, layers)
    for layer in range(max(counts.values())):
        other = _DENSE if family.is_sparse(config or {}, layer) else _SPARSE
        for name in in_layers:
            if (layer == 0 and name in family.first_lacks) or (layer and name in family.first_only):
                continue
            if layer >= next(count for stack, count in counts.items() if name.startswith(stack)):
                continue
            if not family.words(name) & other:
                numbers = range(experts) if "{expert}" in name else (0,)
                at = name.replace("{layer}", str(layer))
                needed += [at.replace("{expert}", str(number)) for number in numbers]
    needed += [family.embedding, *(name for name in weights if family.tensors[name] == "~/hidden")]
    needed += [name for name in weights if family.words(name) & {"position"} and family.is_stored(name, config)]
    # an encoder may be stored without its decoder
    absent = tuple(stack for stack in family.stacks if not any(name.startswith(stack) for name in there))
    return [name for name in needed if name not in there and not name.startswith(absent)]


def layer_counts(family: Family, config: Mapping[str, Any] | None, layers: int) -> dict[str, int]:
    """How many layers each stack of a model has, by the stem before them; "" for the only one, which has `layers`."""
    counts = {stack: family.value(config, key) if config else None for stack, key in family.stacks.items()}
    return {stack: count or layers for stack, count in counts.items()} or {"": layers}
