"""One tensor of a merge as the plan has it: from whom, which rows, with what weights. Knows headers and what was asked;
ignorant of values and of what must agree between models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from math import prod
from typing import Any

import numpy as np
import torch

from growkit.errors import RequestError
from growkit.families import Family
from growkit.growth.source_headers import Headers, architecture_of
from growkit.maps.notation import READ, by_token
from growkit.merging.by_tensor import Number, Place, number_at, plain
from growkit.merging.methods import MergeRequest, check_options

BLOCK_ELEMENTS = 1 << 18  # of a merged tensor at a time: float32 of a few members stay in the processor's cache


@dataclass(frozen=True, kw_only=True)
class Giver:
    """A member as the plan sees it."""

    label: str  # what a person calls it
    key: str  # what draws for it go by: see `keys_of`
    weight: Number
    bytes: int
    names: Mapping[str, str]  # stem -> the name it stores that tensor under
    dtypes: Mapping[str, torch.dtype]  # stem -> dtype
    shapes: Mapping[str, tuple[int, ...]] = field(
        default_factory=dict
    )  # stem -> shape, of a stored delta, to be checked

    def to_json(self) -> dict[str, Any]:
        """The member as plain data."""
        return {"label": self.label, "name": self.key, "weight": plain(self.weight), "bytes": self.bytes}


@dataclass(frozen=True, kw_only=True)
class MergedTensor:
    """One tensor of the result."""

    names: tuple[str, ...]  # several where a copy of a tied embedding is stored
    stem: str  # what its draws go by
    shape: tuple[int, ...]
    dtype: torch.dtype
    compute: torch.dtype  # what it is computed in
    base: str  # its name in the base, "" without one
    origins: tuple[str, ...]  # its name in each member, "" where that has none
    rows: tuple[np.ndarray | None, ...]  # of each member, its row for each row; None: the same ones
    whole: bool  # a matrix that subspace methods see whole
    weights: tuple[float, ...]  # of each member
    scale: float  # of what they have learned
    options: tuple[Mapping[str, float], ...]  # the method's, of each member

    @property
    def height(self) -> int:
        """Rows, as a checkpoint gives them: the first dimension."""
        return self.shape[0] if self.shape else 1

    @property
    def width(self) -> int:
        return prod(self.shape[1:])

    @property
    def block_rows(self) -> int:
        return self.height if self.whole else max(1, BLOCK_ELEMENTS // max(1, self.width))


def merged_tensor(
    family: Family,
    first: Headers,
    based: bool,
    layers: int,
    stem: str,
    names: tuple[str, ...],
    members: Sequence[Giver],
    rows: Sequence[np.ndarray | None],
    request: MergeRequest,
) -> MergedTensor:
    """One tensor of the result. layers: their number. Raises RequestError for weights of which nothing can be made."""
    dimensions = family.axes_of(names[0], architecture_of(family, first))
    place = Place(names, _layer(family, names[0], layers), layers)
    weights = tuple(number_at(member.weight, place) for member in members)
    _check_weights(weights, request, based, names[0])
    rows_of_tokens = by_token(dimensions)
    shape = first.shapes[names[0]]
    stored = [member.dtypes[stem] for member in members if stem in member.dtypes]
    dtype = request.dtype or (first.dtypes[names[0]] if based else reduce(torch.promote_types, stored))
    wide = torch.float64 in (dtype, first.dtypes[names[0]], *stored)
    return MergedTensor(
        names=names,
        stem=stem,
        shape=shape,
        dtype=dtype,
        compute=torch.float64 if wide else torch.float32,
        base=names[0] if based else "",
        origins=tuple(member.names.get(stem, "") for member in members),
        rows=tuple(matched if rows_of_tokens else None for matched in rows),
        # TSV and Iso-C are for what maps one space to another; rows of tokens and of positions are no such thing
        whole=request.row.whole and len(shape) == 2 and any(d.role == READ for d in dimensions) and not rows_of_tokens,
        weights=weights,
        scale=number_at(request.scale, place),
        options=_options(request, len(members), place),
    )


def _layer(family: Family, name: str, layers: int) -> int:
    """The layer a tensor is in; -1 where it stands before them (embeddings), `layers` after them."""
    layer = family.layer_of(name)
    if layer is not None:
        return layer
    return -1 if family.stands_before(name) else layers


def _options(request: MergeRequest, members: int, place: Place) -> tuple[Mapping[str, float], ...]:
    """What the method takes of each member. Raises RequestError for numbers out of range."""
    if not request.by_member:
        return (request.options,) * members
    own = [{key: number_at(number, place) for key, number in by.items()} for by in request.by_member]
    every = tuple({**request.options, **by} for by in own)
    for options in every:
        check_options(options)
    return every


def _check_weights(weights: Sequence[float], request: MergeRequest, based: bool, name: str) -> None:
    """Raises RequestError for weights of one tensor of which nothing can be made."""
    if not any(weights) and not based:
        raise RequestError(f"all weights of tensor {name!r} are 0; give one member some weight there")
    if request.row.consensus.relative and any(weights) and not sum(weights) > 0:
        raise RequestError(
            f"the weights of tensor {name!r} add up to {sum(weights):g}; where they are divided by their sum it should"
            " be more than 0"
        )
