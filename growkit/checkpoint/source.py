"""A checkpoint as it is found: its tensors, its config, the files beside them. Knows folders, indexes and hub ids;
ignorant of families and of what any tensor means.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from growkit.checkpoint.headers import StoredTensor, file_hash, read_header
from growkit.checkpoint.model_config import read_model_config
from growkit.checkpoint.new_folder import UNFINISHED
from growkit.checkpoint.small_files import check_inside, open_descriptor, reading
from growkit.checkpoint.system import read_at
from growkit.checkpoint.weight_files import EXPLICIT, INDEX, PICKLES, SINGLE, pickled, tensors_of
from growkit.errors import CheckpointError

CONFIG, PROVENANCE = "config.json", "growkit.json"
CERTIFICATE = "certificate.json"  # of a bundle of skills
SOFT_MIXTURE = "small_module.json"  # of MoV and MoLoRA, a folder that holds no model
PANEL = "panel.json"  # of a control panel, a folder that holds no model
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"  # PEFT's two files
FILES = (".safetensors", ".json", *PICKLES)  # endings that a hub id does not have, though it may have dots
OF_MODEL = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "README.md")  # what is fetched from the hub
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Stretch:
    """Bytes that lie in one piece in a file: the file, an open descriptor of it, the first byte, and how many."""

    path: Path
    descriptor: int
    offset: int
    bytes: int


@dataclass(kw_only=True)
class Checkpoint:
    """Tensors with the config that explains them. Reading is by row and by offset; nothing is ever held.

    label: what a person calls it. folder: where its companion files lie, or None (a bare file: what lies beside it need
    not belong to it). config: None where there is none; inferred: whether it was made up from names and shapes. notes:
    what a person should know of how it was read.
    """

    label: str
    tensors: Mapping[str, StoredTensor]
    config: dict[str, Any] | None
    folder: Path | None
    inferred: bool = False
    notes: tuple[str, ...] = ()
    _files: dict[Path, int] = field(default_factory=dict, repr=False)
    _hashes: dict[Path, str] = field(default_factory=dict, repr=False, compare=False)

    def rows(self, name: str, rows: np.ndarray, columns_as_rows: bool = False) -> torch.Tensor:
        """Rows of a tensor seen as (rows, rest), in its stored dtype; `columns_as_rows` sees it transposed."""
        tensor = self.tensors[name]
        if columns_as_rows:
            return self.rows(name, np.arange(_first(tensor)))[:, torch.from_numpy(rows)].T
        width = tensor.elements // _first(tensor) * tensor.dtype.itemsize
        buffer = bytearray(len(rows) * width)
        view, place = memoryview(buffer), 0
        for first, count in runs(rows):
            self._read(tensor, view[place : place + count * width], tensor.offset + first * width)
            place += count * width
        if not buffer:
            return torch.empty((len(rows), tensor.elements // _first(tensor)), dtype=tensor.dtype)
        return torch.frombuffer(buffer, dtype=tensor.dtype).view(len(rows), -1)

    def whole(self, name: str) -> torch.Tensor:
        """A tensor in its stored dtype and shape."""
        tensor = self.tensors[name]
        return self.rows(name, np.arange(_first(tensor))).view(tensor.shape)

    def stretch(self, name: str, first: int, count: int, dtype: torch.dtype) -> Stretch | None:
        """Where `count` rows of a tensor lie from the first one on; None where they are not stored as `dtype`."""
        tensor = self.tensors[name]
        if tensor.dtype != dtype:
            return None
        width = tensor.elements // _first(tensor) * tensor.dtype.itemsize
        return Stretch(tensor.path, self._open(tensor), tensor.offset + first * width, count * width)

    def files(self) -> list[Path]:
        """The weight files, in a stable order."""
        return sorted({tensor.path for tensor in self.tensors.values()})

    @property
    def name(self) -> str:
        """The last part of the label, for titles and records."""
        return Path(self.label).resolve().name.encode("utf-8", "replace").decode()

    def hashes(self, stopped: Callable[[], bool] = lambda: False) -> dict[str, str]:
        """SHA-256 of every weight file by name, as the hub shows it; given up as soon as `stopped` says so. A file is
        read for it once, however many ask."""
        found = {path: self._hashes.get(path) or file_hash(path, stopped) for path in self.files()}
        if not stopped():
            self._hashes.update(found)
        return {path.name: digest for path, digest in found.items()}

    def close(self) -> None:
        """Close the weight files; reading again opens them again."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def _open(self, tensor: StoredTensor) -> int:
        """A descriptor of a tensor's file, for reading."""
        descriptor = self._files.get(tensor.path)
        if descriptor is None:
            # setdefault: two threads may get here at once, and the one that comes second must close its own
            mine = open_descriptor(tensor.path)
            descriptor = self._files.setdefault(tensor.path, mine)
            if descriptor != mine:
                os.close(mine)
        return descriptor

    def _read(self, tensor: StoredTensor, target: memoryview, offset: int) -> None:
        read_into(target, tensor.path, self._open(tensor), offset)


def read_into(target: memoryview, path: Path, descriptor: int, offset: int) -> None:
    """Fill memory from a place in an open file. Raises CheckpointError where that ends before, or cannot be read."""
    with reading(path):
        while target:
            got = read_at(descriptor, target, offset)
            if got == 0:
                raise shorter(path)
            target, offset = target[got:], offset + got


def shorter(path: Path) -> CheckpointError:
    """What to say of a file that ends before its header says so."""
    return CheckpointError(f"{str(path)!r} became shorter while it was read; fetch it again")


