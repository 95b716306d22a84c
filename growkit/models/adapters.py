"""A small module on a model, for one use of it. Knows PEFT's loader and growkit's own; ignorant of
what is computed with it.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.made_for import check_made_for, check_result
from growkit.checkpoint.small_files import check_inside, read_json
from growkit.checkpoint.source import ADAPTER, ADAPTER_CONFIG, Checkpoint
from growkit.errors import CheckpointError, RequestError, reason_of
from growkit.models.small.small_file import is_small, put_small, read_small


class Adapter(ABC):
    """What goes on a model for one use of it; it is on the model whatever that reads, unless it says otherwise. packs:
    whether conversations may share a row."""

    packs = True

    @abstractmethod
    def check(self, source: Checkpoint) -> None:
        """Refuse a model that it was not made for. Raises RequestError or CheckpointError."""

    @abstractmethod
    def put_on(self, model: Any) -> Any:
        """The model with it. Raises CheckpointError where it does not fit."""

    def reading(self, model: Any, ids: torch.Tensor, asked: torch.Tensor | None) -> AbstractContextManager[None]:
        """Within the block the model reads a batch (rows, length). asked: (rows,), how many tokens of each are the
        prompt; None: nobody says."""
        return nullcontext()

    def opened(self, model: Any) -> list[tuple[str, ...]] | None:
        """Which skills the rows of the newest batch opened; None where there are none to open."""
        return None

    def notes(self) -> Iterator[str]:
        """What a person should know of what was measured with it."""
        return iter(())


@dataclass(frozen=True)
class FolderAdapter(Adapter):
    """A folder of a small module."""

    folder: str | Path

    def check(self, source: Checkpoint) -> None:
        """Refuse what is none, or was made for another model, as check_adapter does."""
        check_adapter(self.folder, source)

    def put_on(self, model: Any) -> Any:
        """The model with it. Raises CheckpointError where it does not fit."""
        return adapted(model, self.folder)

    def notes(self) -> Iterator[str]:
        """What a person should know of what was measured with it."""
        yield f"with {str(self.folder)!r} on it"


def check_adapter(folder: str | Path, source: Checkpoint, option: str = "--adapter ") -> None:
    """Refuse what is no small module: of PEFT's in safetensors, or of growkit's own. source: what it goes on. option:
    how it was asked for.

    Raises CheckpointError, and RequestError without PEFT and for one that growkit made for another model.
    """
    path = Path(folder)
    check_made_for(path, source)
    if is_small(path):
        read_small(path)
        return
    for name in (ADAPTER_CONFIG, ADAPTER):
        if not (path / name).is_file():
            check_result(path, option)
            raise CheckpointError(
                f"{option}{str(folder)!r} has no {name}; name a folder that growkit tune left, or that PEFT saved as"
                " safetensors"
            )
        check_inside(path / name)
    read_json(path / ADAPTER_CONFIG)
    try:
        import peft  # noqa: F401
    except ImportError:
        raise RequestError(f"{str(folder)!r} needs PEFT; pip install peft") from None


def adapted(model: Any, folder: str | Path) -> Any:
    """A model with a small module on it, as PEFT or growkit loads it. Raises CheckpointError for one that does not fit
    it."""
    if is_small(folder):
        put_small(model, folder)
        return model
    import peft

    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            model = peft.PeftModel.from_pretrained(model, str(folder), local_files_only=True).eval()
    except Exception as error:  # PEFT raises many kinds; each means that the adapter does not go on this model
        raise CheckpointError(f"PEFT cannot put {str(folder)!r} on the model: {reason_of(error)}") from None
    lacks = next((str(warning.message) for warning in said if "missing adapter keys" in str(warning.message)), None)
    if lacks is not None:  # PEFT would leave them as they were drawn
        raise CheckpointError(f"{str(folder)!r} is no adapter of this model: PEFT says {lacks.splitlines()[0]!r}")
    return model
