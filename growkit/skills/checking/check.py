"""From the request of `growkit skill check` to the table that decides whether skills go together. Knows the order of
things; ignorant of how each number comes to be.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from growkit.errors import RequestError
from growkit.skills.checking.check_page import check_report, write_report
from growkit.skills.checking.check_words import CheckRequest
from growkit.skills.checking.checked_skills import CheckedSkill, PanelSkill, open_panel_skill
from growkit.skills.checking.from_sketches import Measured, energies_of_sketches
from growkit.skills.checking.lora_skill import LoraSkill, is_lora
from growkit.skills.checking.on_base import OnBase, opened_base
from growkit.skills.checking.rho import Interference, interference_of
from growkit.skills.checking.skill_table import CheckedOne, OwnLosses, SkillCheck
from growkit.skills.panel_file import open_panel
from growkit.skills.skill_file import is_skill

Begin = Callable[[int], Callable[[int], None]]


def check_skills(
    panel: str | Path,
    request: CheckRequest,
    *,
    device: str = "auto",
    force: bool = False,
    begin: Begin = lambda _total: lambda _done: None,
) -> SkillCheck:
    """Measure what skills do to each other; mend a LoRA where that is asked. begin: called with the number of passes
    through the network, returns what is called as they are done. force: put what is mended in the place of another
    LoRA.

    Raises CheckpointError or RequestError, having written nothing.
    """
    if request.report is not None:
        check_report(Path(request.report))
    checked = _checked(panel, request, device, force, begin)
    if request.report is not None:
        write_report(checked, Path(request.report))
    return checked


def _checked(panel: str | Path, request: CheckRequest, device: str, force: bool, begin: Begin) -> SkillCheck:
    with ExitStack() as stack:
        opened = open_panel(panel)
        stack.callback(opened.close)
        foreign = [one for one in request.skills if is_lora(one.folder) and not is_skill(one.folder)]
        if foreign and request.base is None:
            raise RequestError(
                f"{str(foreign[0].folder)!r} is a LoRA, which carries no sketch; what it does is measured: name the model"
                " with --base, and every skill's data with --data SKILL=DATA"
            )
        base = None
        if request.base is not None:
            base = stack.enter_context(opened_base(request.base, opened, device))
        skills: list[CheckedSkill] = []
        for one in request.skills:
            if one in foreign:
                assert base is not None
                skills.append(base.lora(one))
            else:
                skills.append(open_panel_skill(one, opened))
            stack.callback(skills[-1].close)
        measured, unsketched = _known(skills)
        _check_data(request, skills, unsketched)
        if base is None:
            return _table(panel, skills, _pairs(skills, measured))
        return _with_base(panel, request, skills, measured, unsketched, base, force, begin)


def _with_base(
    panel: str | Path,
    request: CheckRequest,
    skills: Sequence[CheckedSkill],
    measured: Measured,
    unsketched: Sequence[str],
    base: OnBase,
    force: bool,
    begin: Begin,
) -> SkillCheck:
    """The table where the model is at hand."""
    base.read(request)
    repair = base.repair(request, skills, force)
    if unsketched:
        measured = measured | base.energies(skills, unsketched, repair)
    found = base.through(skills, begin)
    pairs = [
        replace(pair, kl=found.kl.get((pair.source, pair.target)), own_kl=found.own_kl.get(pair.target))
        for pair in _pairs(skills, measured)
    ]
    table = _table(panel, skills, pairs, found.losses)
    repaired = None if repair is None else repair.write(measured)
    return replace(table, general=found.general, repaired=repaired)


def _known(skills: Sequence[CheckedSkill]) -> tuple[Measured, list[str]]:
    """What the sketches say, and on whose data it must be measured: where there is a LoRA, whose inputs are no panel's,
    on everybody's; else on that of skills whose sketch is of no tokens."""
    sketched = [skill for skill in skills if isinstance(skill, PanelSkill)]
    if len(sketched) < len(skills):
        return {}, [skill.name for skill in skills]
    blind = [skill.name for skill in sketched if not skill.has_sketch]
    known = energies_of_sketches(sketched)
    return {pair: energies for pair, energies in known.items() if pair[1] not in blind}, blind


def _check_data(request: CheckRequest, skills: Sequence[CheckedSkill], unsketched: Sequence[str]) -> None:
    """Refuse skills of which rho can be told neither from a sketch nor from data, and to mend what is no LoRA."""
    folders = {skill.name: str(skill.named.folder) for skill in skills}
    lacking = next((name for name in unsketched if name not in request.data), None)
    if lacking is not None:
        blind = isinstance(next(skill for skill in skills if skill.name == lacking), PanelSkill)
        has = "has a sketch of no tokens" if blind else "carries no sketch"
        lora = next((skill.name for skill in skills if isinstance(skill, LoraSkill)), None)
        why = (
            has
            if lora in (None, lacking)
            else f"has a sketch of the panel's directions, and {lora}, a LoRA, reads others"
        )
        raise RequestError(f"{folders[lacking]!r} {why}; give its data: --base MODEL --data {lacking}=DATA")
    if request.repair is not None:
        mended = next(skill for skill in skills if skill.name == request.repair)
        if not isinstance(mended, LoraSkill):
            raise RequestError(
                f"--repair {request.repair!r} is for LoRAs; {folders[request.repair]!r} is a skill of a panel: learn it again"
                " with --protect"
            )


def _pairs(skills: Sequence[CheckedSkill], measured: Measured) -> list[Interference]:
    return [
        interference_of(s.name, t.name, measured.get((s.name, t.name), {}), measured.get((t.name, t.name), {}))
        for t in skills
        for s in skills
        if s is not t
    ]


def _table(
    panel: str | Path,
    skills: Sequence[CheckedSkill],
    pairs: Sequence[Interference],
    losses: dict[str, OwnLosses] | None = None,
) -> SkillCheck:
    lines = tuple(
        CheckedOne(
            name=skill.name,
            folder=str(skill.named.folder),
            kind=skill.kind,
            sha256=skill.sha256,
            strength=skill.named.strength,
            lost=sum((pair.mean or 0.0) ** 2 for pair in pairs if pair.target == skill.name),
            losses=(losses or {}).get(skill.name),
        )
        for skill in skills
    )
    return SkillCheck(panel=str(panel), skills=lines, pairs=tuple(pairs), notes=tuple(_notes(skills, pairs)))


def _notes(skills: Sequence[CheckedSkill], pairs: Sequence[Interference]) -> list[str]:
    notes = []
    for skill in skills:
        own = [pair for pair in pairs if pair.target == skill.name]
        unseen = max(pair.beside for pair in own) if any(pair.network is None for pair in own) else 0
        if not any(pair.rho for pair in own):
            notes.append(f"{skill.name} changes nothing yet, so there is nothing of it that another could disturb")
        elif unseen:
            notes.append(
                f"others change {unseen} weights that {skill.name} leaves alone; what that does to it rho does not say:"
                f" --base MODEL --data {skill.name}=DATA measures it"
            )
    return notes
