"""What is asked of `growkit skill check`: words, held to each other before anything is opened. Knows words alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from growkit.errors import RequestError
from growkit.skills.gates.named_skills import NamedSkill, check_names, named_skills

MOST = 64  # skills: pairs are their square
Path_ = str | Path


@dataclass(frozen=True, kw_only=True)
class CheckRequest:
    """What is asked. base: the model, for what is measured on data. data: a skill's own, by its name. texts: general.
    tokens: of each of these, about. repair: the name of a LoRA to mend, into `out`; share: of the energy of the others'
    inputs, which it shall read no more. report: a page to write."""

    skills: tuple[NamedSkill, ...]
    base: Path_ | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    texts: tuple[Path_, ...] = ()
    tokens: int = 8192
    repair: str | None = None
    out: Path_ | None = None
    share: float = 0.99
    report: Path_ | None = None

    def skill(self, name: str) -> NamedSkill:
        """The one of a name."""
        return next(skill for skill in self.skills if skill.name == name)


def check_request(
    skills: Sequence[Path_ | tuple[Path_, float]], data: Sequence[str], texts: Sequence[Path_], **more: object
) -> CheckRequest:
    """The request of words. data: SKILL=DATA. Raises RequestError for words that do not go together."""
    if len(skills) < 2:
        raise RequestError(f"skill check compares skills, and {len(skills)} is named; name two or more")
    if len(skills) > MOST:
        raise RequestError(f"skill check compares {MOST} skills at most, and {len(skills)} are named")
    named = named_skills(skills)
    check_names(named)
    names = [skill.name for skill in named]
    request = CheckRequest(skills=tuple(named), data=_data(data, names), texts=tuple(texts), **more)  # type: ignore[arg-type]
    if (request.data or request.texts) and request.base is None:
        raise RequestError("what --data and --text measure is measured on the model; name it with --base")
    if request.base is not None and not (request.data or request.texts):
        raise RequestError("--base is for what is measured on data; give that with --data SKILL=DATA or --text")
    if (request.repair is None) != (request.out is None):
        raise RequestError("--repair SKILL makes a new LoRA in --out; give both or neither")
    if request.repair is not None and request.repair not in names:
        raise RequestError(f"--repair {request.repair!r} is none of the skills {', '.join(names)}")
    return request


def _data(words: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    data: dict[str, str] = {}
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
