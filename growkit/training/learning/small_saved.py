"""What a run on a small module leaves: a folder of that alone. Knows PEFT's layout and growkit's own; ignorant
of steps, and of what the modules compute.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.card import ADAPTER as RELATION
from growkit.checkpoint.card import model_card
from growkit.checkpoint.source import ADAPTER, ADAPTER_CONFIG, PROVENANCE, Checkpoint
from growkit.checkpoint.writer import layout, write_json
from growkit.growth.optimizer import PLACE
from growkit.merging.lora_file import lora_settings
from growkit.merging.lora_tensors import PREFIX
from growkit.models.running import is_causal
from growkit.models.small.mixtures import MOLORA, MOV, SoftMixture
from growkit.models.small.small_file import SMALL, SMALL_WEIGHTS, small_settings
from growkit.models.small.targets import endings, unwrapped
from growkit.training.learning.control import as_lora, controls
from growkit.training.saved import Record, write_moments, write_together
from growkit.training.sharing import write_tensors
from growkit.training.student import Student
from growkit.version import __version__

NAME = "default"  # what PEFT calls an adapter that was given no name
WHOLE = 1 << 62  # bytes: one file


@dataclass(frozen=True)
class PeftFolder:
    """An adapter that stock PEFT loads, AdamW's state beside it. origin: what the run began with. word: of the card.
    card: a whole one in its place."""

    origin: Checkpoint
    word: str = ""
    card: str | None = None

    def export(
        self,
        student: Student,
        folder: Path,
        record: Record | None = None,
        more: Callable[[Path], None] = lambda _: None,
    ) -> None:
        """The folder is there when it is whole; raises RequestError where the disk has no room for it. more: called on
        the first process with the place that is filled."""
        student.settle()
        model: Any = student.model
        tensors = as_lora(model) or _learned(model)
        named = {PREFIX + name.replace(f".{NAME}", ""): tensor for name, tensor in tensors.items()}
        settings = {**_settings(model), "task_type": _task(model), "base_model_name_or_path": self.origin.label}
        card = _card(self.origin, self.word) if self.card is None else self.card
        _export(student, folder, (ADAPTER, named), (ADAPTER_CONFIG, settings), record, card, more)


@dataclass(frozen=True)
class MixtureFolder:
    """A soft mixture in growkit's own layout, AdamW's state beside it."""

    origin: Checkpoint
    mixture: SoftMixture

    def export(self, student: Student, folder: Path, record: Record | None = None) -> None:
        """The folder is there when it is whole; raises RequestError where the disk has no room for it."""
        student.settle()
        settings = small_settings(self.mixture)
        card = _card(self.origin, self.mixture.kind)
        _export(student, folder, (SMALL_WEIGHTS, _learned(student.model)), (SMALL, settings), record, card)


def _export(
    student: Student,
    folder: Path,
    weights: tuple[str, Mapping[str, torch.Tensor]],
    settings: tuple[str, Mapping[str, Any]],
    record: Record | None,
    card: str,
    more: Callable[[Path], None] = lambda _: None,
) -> None:
    """Make a folder of one weight file, (its name, tensors), and one of settings, (its name, content). more: what else
    the first process puts there."""
    file, tensors = weights
    laid = layout([(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in sorted(tensors.items())], WHOLE, file)

    def fill(place: Path) -> None:
        write_tensors(student.machine, tensors, place, *laid)
        write_moments(student, place)
        if student.machine.is_first:
            write_json(place / settings[0], dict(settings[1]))
            more(place)

    write_together(student.machine, folder, fill, record=record, card=None if record is None else card)


def _learned(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _settings(model: Any) -> dict[str, Any]:
    """What adapter_config.json says of the modules on a model, beside what model it was."""
    around = dict(controls(model))
    if around:
        every = {unwrapped(name) for name, module in model.named_modules() if not any(True for _ in module.children())}
        one = next(iter(around.values()))
        targets = sorted({*endings(every, around.keys()).values()})
        return lora_settings(one.rank, one.rank, targets, one.across)
    stated = model.peft_config[NAME]
    targets = sorted(stated.target_modules)
    if stated.peft_type == "LORA":
        stacked = stated.target_parameters
        more = {"target_parameters": sorted(stacked)} if stacked else {}
        return {**lora_settings(stated.r, stated.lora_alpha, targets, stated.fan_in_fan_out), **more}
    return {
        "peft_type": "IA3", "target_modules": targets, "feedforward_modules": sorted(stated.feedforward_modules),
        "fan_in_fan_out": stated.fan_in_fan_out, "modules_to_save": None, "inference_mode": True,
    }  # fmt: skip


def _task(model: Any) -> str | None:
    """What PEFT calls the task of a class."""
    return "CAUSAL_LM" if is_causal(model.config.to_dict()) else None


def _card(origin: Checkpoint, word: str) -> str:
    own = word in (MOV, MOLORA)
    use = "`growkit generate BASE PROMPT --adapter FOLDER`" if own else "PEFT, or `growkit apply BASE FOLDER -o OUT`"
    return model_card(
        f"{word} for {origin.name}",
        f"A small module ({word}) for `{origin.name}`, trained by growkit {__version__}; the model itself is not in it. Use"
        f" it through {use}. The whole request, and hashes of the model it was made for: `{PROVENANCE}`. AdamW's state:"
        f" `{PLACE}/`.",
        sources=[origin],
        relation=RELATION,
        tags=("growkit", word),
        library="growkit" if own else "peft",
    )
