"""How long a model keeps the multipliers of rate, decay and eps that its growth gave it: rows of one table. Knows
exponents; ignorant of optimizers.

A multiplier m acts as m^e: e is 1 where the small model's dynamics go on exactly, and 0 where they are let go.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from growkit.errors import RequestError
from growkit.limits import STEPS


@dataclass(frozen=True)
class Row:
    """How it is written, and the exponent at a step of the run; over: the number behind the name, where it has one."""

    written: str
    exponent: Callable[[int, int], float]


HALF = "relax"  # over half of the run, which was better than exact and than off (docs/benchmarks.md)
WAYS: dict[str, Row] = {
    "exact": Row("exact", lambda step, over: 1.0),
    "relax": Row("relax:N", lambda step, over: max(0.0, 1.0 - step / over)),
    "off": Row("off", lambda step, over: 0.0),
}
_WORD = re.compile(r"([a-z]+)(?::(\d{1,30}))?")


def made_whole(word: str, steps: int) -> str:
    """The word with its number: where none says over how many steps to relax, half of a run's."""
    return f"{HALF}:{max(1, steps // 2)}" if word == HALF else word


def exponent(word: str, step: int) -> float:
    """What the exponent of every multiplier is at a step, counted from 0. Raises RequestError for what is no row."""
    match = _WORD.fullmatch(word)
    row = WAYS.get(match[1]) if match else None
    if match is None or row is None or (":" in row.written) != (match[2] is not None):
        known = ", ".join([HALF, *(row.written for row in WAYS.values())])
        raise RequestError(f"--multipliers {word!r} is not one of {known}")
    over = int(match[2] or 1)
    if not 1 <= over <= STEPS:
        raise RequestError(f"--multipliers {word!r} should relax over 1 to {STEPS} steps")
    return row.exponent(step, over)
