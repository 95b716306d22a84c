"""From the words of `growkit skill learn` to its run: the loop of `growkit tune`, with a panel's learners. Knows what
is asked and what is checked before anything is written; ignorant of steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from growkit.data.tokens import open_tokens
from growkit.errors import CheckpointError, RequestError
from growkit.growth.sources import open_source
from growkit.skills.directions import is_covariance
from growkit.skills.gates.gate_texts import GateTexts, dataset_texts
from growkit.skills.gates.own_texts import LEAST_TEXTS, MOST_TEXTS
from growkit.skills.own_sketch import OwnRows
from growkit.skills.panel_control import ADAPTER
from growkit.skills.panel_file import Panel, open_panel
from growkit.skills.panel_learners import PanelLearners
from growkit.skills.skill_course import AFTER, SkillCourse, course_of
from growkit.skills.skill_file import GENERAL, StoredSkill, read_skill
from growkit.skills.skill_saved import SkillFolder
from growkit.training.asked_run import TUNE, asked_resume, settings_of
from growkit.training.learning.train_words import Trained
from growkit.training.outlook import outlook_of
from growkit.training.pretrain import Finished, carry_through, run_of
from growkit.training.ready import ReadyRun, prepare
from growkit.training.run_folder import check_place
from growkit.training.settings import Settings
from growkit.training.stages import Stage

LEARN = replace(TUNE, name="skill learn")
SIZE = 64  # where nothing is said
TRANSFORM_RATE = 4e-3  # of R where nothing is said, as LoRA-XS (arXiv 2405.17604) has it: 20 times LoRA's
ADAPTER_RATE = 0.2  # of that for B, which has more numbers: a step then changes W about as much, by |dW|_F
WARMUP = 20  # steps over which B's rate rises, at most a quarter of its own


def learn_skill(words: Mapping[str, Any]) -> Finished:
    """Learn a skill, or with dry_run say what that will be; raises as growkit.tune does. words: every parameter of the
    command's public function by its name, and of those that growkit.tune has beyond them the defaults."""
    resume = asked_resume(words["resume"])
    panel = open_panel(words["panel"])
    size, adapter = words["size"] or min(SIZE, panel.header.rank), words["adapter"] or 0
    if size > panel.header.rank:
        raise RequestError(
            f"--size {size} is more than the rank of {str(words['panel'])!r}, {panel.header.rank}; give a smaller one, or"
            " a panel of a larger --rank"
        )
    if adapter > size:
        raise RequestError(f"--adapter {adapter} is more than the skill's {size} input directions (--size)")
    panel.check_base(open_source(words["checkpoint"]))
    names, sketches = protected(words["protect"] or (), panel)
    check_place(Path(words["out"]), {"the panel": panel.folder})
    settings = _settings(words, size, adapter)
    transform = settings.stages[0].steps
    learners = PanelLearners(panel=panel, size=size, adapter=adapter, others=sketches)
    reads = {"panel": panel.sha256, "protect": names, "sketch_tokens": words["sketch_tokens"]}
    part = Trained(
        learners,
        lambda origin: SkillFolder(origin=origin, settings=ready.settings, learners=learners, protect=names),
        SkillCourse(transform),
        reads,
    )
    ready = prepare(settings, resume, part)
    if adapter and ready.val is None:
        raise RequestError(
            f"--adapter learns while validation falls, and {settings.data!r} has no validation split; tokenize with"
            " --val-fraction, or leave --adapter out"
        )
    ready, learners.texts = _with_texts(ready)
    learners.own = OwnRows(ready.train, ready.settings, ready.machine, words["sketch_tokens"])
    if words["dry_run"]:
        return Finished(folder=None, step=0, loss=None, outlook=outlook_of(ready))
    words["announce"](ready.settings)
    finished = carry_through(run_of(ready, words["watch"]), resume)
    if finished.loss is None or finished.run is None:
        return finished
    return replace(finished, loss=course_of(finished.run.student.model)[AFTER])


