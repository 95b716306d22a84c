"""One spelling for each tensor of a file, whoever wrote it: names of today, one tensor for what is stored or named
twice. Knows families' names; ignorant of values.
"""

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from typing import Any

from growkit.checkpoint.headers import StoredTensor
from growkit.errors import CheckpointError
from growkit.families import Family
from growkit.families.naming import name_of_today

# what predicts the token after the next one: by a word of its name, or by what only its layer has, and where a config
# counts such layers
FURTHER, JOINT = re.compile(r"mtp(_|$)"), ".eh_proj.weight"
FURTHER_KEYS = ("num_nextn_predict_layers", "num_mtp_layers")
Stored = Mapping[str, StoredTensor]
WRAPPERS = {"_orig_mod.": "torch.compile", "module.": "DistributedDataParallel", "_fsdp_wrapped_module.": "FSDP"}
STRIP = (
    "python -c \"import sys; from safetensors.torch import load_file, save_file; save_file({name.replace(sys.argv[3], ''):"
    " tensor for name, tensor in load_file(sys.argv[1]).items()}, sys.argv[2], {'format': 'pt'})\""
)


def names_of_today(tensors: Stored) -> dict[str, StoredTensor]:
    """Tensors by their names of today, each also by the other names that its file says it has.

    Raises CheckpointError for two that have one name, and for names of a model that another module wrapped.
    """
    named: dict[str, StoredTensor] = {}
    for stored, tensor in tensors.items():
        _check_unwrapped(stored, tensor)
        for place, name in enumerate((stored, *tensor.aliases)):
            own = name_of_today(name)
            if own not in named:
                named[own] = tensor if own == stored else replace(tensor, name=own)
            elif place == 0:
                raise CheckpointError(
                    f"{str(tensor.path)!r} has {own!r} twice, once as {stored!r}, as BERT's first files call it; fetch"
                    " the checkpoint again"
                )
    return named


def _check_unwrapped(stored: str, tensor: StoredTensor) -> None:
    """Stock models do not have such names, so a result that kept them would not load."""
    for prefix, wrapper in WRAPPERS.items():
        if stored.startswith(prefix) or f".{prefix}" in stored:
            raise CheckpointError(
                f"{str(tensor.path)!r} has tensor {stored!r}: it was saved from a model that {wrapper} wrapped; save the"
                f" model inside, or strip {prefix!r} with {STRIP} {shlex.quote(str(tensor.path))} NEW.safetensors {prefix}"
            )


def in_pieces(family: Family, tensors: Stored) -> dict[str, StoredTensor]:
    """Tensors by the names that stock models have for them, each piece its own that a file has below others in one.

    Raises CheckpointError for one that is not divided evenly.
    """
    named: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        pieces = family.pieces(name)
        rows, rest = divmod(tensor.shape[0], len(pieces)) if tensor.shape else (0, 0)
        if rest:
            raise CheckpointError(
                f"tensor {name!r} has {tensor.shape[0]} rows, which should be {len(pieces)} equal parts; fetch the checkpoint again"
            )
        for place, own in enumerate(pieces):
            if pieces == (name,):
                named[own] = tensor
                continue
            shape = (rows, *tensor.shape[1:])
            offset = tensor.offset + place * prod(shape) * tensor.dtype.itemsize
            named[own] = replace(tensor, name=own, shape=shape, offset=offset)
    return named


def without_copies(
    family: Family, tied: bool, tensors: Stored, equal: Callable[[str, str], bool]
) -> dict[str, StoredTensor]:
    """Tensors under the one name that stock models save them by, where files may have them under another.

    tied: whether a head alone is the embedding. equal: whether two stored tensors hold the same.
    """
    copies = {**(dict.fromkeys(family.heads, family.embedding) if tied else {}), **family.copies}
    prefix, stems = family.prefix_of(tensors), {family.stem(name): name for name in tensors}
    named: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        original = copies.get(family.stem(name))
        there = stems.get(original) if original is not None else None
        if original is None:
            named[name] = tensor
        elif there is None:
            own = prefix + original if original == family.embedding else original
            named[own] = replace(tensor, name=own)
            stems[original] = own
        elif not _one(tensor, tensors.get(there, tensor)) and not (original != family.embedding and equal(name, there)):
            named[name] = tensor  # another tensor, or a head that is stored beside the embedding: both stay
    return named


def without_further(
    family: Family, config: dict[str, Any] | None, tensors: Stored
) -> tuple[dict[str, StoredTensor], str]:
    """Tensors without what predicts further tokens (multi-token prediction, as DeepSeek and ERNIE have it), which stock
    models do not load, and a note of that, "" where there is nothing. A config then says that there are no such layers.
    """
    kept = {name: tensors[name] for name in tensors if not any(map(FURTHER.match, name.split(".")))}
    layers = {family.layer_of(name) for name in kept if name.endswith(JOINT)}
    if layers:
        kept = {name: tensor for name, tensor in kept.items() if family.layer_of(name) not in layers}
    if len(kept) == len(tensors):
        return kept, ""
    for key in FURTHER_KEYS:
        if config is not None and key in config:
            config[key] = 0
    gone = len(tensors) - len(kept)
    note = (
        f"left out: {gone} tensors of the file, such as {next(name for name in tensors if name not in kept)!r}, predict tokens"
        f" after the next one (multi-token prediction), and transformers' {family.model_type} does not load them"
    )
    return kept, note


def prefixed_like(family: Family, first: Stored, other: Stored) -> dict[str, StoredTensor]:
    """A model's tensors with the base model's prefix where the first model's have it."""
    prefixes = {family.template(name): name.removesuffix(family.stem(name)) for name in first}
    named: dict[str, StoredTensor] = {}
    for name, tensor in other.items():
        prefix = prefixes.get(family.template(name))
        own = name if prefix is None else prefix + family.stem(name)
        named[own] = tensor if own == name else replace(tensor, name=own)
    return named


def _one(tensor: StoredTensor, other: StoredTensor) -> bool:
    """Whether two names are of the same bytes."""
    return (tensor.path, tensor.offset) == (other.path, other.offset)