def open_checkpoint(source: str | Path) -> Checkpoint:
    """Open a folder, a .safetensors file or a hub id; reads headers and config only.

    Raises CheckpointError for anything missing, damaged, outside the folder, or not safetensors.
    """
    path, text = Path(source), str(source)
    with reading(path):
        checkpoint = _on_disk(path, text) if text else None
    if checkpoint is not None:
        return checkpoint
    if not HUB_ID.fullmatch(text) or path.suffix in FILES:
        raise CheckpointError(
            f"{text!r} does not exist; give a folder, a .safetensors file or a hub id such as org/name"
        )
    return replace(open_checkpoint(from_hub(text)), label=text)


def read_config(source: str | Path) -> dict[str, Any] | None:
    """The config.json of a folder, file, config.json itself or hub id, without its weights; None for weights without
    one.

    Raises CheckpointError for what is not there.
    """
    path = Path(source)
    if path.suffix == ".json":
        return read_model_config(path)
    if not path.exists():
        if not HUB_ID.fullmatch(str(source)):
            raise CheckpointError(f"{str(source)!r} does not exist; give a config.json, a checkpoint or a hub id")
        path = Path(from_hub(str(source), (CONFIG,)))
    config = (path if path.is_dir() else path.parent) / CONFIG
    return read_model_config(config) if config.exists() else None


def open_state(path: Path) -> Checkpoint:
    """Open one .safetensors file for its tensors alone. Raises CheckpointError where it is none."""
    if not path.is_file():
        raise CheckpointError(f"{str(path)!r} does not exist; give a .safetensors file")
    return Checkpoint(label=str(path), tensors=read_header(path), config=None, folder=None)


def _on_disk(path: Path, label: str) -> Checkpoint | None:
    """A folder or a file as a checkpoint; None where there is neither."""
    if not path.exists():
        return None
    if not path.is_dir() and not path.is_file():
        os.close(open_descriptor(path))  # which says what it is
    folder = path if path.is_dir() else path.parent
    if (folder / UNFINISHED).exists():
        raise CheckpointError(
            f"{label!r} is unfinished: growkit is at it, or was stopped; run what was to make it again"
        )
    if path.is_file() and path.suffix in PICKLES:
        raise pickled(path)
    if path.is_dir() and (folder / CERTIFICATE).exists() and not (folder / CONFIG).exists():
        raise CheckpointError(
            f"{label!r} is a bundle of skills and no model of its own; growkit generate and growkit eval run it"
        )
    if (folder / ADAPTER_CONFIG).exists() and (path.is_dir() or (folder / CONFIG).exists()):
        raise _adapter(folder, label)
    if path.is_dir() and (folder / SOFT_MIXTURE).exists() and not (folder / CONFIG).exists():
        raise CheckpointError(
            f"{label!r} is a small module and no model: name its model, with --adapter {label} where a command has that"
        )
    if path.is_dir() and (folder / PANEL).exists() and not (folder / CONFIG).exists():
        raise CheckpointError(
            f"{label!r} is a control panel and no model: learn skills on it with growkit skill learn, or name its model"
        )
    check_inside(folder / CONFIG)
    config = read_model_config(folder / CONFIG) if (folder / CONFIG).exists() else None
    # where the weights lie is of this folder, and of no result
    explicit = config.pop(EXPLICIT, None) if config is not None else None
    tensors, notes = tensors_of(path, explicit) if path.is_dir() else (read_header(path), ())
    if config is not None and not tensors:
        raise CheckpointError(f"{label!r} holds no tensors; fetch or save it again")
    bare = path.is_file() and config is None
    return Checkpoint(label=label, tensors=tensors, config=config, folder=None if bare else folder, notes=notes)


def _adapter(folder: Path, label: str) -> CheckpointError:
    """Two models in one folder, or none: stock transformers would load the adapter on top of the weights."""
    if (folder / SINGLE).exists() or (folder / INDEX).exists():
        return CheckpointError(
            f"{label!r} has {ADAPTER_CONFIG} beside its weights, on top of which transformers would load that adapter;"
            " move the adapter's files to a folder of their own, and add it with growkit apply where it belongs to them"
        )
    return CheckpointError(
        f"{label!r} is an adapter and no model: add it to its base with growkit apply, or write BASE+{label} as a member"
        " of merge or delta"
    )


def from_hub(name: str, patterns: tuple[str, ...] = OF_MODEL) -> str:
    """The folder of a hub id's files. Raises CheckpointError where they cannot be had."""
    from huggingface_hub import snapshot_download  # comes with transformers; slow to import, so only here

    try:
        return snapshot_download(name, allow_patterns=list(patterns))
    except Exception as error:  # the hub client raises many kinds; each means the same to the person who typed the name
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(
            f"{name!r} is no path here and could not be fetched from the hub ({type(error).__name__}: {reason});"
            " check the name, your connection or your login, or download it and give the folder"
        ) from None


def runs(rows: np.ndarray) -> Iterator[tuple[int, int]]:
    """(first, count) of each stretch of consecutive row numbers."""
    if len(rows):
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        for start, stop in zip(np.r_[0, ends], np.r_[ends, len(rows)]):
            yield int(rows[start]), int(stop - start)


def _first(tensor: StoredTensor) -> int:
    """The size of the first dimension, 1 for a scalar or for nothing at all."""
    return max(1, tensor.shape[0]) if tensor.shape else 1
