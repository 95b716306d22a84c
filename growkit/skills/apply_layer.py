"""From the words of `growkit skill apply-layer` to its run: the loop of `growkit tune` over frozen skills. Knows what
is asked and what is checked before anything is written; ignorant of steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from growkit.checkpoint.made_for import check_same_weights
from growkit.errors import RequestError
from growkit.growth.sources import open_source
from growkit.merging.prepare_merge import weighted_path
from growkit.skills.application_file import MOST_TOGETHER
from growkit.skills.application_learners import ApplicationLearners
from growkit.skills.application_saved import ApplicationFolder
from growkit.skills.gates.bundle_file import is_bundle, read_bundle
from growkit.skills.skill_file import SKILL, StoredSkill, read_skill
from growkit.training.asked_run import TUNE, asked_resume, settings_of
from growkit.training.learning.train_words import Trained
from growkit.training.outlook import outlook_of
from growkit.training.pretrain import Finished, carry_through, run_of
from growkit.training.ready import prepare

APPLY_LAYER = replace(TUNE, name="skill apply-layer")
RATE = 4e-3  # where nothing is said, that of a skill's transform


def skills_of(
    checkpoint: str | Path, skills: Sequence[str | Path | tuple[str | Path, float]]
) -> tuple[str | Path, list[tuple[str | Path, float]]]:
    """(the model, skills with their strengths) of what a person names; a bundle stands for its base and its skills.

    Raises RequestError for a strength that is none and for skills behind a bundle, CheckpointError for one that is not
    sound.
    """
    if is_bundle(checkpoint):
        if skills:
            raise RequestError(f"{str(checkpoint)!r} is a bundle, which has its skills in it; name none behind it")
        bundle = read_bundle(checkpoint)
        return bundle.base, list(zip(bundle.folders, bundle.strengths))
    chosen = []
    for entry in skills:
        folder, strength = weighted_path(entry)
        if not isinstance(strength, int | float):
            raise RequestError(f"the strength of {str(folder)!r} should be a number")
        chosen.append((folder, float(strength)))
    return checkpoint, chosen


def learn_application(skills: Sequence[tuple[str | Path, float]], crossing: bool, words: Mapping[str, Any]) -> Finished:
    """Learn an application of skills, or with dry_run say what that will be; raises as growkit.tune does.

    skills: folders, each with the strength that it begins with. crossing: whether what crosses learns too. words: every
    parameter of the command's public function by its name, and of those that growkit.tune has beyond them the defaults.
    """
    resume = asked_resume(words["resume"])
    opened = [(read_skill(folder), strength) for folder, strength in skills]
    _check(opened, words["checkpoint"])
    lr = RATE if words["lr"] is None else words["lr"]
    asked = SimpleNamespace(**{**words, "train": "all", "lr": lr})
    settings = replace(settings_of(APPLY_LAYER, asked), train="application" if crossing else "application:strengths")
    named = [(skill.hash, strength) for skill, strength in opened]
    part = Trained(
        ApplicationLearners(opened, crossing),
        lambda origin: ApplicationFolder(origin=origin, settings=ready.settings, skills=named, crossing=crossing),
        reads={"skills": [[name, strength] for name, strength in named]},
    )
    ready = prepare(settings, resume, part)
    if words["dry_run"]:
        return Finished(folder=None, step=0, loss=None, outlook=outlook_of(ready))
    words["announce"](ready.settings)
    return carry_through(run_of(ready, words["watch"]), resume)


def _check(skills: Sequence[tuple[StoredSkill, float]], base: str | Path) -> None:
    """Refuse skills that do not go together on the base. Raises RequestError."""
    if not skills:
        raise RequestError("an application is over skills: name some behind the model, such as SUMS FACTS, or a bundle")
    if len(skills) > MOST_TOGETHER:
        raise RequestError(f"{len(skills)} skills are more than {MOST_TOGETHER}, the most that an application has")
    source = open_source(base)
    first = skills[0][0]
    seen: dict[str, Path] = {}
    for skill, _ in skills:
        check_same_weights(skill.folder, skill.facts.base["name"], skill.facts.base["files"], source, SKILL)
        if skill.hash in seen:
            raise RequestError(f"{str(skill.folder)!r} is the skill of {str(seen[skill.hash])!r}; name it once")
        seen[skill.hash] = skill.folder
        strange = sorted({*skill.facts.weights} ^ {*first.facts.weights})
        if strange:
            raise RequestError(
                f"only one of {str(first.folder)!r} and {str(skill.folder)!r} changes {strange[0]!r}; skills of an application"
                " change the same weights: learn them on one panel"
            )
    source.close()
