"""What a config says once its model has other sizes, and what to know of these. Knows families' config keys; ignorant
of which sizes can be.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from growkit.families import Family
from growkit.families.stock_config import stated_under
from growkit.families.text_part import put
from growkit.growth.width.sizes import FOLLOWERS, OPTIONS, Sizes, read_sizes


def target_config(family: Family, config: Mapping[str, Any], new: Sizes) -> dict[str, Any]:
    """The config with the new sizes written where it had the old ones; everything else as it was."""
    grown, own = deepcopy(dict(config)), family.size_keys  # rotary settings are nested, and the source stays as it is
    for axis in family.sizes:
        for key in family.keys(axis):
            implied = {
                "head_dim": new["hidden"] // new["head"],
                "kv_head": new["head"],
                "ffn": 4 * new["hidden"],
                "embedding": new["hidden"],
            }
            if (
                config.get(key) is None
                and axis in implied
                and implied[axis] == new[axis]
                and family.defaults.get(key) is None
            ):
                continue
            if axis == "kv_head" and family.shares_kv(config):
                continue
            if axis in OPTIONS or axis in FOLLOWERS or axis == "embedding":
                names = stated_under(family.model_type, config, key, own) if key not in family.defaults else (key,)
                for name in names:
                    put(grown, name, new[axis])
    if new["hidden"] != family.number(config, family.sizes["hidden"]):
        grown |= {key: family.value(config, key) for key in family.pinned}
    return grown


def odd_width(family: Family, config: Mapping[str, Any], itemsize: int) -> int | None:
    """A width of a mixture's experts whose rows are no multiple of 16 bytes, which torch's grouped product refuses; or
    None.
    """
    sizes = read_sizes(family, config) if family.is_moe else {}
    return next((sizes[axis] for axis in ("hidden", "ffn") if axis in sizes and sizes[axis] * itemsize % 16), None)


def odd_width_notes(family: Family, config: Mapping[str, Any], itemsize: int) -> list[str]:
    """What a plan says of such a width."""
    width = odd_width(family, config, itemsize)
    if width is None:
        return []
    return [
        f"rows of {width} numbers are no multiple of 16 bytes, which transformers' usual way of computing experts"
        " needs: load the"
        ' result with experts_implementation="eager"'
    ]
