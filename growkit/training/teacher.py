"""What a teacher says of a batch. Knows where its logits come from, a small model that runs beside the student;
ignorant of how much its word counts.

A store of probabilities written down earlier is one more opener in OPENERS, and nothing else changes.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

import torch

from growkit.data.batches import Batch, BatchSource
from growkit.data.tokens import Tokens
from growkit.errors import GrowkitError, RequestError
from growkit.families import vocabulary_size
from growkit.growth.sources import open_source
from growkit.models.running import is_causal, objective
from growkit.training.blank import Blank, blank_model, check_trainable
from growkit.training.flops import forward_flops
from growkit.training.machine import Machine
from growkit.training.objective import Predicted, WholeWord, Word
from growkit.training.run_request import usable_positions
from growkit.training.settings import Settings
from growkit.training.sharing import give_memory
from growkit.training.validation import validate


class Speaker(Protocol):
    """What a step knows of whoever teaches in it."""

    def says(self, batch: Batch) -> Callable[[slice], Word]:
        """What gives its word on a piece of the positions that a batch predicts, in their order."""

    def flops(self, tokens: int, length: int) -> float:
        """Operations that it spends on a batch of `tokens` tokens in sequences of `length`."""


class Teacher(Speaker, Protocol):
    """All that a run knows of its teacher. Opening one is cheap; what it needs is loaded when it first speaks."""

    def check(self, config: dict[str, Any], tokens: Tokens) -> None:
        """Refuse to teach a model of this config on these tokens. Raises RequestError with one sentence."""

    def validation_loss(self, val: BatchSource) -> float:
        """Its own mean nats per predicted token over the windows that the model is validated on."""

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the weight files of the model whose word it is, by name."""


class LiveTeacher:
    """A frozen model on this process's device, in the precision that matrices are multiplied in."""

    def __init__(self, spec: str, settings: Settings, machine: Machine):
        self._spec, self._settings, self._machine = spec, settings, machine
        try:
            self._source = open_source(spec)
        except GrowkitError as error:
            raise RequestError(f"--teacher: {error}") from None
        self._source.close()

    @cached_property
    def _blank(self) -> Blank:
        return blank_model(self._source)

    @cached_property
    def _model(self) -> Any:
        model = self._blank.model.to(self._machine.precision)
        give_memory(model, self._machine.device)
        self._blank.fill()
        return model.eval().requires_grad_(False)

    def check(self, config: dict[str, Any], tokens: Tokens) -> None:
        """Refuse to teach a model of other tokens, of another objective, or of more positions. Raises RequestError, and
        CheckpointError where its weights are quantised."""
        check_trainable(self._source)
        teacher, theirs, length = self._spec, self._source.config or {}, self._settings.seq_len
        if vocabulary_size(theirs) != vocabulary_size(config):
            raise RequestError(
                f"the teacher {teacher!r} has a vocabulary of {vocabulary_size(theirs)}, the model of"
                f" {vocabulary_size(config)}; they must share one"
            )
        if objective(theirs, teacher) != is_causal(config):
            raise RequestError(
                f"the teacher {teacher!r} and the model do not predict alike: one fills in masked tokens, the other goes on"
            )
        positions = usable_positions(theirs)
        if positions is not None and positions < length:
            raise RequestError(f"the teacher {teacher!r} has {positions} positions, fewer than --seq-len {length}")

    def says(self, batch: Batch) -> Callable[[slice], Word]:
        """What gives its logits for a piece of the positions that the batch predicts."""
        with torch.no_grad():
            predicted = Predicted(self._model, batch)

        def word(piece: slice) -> Word:
            with torch.no_grad():
                return WholeWord(predicted.logits(predicted.hidden[piece]), self._settings.temperature)

        return word

    def validation_loss(self, val: BatchSource) -> float:
        """Mean nats per predicted token of the validation windows."""
        return validate(self._model, val, self._settings, self._machine)[0]

    def flops(self, tokens: int, length: int) -> float:
        """Operations of its forward pass; asks for no weights."""
        return forward_flops(self._blank.model, tokens, length)

    def hashes(self) -> dict[str, str]:
        """SHA-256 of its weight files by name."""
        return self._source.hashes()


OPENERS: list[Callable[[str, Settings, Machine], Teacher | None]] = [
    LiveTeacher
]  # the first that knows a specification


def open_teacher(spec: str, settings: Settings, machine: Machine) -> Teacher:
    """The teacher that a specification means, today the folder of a model. Raises RequestError where there is none."""
    for opener in OPENERS:
        teacher = opener(spec, settings, machine)
        if teacher is not None:
            return teacher
    raise RequestError(f"--teacher {spec!r} is nothing that can teach; give the folder of a model")
