"""What of a model is kept as a folder, between stages and at the end. Knows Hugging Face folders and what growkit lays
beside their weights; ignorant of steps, and of who reads them.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from growkit.checkpoint.card import model_card
from growkit.checkpoint.folder import Beside, beside, write_folder
from growkit.checkpoint.headers import header_bytes
from growkit.checkpoint.new_folder import contents
from growkit.checkpoint.record import FORMAT
from growkit.checkpoint.source import PROVENANCE, Checkpoint
from growkit.checkpoint.writer import Slot, layout, write_index, write_json
from growkit.families import family_named
from growkit.growth.optimizer import MULTIPLIERS, OPTIMIZER, PLACE
from growkit.training.machine import Machine
from growkit.training.optim import moments
from growkit.training.sharing import stored_parts, tensors_once, write_tensors
from growkit.training.student import Student
from growkit.version import __version__

SHARD_BYTES = 50 * 10**9  # of a weight file at most, as transformers has it
Record = Callable[[], Mapping[str, Any]]  # what growkit.json says of a run's result


class Saved(Protocol):
    """A run's choice of what it leaves. Checkpoints to resume from hold what learns, whatever this says."""

    def export(self, student: Student, folder: Path, record: Record | None = None) -> None:
        """Write a folder from which another program, or the next stage, goes on; all of it before it has its name.

        record: what growkit.json says, None between stages. All processes call this together.
        """


@dataclass(frozen=True)
class WholeModel:
    """The whole model as a Hugging Face folder, AdamW's state and rates beside it, with the tokenizer of the checkpoint
    that the run began with, which is origin. template: a chat template that takes the place of its own.
    """

    origin: Checkpoint
    template: Path | None = None

    def export(self, student: Student, folder: Path, record: Record | None = None) -> None:
        """The folder is there when it is whole; raises RequestError where the disk has no room for it."""
        student.settle()
        model: Any = student.model

        def fill(partial: Path) -> None:
            if student.machine.is_first:
                self._begin(student, partial, between=record is None)
            write_weights(student, partial)
            write_moments(student, partial)

        hidden = model.config.hidden_size
        card = None if record is None else trained_card(self.origin)
        write_together(student.machine, folder, fill, beside(self.origin, hidden, hidden, self.template), record, card)

    def _begin(self, student: Student, folder: Path, between: bool) -> None:
        model: Any = student.model
        state_class(model)
        model.config.save_pretrained(folder)
        if model.can_generate():
            model.generation_config.save_pretrained(folder)
        # a stage that goes on lets them relax from where the run began
        kept = student.multipliers if between else student.acting_multipliers()
        rates = {"format": FORMAT, "optimizer": student.optimizer_name, "multipliers": kept}
        write_json(folder / MULTIPLIERS, rates)


def write_together(
    machine: Machine,
    folder: Path,
    fill: Callable[[Path], None],
    beside: Beside | None = None,
    record: Record | None = None,
    card: str | None = None,
) -> None:
    """Make a folder of what all processes hold: the first one makes it, all call `fill` with the place to write to.

    What a killed run left of it goes, even what it was about to name: in the folder of a run nothing is anybody else's.
    """
    if machine.is_first:
        clear_left(folder)
        write_folder(
            folder,
            fill=fill,
            beside=beside,
            record=None if record is None else lambda _: record(),
            card=card,
            replaces=contents(folder),
        )
    else:
        fill(folder)  # they only send: where to is the first one's to know


def trained_card(origin: Checkpoint) -> str:
    """A short README.md for the result of a run that began with a checkpoint."""
    return model_card(
        f"{origin.name}, trained on",
        f"Trained by growkit {__version__}, from `{origin.name}`. The whole request, and hashes of the checkpoint it began"
        f" with: `{PROVENANCE}`. The optimizer's state lies in `{PLACE}/`, for growing and training it on.",
        sources=[origin],
    )


def clear_left(folder: Path) -> None:
    """Remove what a killed run left of a folder, whose name it has not got yet."""
    for end in (".partial", ".replaced.partial"):
        shutil.rmtree(folder.with_name(folder.name + end), ignore_errors=True)


def state_class(model: Any) -> None:
    """Let a model's config say what its folder will hold."""
    model.config.dtype = "float32"
    model.config.architectures = [type(model).__name__.removeprefix("FSDP")]


def kept_tensors(model: Any) -> dict[str, torch.Tensor]:
    """A model's weights by their live names, tied ones once, without what transformers leaves out of files."""
    return tensors_once(model, getattr(model, "_keys_to_ignore_on_save", None) or ())


def write_weights(student: Student, folder: Path) -> None:
    """A model's weights under the names that files have, tied ones once. All processes call this together."""
    model: Any = student.model
    tensors = kept_tensors(model)
    parts = stored_parts(family_named(model.config.model_type), tensors)
    listed = [(name, tensors[part.live].dtype, part.shape) for name, part in sorted(parts.items())]
    headers, slots, sizes = layout(listed, SHARD_BYTES)
    write_tensors(student.machine, tensors, folder, headers, slots, sizes, parts)
    if student.machine.is_first:
        write_index(folder, slots, sum(sizes.values()) - sum(map(len, headers.values())))


def write_moments(student: Student, folder: Path) -> None:
    """AdamW's state of what learns, in one file in a folder of its own. All processes call this together."""
    tensors = moments(student.optimizer, student.model)
    header, offsets = header_bytes([(k, v.dtype, tuple(v.shape)) for k, v in sorted(tensors.items())], metadata=False)
    slots = {name: Slot(OPTIMIZER, offset) for name, offset in offsets.items()}
    size = len(header) + sum(tensor.numel() * tensor.dtype.itemsize for tensor in tensors.values())
    if student.machine.is_first:
        (folder / PLACE).mkdir()
    write_tensors(student.machine, tensors, folder / PLACE, {OPTIMIZER: header}, slots, {OPTIMIZER: size})