def _with_texts(ready: ReadyRun) -> tuple[ReadyRun, GateTexts | None]:
    """(the run, which says it where there is no gate, the texts of one) of the training data."""
    texts = dataset_texts(open_tokens(ready.settings.data), MOST_TEXTS, seed=ready.settings.seed)
    if len(texts.sequences) >= LEAST_TEXTS:
        return ready, texts
    note = f"the skill gets no gate: {ready.settings.data!r} has {len(texts.sequences)} texts, and a gate needs {LEAST_TEXTS}"
    return replace(ready, notes=(*ready.notes, note)), None


def protected(words: Sequence[str], panel: Panel) -> tuple[list[str], list[Mapping[str, torch.Tensor]]]:
    """(what skill.json says of them, their sketches by group) of what a skill is kept away from: folders of skills, and
    "general" for the panel's sketch of general texts.

    Raises RequestError for a skill of another panel or without a sketch, and for a panel without texts.
    """
    listed = [words] if isinstance(words, str | Path) else list(words)
    names, sketches = [], list[Mapping[str, torch.Tensor]]()
    for word in dict.fromkeys(map(str, listed)):
        general = word == GENERAL and not Path(word).exists()
        name, sketch = _general(panel) if general else _skill(read_skill(word), panel)
        names.append(name)
        sketches.append(sketch)
    return names, sketches


def _general(panel: Panel) -> tuple[str, Mapping[str, torch.Tensor]]:
    sketches = {group: panel.sketch(group) for group in panel.header.groups}
    known = {group: sketch for group, sketch in sketches.items() if sketch is not None}
    if len(known) < len(sketches):
        raise RequestError(
            f"--protect general: {str(panel.folder)!r} has no sketch of general texts; make it with growkit panel --text"
        )
    return GENERAL, known


def _skill(skill: StoredSkill, panel: Panel) -> tuple[str, Mapping[str, torch.Tensor]]:
    folder = str(skill.folder)
    if skill.facts.panel != panel.sha256:
        raise RequestError(
            f"--protect {folder!r} was learned on panel {skill.facts.panel[:12]}..., and {str(panel.folder)!r} is"
            f" {panel.sha256[:12]}...; sketches compare on one panel alone"
        )
    if not skill.facts.sketch["tokens"]:
        raise RequestError(f"--protect {folder!r} has a sketch of no tokens; learn it again")
    sketches = {group: skill.tensor(f"{group}.K") for group in set(skill.facts.weights.values())}
    for group in panel.header.groups:
        if group not in sketches or len(sketches[group]) != panel.input_rank(group):
            raise RequestError(
                f"--protect {folder!r} has no sketch of {group!r}, which the panel has, of its rank; learn it again"
            )
    skill.close()
    strange = next((group for group, sketch in sorted(sketches.items()) if not is_covariance(sketch)), None)
    if strange is not None:
        raise CheckpointError(f"--protect {folder!r}: {strange + '.K'!r} is no covariance; learn the skill again")
    return skill.hash, sketches


def _settings(words: Mapping[str, Any], size: int, adapter: int) -> Settings:
    """Of the run: all steps are the transform's, or with an adapter half of them and at most the other half its own."""
    lr = TRANSFORM_RATE if words["lr"] is None else words["lr"]
    asked = {**words, "train": "all", "lr": lr}
    settings = replace(settings_of(LEARN, SimpleNamespace(**asked)), train=f"skill:{size}:{adapter}")
    if not adapter:
        return settings
    if settings.steps < 2:
        raise RequestError("--adapter needs 2 steps at least: the transform learns in the first half of them")
    own = settings.steps // 2
    warmup = min(WARMUP, own // 4) or None
    stages = (
        Stage(name="transform", steps=settings.steps - own),
        Stage(name=ADAPTER, steps=own, lr=ADAPTER_RATE, warmup=warmup),
    )
    return replace(settings, stages=stages)
