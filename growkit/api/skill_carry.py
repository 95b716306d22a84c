"""`growkit skill carry`: a skill over a growth of its base."""

from typing import TYPE_CHECKING, Annotated

from growkit.api import words as w
from growkit.api.option import Argument, Option
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.skills.carry import CarriedOver


@public
def skill_carry(
    base: Annotated[w.PathLike, Argument("The model the skill is for.", "BASE")],
    skill: Annotated[w.PathLike, Argument("A skill of growkit skill learn, or a LoRA of PEFT.", "SKILL")],
    grown: Annotated[w.PathLike, Argument("What growkit widen, stack or grow made of BASE.", "GROWN")],
    out: w.Folder,
    *,
    force: Annotated[bool, Option(help="In the place of a result that is there.", panel=w.OUTPUT)] = False,
) -> "CarriedOver":
    """Carry a skill over a growth of its base: what it did there it does on the grown model.

    Its directions grow by the maps of the growth, which are those that GROWN's growkit.json tells of. Where the growth
    is exact, GROWN with the result is BASE with the skill, grown. The result is a LoRA of PEFT, and of a skill a skill:
    its coordinates and sketches stay, its gate stays behind.

    Returns a CarriedOver: .folder, .kind, .rank, .exactness (of the growth), .notes. Raises RequestError for what was
    not grown of BASE in one go, for a skill of another model and for changes that are not low-rank, CheckpointError for
    damaged files.
    """
    from growkit.skills.carry import carry_skill

    return carry_skill(base, skill, grown, out, force=force)
