"""The model cards of what skills leave: a panel, a skill, an application, a bundle. Knows what their JSON says;
ignorant of files and of tensors.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from growkit.checkpoint.card import ADAPTER, model_card
from growkit.checkpoint.source import CERTIFICATE, PROVENANCE, Checkpoint
from growkit.skills.application_file import APPLICATION, ApplicationFacts
from growkit.skills.panel_header import PANEL, PanelHeader
from growkit.skills.skill_file import SKILL, SkillFacts
from growkit.version import __version__

SHOWN = 12  # digits of a hash


def panel_card(base: Checkpoint, header: PanelHeader) -> str:
    """README.md of a panel. base: the model it was made of."""
    energy = sum(weight.energy for weight in header.weights.values()) / len(header.weights)
    text = "no text" if header.texts is None else f"{header.texts['tokens']:,} tokens of general text"
    return _card(
        f"Control panel of {base.name}",
        f"A control panel of `{base.name}`, by growkit {__version__}: U and V of {len(header.weights)} linear weights"
        f" and U^T W V between them, rank {header.rank}, basis {header.basis}, scale {header.scale}, {text}; it keeps"
        f" {energy:.1%} of |W|^2, on average. The model itself is not in it. Skills are learned on it: `growkit skill"
        f" learn BASE FOLDER --data DATA --out RUN`. {_hashes(header.files, PANEL)}",
        base,
        "control-panel",
    )


def skill_card(base: Checkpoint, facts: SkillFacts) -> str:
    """README.md of a skill. base: the model it is for."""
    before, after = facts.losses["before"], facts.losses["after"]
    losses = "" if before is None or after is None else f" Loss on answers: {before:.4f} before, {after:.4f} after."
    kept = f" It was kept away from {_shown(facts.protect)}." if facts.protect else ""
    adapter = f" and an adapter of {facts.adapter}" if facts.adapter else ""
    return _card(
        f"skill for {base.name}",
        f"A skill for `{base.name}`, by growkit {__version__}: a transform of {facts.size} directions{adapter} on each of"
        f" {len(facts.weights)} linear weights, of the control panel `{facts.panel[:SHOWN]}`.{losses}{kept} The model"
        " itself is not in it. It is a LoRA of PEFT too; `growkit generate BASE PROMPT --adapter FOLDER` tries it,"
        " `growkit skill plug BASE FOLDER... --out OUT` puts several together, `--gated` each behind a gate."
        f" {_hashes(facts.base['files'], SKILL)} The whole request: `{PROVENANCE}`.",
        base,
        "skill",
        "lora",
    )


def application_card(base: Checkpoint, facts: ApplicationFacts) -> str:
    """README.md of an application. base: the model it is for."""
    rows = "\n".join(f"| `{one['sha256'][:SHOWN]}` | {one['strength']:g} |" for one in facts.skills)
    crossing = "strengths and a cross-skill control" if facts.crossing else "strengths"
    return _card(
        f"application for {base.name}",
        f"An application over {len(facts.skills)} skills of `{base.name}`, by growkit {__version__}: {crossing} learned in"
        f" {facts.steps:,} steps, the skills as they were. The model itself is not in it. It is a LoRA of PEFT too, skills"
        f" and all: `growkit generate BASE PROMPT --adapter FOLDER`.\n\n| skill, SHA-256 | strength it began with |\n"
        f"|---|---|\n{rows}\n\n{_hashes(facts.base['files'], APPLICATION)} The whole request: `{PROVENANCE}`.",
        base,
        "application",
        "lora",
    )


def bundle_card(base: Checkpoint, said: Mapping[str, Any]) -> str:
    """README.md of a bundle of skills. base: the model it is for. said: what certificate.json says."""
    promise, skills = said["promise"], said["skills"]
    rows = "\n".join(
        f"| {one['name']} | {one['strength']:g} | {one['own']['opened']} of {one['own']['held']} |" for one in skills
    )
    fresh = (
        f" Of {promise['fresh']:,} fresh texts {promise['opened']:,} opened one: at most {promise['bound']:.2%} with"
        f" {promise['confidence']:.0%} confidence (Clopper-Pearson)."
        if promise["fresh"]
        else ""
    )
    return _card(
        f"{' + '.join(one['name'] for one in skills)}, behind a gate, for {base.name}",
        f"A bundle of skills for `{base.name}`, by growkit {__version__}. The model itself is not in it, and it stays as"
        " it is, bit for bit, wherever no skill opens.\n\n| skill | strength | own texts, held out, that open it |\n"
        f"|---|---|---|\n{rows}\n\nP(a skill opens) <= {promise['alpha']:.4g} for text exchangeable with the"
        f" {promise['texts']:,} general texts that set the thresholds (split-conformal).{fresh} Scores, thresholds and all"
        f" hashes: `{CERTIFICATE}`.\n\nIn Python: `growkit.load_skills(FOLDER, base=BASE)`."
        f" {_hashes(said['base']['files'], CERTIFICATE)}",
        base,
        "skills",
    )


def _card(title: str, text: str, base: Checkpoint, *tags: str) -> str:
    lora = "lora" in tags
    return model_card(
        title, text, sources=[base], relation=ADAPTER, tags=("growkit", *tags), library="peft" if lora else "growkit"
    )


def _hashes(files: Mapping[str, str], where: str) -> str:
    """Which weights it is for. files: their hashes by name."""
    first = min(files.values(), default="")
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"The base's weights have SHA-256 `{first[:SHOWN]}`{more}, all of it in `{where}`."


def _shown(protected: Sequence[str]) -> str:
    """What a skill was kept away from: hashes of skills, and general text."""
    return ", ".join(f"skill `{one[:SHOWN]}`" if len(one) == 64 else f"{one} text" for one in protected)
