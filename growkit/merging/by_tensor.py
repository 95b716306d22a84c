"""Numbers that depend on the tensor, by layer and by name, as data: weights, shares, scales. Knows where a tensor
stands; ignorant of what its number is for.

    0.5                                        the same for every tensor
    [0, 0.5, 1]                                a gradient: spread evenly over the layers, straight lines between
    {"self_attn": [0, 1], "mlp": 0.3, "*": 1}  by a part of the tensor's name, the first that fits

What stands outside the layers (embeddings, last norm, head) has a gradient's first number, as mergekit has it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from growkit.errors import RequestError

EVERY = "*"
MOST = 4096  # numbers of one gradient
LARGEST = 1e30

Spelling = float | Sequence[float] | Mapping[str, float | Sequence[float]]


@dataclass(frozen=True)
class Place:
    """Where a tensor of the result stands. layer: from 0; -1 before the layers and `layers` after them."""

    names: tuple[str, ...]
    layer: int
    layers: int


@dataclass(frozen=True)
class Stretched:
    """A number, or a gradient, and where it holds."""

    values: tuple[float, ...]
    name: str = EVERY  # only tensors with this in their name
    layers: tuple[int, int] | None = None  # from the first to before the second, over which it is spread; None: all

    def at(self, place: Place) -> float | None:
        """The number for a tensor, None where this part says nothing of it."""
        first, stop = self.layers or (0, place.layers)
        within = first <= place.layer < stop
        outside = (place.layer < 0 and first == 0) or (place.layer == stop == place.layers)
        if not (within or outside) or not (self.name == EVERY or any(self.name in name for name in place.names)):
            return None
        part = 0.0 if outside else (place.layer - first) / (stop - first - 1) if stop - first > 1 else 1.0
        way = part * (len(self.values) - 1)
        low = int(way)
        high = min(low + 1, len(self.values) - 1)
        return (1 - (way - low)) * self.values[low] + (way - low) * self.values[high]


@dataclass(frozen=True)
class ByTensor:
    """A number by tensor: the first part that says something of it, else `otherwise`."""

    parts: tuple[Stretched, ...]
    otherwise: float = 0.0

    def at(self, place: Place) -> float:
        """The number for a tensor."""
        return next((number for part in self.parts if (number := part.at(place)) is not None), self.otherwise)

    def each(self, change: Any) -> "ByTensor":
        """With `change` made to every number; a gradient stays one where the change is linear."""
        parts = tuple(replace(part, values=tuple(map(change, part.values))) for part in self.parts)
        return ByTensor(parts, change(self.otherwise))

    def to_json(self) -> list[dict[str, Any]]:
        """The parts as plain data, in the order in which they are asked."""
        return [
            {"value": list(part.values) if len(part.values) > 1 else part.values[0]}
            | ({"filter": part.name} if part.name != EVERY else {})
            | ({"layers": list(part.layers)} if part.layers else {})
            for part in self.parts
        ]


Number = float | ByTensor


def number_at(number: Number, place: Place) -> float:
    """The number for a tensor."""
    return number.at(place) if isinstance(number, ByTensor) else number


def plain(number: Number) -> Any:
    """A number as plain data."""
    return number.to_json() if isinstance(number, ByTensor) else number


def in_words(number: Number) -> str:
    """A number as a table shows it."""
    if not isinstance(number, ByTensor):
        return f"{number:g}"
    words = []
    for part in number.parts:
        values = " ".join(f"{value:g}" for value in (*part.values[:4], *part.values[4:][-1:]))
        where = f" of layers {part.layers[0] + 1}-{part.layers[1]}" if part.layers else ""
        words.append((f"{part.name}: " if part.name != EVERY else "") + values + where)
    return "; ".join(dict.fromkeys(words[:4])) + ("; ..." if len(words) > 4 else "")


def by_tensor(value: Any, what: str) -> Number:
    """A number as people write it (see above). what: its name in a sentence.

    Raises RequestError for what is no finite number, for an empty list and for more than can be meant.
    """
    if isinstance(value, Mapping):
        if not value:
            raise RequestError(f"{what} is an empty table; write for example {{'self_attn': 0.5, '*': 1}}")
        return ByTensor(tuple(Stretched(_values(inner, what), str(name)) for name, inner in value.items()))
    values = _values(value, what)
    return values[0] if not isinstance(value, Sequence) or isinstance(value, str) else ByTensor((Stretched(values),))


def _values(value: Any, what: str) -> tuple[float, ...]:
    listed = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not 0 < len(listed) <= MOST:
        raise RequestError(f"{what} lists {len(listed)} numbers; a gradient has 1 to {MOST}")
    return tuple(_number(one, what) for one in listed)


def _number(value: Any, what: str) -> float:
    try:
        number = float("nan") if isinstance(value, bool) or value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not isfinite(number) or abs(number) > LARGEST:
        raise RequestError(f"{what} should be a finite number, or a list of them, not {str(value)[:60]!r}")
    return number
