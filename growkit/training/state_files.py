"""A step's state as files: each process writes the rows it has, and reads those it needs, whoever wrote them. Knows
safetensors, rows and a plan in JSON; ignorant of when a step is saved.

plan.json says of each tensor its whole shape and in which files its rows lie; part-00001-of-00002.safetensors holds
those of the first of two processes. Nothing here is a pickle, and nothing is believed: what a file holds must be what
the model and its optimizer ask for.
"""

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed.tensor import DTensor

from growkit.checkpoint.fields import Fields, ListOf, MapOf, OneOf, Whole, checked, shown
from growkit.checkpoint.headers import header_bytes
from growkit.checkpoint.new_folder import sync
from growkit.checkpoint.small_files import read_json
from growkit.checkpoint.source import Checkpoint, open_state
from growkit.checkpoint.system import reserve, write_at
from growkit.checkpoint.writer import write_json
from growkit.errors import CheckpointError
from growkit.training.optim import moments
from growkit.training.sharing import own_rows, tensors_once

PLAN, FORMAT = "plan.json", 1
PART = re.compile(r"part-\d{5}-of-\d{5}\.safetensors")
WHERE = Fields({"shape": ListOf(Whole()), "parts": MapOf(Whole())}, needed=("shape", "parts"))
SCHEMA = Fields({"format": OneOf([FORMAT]), "tensors": MapOf(WHERE)}, needed=("format", "tensors"))
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Share:
    """Rows of a tensor in main memory, as they were when they were copied. whole: the shape of all of it. first: the
    number of the first row here."""

    whole: Shape
    first: int
    rows: torch.Tensor


# file -> tensor -> (shape of all of it, number of the first row that lies there)
Written = Mapping[str, Mapping[str, tuple[Shape, int]]]


def state_of(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What a step leaves, live: model.<name> of what learns and of buffers, tied ones once, and optim.<name>.<kind>.

    What does not learn is as it was in the checkpoint that the run began with, and read from there.
    """
    learned = {
        f"model.{name}": tensor
        for name, tensor in tensors_once(model).items()
        if tensor.requires_grad or not isinstance(tensor, torch.nn.Parameter)
    }
    return learned | {f"optim.{name}": tensor for name, tensor in moments(optimizer, model).items()}


def own_share(state: Mapping[str, torch.Tensor], first: bool) -> dict[str, Share]:
    """Copies of the rows that this process writes: where several hold the same ones, each an equal part of them.

    first: whether this is the first process, which writes what is not divided.
    """
    shares = {}
    for name, tensor in state.items():
        start, rows = own_rows(tensor)
        if isinstance(tensor, DTensor):
            copies, copy = tensor.device_mesh.size(0), tensor.device_mesh.get_local_rank(0)
            begin, end = (len(rows) * number // copies for number in (copy, copy + 1))
            start, rows = start + begin, rows[begin:end]
        elif not first:
            continue
        if rows.numel():
            shares[name] = Share(tuple(tensor.shape), start, rows.to("cpu", copy=True).contiguous())
    return shares


def write_share(folder: Path, number: int, processes: int, shares: Mapping[str, Share]) -> Written:
    """Put what process `number` (from 0) of so many has into a file of its own, on disk when this returns.

    Returns what plan.json is to say of it. Raises OSError.
    """
    file = f"part-{number + 1:05d}-of-{processes:05d}.safetensors"
    listed = sorted(shares.items(), key=lambda entry: -entry[1].rows.dtype.itemsize)  # so that each is aligned
    header, offsets = header_bytes([(n, s.rows.dtype, tuple(s.rows.shape)) for n, s in listed], metadata=False)
    descriptor = os.open(folder / file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        reserve(descriptor, len(header) + sum(share.rows.nbytes for share in shares.values()))
        write_at(descriptor, memoryview(header), 0)
        for name, share in listed:
            write_at(descriptor, memoryview(share.rows.flatten().view(torch.uint8).numpy()), offsets[name])  # type: ignore[arg-type]
    finally:
        os.close(descriptor)
    sync(folder / file)
    return {file: {name: (share.whole, share.first) for name, share in shares.items()}}


def write_plan(folder: Path, written: Iterable[Written]) -> None:
    """plan.json, of what all processes wrote. Raises OSError."""
    tensors: dict[str, dict[str, Any]] = {}
    for files in written:
        for file, entries in files.items():
            for name, (whole, first) in entries.items():
                tensors.setdefault(name, {"shape": list(whole), "parts": {}})["parts"][file] = first
    write_json(folder / PLAN, {"format": FORMAT, "tensors": dict(sorted(tensors.items()))})


@torch.no_grad()
def read_state(folder: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Read this process's rows of each tensor of state_of into it. Raises CheckpointError for files that do not hold
    what is asked for, all of it and nothing else."""
    planned = read_plan(folder)
    for name in sorted(planned.keys() ^ state.keys()):
        kind = "lacks" if name in state else "has, beyond what learns,"
        raise CheckpointError(f"{str(folder)!r} {kind} {name!r}")
    with ExitStack() as opened:
        files: dict[str, Checkpoint] = {}
        for file in sorted({file for parts in planned.values() for file in parts.files}):
            files[file] = open_state(folder / file)
            opened.callback(files[file].close)
        for name, tensor in state.items():
            start, rows = own_rows(tensor)
            for file, first, end in _checked(folder, name, tensor, planned[name], files):
                begin, stop = max(first, start), min(end, start + (len(rows) if rows.dim() else 1))
                if begin < stop:
                    target = rows[begin - start : stop - start] if rows.dim() else rows
                    target.copy_(files[file].rows(name, np.arange(begin - first, stop - first)).view(target.shape))


@dataclass(frozen=True)
class Planned:
    """Where a tensor of this shape lies: file -> the number of the first row that is there."""

    shape: Shape
    files: Mapping[str, int]


def read_plan(folder: Path) -> dict[str, Planned]:
    """What plan.json says, by tensor. Raises CheckpointError where it is none."""
    tensors = checked(read_json(folder / PLAN), SCHEMA, folder / PLAN)["tensors"]
    for file in {file for entry in tensors.values() for file in entry["parts"]}:
        if not PART.fullmatch(file):
            raise CheckpointError(f"{str(folder / PLAN)!r} names {shown(file)}, which no process writes")
    return {name: Planned(tuple(entry["shape"]), entry["parts"]) for name, entry in tensors.items()}


def _checked(
    folder: Path, name: str, tensor: torch.Tensor, planned: Planned, files: Mapping[str, Checkpoint]
) -> list[tuple[str, int, int]]:
    """(file, first row, row after the last) of a tensor's parts in order, which must be its rows and no others."""
    wanted, place, parts = tuple(tensor.shape), 0, []
    if planned.shape != wanted:
        raise CheckpointError(f"{str(folder)!r} has {name!r} with shape {list(planned.shape)}, not {list(wanted)}")
    for file, first in sorted(planned.files.items(), key=lambda part: part[1]):
        stored = files[file].tensors.get(name)
        fits = stored is not None and stored.dtype == tensor.dtype and first == place
        if stored is None or not fits or stored.shape[1:] != wanted[1:] or bool(stored.shape) != bool(wanted):
            raise CheckpointError(f"{str(folder / file)!r} does not hold {name!r} from row {first} on, as {PLAN} says")
        place = first + (stored.shape[0] if wanted else 1)
        parts.append((file, first, place))
    if place != (wanted[0] if wanted else 1):
        raise CheckpointError(f"{str(folder)!r} has {place} rows of {name!r}, not {wanted[0] if wanted else 1}")
    return parts
