"""A stock model before it has weights, and the checkpoint that has them. Knows what live models and files call the same
tensor; ignorant of processes.

Parameters are shapes alone (torch's meta device) until they are divided among processes and get memory, so that none
ever holds a model that is not its own share. Buffers, such as rotary frequencies, are computed at once: they are in no
file.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.modules.module import register_module_parameter_registration_hook

from growkit.checkpoint.source import Checkpoint
from growkit.errors import CheckpointError, reason_of
from growkit.families import Family, family_named
from growkit.families.stacked import expert_of, live_name
from growkit.growth.source_headers import FLOATS
from growkit.models.running import loadable
from growkit.models.small.targets import unwrapped
from growkit.models.stock import (
    experts_that_compute,
    generation_settings,
    hushed,
    stock_class,
    stock_config,
    unfilled_model,
)
from growkit.training.sharing import Pieces, fill_tensor

ROWS = 1024  # compared at a time


@dataclass(frozen=True)
class Blank:
    """A model whose parameters have no values yet. pieces: of each, by every name it has, where it lies in the
    source."""

    model: Any
    source: Checkpoint
    pieces: Mapping[str, Pieces]

    @property
    def folder(self) -> Path | None:
        """Where what lies beside the weights is."""
        return self.source.folder

    def fill(self) -> None:
        """Read the weights, tensor by tensor, each process its own rows, once the parameters have memory."""
        done: set[int] = set()
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            own = unwrapped(name)
            if own in self.pieces and id(tensor) not in done:
                done.add(id(tensor))
                fill_tensor(tensor, self.source, self.pieces[own])
        self.source.close()


def blank_model(source: Checkpoint) -> Blank:
    """The stock model of a checkpoint, float32 whatever is stored, without weights.

    Raises CheckpointError for a class that transformers does not have or cannot make, and for weights that are missing
    or of another shape.
    """
    config = source.config or {}
    family = family_named(config.get("model_type"))
    model_class = stock_class(config, source.label)
    try:
        with hushed(), loadable(source) as folder, _parameters_without_memory():
            stated = stock_config(model_class, folder)
            stated.dtype = torch.float32
            model = model_class(stated)
            if model.can_generate():
                model.generation_config = generation_settings(folder)
    except CheckpointError:
        raise
    except Exception as error:  # transformers raises many kinds; each means that there is no such model
        raise CheckpointError(f"transformers cannot make the model of {source.label!r}: {reason_of(error)}") from None
    experts_that_compute(model, config, torch.float32)
    wanted = model.state_dict(keep_vars=True)
    pieces = pieces_of(family, source.tensors, wanted, model.base_model_prefix)
    _untie(model, source, pieces)
    _check(family, model, source, pieces)
    return Blank(model.eval(), source, pieces)


def model_of(config: Mapping[str, Any], label: str, dtype: torch.dtype, device: torch.device) -> Any:
    """The stock model of a config, whose parameters have no values, to be computed with others in their place; buffers
    on a device. Raises CheckpointError for a class that transformers does not have or cannot make."""
    model = unfilled_model(config, label, _parameters_without_memory(), dtype).eval()
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    return model


def first_names(family: Family, stored: Collection[str], model: Any) -> dict[str, str]:
    """Stored name -> live name of the parameters of a dense model; tied ones have one, the first."""
    from transformers.core_model_loading import revert_weight_conversion

    aliases = _aliases(model)
    first = {name: names[0] for names in aliases.values() for name in names}
    # files of towers that read images call their weights otherwise, and transformers knows how
    in_files = revert_weight_conversion(model, dict(model.state_dict(keep_vars=True)))
    first |= {name: aliases[id(tensor)][0] for name, tensor in in_files.items() if id(tensor) in aliases}
    pieces = pieces_of(family, stored, first, model.base_model_prefix)
    return {piece.names[0][0]: first[name] for name, piece in pieces.items()}


def live_names(family: Family, stored: Collection[str], model: Any, label: str) -> dict[str, str]:
    """Stored name -> live name of each parameter of a dense model, of tied ones the first. Raises CheckpointError where
    one is missing."""
    aliases = _aliases(model)
    live = {name for names in aliases.values() for name in names}
    pieces = pieces_of(family, stored, live, model.base_model_prefix)
    found: dict[str, str] = {}
    for names in aliases.values():
        held = [name for name in names if name in pieces]
        if not held and not family.is_buffer(names[0]):
            raise CheckpointError(
                f"{label!r} lacks weights that its class needs (missing: {names[0]}); nothing to learn"
            )
        found |= {pieces[name].names[0][0]: name for name in held[:1]}
    return found


def check_trainable(source: Checkpoint) -> None:
    """Refuse weights that are quantised: their numbers are no weights, and they would be taken for some; and a text
    model beside a tower. Raises CheckpointError with the first one's name."""
    config = source.config or {}
    family = family_named(config.get("model_type"))
    if family.beside is not None:
        raise CheckpointError(
            f"{source.label!r} is a {family.model_type}, a text model beside a tower that reads images: growkit grows, merges,"
            " verifies and asks it, and trains text models by themselves; train this one with transformers"
        )
    coded = [t for name, t in source.tensors.items() if t.dtype not in FLOATS and not family.is_buffer(name)]
    if coded or config.get("quantization_config"):
        what = f"tensor {coded[0].name!r} has dtype {str(coded[0].dtype).removeprefix('torch.')}" if coded else ""
        raise CheckpointError(
            f"{source.label!r} is quantised ({what or 'config.json has a quantization_config'}); train the full-precision"
            " checkpoint it was made of, or one that transformers' model.dequantize() gives"
        )


