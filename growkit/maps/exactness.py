"""How much of a function survives a change. Knows three words and their order; ignorant of what is changed."""

from enum import IntEnum


class Exactness(IntEnum):
    """How much of the function survives, worst last."""

    EXACT = 0
    NEAR = 1
    APPROXIMATE = 2

    def __str__(self) -> str:
        return self.name.lower()
