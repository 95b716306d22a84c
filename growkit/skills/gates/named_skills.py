"""Skills as people name them: NAME=FOLDER:STRENGTH, of which the folder alone must be said, and data and pairs of them.
Knows words; ignorant of what is in folders.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from growkit.data.domains import NAME
from growkit.data.tagged import untagged
from growkit.errors import RequestError
from growkit.merging.methods import parse_member
from growkit.skills.gates.certificate_words import LEAST_STRENGTH, MOST_SKILLS, MOST_STRENGTH
from growkit.training.run_folder import FINAL

Path_ = str | Path


@dataclass(frozen=True, kw_only=True)
class NamedSkill:
    """A skill to plug."""

    name: str
    folder: Path
    strength: float = 1.0


def named_skills(skills: Sequence[Path_ | tuple[Path_, float]]) -> list[NamedSkill]:
    """Skills by name. One that nobody names is called by its folder, and RUN/final by RUN.

    Raises RequestError where there are none, and for a strength that is none.
    """
    if not skills:
        raise RequestError("nothing to plug: name the skills, such as SUMS FACTS:0.5")
    return [_named(*skill) if isinstance(skill, tuple) else _parsed(str(skill)) for skill in skills]


def check_names(named: Sequence[NamedSkill]) -> None:
    """Refuse a name twice, names that no folder may have, and more skills than a bundle has. Raises RequestError."""
    if len(named) > MOST_SKILLS:
        raise RequestError(f"{len(named)} skills are more than {MOST_SKILLS}, the most that a bundle has")
    for number, skill in enumerate(named):
        if re.fullmatch(NAME, skill.name) is None:
            raise RequestError(
                f"{skill.name!r} cannot be a skill's name, which has letters, digits, '_', '.' and '-'; give it one, such as"
                f" skill={skill.folder}"
            )
        twin = next((other for other in named[:number] if other.name == skill.name), None)
        if twin is not None:
            raise RequestError(
                f"{str(twin.folder)!r} and {str(skill.folder)!r} are both called {skill.name!r}; name one, such as"
                f" other={skill.folder}"
            )


def data_by_name(words: Sequence[str], option: str, form: str) -> dict[str, Path_]:
    """Data by the name of what it is of, of words NAME=DATA of an option. form: how they should be written. Raises
    RequestError for others, and for a name twice."""
    found: dict[str, Path_] = {}
    for word in words:
        name, equals, data = word.partition("=")
        if not (name and equals and data) or name in found:
            raise RequestError(f"{option} {word!r} should be {form}")
        found[name] = data
    return found


def pairs_of(words: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of names, of words ONE,OTHER. Raises RequestError for others."""
    pairs = [tuple(part.strip() for part in word.split(",")) for word in words]
    wrong = next((word for word, pair in zip(words, pairs) if len(pair) != 2 or not all(pair)), None)
    if wrong is not None:
        raise RequestError(f"--together {wrong!r} should name two skills, such as sums,facts")
    return [(pair[0], pair[1]) for pair in pairs]


def check_pairs(pairs: Sequence[tuple[str, str]], names: Sequence[str]) -> None:
    """Refuse pairs that are no two of the skills. Raises RequestError."""
    for pair in pairs:
        if pair[0] == pair[1] or not {*pair} <= {*names}:
            raise RequestError(f"--together {','.join(pair)} names no two of the skills, which are {', '.join(names)}")


def _parsed(text: str) -> NamedSkill:
    tag, rest = untagged(text)
    path, strength = parse_member(str(rest), Path(rest).exists())
    return _named(path, strength, tag or "")


def _named(path: Path_, strength: float = 1.0, name: str = "") -> NamedSkill:
    folder = Path(path)
    parts = folder.resolve().parts
    called = name or (parts[-2] if parts[-1] == FINAL and len(parts) > 2 else parts[-1])
    if not LEAST_STRENGTH <= strength <= MOST_STRENGTH:
        raise RequestError(
            f"skill {called!r} has strength {strength:g}, which should be from {LEAST_STRENGTH:g} to {MOST_STRENGTH:g}"
        )
    return NamedSkill(name=called, folder=folder, strength=float(strength))
