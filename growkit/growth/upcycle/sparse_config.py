"""The config.json of a mixture of experts made of dense models. Knows which settings go over and which must be said out
loud; ignorant of tensors.
"""

from collections.abc import Collection
from copy import deepcopy
from typing import Any

from growkit.errors import RequestError
from growkit.families import Family, family_named
from growkit.families.upcycling import Upcycling
from growkit.growth.depth.by_layer import TYPES, kinds_of_attention
from growkit.growth.request import Experts
from growkit.growth.source_headers import Headers, architecture_of
from growkit.growth.upcycle.experts import Widths
from growkit.growth.width.rotary import state_theta
from growkit.growth.width.sizes import Sizes


def sparse_config(
    source: Headers, row: Upcycling, sizes: Sizes, experts: Experts, widths: Widths, layers: Collection[int], step: int
) -> dict[str, Any]:
    """The source's config as the sparse class reads it: nothing left to that class's own defaults.

    layers, step: which layers, from 0, have experts, and every how many-th that is. Raises RequestError for a class
    that has no sparse counterpart, or sliding windows it cannot have.
    """
    dense, sparse = family_named(row.source), family_named(row.target)
    config = {**row.stated, **deepcopy(source.config), **row.added}
    for key in row.dropped:
        config.pop(key, None)
    architecture = architecture_of(dense, source)
    if architecture:
        config["architectures"] = [_counterpart(source.label, architecture, row, dense, sparse)]
    config["model_type"] = row.target
    wanted = {
        **sizes,
        "expert": experts.count,
        "ffn": widths.slice,
        "dense_ffn": widths.dense,
        "shared_ffn": widths.shared,
    }
    for axis in sparse.sizes:
        if axis in wanted:
            config |= dict.fromkeys(sparse.keys(axis), wanted[axis])
    config[sparse.experts.top_k] = experts.top_k
    if sparse.experts.sparse_step:
        config[sparse.experts.sparse_step] = step
        listed = step == 1
        config[sparse.experts.dense_layers] = [n for n in range(sizes["layer"]) if listed and n not in layers]
    if source.head_is_copy is False:
        config["tie_word_embeddings"] = False
    state_theta(config, dense)
    kinds = kinds_of_attention(dense, source.config, sizes["layer"])
    if row.one_window:
        if len(set(kinds)) > 1:
            raise RequestError(
                f"{source.label!r} has a sliding window in some layers only, and a {row.target} has it in all or none"
            )
        config.pop(TYPES, None)
    elif not row.all_layers:
        config[TYPES] = kinds
    return config


def _counterpart(label: str, architecture: str, row: Upcycling, dense: Family, sparse: Family) -> str:
    for (_, ours), (_, theirs) in zip(dense.architectures, sparse.architectures):
        if ours == architecture and ours not in row.unlike:
            return theirs
    raise RequestError(
        f"{label!r} is a {architecture}, which has no counterpart among the classes of {sparse.model_type}"
    )
