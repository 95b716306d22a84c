"""Skills as people name them: a folder, with a name of its own before it and a strength behind it. Knows words and
folders; ignorant of what is in them.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from growkit.errors import RequestError

FINAL = "final"  # a run's result, which is called by the run's name
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
MOST_STRENGTH = 16.0


@dataclass(frozen=True)
class CheckWord:
    """strength: what its change is multiplied by."""

    name: str
    folder: Path
    strength: float = 1.0


def words_of_skills(words: Sequence[str | Path]) -> list[CheckWord]:
    """Skills from FOLDER, NAME=FOLDER, FOLDER:STRENGTH or both. What exists under the whole word is a folder.

    Without a name a skill is called as its folder is, and a run's `final` as the run. Raises RequestError for a
    strength that is no number, and for two of one name.
    """
    skills = [_named(str(word)) for word in words]
    seen: dict[str, CheckWord] = {}
    for skill in skills:
        if skill.name in seen:
            both = f"{str(seen[skill.name].folder)!r} and {str(skill.folder)!r}"
            raise RequestError(f"two skills are called {skill.name!r}, {both}; write one of them as NAME=FOLDER")
        seen[skill.name] = skill
    return skills


def named_data(words: Sequence[str], skills: Sequence[CheckWord]) -> dict[str, str]:
    """What --data says: the data of skills by their names. Raises RequestError for a word that is no SKILL=DATA, for a
    skill that is not there, and for one that has data twice."""
    names, data = [skill.name for skill in skills], dict[str, str]()
    for word in words:
        name, equals, where = str(word).partition("=")
        if not equals or not where:
            raise RequestError(f"--data {str(word)!r} should be SKILL=DATA, such as {names[0]}=DATA")
        if name not in names:
            raise RequestError(f"--data {str(word)!r} is of none of the skills {', '.join(names)}")
        if name in data:
            raise RequestError(f"--data is given twice for {name!r}; make one dataset of both")
        data[name] = where
    return data


def _named(word: str) -> CheckWord:
    name, equals, rest = word.partition("=")
    if Path(word).exists() or not equals or not NAME.fullmatch(name):
        name, rest = "", word
    folder, strength = _strength(rest)
    path = Path(folder)
    if not name:
        whole = Path.cwd() / path
        name = whole.parent.name if whole.name == FINAL else whole.name
    return CheckWord(name or str(path), path, strength)


def _strength(word: str) -> tuple[str, float]:
    folder, colon, tail = word.rpartition(":")
    if Path(word).exists() or not colon or not folder:
        return word, 1.0
    try:
        strength = float(tail)
    except ValueError:
        return word, 1.0  # a folder that is not there, which is said when it is opened
    if not math.isfinite(strength) or abs(strength) > MOST_STRENGTH:
        raise RequestError(f"{word!r} has strength {tail}; it should be from -{MOST_STRENGTH:g} to {MOST_STRENGTH:g}")
    return folder, strength
