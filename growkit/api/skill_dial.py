"""`growkit skill dial`: losses against the strength of a skill."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from growkit import limits
from growkit.api import words as w
from growkit.api.option import Argument, Callback, Option
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.skills.dial import Dialed

Base = Annotated[w.PathLike, Argument("The model the skill is for.", "BASE")]
Skill = Annotated[w.PathLike, Argument("A skill of growkit skill learn.", "SKILL")]
Data = Annotated[
    Sequence[str] | str,
    Option(help="A domain to measure, a dataset or text; again for more.", panel=None, metavar="NAME=DATA"),
]
Begin = Annotated[
    Callable[[int], Callable[[int], None]],
    Callback("Called with the number of measurements; returns what is called with the number of those that are done."),
]


def _quiet(_total: int) -> Callable[[int], None]:
    return lambda _done: None


@public
def skill_dial(
    base: Base,
    skill: Skill,
    data: Data,
    *,
    points: Annotated[
        int, Option(help="Strengths from -0.5 to 1.5, evenly; 0 and 1 come besides.", metavar="N", within=(2, 201))
    ] = 9,
    split: Annotated[Literal["train", "val"], Option(help="Which part of datasets.")] = "val",
    context: Annotated[
        int | None,
        Option(
            help="Tokens in a window; default the model's positions, at most 1024.",
            metavar="N",
            within=(1, limits.AXIS),
        ),
    ] = None,
    limit: Annotated[
        int | None,
        Option(help="Predict about so many tokens of each domain.", metavar="TOKENS", within=(1, limits.TOKENS)),
    ] = None,
    device: Annotated[w.Device, Option(help="Where to compute.")] = "auto",
    picture: Annotated[
        w.PathLike | None,
        Option(help="Draw losses against strength into this file, .svg, .png or .pdf.", panel=w.OUTPUT, metavar="FILE"),
    ] = None,
    begin: Begin = _quiet,
) -> "Dialed":
    """Turn a skill like a dial: the loss on every domain at strengths from -0.5 to 1.5.

    data: 'name=data' each, measured as eval does. At 0 it is the base, at 1 the skill as it was learned.

    Returns a Dialed: .strengths, .losses by domain, .best(domain). Raises RequestError or CheckpointError.
    """
    from growkit.skills.dial import dial
    from growkit.skills.gates.named_skills import data_by_name

    domains = data_by_name(w.listed(data), "--data", "NAME=DATA, each name once")
    return dial(
        base, skill, domains, points=points, picture=picture, begin=begin, split=split, context=context, limit=limit,
        device=device,
    )  # fmt: skip
