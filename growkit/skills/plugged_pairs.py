"""Which skills may be plugged together: what each does to each other one's own data, and what is refused. Knows rho and
its bands; ignorant of how skills are plugged.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from growkit.errors import RequestError
from growkit.skills.interference import FINE, RED, mean_rho
from growkit.skills.skill_file import StoredSkill


@dataclass(frozen=True)
class Disturbed:
    """What one skill does to another one's own data, both by their folders: the mean of rho over weights. None: nobody
    knows, since they are of different panels."""

    one: str
    other: str
    rho: float | None

    @property
    def red(self) -> bool:
        """Whether the two should not be plugged as they are."""
        return self.rho is None or self.rho > RED

    def in_words(self) -> str:
        """What is to be said of it, where rho is not fine; "" where it is."""
        if self.rho is None:
            return (
                f"{self.one!r} and {self.other!r} were learned on different panels, so that what they do to each other is"
                " not known"
            )
        said = f"{self.one!r} puts out {self.rho:.2f} of what {self.other!r} does for the data of that (rho)"
        return "" if self.rho <= FINE else f"{said}, which is more than {RED if self.red else FINE:g}"


def disturbed_pairs(skills: Sequence[tuple[StoredSkill, float]]) -> list[Disturbed]:
    """Of every pair, and both ways. skills: with their strengths."""
    return [pair for two in combinations(skills, 2) for pair in _both_ways(*two)]


def check_disturbed(pairs: Sequence[Disturbed], force: bool) -> list[str]:
    """Notes on pairs that are not fine. Raises RequestError for red ones, unless forced."""
    for pair in pairs if not force else ():
        if pair.red:
            cure = (
                "learn both on one panel"
                if pair.rho is None
                else "gate them (--gated), learn one anew with --protect of the other, or lower a strength"
            )
            raise RequestError(f"{pair.in_words()}; {cure}, or plug them as they are with --force")
    return [said for said in (pair.in_words() for pair in pairs) if said]


def _both_ways(one: tuple[StoredSkill, float], other: tuple[StoredSkill, float]) -> Iterator[Disturbed]:
    first, second = (str(skill.folder) for skill, _ in (one, other))
    if one[0].facts.panel != other[0].facts.panel:
        yield Disturbed(first, second, None)
        return
    yield Disturbed(first, second, mean_rho(one[0], other[0], (one[1], other[1])))
    yield Disturbed(second, first, mean_rho(other[0], one[0], (other[1], one[1])))
