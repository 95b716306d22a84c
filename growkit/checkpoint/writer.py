"""A checkpoint as it is written: sized before, and where its output may be. Knows files; ignorant of meaning."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.headers import header_bytes
from growkit.checkpoint.new_folder import NOTHING, Contents, check_work_folders, contents
from growkit.checkpoint.small_files import real_path
from growkit.checkpoint.source import CONFIG, INDEX, PROVENANCE, SINGLE
from growkit.errors import RequestError
from growkit.units import size

Shape = tuple[int, ...]
SPARE_BYTES = 64 << 20  # room asked for beyond the weights: tokenizer, metadata, the file system's own


@dataclass(frozen=True)
class Slot:
    """Where a tensor will lie: file name and absolute byte offset."""

    file: str
    offset: int


def layout(
    tensors: list[tuple[str, torch.dtype, Shape]], shard_bytes: int, single: str = SINGLE
) -> tuple[dict[str, bytes], dict[str, Slot], dict[str, int]]:
    """Lay tensors out in files of at most `shard_bytes` (a tensor is never divided), in the order given.

    Returns each file's header, each tensor's slot, and each file's size in bytes.
    """
    shards: list[list[tuple[str, torch.dtype, Shape]]] = [[]]
    filled = 0
    for entry in tensors:
        taken = prod(entry[2]) * entry[1].itemsize
        if shards[-1] and filled + taken > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(entry)
        filled += taken
    headers: dict[str, bytes] = {}
    slots: dict[str, Slot] = {}
    sizes: dict[str, int] = {}
    for number, shard in enumerate(shards, start=1):
        stem = single.removesuffix(".safetensors")
        file = single if len(shards) == 1 else f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        # widest items first, so that every tensor is aligned whatever the mix
        shard = sorted(shard, key=lambda entry: -entry[1].itemsize)
        headers[file], offsets = header_bytes(shard)
        slots |= {name: Slot(file, offset) for name, offset in offsets.items()}
        sizes[file] = len(headers[file]) + sum(prod(shape) * dtype.itemsize for _, dtype, shape in shard)
    return headers, slots, sizes


def write_index(folder: Path, slots: dict[str, Slot], total_bytes: int) -> None:
    """The index that tells readers which shard has which tensor; nothing where there is one file."""
    if len({slot.file for slot in slots.values()}) > 1:
        weight_map = {name: slots[name].file for name in sorted(slots)}
        write_json(folder / INDEX, {"metadata": {"total_size": total_bytes}, "weight_map": weight_map})


def write_json(path: Path, content: dict[str, Any]) -> None:
    """A JSON object in the layout transformers uses."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint, so that a new one may replace it."""
    weights = (folder / SINGLE).exists() or (folder / INDEX).exists()
    return (folder / PROVENANCE).exists() or (weights and (folder / CONFIG).exists())


def check_target(
    out: Path,
    sources: Sequence[Path],
    force: bool,
    replaceable: Callable[[Path], bool] = is_checkpoint,
    kind: str = "checkpoint",
) -> Contents:
    """Refuse an output that would hurt: a source itself, a folder around or in it, something that is there, no place.

    Returns what is there now and may give way, for `new_folder`. Raises RequestError; `force` allows replacing what is
    `replaceable`, said in a word to be of a kind, and only that.
    """
    try:
        return _check_target(out, sources, force, replaceable, kind)
    except OSError as error:
        raise RequestError(f"cannot write {str(out)!r}: {error.strerror or error}; choose another with -o") from None


def _check_target(
    out: Path, sources: Sequence[Path], force: bool, replaceable: Callable[[Path], bool], kind: str
) -> Contents:
    replaces, target = NOTHING, real_path(out)
    for source in sources:
        clash = overlap(out, source)
        if clash:
            raise RequestError(f"output {str(out)!r} {clash} the source {str(source)!r}; choose another with -o")
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise RequestError(f"output {str(out)!r} exists and is no folder; choose another with -o")
    if out.is_dir() and any(out.iterdir()):
        if not force:
            raise RequestError(f"output {str(out)!r} exists; choose another with -o, or replace it with --force")
        here = target == Path.cwd() or target in Path.cwd().parents
        replaces = NOTHING if here else contents(out)  # first, so that nothing comes in before it is judged
        why = "is or contains the current folder" if here else "" if replaceable(target) else f"is no {kind}"
        if why:
            raise RequestError(f"output {str(out)!r} {why}, so --force will not delete it; choose another with -o")
    check_work_folders(target, sources)
    place = next(parent for parent in target.parents if parent.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise RequestError(f"cannot write in {str(place)!r}; choose another output with -o")
    return replaces


def overlap(out: Path, source: Path) -> str:
    """How an output would lie in the way of what is read, in words for a sentence; "" where it does not."""
    target, origin = real_path(out), real_path(source)
    if target == origin or target in origin.parents:
        return "is or contains"
    return "is inside" if origin.is_dir() and origin in target.parents else ""


def check_space(out: Path, needed: int) -> None:
    """Refuse to start what cannot fit. Raises RequestError with both numbers."""
    place = next(parent for parent in real_path(out).parents if parent.exists())
    free = shutil.disk_usage(place).free
    if needed + SPARE_BYTES > free:
        raise RequestError(
            f"{str(out)!r} needs {size(needed + SPARE_BYTES)} and {str(place)!r} has {size(free)} free;"
            " make room or choose another disk with -o"
        )
