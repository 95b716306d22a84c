"""Teachers that speak of one domain each. Knows which positions of a batch are whose; ignorant of what teachers say and
of how much it counts.

With several teachers each teaches on its own domain's data alone (Qin et al., arXiv 2105.13880), and what no teacher
speaks for is learned alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from growkit.data.batches import IGNORED, Batch, BatchSource, batch_of
from growkit.data.tokens import Tokens
from growkit.errors import RequestError
from growkit.training.machine import Machine
from growkit.training.objective import Word
from growkit.training.settings import Settings
from growkit.training.teachers.teacher import Speaker, Teacher, open_teacher


@dataclass(frozen=True)
class PlacedWord:
    """Words on rows of their own. words: each with how many it speaks of, in the order of rows."""

    words: Sequence[tuple[int, Word]]
    rows: torch.Tensor

    def nats(self, logits: torch.Tensor) -> torch.Tensor:
        """tau^2 KL(teacher || student), summed over all teachers."""
        total = logits.new_zeros(())
        for (_, word), own in zip(self.words, logits.split([count for count, _ in self.words])):
            total = total + word.nats(own)
        return total


@dataclass
class DomainTeacher:
    """A teacher that speaks of one domain alone. name, number: the domain's. share: of the tokens that are of it. It
    knows number and share once it is checked."""

    teacher: Teacher
    name: str
    number: int = -1
    share: float = 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of what it teaches."""
        return self.teacher.notes

    @property
    def masks(self) -> tuple[int, int, int] | None:
        """(mask token, vocabulary, seed) of the only masks that it can speak of; None: of any, or of none."""
        return self.teacher.masks

    def check(self, config: dict[str, Any], tokens: Tokens) -> None:
        """Refuse a domain that the data has no training text of, and what the teacher itself refuses. Raises
        RequestError."""
        domains = tokens.domains
        if domains is None:
            raise RequestError(
                f"--teacher {self.name}=... teaches a domain, and {str(tokens.path.parent)!r} has none; tokenize with tags,"
                " name=PATH, or give a teacher for everything"
            )
        counts = dict(zip(domains.names, domains.tokens(len(tokens))))
        if not counts.get(self.name):
            there = ", ".join(name for name, count in counts.items() if count)
            raise RequestError(
                f"--teacher {self.name}=... teaches a domain of which {str(tokens.path)!r} has no text; it has {there}"
            )
        self.number, self.share = domains.names.index(self.name), counts[self.name] / len(tokens)
        self.teacher.check(config, tokens)

    def says(self, batch: Batch) -> Callable[[slice], Word]:
        """What gives its word on its own of a piece of the positions that a batch predicts; it reads only rows that
        have some."""
        own, device = batch.only(self.number), batch.labels.device
        places = (batch.of == self.number).nonzero().squeeze(1)
        said = self.teacher.says(own) if own.predicted else None

        def word(piece: slice) -> Word:
            first, last = torch.searchsorted(places, torch.tensor([piece.start, piece.stop])).tolist()
            rows = (places[first:last] - piece.start).to(device)
            if said is None or first == last:
                return PlacedWord((), rows)
            part = said(slice(first, last))
            rows = rows if part.rows is None else rows[part.rows]
            return PlacedWord([(len(rows), part)], rows)

        return word

    def validation_loss(self, val: BatchSource) -> float:
        """Its own mean nats per predicted token of its domain."""
        return self.teacher.validation_loss(DomainWindows(val, self.number))

    def flops(self, tokens: int, length: int) -> float:
        """Operations that it spends on its share of so many tokens."""
        return self.share * self.teacher.flops(tokens, length)

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the weight files of the model whose word it is, by name."""
        return self.teacher.hashes()


@dataclass(frozen=True)
class Together:
    """Teachers of several domains as one, each speaking of its own rows."""

    teachers: Sequence[Speaker]

    def says(self, batch: Batch) -> Callable[[slice], Word]:
        """What gives all their words on a piece."""
        said = [teacher.says(batch) for teacher in self.teachers]

        def word(piece: slice) -> Word:
            words = [each(piece) for each in said]
            rows = [each.rows for each in words if each.rows is not None]
            assert len(rows) == len(words), "a teacher of a domain speaks of everything"
            return PlacedWord([(len(own), each) for own, each in zip(rows, words)], torch.cat(rows))

        return word

    def flops(self, tokens: int, length: int) -> float:
        """Operations that all spend on so many tokens."""
        return sum(teacher.flops(tokens, length) for teacher in self.teachers)


class DomainWindows:
    """What windows predict of one domain. windows: of all domains. number: the domain's."""

    def __init__(self, windows: BatchSource, number: int):
        self._all, self._number = windows, number
        self.size, self.domains, self.windows = windows.size, windows.domains, windows.windows

    def rows(self, step: int, first: int, count: int) -> Batch:
        """Those of rows first .. first + count of a step that predict something of it."""
        return self._own(self._all.rows(step, first, count))

    def at(self, numbers: Sequence[int]) -> Batch:
        """Those of windows by their numbers that predict something of it."""
        return self._own(self._all.at(numbers))

    def predicted(self, step: int) -> int:
        """How many tokens of it a whole step predicts."""
        return self.rows(step, 0, self.size).predicted

    def _own(self, batch: Batch) -> Batch:
        """At least one row, as models take no fewer; there may be nothing to predict in it."""
        own = batch.only(self._number)
        if own.predicted:
            return own
        nothing = torch.full_like(batch.labels[:1], IGNORED)
        assert batch.domains is not None
        return batch_of(batch.inputs[:1], nothing, batch.places[:1], batch.domains[:1])


def open_teachers(settings: Settings, machine: Machine) -> dict[str, Teacher]:
    """The teachers of a run by the domains that they speak for. Raises RequestError as open_teacher does."""
    opened = {name: open_teacher(spec, settings, machine) for name, spec in settings.teachers.items()}
    return {name: DomainTeacher(teacher, name) if name else teacher for name, teacher in opened.items()}
