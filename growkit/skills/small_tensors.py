"""Small files of tensors that are held whole: written, and read against the shapes that they should have. Knows
safetensors; ignorant of what is in them.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from growkit.checkpoint.source import Checkpoint
from growkit.checkpoint.stream import write_blocks
from growkit.checkpoint.writer import layout
from growkit.errors import CheckpointError


def write_tensors_file(place: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors into one safetensors file, each in its own dtype. Raises OSError for the disk."""
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    listed = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in held.items()]
    write_blocks(
        (([(name, tensor.dtype.itemsize)], [(0, _itself(tensor))]) for name, tensor in held.items()),
        place.parent,
        *layout(listed, 1 << 62, place.name),
    )


def _itself(tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: tensor


def read_tensor(stored: Checkpoint, name: str) -> torch.Tensor:
    """A tensor of a file, whole, finite. Raises CheckpointError for NaN and Inf."""
    tensor = stored.whole(name)
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise CheckpointError(f"tensor {name!r} of {stored.label!r} holds NaN or Inf; make it again")
    return tensor


def check_names(stored: Checkpoint, wanted: set[str], then: str, where: str = "there") -> None:
    """Refuse a file that lacks a tensor or has one beyond what belongs where it is, in words. Raises
    CheckpointError."""
    for name in sorted(wanted ^ stored.tensors.keys()):
        kind = "lacks" if name in wanted else f"has, beyond what belongs {where},"
        raise CheckpointError(f"{stored.label!r} {kind} {name!r}; {then}")


def check_tensor(
    stored: Checkpoint, name: str, dtype: torch.dtype, rows: tuple[int, int], more: tuple[int, ...], then: str
) -> None:
    """Refuse a tensor of another dtype or shape. rows: the least and the most that its first dimension may be, more:
    its other dimensions. Raises CheckpointError."""
    tensor = stored.tensors[name]
    shape = tensor.shape
    if tensor.dtype == dtype and shape and rows[0] <= shape[0] <= rows[1] and shape[1:] == more and all(more):
        return
    is_, want = (str(one).removeprefix("torch.") for one in (tensor.dtype, dtype))
    first = str(rows[0]) if rows[0] == rows[1] else f"{rows[0]} to {rows[1]}"
    asked = ", ".join([first, *map(str, more)])
    raise CheckpointError(f"{stored.label!r} has {name!r} as {is_} {list(shape)}, not as {want} [{asked}]; {then}")
