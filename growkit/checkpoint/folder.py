"""One writer of a result's folder, whatever made the result: weights, the files beside them, growkit.json, a card, a
config. Knows in which order a folder becomes a checkpoint and what stops it; ignorant of what is computed.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from threading import Event
from typing import Any

import torch

from growkit.checkpoint.companions import copy_companions, copy_plain
from growkit.checkpoint.new_folder import NOTHING, Contents, new_folder
from growkit.checkpoint.record import record_text
from growkit.checkpoint.source import CONFIG, PROVENANCE, SINGLE, Checkpoint
from growkit.checkpoint.writer import Shape, Slot, check_space, layout, write_index, write_json
from growkit.families.text_part import nested

CARD = "README.md"
Hashes = list[dict[str, str]]
# (folder, headers, slots, sizes): puts all tensors where the slots say; see growkit.checkpoint.stream
WriteTensors = Callable[[Path, Mapping[str, bytes], Mapping[str, Slot], Mapping[str, int]], None]

Settings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class WeightFiles:
    """Tensors that are streamed into safetensors files laid out beforehand."""

    tensors: Sequence[tuple[str, torch.dtype, Shape]]  # in the order they will lie
    write: WriteTensors
    place: str = ""  # folder in the result; "": the result itself
    name: str = SINGLE  # of the file, where it is one
    largest: int = sys.maxsize  # bytes of one file


@dataclass(frozen=True)
class Beside:
    """Whose tokenizer and other files the result gets, and how wide its hidden states were and are. instead: a file
    that takes the place of the one of its name; settings: by name, JSON that does."""

    folder: Path
    hidden: tuple[int, int]
    instead: Path | None = None
    settings: Settings = field(default_factory=dict)


def write_folder(
    out: Path,
    *,
    record: Callable[[Hashes], Mapping[str, Any]] | None,
    sources: Sequence[Checkpoint] = (),
    fill: Callable[[Path], None] = lambda _: None,
    beside: Beside | None = None,
    weights: Sequence[WeightFiles] = (),
    room: int | None = None,
    card: str | None = None,
    config: Mapping[str, Any] | None = None,
    replaces: Contents = NOTHING,
) -> None:
    """Make a folder that is there whole or not at all. Raises what a part raises, RequestError for a full disk.

    sources: are hashed in a thread beside the work; record: what growkit.json says, from the hashes of their files;
    None: a folder without one. fill: writes what is not streamed, before anything else is there. room: bytes it needs
    beside the weights, for which the disk is asked before; None: unknown. config: written last, for a folder without
    one is no model to anyone. replaces: what lies there and may give way.
    """
    laid = [layout(list(files.tensors), files.largest, files.name) for files in weights]
    if laid or room is not None:
        check_space(out, (room or 0) + sum(sum(sizes.values()) for _, _, sizes in laid))
    stop = Event()
    with new_folder(out, replaces) as folder, ThreadPoolExecutor(1) as pool, setting(stop):
        # reads the files once more, while the result is made
        hashes = pool.submit(lambda: [source.hashes(stop.is_set) for source in sources])
        fill(folder)
        if beside is not None:
            copy_companions(beside.folder, folder, beside.hidden)
            if beside.instead is not None:
                copy_plain(beside.instead, folder / beside.instead.name)
            for name, content in beside.settings.items():
                write_json(folder / name, dict(content))
        for files, (headers, slots, sizes) in zip(weights, laid):
            files.write(folder / files.place, headers, slots, sizes)
            total = sum(prod(shape) * dtype.itemsize for _, dtype, shape in files.tensors)
            write_index(folder / files.place, slots, total)
        if record is not None:
            (folder / PROVENANCE).write_text(record_text(record(hashes.result())), "utf-8")
        if card is not None:
            (folder / CARD).write_text(card, "utf-8")
        if config is not None:
            write_json(folder / CONFIG, nested(config))


def beside(
    source: Checkpoint, old: int, new: int, instead: Path | None = None, settings: Settings | None = None
) -> Beside | None:
    """What a result gets from beside a source's weights; None for a bare file. old, new: width of hidden states."""
    return None if source.folder is None else Beside(source.folder, (old, new), instead, settings or {})


@contextmanager
def setting(stop: Event) -> Iterator[None]:
    """Set an event where the block fails or is interrupted, so that nobody waits for work in vain."""
    try:
        yield
    except BaseException:
        stop.set()
        raise
