"""`growkit skill check`: what skills on one model do to each other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from growkit.api import words as w
from growkit.api.option import Argument
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.skills.checking.check import SkillCheck

Panel = Annotated[w.PathLike, Argument("The panel that the skills were learned on.", "PANEL")]
Skills = Annotated[
    Sequence[w.PathLike],
    Argument("Skills of growkit skill learn; NAME=FOLDER gives one a name.", "[NAME=]SKILL[:STRENGTH]..."),
]


@public
def skill_check(panel: Panel, skills: Skills) -> "SkillCheck":
    """Measure what skills do to each other: rho, for each pair how much one puts out where the other works.

    rho needs the panel and the skills alone: each carries a sketch of its data. Green up to 0.1, amber up to 0.3, red
    above; the command exits with 1 where a pair is red.

    Returns a SkillCheck: .pairs (with .mean, .largest, .rho by weight, .band), .skills, .together, .red. Raises
    RequestError or CheckpointError; also for a skill of another model or another panel.
    """
    from growkit.skills.checking.check import check_skills

    return check_skills(panel, [skills] if isinstance(skills, str) or not isinstance(skills, Sequence) else skills)
