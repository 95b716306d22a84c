"""Checkpoints ready to be planned with: opened, with a config even where none was stored. Knows what planning asks of a
checkpoint; ignorant of plans.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from growkit.checkpoint.headers import StoredTensor
from growkit.checkpoint.source import Checkpoint, open_checkpoint
from growkit.errors import RequestError
from growkit.families import FAMILIES, Family, family_named
from growkit.families.stacked import split_with
from growkit.growth.infer import infer_config, infer_family
from growkit.growth.source_headers import Headers
from growkit.growth.stored_names import in_pieces, names_of_today, without_copies, without_further

INFERRED = (
    "no config.json: norm epsilon, activation, rotary base and the like are transformers' defaults for the family; a model"
    " trained with others needs its own config.json"
)


def open_source(source: str | Path, family: str | None = None, heads: int | None = None) -> Checkpoint:
    """Open a checkpoint and give it a config where it came without one."""
    checkpoint = open_checkpoint(source)
    if checkpoint.config is not None and family not in (None, checkpoint.config.get("model_type")):
        raise RequestError(
            f"--family {family!r} contradicts config.json, which says {checkpoint.config.get('model_type')!r}; it is for"
            " files without a config"
        )
    checkpoint.tensors = names_of_today(checkpoint.tensors)
    config = checkpoint.config
    if config is None:
        kind: Family | None = infer_family(_shapes(checkpoint), family)
    else:
        kind = FAMILIES.get(str(config.get("model_type")))
    if kind is not None:
        checkpoint.tensors, note = without_further(kind, config, checkpoint.tensors)
        checkpoint.notes += (note,) * bool(note)
    if kind is not None and kind.is_moe:
        checkpoint.tensors = split_stored(kind, checkpoint.tensors)  # as they come, or stacked
    if kind is not None:
        checkpoint.tensors = in_pieces(kind, checkpoint.tensors)
        tied = config is None or bool(config.get("tie_word_embeddings", kind.tied))
        equal = partial(_equal, checkpoint)
        checkpoint.tensors = without_copies(kind, tied, checkpoint.tensors, equal)
        if config is None:
            checkpoint.config = infer_config(_shapes(checkpoint), kind, heads)
            checkpoint.inferred = True
    return checkpoint


def _shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in checkpoint.tensors.items()}


def headers_of(checkpoint: Checkpoint) -> Headers:
    """What planning needs of a checkpoint on disk. Compares a stored head with the embedding where both are there."""
    assert checkpoint.config is not None, "open_source gives every checkpoint a config"
    family = family_named(checkpoint.config.get("model_type"))
    head, embedding = head_and_embedding(family, checkpoint.tensors)
    same = None
    if head and embedding and checkpoint.config.get("tie_word_embeddings", family.tied):
        same = _equal(checkpoint, head, embedding)
    return Headers(
        label=checkpoint.label,
        shapes=_shapes(checkpoint),
        dtypes={name: tensor.dtype for name, tensor in checkpoint.tensors.items()},
        config=checkpoint.config,
        head_is_copy=same,
        notes=(*checkpoint.notes, *((INFERRED,) if checkpoint.inferred else ())),
        origin="\n".join(str(path.resolve()) for path in checkpoint.files()),
    )


def head_and_embedding(family: Family, names: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The stored names of the output head and of the token embedding, None where either is not stored."""
    by_stem = {family.stem(name): name for name in names}
    return next((by_stem[h] for h in family.heads if h in by_stem), None), by_stem.get(family.embedding)


def _equal(checkpoint: Checkpoint, a: str, b: str) -> bool:
    if (
        checkpoint.tensors[a].shape != checkpoint.tensors[b].shape
        or checkpoint.tensors[a].dtype != checkpoint.tensors[b].dtype
    ):
        return False
    rows = checkpoint.tensors[a].shape[0] if checkpoint.tensors[a].shape else 1
    return all(
        torch.equal(checkpoint.rows(a, piece), checkpoint.rows(b, piece))
        for piece in np.array_split(np.arange(rows), max(1, rows // 1024))
    )


def split_stored(family: Family, tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The same for tensors in a file: a slice of a stacked tensor lies in one piece, so it is a tensor at its own
    offset.
    """

    def piece(tensor: StoredTensor, expert: int, place: int, parts: int) -> StoredTensor:
        shape = (tensor.shape[1] // parts, *tensor.shape[2:])
        skipped = (expert * parts + place) * prod(shape) * tensor.dtype.itemsize
        return replace(tensor, shape=shape, offset=tensor.offset + skipped)

    pieces = split_with(family, tensors, piece)
    return {name: tensor if tensor.name == name else replace(tensor, name=name) for name, tensor in pieces.items()}
