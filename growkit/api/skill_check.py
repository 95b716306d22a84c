"""`growkit skill check`: what skills on one model do to each other."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from growkit import limits
from growkit.api import words as w
from growkit.api.option import Argument, Callback, Option
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.skills.checking.skill_table import SkillCheck

MEASURED, REPAIR = "Measured on data", "Repair"
Panel = Annotated[w.PathLike, Argument("The panel of the skills, or any of the LoRAs' base.", "PANEL")]
Skills = Annotated[
    Sequence[w.PathLike | tuple[w.PathLike, float]],
    Argument("Skills of growkit skill learn, and LoRAs of PEFT.", "[NAME=]SKILL[:STRENGTH]..."),
]
Base = Annotated[
    w.PathLike | None, Option(help="The model, for what is measured on data.", panel=MEASURED, metavar="MODEL")
]
Data = Annotated[
    str | Sequence[str],
    Option(
        help="A skill's own data: a dataset, a .bin file or text; for each skill by giving it again. A LoRA needs that of"
        " every skill.",
        panel=MEASURED,
        metavar="SKILL=DATA",
    ),
]
Text = Annotated[
    w.PathLike | Sequence[w.PathLike],
    Option(help="General text, likewise.", panel=MEASURED, metavar="TEXT"),
]
Begin = Annotated[
    Callable[[int], Callable[[int], None]],
    Callback("Called with the number of passes; returns what is called with the number of those that are done."),
]


def _quiet(_total: int) -> Callable[[int], None]:
    return lambda _done: None


@public
def skill_check(
    panel: Panel,
    skills: Skills,
    *,
    base: Base = None,
    data: Data = (),
    text: Text = (),
    tokens: Annotated[
        int,
        Option(help="Read about so many of each data.", panel=MEASURED, metavar="N", within=(1, limits.TOKENS)),
    ] = 8192,
    report: Annotated[
        w.PathLike | None,
        Option(help="Write heat maps and tables for a browser, whole in one file.", metavar="FILE.html"),
    ] = None,
    repair: Annotated[
        str | None,
        Option(
            help="Make a LoRA in --out of this one that no longer reads what the others' data are made of.",
            panel=REPAIR,
            metavar="SKILL",
        ),
    ] = None,
    share: Annotated[
        float,
        Option(
            help="Of the energy of the others' inputs: so much it reads no more.",
            panel=REPAIR,
            metavar="X",
            within=(0, 1),
        ),
    ] = 0.99,
    out: Annotated[
        w.PathLike | None, Option(help="Folder of the new LoRA.", panel=REPAIR, metavar="DST", flags=("-o", "--out"))
    ] = None,
    force: Annotated[bool, Option(help="Replace a LoRA that is there.", panel=REPAIR)] = False,
    device: Annotated[w.Device, Option(help="Where to compute.")] = "auto",
    begin: Begin = _quiet,
) -> "SkillCheck":
    """Measure what skills do to each other: rho, for each pair how much one puts out where the other works.

    rho of skills needs the panel and the skills alone: each carries a sketch of its data. With data it is also measured
    what they do through the whole network, and what each loses where all are plugged. Green up to 0.1, amber up to 0.3,
    red above; the command exits with 1 where a pair is red.

    Returns a SkillCheck: .pairs (with .mean, .largest, .rho by weight, .network, .band), .skills (with .losses),
    .general, .together, .red. Raises RequestError or CheckpointError; also for a skill of another model or panel.
    """
    from growkit.skills.checking.check import check_skills
    from growkit.skills.checking.check_words import check_request

    request = check_request(
        _listed(skills),
        _listed(data),
        _listed(text),
        base=base,
        tokens=tokens,
        repair=repair,
        share=share,
        out=out,
        report=report,
    )
    return check_skills(panel, request, device=device, force=force, begin=begin)


def _listed(words: Any) -> list[Any]:
    return list(words) if isinstance(words, Sequence) and not isinstance(words, str) else [words]