def pieces_of(family: Family, stored: Collection[str], live: Collection[str], prefix: str = "") -> dict[str, Pieces]:
    """Where the tensors of a live model, or their moments, lie among stored ones; what is stored and not live is left
    out.

    prefix: what task models put before the names of their base model; files may lack it or have it in vain.
    """
    pieces: dict[str, Pieces] = {}
    experts: dict[str, dict[tuple[int, int], str]] = {}
    for name in stored:
        own, place = live_name(family, name)
        own = next((known for known in _spellings(family, own, prefix) if known in live), own)
        if own not in live:
            continue
        if place is None:
            pieces[own] = Pieces(((name,),), stacked=False)
        else:
            experts.setdefault(own, {})[expert_of(family, name), place] = name
    for own, parts in experts.items():
        rows = sorted({expert for expert, _ in parts})
        places = sorted({place for _, place in parts})
        if len(parts) == len(rows) * len(places):
            pieces[own] = Pieces(tuple(tuple(parts[row, place] for place in places) for row in rows), stacked=True)
    return pieces


def _spellings(family: Family, name: str, prefix: str) -> Iterator[str]:
    """What a live model may call a stored tensor: with the base model's prefix or without, GPT-NeoX's embed_out."""
    heads = family.heads if name in family.heads else ()
    for spelling in (name, *heads):
        yield spelling
        yield f"{prefix}.{spelling}"
        yield spelling.removeprefix(f"{prefix}.")


@contextmanager
def _parameters_without_memory() -> Iterator[None]:
    """Within the block, parameters that modules are given become shapes; buffers are computed as ever."""

    def emptied(_: Any, __: str, parameter: Any) -> torch.nn.Parameter | None:
        if parameter is None or parameter.is_meta:
            return None
        return torch.nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)

    handle = register_module_parameter_registration_hook(emptied)  # type: ignore[arg-type]
    try:
        yield
    finally:
        handle.remove()


def _aliases(model: Any) -> dict[int, list[str]]:
    """The names of each tensor in a model's state; tied ones have several."""
    names: dict[int, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    return names


def _untie(model: Any, source: Checkpoint, pieces: Mapping[str, Pieces]) -> None:
    """Give tied names that are stored with different values a parameter each, as transformers does."""
    for names in _aliases(model).values():
        stored = [name for name in names if name in pieces]
        for other in stored[1:]:
            if not _equal(source, pieces[stored[0]].names[0][0], pieces[other].names[0][0]):
                home, _, own = other.rpartition(".")
                tied = model.get_parameter(other)
                setattr(model.get_submodule(home), own, torch.nn.Parameter(torch.empty_like(tied)))


def _equal(source: Checkpoint, one: str, other: str) -> bool:
    rows = source.tensors[one].shape[0]
    if source.tensors[other].shape[:1] != (rows,):
        return False
    blocks = np.array_split(np.arange(rows), max(1, rows // ROWS))
    read: Callable[[str, np.ndarray], torch.Tensor] = lambda name, block: source.rows(name, block).float()  # noqa: E731
    return all(torch.equal(read(one, block), read(other, block)) for block in blocks)


def _check(family: Family, model: Any, source: Checkpoint, pieces: Mapping[str, Pieces]) -> None:
    """Refuse weights that are missing or of another shape."""
    state = model.state_dict(keep_vars=True)
    for name, where in pieces.items():
        shape, wanted = where.shape(source), tuple(state[name].shape)
        if shape != wanted:
            raise CheckpointError(
                f"{source.label!r} has {where.names[0][0]!r} with shape {list(shape)} where its config.json asks for"
                f" {list(wanted)}; nothing to train"
            )
    missing = [name for names in _aliases(model).values() if not set(names) & pieces.keys() for name in names]
    missing = sorted(name for name in missing if not family.is_buffer(name))
    if missing:
        raise CheckpointError(
            f"{source.label!r} lacks weights that its class needs (missing: {missing[0]}); nothing to train"
        )
