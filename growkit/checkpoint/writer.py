"""A checkpoint as it is written: sized before, streamed, and there only when whole. Knows files; ignorant of meaning.

Work happens in OUT.partial beside OUT, held by a lock. Everything is on disk before the folder gets its name, so a run
that is killed leaves at most a folder that says what it is and that the next run clears away.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.headers import header_bytes
from growkit.checkpoint.source import CONFIG, INDEX, PROVENANCE, SINGLE
from growkit.errors import RequestError

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
        size = prod(entry[2]) * entry[1].itemsize
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(entry)
        filled += size
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


def check_target(out: Path, source: Path | None, force: bool) -> None:
    """Refuse an output that would hurt: the source itself, a folder around it, something that is there, no place.

    Raises RequestError; `force` allows replacing a checkpoint, and only that.
    """
    target = out.resolve()
    if source is not None:
        origin = source.resolve()
        if target == origin or target in origin.parents:
            raise RequestError(f"output {str(out)!r} is or contains the source {str(source)!r}; choose another with -o")
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise RequestError(f"output {str(out)!r} exists and is no folder; choose another with -o")
    if out.is_dir() and any(out.iterdir()):
        if not force:
            raise RequestError(f"output {str(out)!r} exists; choose another with -o, or replace it with --force")
        if not any((out / file).exists() for file in (CONFIG, PROVENANCE, SINGLE, INDEX)):
            raise RequestError(
                f"output {str(out)!r} is no checkpoint, so --force will not delete it; choose another with -o"
            )
    place = next(parent for parent in target.parents if parent.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise RequestError(f"cannot write in {str(place)!r}; choose another output with -o")


def check_space(out: Path, needed: int) -> None:
    """Refuse to start what cannot fit. Raises RequestError with both numbers."""
    place = next(parent for parent in out.resolve().parents if parent.exists())
    free = shutil.disk_usage(place).free
    if needed + SPARE_BYTES > free:
        raise RequestError(
            f"{str(out)!r} needs {(needed + SPARE_BYTES) / 1e9:.2f} GB and {str(place)!r} has {free / 1e9:.2f} GB free;"
            " make room or choose another disk with -o"
        )


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield OUT.partial to fill; when the block ends well it becomes OUT, replacing what was there; else it goes.

    Raises RequestError where another process is writing the same output or the disk fails.
    """
    out = out.absolute()
    partial = out.with_name(f"{out.name}.partial")
    replaced = out.with_name(f"{out.name}.replaced.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir(exist_ok=True)
        lock = os.open(partial, os.O_RDONLY)
    except OSError as error:
        raise RequestError(f"cannot write {str(out)!r}: {error.strerror or error}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise RequestError(f"another growkit is writing {str(out)!r}; wait for it or choose another with -o") from None
    try:
        _clear(partial)  # what a killed run left
        _remove(replaced)
        yield partial
        for path in partial.rglob("*"):
            _sync(path)
        _sync(partial)
        if out.exists():
            os.rename(out, replaced)
        os.rename(partial, out)
        _sync(out.parent)
        _remove(replaced)
    except OSError as error:
        _remove(partial)
        raise RequestError(f"could not write {str(out)!r}: {error.strerror or error}; nothing was kept") from None
    except BaseException:
        _remove(partial)
        raise
    finally:
        os.close(lock)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        _remove(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
