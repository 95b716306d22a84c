"""From the words of `growkit skill check` to the table that decides whether skills may be plugged together. Knows the
order of things; ignorant of how each number comes to be.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from growkit.errors import RequestError
from growkit.skills.checking.checked_skills import PanelSkill, open_panel_skill
from growkit.skills.checking.from_sketches import energies_of_sketches
from growkit.skills.checking.rho import RED, Interference, interference_of, together
from growkit.skills.gates.named_skills import named_skills
from growkit.skills.panel_file import open_panel

MOST = 64  # skills: pairs are their square


@dataclass(frozen=True, kw_only=True)
class CheckedOne:
    """A skill of the table. sha256: of its weights. lost: the sum of the others' mean rho squared, about the share of
    what it learned that they undo together where all are plugged."""

    name: str
    folder: str
    sha256: str
    strength: float
    lost: float


@dataclass(frozen=True, kw_only=True)
class SkillCheck:
    """What was measured. pairs: every skill on every other's data."""

    panel: str
    skills: tuple[CheckedOne, ...]
    pairs: tuple[Interference, ...]
    notes: tuple[str, ...] = field(default=())

    def pair(self, source: str, target: str) -> Interference:
        """What one skill does on another's data."""
        return next(pair for pair in self.pairs if (pair.source, pair.target) == (source, target))

    @property
    def red(self) -> tuple[Interference, ...]:
        """The pairs that should not be plugged together."""
        return tuple(pair for pair in self.pairs if pair.band == RED)

    @property
    def together(self) -> list[tuple[str, str]]:
        """Pairs of names that are green both ways."""
        return together(list(self.pairs))

    def to_json(self) -> dict[str, Any]:
        """All figures as plain data."""
        return {
            "panel": self.panel,
            "skills": [vars(skill) for skill in self.skills],
            "pairs": [pair.to_json() for pair in self.pairs],
            "together": [list(pair) for pair in self.together],
            "red": [[pair.source, pair.target] for pair in self.red],
            "notes": list(self.notes),
        }


def check_skills(panel: str | Path, words: Sequence[str | Path]) -> SkillCheck:
    """Measure what skills do to each other. words: as named_skills reads them. Raises CheckpointError or
    RequestError."""
    named = named_skills(words)
    if len(named) < 2:
        raise RequestError(f"skill check compares skills, and {len(named)} is named; name two or more")
    if len(named) > MOST:
        raise RequestError(f"skill check compares {MOST} skills at most, and {len(named)} are named")
    opened = open_panel(panel)
    skills = [open_panel_skill(one, opened) for one in named]
    for skill in skills:
        if not skill.has_sketch:
            raise RequestError(f"{str(skill.named.folder)!r} has a sketch of no tokens; learn the skill again")
    measured = energies_of_sketches(skills)
    pairs = [
        interference_of(s.name, t.name, measured[s.name, t.name], measured[t.name, t.name])
        for t in skills
        for s in skills
        if s is not t
    ]
    lines = tuple(_line(skill, pairs) for skill in skills)
    for skill in skills:
        skill.stored.close()
    return SkillCheck(panel=str(panel), skills=lines, pairs=tuple(pairs), notes=tuple(_notes(skills, pairs)))


def _line(skill: PanelSkill, pairs: Sequence[Interference]) -> CheckedOne:
    return CheckedOne(
        name=skill.name,
        folder=str(skill.named.folder),
        sha256=skill.stored.hash,
        strength=skill.named.strength,
        lost=sum((pair.mean or 0.0) ** 2 for pair in pairs if pair.target == skill.name),
    )


def _notes(skills: Sequence[PanelSkill], pairs: Sequence[Interference]) -> list[str]:
    notes = []
    for skill in skills:
        own = [pair for pair in pairs if pair.target == skill.name]
        if not any(pair.rho for pair in own):
            notes.append(f"{skill.name} changes nothing yet, so there is nothing of it that another could disturb")
        elif any(pair.beside for pair in own):
            most = max(pair.beside for pair in own)
            notes.append(
                f"others change {most} weights that {skill.name} leaves alone; what that does to it rho does not say:"
                " --base and --data measure it"
            )
    return notes
