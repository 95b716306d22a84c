"""Which skills may be plugged into one model: what each does on each other one's data, and what is refused. Knows the
bands of rho; ignorant of how skills are plugged.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from growkit.errors import RequestError
from growkit.skills.checking.checked_skills import PanelSkill
from growkit.skills.checking.from_sketches import energies_of_sketches
from growkit.skills.checking.rho import AMBER, RED, Interference, interference_of
from growkit.skills.gates.named_skills import NamedSkill
from growkit.skills.skill_file import StoredSkill


@dataclass(frozen=True)
class PluggedPairs:
    """Every pair of skills, both ways. unknown: sentences on pairs of which nobody can tell."""

    known: Sequence[Interference]
    unknown: Sequence[str]

    def checked(self, force: bool) -> list[str]:
        """Notes on pairs that are not green. Raises RequestError for red ones and unknown ones, unless forced."""
        as_they_are = "or plug them as they are with --force"
        for pair in self.known if not force else ():
            if pair.band == RED:
                raise RequestError(
                    f"{_said(pair)}, which is red; gate them (--gated), learn one anew with --protect of the other, lower a"
                    f" strength, {as_they_are}"
                )
        if self.unknown and not force:
            raise RequestError(f"{self.unknown[0]}; learn both on one panel, {as_they_are}")
        marked = [f"{_said(pair)}, which is {pair.band}" for pair in self.known if pair.band in (AMBER, RED)]
        return [*marked, *self.unknown]


def plugged_pairs(skills: Sequence[tuple[NamedSkill, StoredSkill]]) -> PluggedPairs:
    """What skills do to each other at their strengths, those of strength 0 nothing. Raises CheckpointError for one that
    holds no sound numbers."""
    skills = [(named, stored) for named, stored in skills if named.strength]
    kinds: dict[str, list[PanelSkill]] = {}
    for named, stored in skills:
        one = PanelSkill(named=named, weights=dict(stored.facts.weights), stored=stored)
        if one.has_sketch:
            kinds.setdefault(stored.facts.panel, []).append(one)
    known = [pair for alike in kinds.values() if len(alike) > 1 for pair in _both_ways(alike)]
    return PluggedPairs(known, [said for two in combinations(skills, 2) if (said := _why_unknown(*two))])


def _both_ways(skills: Sequence[PanelSkill]) -> Iterator[Interference]:
    measured = energies_of_sketches(skills)
    for target in skills:
        for source in skills:
            if source is not target:
                pair = source.name, target.name
                yield interference_of(*pair, measured[pair], measured[target.name, target.name])


def _why_unknown(one: tuple[NamedSkill, StoredSkill], other: tuple[NamedSkill, StoredSkill]) -> str:
    names = f"{str(one[0].folder)!r} and {str(other[0].folder)!r}"
    if one[1].facts.panel != other[1].facts.panel:
        return f"{names} were learned on different panels, so nobody knows what they do to each other"
    blind = next((named for named, stored in (one, other) if not stored.facts.sketch["tokens"]), None)
    return (
        ""
        if blind is None
        else f"{str(blind.folder)!r} has a sketch of no tokens, so nobody knows what others do to it"
    )


def _said(pair: Interference) -> str:
    much = "" if pair.mean is None else f": rho {pair.mean:.2f}"
    return f"{pair.source!r} disturbs {pair.target!r}{much}"
