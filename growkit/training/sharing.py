"""Tensors that processes share: each reads its own rows from files, and writes them into files through the first one.
Knows rows, processes and safetensors; ignorant of models' meaning.

A tensor is whole on each process, or divided by PyTorch's FSDP along its first dimension, as chunks of ceil(rows /
parts). Nothing here ever holds more than one process's share of one tensor beyond what the model itself holds.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from growkit.checkpoint.source import Checkpoint
from growkit.checkpoint.stream import Blocks, write_blocks
from growkit.checkpoint.writer import Slot
from growkit.families import Family
from growkit.families.stacked import split_with
from growkit.training.machine import Machine


@dataclass(frozen=True)
class Pieces:
    """Where a live tensor lies in a file. names: one stored tensor, or where stacked of each expert its parts, in
    order."""

    names: tuple[tuple[str, ...], ...]
    stacked: bool

    def shape(self, source: Checkpoint) -> tuple[int, ...]:
        """Of the live tensor."""
        first = [source.tensors[name].shape for name in self.names[0]]
        if not self.stacked or not first[0]:  # a step is one number for all experts
            return tuple(first[0])
        return (len(self.names), sum(shape[0] for shape in first), *first[0][1:])


def give_memory(model: torch.nn.Module, device: torch.device) -> None:
    """Replace parameters that are shapes alone by ones with memory on a device, each process its own share, tied ones
    once.

    What a model has of real tensors, such as its buffers, moves to the device.
    """
    parameters: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if id(parameter) not in parameters:
                blank = torch.empty_like(parameter, device=device) if parameter.is_meta else parameter.to(device)
                parameters[id(parameter)] = torch.nn.Parameter(blank.detach(), requires_grad=parameter.requires_grad)
            setattr(module, name, parameters[id(parameter)])
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, buffer.to(device))


def tensors_once(model: torch.nn.Module, left_out: Collection[str] = ()) -> dict[str, torch.Tensor]:
    """The tensors of a model's state, live, tied ones by the first of their names that is not among `left_out`."""
    seen, tensors = set[int](), dict[str, torch.Tensor]()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen and name not in left_out:
            seen.add(id(tensor))
            tensors[name] = tensor
    return tensors


def own_rows(tensor: torch.Tensor) -> tuple[int, torch.Tensor]:
    """(number of the first row, rows) of a tensor that this process holds: all of it where it is not divided."""
    if not isinstance(tensor, DTensor):
        return 0, tensor.detach()
    mesh, local = tensor.device_mesh, tensor.to_local().detach()
    parts, number = mesh.size(mesh.ndim - 1), mesh.get_local_rank(mesh.ndim - 1)
    return min(tensor.shape[0], number * -(-tensor.shape[0] // parts)), local


@torch.no_grad()
def fill_tensor(tensor: torch.Tensor, source: Checkpoint, pieces: Pieces) -> None:
    """Read this process's rows of a tensor from a file, into the dtype that the tensor has."""
    first, rows = own_rows(tensor)
    if not rows.numel():
        return
    if not rows.dim() or not pieces.stacked:
        (name,) = pieces.names[0][:1]
        numbers = np.arange(first, first + len(rows)) if rows.dim() else np.arange(1)
        rows.copy_(source.rows(name, numbers).view(rows.shape))
        return
    for row, names in zip(rows, pieces.names[first : first + len(rows)]):
        parts = [source.rows(name, np.arange(source.tensors[name].shape[0])) for name in names]
        row.copy_(torch.cat(parts).view(row.shape))


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A stored tensor as a part of a live one: an expert's, or all of it where expert is None."""

    live: str
    shape: tuple[int, ...]
    expert: int | None = None
    place: int = 0
    parts: int = 1


def write_tensors(
    machine: Machine,
    tensors: Mapping[str, torch.Tensor],
    folder: Path,
    headers: Mapping[str, bytes],
    slots: Mapping[str, Slot],
    sizes: Mapping[str, int],
    stored: Mapping[str, "_Part"] | None = None,
) -> None:
    """Put tensors where headers and slots say, row by row. All processes call this together; the first one writes.

    It holds what one process has of one tensor at a time, the others nothing beyond their own. stored: of what is
    stored under other names, as stored_parts says it. Raises OSError for the disk.
    """
    if not machine.is_first:
        for tensor in tensors.values():
            _send(tensor, machine)
        return
    by_live: dict[str, list[tuple[str, _Part]]] = {}
    for name, part in (stored or {}).items():
        by_live.setdefault(part.live, []).append((name, part))
    write_blocks(_blocks(machine, tensors, by_live), folder, headers, slots, sizes)


def stored_parts(family: Family, tensors: Mapping[str, torch.Tensor]) -> dict[str, _Part]:
    """What a model's tensors are called in files, each expert's its own, with their shapes; a head as files have it."""

    def piece(whole: _Part, expert: int, place: int, parts: int) -> _Part:
        rows, *rest = whole.shape[1:]
        return replace(whole, shape=(rows // parts, *rest), expert=expert, place=place, parts=parts)

    whole = {name: _Part(live=name, shape=tuple(tensor.shape)) for name, tensor in tensors.items()}
    parts = split_with(family, whole, piece) if family.is_moe else whole
    return {family.heads[0] if name in family.heads else name: part for name, part in parts.items()}


def _blocks(
    machine: Machine, tensors: Mapping[str, torch.Tensor], stored: Mapping[str, list[tuple[str, _Part]]]
) -> Iterator[tuple[list[tuple[str, int]], Blocks]]:
    """For write_blocks, in the order of the tensors and of their rows: where each lies, and what it holds."""
    for name, tensor in tensors.items():
        size = tensor.dtype.itemsize
        for first, rows in _shares(machine, tensor):
            width = prod(rows.shape[1:])
            for target, part in stored.get(name, [(name, _Part(live=name, shape=tuple(tensor.shape)))]):
                if part.expert is None:
                    yield [(target, size)], [(first * width, partial(_itself, rows))]
                elif first <= part.expert < first + len(rows):
                    row = rows[part.expert - first].chunk(part.parts)[part.place]
                    yield [(target, size)], [(0, partial(_itself, row))]


def _itself(block: torch.Tensor) -> torch.Tensor:
    """A block that is there already, where one is asked to be computed."""
    return block


def _shares(machine: Machine, tensor: torch.Tensor) -> Iterable[tuple[int, torch.Tensor]]:
    """(first row, rows in main memory) of a tensor, process by process; on the first process."""
    first, rows = own_rows(tensor)
    yield first, rows.cpu()
    if not isinstance(tensor, DTensor):
        return
    parts = tensor.device_mesh.size(tensor.device_mesh.ndim - 1)
    chunk = -(-tensor.shape[0] // parts)
    for number in range(1, parts):
        start = min(tensor.shape[0], number * chunk)
        count = min(tensor.shape[0], start + chunk) - start
        if count:
            received = torch.empty((count, *tensor.shape[1:]), dtype=tensor.dtype)
            dist.recv(received, src=number, group=machine.line)
            yield start, received


def _send(tensor: torch.Tensor, machine: Machine) -> None:
    """Give the first process the rows that it lacks; what another copy of the model holds too is not sent twice."""
    if isinstance(tensor, DTensor) and tensor.device_mesh.get_local_rank(0) == 0:
        _, rows = own_rows(tensor)
        if rows.numel():
            dist.send(rows.cpu().contiguous(), dst=0, group=machine.line)
