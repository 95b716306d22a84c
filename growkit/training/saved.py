"""What of a model is kept as a folder, between stages and at the end. Knows Hugging Face folders and what growkit lays beside
their weights; ignorant of steps, and of who reads them.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from growkit.checkpoint.companions import copy_companions
from growkit.checkpoint.headers import header_bytes
from growkit.checkpoint.record import FORMAT
from growkit.checkpoint.source import Checkpoint
from growkit.checkpoint.writer import Slot, layout, write_index, write_json
from growkit.families import family_named
from growkit.growth.optimizer import MULTIPLIERS, OPTIMIZER
from growkit.training.optim import moments
from growkit.training.sharing import stored_parts, write_tensors
from growkit.training.student import Student

SHARD_BYTES = 50 * 10**9  # of a weight file at most, as transformers has it


class Saved(Protocol):
    """A run's choice of what it leaves. Checkpoints to resume from hold what learns, whatever this says."""

    def export(self, student: Student, folder: Path) -> None:
        """Write a folder from which another program, or the next stage, goes on. All processes call this together."""


@dataclass(frozen=True)
class WholeModel:
    """The whole model as a Hugging Face folder, AdamW's state and rates beside it, with the tokenizer of the checkpoint that
    the run began with, which is origin."""

    origin: Checkpoint

    def export(self, student: Student, folder: Path) -> None:
        """The folder is there when it is whole."""
        student.settle()
        partial, first = folder.with_name(folder.name + ".partial"), student.machine.is_first
        if first:
            self._begin(student, partial)
        write_weights(student, partial)
        write_moments(student, partial)
        if first:
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)

    def _begin(self, student: Student, folder: Path) -> None:
        model: Any = student.model
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        model.config.dtype = "float32"
        model.config.architectures = [type(model).__name__.removeprefix("FSDP")]
        model.config.save_pretrained(folder)
        if model.can_generate():
            model.generation_config.save_pretrained(folder)
        if self.origin.folder is not None:
            hidden = model.config.hidden_size
            copy_companions(self.origin.folder, folder, (hidden, hidden))
        rates = {"format": FORMAT, "optimizer": "AdamW", "multipliers": student.multipliers}
        write_json(folder / MULTIPLIERS, rates)


def write_weights(student: Student, folder: Path) -> None:
    """A model's weights under the names that files have, tied ones once. All processes call this together."""
    model: Any = student.model
    seen, tensors = set[int](), dict[str, torch.Tensor]()
    left_out = set(getattr(model, "_keys_to_ignore_on_save", None) or ())
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen and name not in left_out:
            seen.add(id(tensor))
            tensors[name] = tensor
    parts = stored_parts(family_named(model.config.model_type), tensors)
    listed = [(name, tensors[part.live].dtype, part.shape) for name, part in sorted(parts.items())]
    headers, slots, sizes = layout(listed, SHARD_BYTES)
    write_tensors(student.machine, tensors, folder, headers, slots, sizes, parts)
    if student.machine.is_first:
        write_index(folder, slots, sum(sizes.values()) - sum(map(len, headers.values())))


def write_moments(student: Student, folder: Path) -> None:
    """AdamW's state of what learns, in one file. All processes call this together."""
    tensors = moments(student.optimizer, student.model)
    header, offsets = header_bytes([(k, v.dtype, tuple(v.shape)) for k, v in sorted(tensors.items())], metadata=False)
    slots = {name: Slot(OPTIMIZER, offset) for name, offset in offsets.items()}
    size = len(header) + sum(tensor.numel() * tensor.dtype.itemsize for tensor in tensors.values())
    write_tensors(student.machine, tensors, folder, {OPTIMIZER: header}, slots, {OPTIMIZER: size})
