"""What a teacher says of a batch. Knows where its logits come from, a small model that runs beside the student, or who
else has them (OPENERS); ignorant of how much its word counts.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

import torch

from growkit.checkpoint.same_tokenizer import not_the_beginning
from growkit.data.batches import Batch, BatchSource
from growkit.data.tokens import Tokens
from growkit.errors import GrowkitError, RequestError
from growkit.families import vocabulary_size
from growkit.growth.sources import open_source
from growkit.models.running import is_causal, objective
from growkit.training.blank import Blank, blank_model, check_trainable
from growkit.training.flops import forward_flops
from growkit.training.machine import Machine
from growkit.training.objective import Predicted, WholeWord, Word, is_masked
from growkit.training.run_request import usable_positions
from growkit.training.settings import Settings
from growkit.training.sharing import give_memory
from growkit.training.teachers.shared_vocabulary import mean_of_known, nats_of, of_the_beginning, readable
from growkit.training.teachers.stored_teacher import stored_teacher
from growkit.training.validation import validate


class Speaker(Protocol):
    """What a step knows of whoever teaches in it."""

    def says(self, batch: Batch) -> Callable[[slice], Word]:
        """What gives its word on a piece of the positions that a batch predicts, in their order."""

    def flops(self, tokens: int, length: int) -> float:
        """Operations that it spends on a batch of `tokens` tokens in sequences of `length`."""


class Teacher(Speaker, Protocol):
    """All that a run knows of its teacher. Opening one is cheap; what it needs is loaded when it first speaks."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of what it teaches, once it is checked."""

    @property
    def masks(self) -> tuple[int, int, int] | None:
        """(mask token, vocabulary, seed) of the only masks that it can speak of, each window always with its own; None:
        of any, or of none."""

    def check(self, config: dict[str, Any], tokens: Tokens) -> None:
        """Refuse to teach a model of this config on these tokens. Raises RequestError with one sentence."""

    def validation_loss(self, val: BatchSource) -> float:
        """Its own mean nats per predicted token over the windows that the model is validated on."""

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the weight files of the model whose word it is, by name."""


def frozen(blank: Blank, machine: Machine) -> Any:
    """A model on a process's device that does not learn, in the precision that matrices are multiplied in."""
    model = blank.model.to(machine.precision)
    give_memory(model, machine.device)
    blank.fill()
    return model.eval().requires_grad_(False)


class LiveTeacher:
    """A frozen model on this process's device, in the precision that matrices are multiplied in."""

    notes: tuple[str, ...]
    masks: tuple[int, int, int] | None

    def __init__(self, spec: str, settings: Settings, machine: Machine):
        self._spec, self._settings, self._machine = spec, settings, machine
        self.notes, self.masks = (), None
        self._vocabulary: int | None = None  # where it is only the beginning of the model's
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
        return frozen(self._blank, self._machine)

    def check(self, config: dict[str, Any], tokens: Tokens) -> None:
        """Refuse to teach a model of other tokens, of another objective, or of more positions. Raises RequestError, and
        CheckpointError where its weights are quantised."""
        check_trainable(self._source)
        teacher, theirs, length = self._spec, self._source.config or {}, self._settings.seq_len
        model, own, entries = self._settings.checkpoint, vocabulary_size(theirs), vocabulary_size(config)
        if own > entries:
            raise RequestError(
                f"the teacher {teacher!r} has a vocabulary of {own}, the model of {entries}; the teacher's must be the"
                " model's, or the beginning of it"
            )
        unlike = not_the_beginning((teacher, model), (self._source.folder, open_source(model).folder), own)
        if unlike:
            raise RequestError(f"the teacher's vocabulary is not the beginning of the model's: {unlike}")
        if objective(theirs, teacher) != is_causal(config):
            raise RequestError(
                f"the teacher {teacher!r} and the model do not predict alike: one fills in masked tokens, the other goes on"
            )
        positions = usable_positions(theirs)
        if positions is not None and positions < length:
            raise RequestError(f"the teacher {teacher!r} has {positions} positions, fewer than --seq-len {length}")
        if own < entries:
            self._vocabulary, self.notes = own, (of_the_beginning(own, entries),)

    def says(self, batch: Batch) -> Callable[[slice], Word]:
        """What gives its logits for a piece of the positions that the batch predicts."""
        speaks = None
        if self._vocabulary is not None:
            batch, speaks = readable(batch, self._vocabulary, not is_masked(self._model.config))
        with torch.no_grad():
            predicted = Predicted(self._model, batch)

        def word(piece: slice) -> Word:
            rows = None if speaks is None else speaks[piece].nonzero()[:, 0]
            hidden = predicted.hidden[piece]
            with torch.no_grad():
                theirs = predicted.logits(hidden if rows is None else hidden[rows])
            return WholeWord(theirs, self._settings.temperature, rows)

        return word

    def validation_loss(self, val: BatchSource) -> float:
        """Mean nats per predicted token of the validation windows; of those that it knows, where the model knows
        more."""
        if self._vocabulary is None:
            return validate(self._model, val, self._settings, self._machine)[0]
        vocabulary = self._vocabulary
        return mean_of_known(
            val, self._settings, self._machine, lambda batch: nats_of(self._model, batch, vocabulary, self._machine)
        )

    def flops(self, tokens: int, length: int) -> float:
        """Operations of its forward pass; asks for no weights."""
        return forward_flops(self._blank.model, tokens, length)

    def hashes(self) -> dict[str, str]:
        """SHA-256 of its weight files by name."""
        return self._source.hashes()


# the first that knows a specification
OPENERS: list[Callable[[str, Settings, Machine], Teacher | None]] = [stored_teacher, LiveTeacher]


def open_teacher(spec: str, settings: Settings, machine: Machine) -> Teacher:
    """The teacher that a specification means: a store, or the folder of a model. Raises RequestError where there is
    none."""
    for opener in OPENERS:
        teacher = opener(spec, settings, machine)
        if teacher is not None:
            return teacher
    raise RequestError(f"--teacher {spec!r} is nothing that can teach; give the folder of a model")
