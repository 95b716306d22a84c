"""The settings of a small model of a family: each size its table knows at a small number, and what the family adds.
Knows tables; ignorant of transformers and of what such a model is made for.
"""

from copy import deepcopy
from typing import Any

from growkit.families.keys import Either, key_names
from growkit.families.schema import Family
from growkit.families.text_part import BESIDE, TEXT, put

SMALL = {
    "hidden": 24, "layer": 3, "head": 4, "kv_head": 2, "ffn": 40, "vocab": 61, "position": 64,
    "expert": 4, "shared_ffn": 12, "dense_ffn": 40, "embedding": 12,
}  # fmt: skip
HEAD_DIM = 8  # where a config class has a number of its own for it; else hidden is divided among heads
TOP_K = 2


def small_settings(family: Family) -> dict[str, Any]:
    """Config keys and values of a small model, as `flattened` has them: all sizes that growth can set, different from
    one another.
    """
    settings: dict[str, Any] = {}
    if family.beside is not None:
        settings[BESIDE] = {**deepcopy(dict(family.beside.settings)), TEXT: {"model_type": family.beside.texts[0]}}
    for axis, keys in family.sizes.items():
        names = key_names(keys)
        if axis == "head_dim" and family.defaults.get(names[0]) is None:
            continue
        size = HEAD_DIM if axis == "head_dim" else SMALL.get(axis)
        if axis == "ffn" and "dense_ffn" in family.sizes:
            size = 20  # of one expert
        if size is not None:
            for name in names[:1] if isinstance(keys, Either) else names:
                put(settings, name, size)
    if family.positions.counted_after != "":
        settings[family.keys("position")[0]] = SMALL["position"] + 2  # the first two are never used
    if family.is_moe:
        settings[family.experts.top_k] = TOP_K
    return settings | dict(family.small)
