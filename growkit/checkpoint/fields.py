"""What the keys of a small file may hold, as data: types and ranges. Knows values; ignorant of files and of meaning.

A file's schema says of each key what kind it is, and `checked` holds a file to it: a key that is missing, of another
type or out of its range ends in one sentence that names file, key, what was expected and what stands there.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growkit.errors import CheckpointError

SHOWN = 60  # characters of a value in a sentence
ANY_WHOLE, ANY_NUMBER = 1 << 62, 1e300  # beyond these nothing is meant

# where in a value, "" for itself, "[3]" or ".key" in it; what is expected there; what stands there
Fault = tuple[str, str, Any]


class FieldKind(ABC):
    """What a value may be."""

    @property
    def wanted(self) -> str:
        """What is expected, in words that follow "should be"."""
        return self._words()

    def fault(self, value: Any) -> Fault | None:
        """What is wrong with a value, the first of it; None for nothing."""
        return self._within(value) if self._accepts(value) else ("", self.wanted, value)

    @abstractmethod
    def _words(self) -> str: ...

    @abstractmethod
    def _accepts(self, value: Any) -> bool:
        """Whether it is what is expected, whatever it holds."""

    def _within(self, value: Any) -> Fault | None:
        """What is wrong with what it holds."""
        return None


@dataclass(frozen=True)
class Whole(FieldKind):
    """A whole number in a range, both ends included; true and false are none."""

    least: int = 0
    most: int = ANY_WHOLE

    def _words(self) -> str:
        return f"a whole number from {self.least}" + f" to {self.most}" * (self.most < ANY_WHOLE)

    def _accepts(self, value: Any) -> bool:
        return type(value) is int and self.least <= value <= self.most


@dataclass(frozen=True)
class Number(FieldKind):
    """A finite number in a range, both ends included."""

    least: float = -ANY_NUMBER
    most: float = ANY_NUMBER

    def _words(self) -> str:
        low, high = self.least > -ANY_NUMBER, self.most < ANY_NUMBER
        return "a finite number" + f" from {self.least:g}" * low + f" to {self.most:g}" * high

    def _accepts(self, value: Any) -> bool:
        return type(value) in (int, float) and self.least <= value <= self.most


@dataclass(frozen=True)
class Text(FieldKind):
    """Text that is all of a pattern."""

    pattern: str = r"[\s\S]*"
    called: str = "text"

    def _words(self) -> str:
        return self.called

    def _accepts(self, value: Any) -> bool:
        return isinstance(value, str) and re.fullmatch(self.pattern, value) is not None


@dataclass(frozen=True)
class Flag(FieldKind):
    """True or false."""

    def _words(self) -> str:
        return "true or false"

    def _accepts(self, value: Any) -> bool:
        return isinstance(value, bool)


@dataclass(frozen=True)
class OneOf(FieldKind):
    """One of a few values."""

    values: Sequence[str | int]

    def _words(self) -> str:
        return f"one of {', '.join(map(str, self.values))}"

    def _accepts(self, value: Any) -> bool:
        return any(type(value) is type(one) and value == one for one in self.values)


@dataclass(frozen=True)
class Null(FieldKind):
    """A kind, or null."""

    kind: FieldKind

    def _words(self) -> str:
        return f"{self.kind.wanted}, or null"

    def _accepts(self, value: Any) -> bool:
        return value is None or self.kind._accepts(value)

    def _within(self, value: Any) -> Fault | None:
        return None if value is None else self.kind._within(value)


@dataclass(frozen=True)
class AnyOf(FieldKind):
    """One of several kinds; what is within it is held to the first kind that takes it."""

    kinds: Sequence[FieldKind]

    def _words(self) -> str:
        return " or ".join(kind.wanted for kind in self.kinds)

    def _accepts(self, value: Any) -> bool:
        return any(kind._accepts(value) for kind in self.kinds)

    def _within(self, value: Any) -> Fault | None:
        return next(kind for kind in self.kinds if kind._accepts(value))._within(value)


@dataclass(frozen=True)
class Called(FieldKind):
    """A kind in other words, told of as a whole: what is wrong within it is wrong with it."""

    kind: FieldKind
    words: str

    def _words(self) -> str:
        return self.words

    def _accepts(self, value: Any) -> bool:
        return self.kind.fault(value) is None


@dataclass(frozen=True)
class ListOf(FieldKind):
    """A list of one kind."""

    kind: FieldKind
    least: int = 0
    most: int = ANY_WHOLE

    def _words(self) -> str:
        least, most = f" of at least {self.least}" * (self.least > 0), f" of at most {self.most}"
        return f"a list{least}{most * (self.most < ANY_WHOLE)}, each {self.kind.wanted}"

    def _accepts(self, value: Any) -> bool:
        return isinstance(value, list) and self.least <= len(value) <= self.most

    def _within(self, value: Any) -> Fault | None:
        return _first((f"[{number}]", self.kind.fault(entry)) for number, entry in enumerate(value))


@dataclass(frozen=True)
class MapOf(FieldKind):
    """An object whose values are of one kind, and its keys text of another."""

    kind: FieldKind
    keys: FieldKind = Text()

    def _words(self) -> str:
        return f"an object, each value {self.kind.wanted}"

    def _accepts(self, value: Any) -> bool:
        return isinstance(value, dict)

    def _within(self, value: Any) -> Fault | None:
        entries = ((f".{shown(key)}", self.keys.fault(key) or self.kind.fault(entry)) for key, entry in value.items())
        return _first(entries)


@dataclass(frozen=True)
class Fields(FieldKind):
    """An object with keys of its own kinds; those in `needed` must stand there, unknown ones may."""

    kinds: Mapping[str, FieldKind]
    needed: Sequence[str] = ()

    def _words(self) -> str:
        return "an object" + f" with {', '.join(self.needed)}" * bool(self.needed)

    def _accepts(self, value: Any) -> bool:
        return isinstance(value, dict) and set(self.needed) <= value.keys()

    def _within(self, value: Any) -> Fault | None:
        return _first((f".{key}", kind.fault(value[key])) for key, kind in self.kinds.items() if key in value)


def _first(faults: Iterable[tuple[str, Fault | None]]) -> Fault | None:
    """The first fault there is, with where it is put before its place."""
    return next(((where + fault[0], *fault[1:]) for where, fault in faults if fault), None)


def checked(content: Any, schema: Fields, where: Path | str, then: str = "mend or fetch it again") -> dict[str, Any]:
    """The content of a file, which is as its schema says. where: the file, or words for the place in one. then: what
    to do.

    Raises CheckpointError naming the place, the key, what is expected and what stands there.
    """
    name = repr(str(where)) if isinstance(where, Path) else where
    if isinstance(content, dict):
        for key in schema.needed:
            if key not in content:
                wanted = f", {schema.kinds[key].wanted}" if key in schema.kinds else ""
                raise CheckpointError(f"{name} lacks {key!r}{wanted}; {then}")
    fault = schema.fault(content)
    if fault is not None:
        place, wanted, value = fault
        raise CheckpointError(
            f"{name} should have {place[1:]} as {wanted}, not {shown(value)}; {then}"
            if place
            else f"{name} should hold {wanted}, not {shown(value)}; {then}"
        )
    return content


def shown(value: Any) -> str:
    """A value as it stands in a sentence: short, whatever its size."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
