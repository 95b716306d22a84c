"""A bundle made: skills of one base behind one gate, with the certificate that general text gives. Knows the order of
things; ignorant of what a gate computes and of how a bundle lies on disk.

Everything is looked at before anything is written: the base and whose skills these are, each skill on the live base,
its own texts, and the general ones.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.card import CARD
from growkit.checkpoint.model_config import read_model_config
from growkit.checkpoint.new_folder import new_folder
from growkit.checkpoint.source import CONFIG, open_checkpoint
from growkit.checkpoint.writer import check_target
from growkit.data.tokenizer import TextTokenizer, open_tokenizer, tokenizer_folder
from growkit.errors import CheckpointError, RequestError
from growkit.models.adapters import check_adapter
from growkit.models.devices import device_named
from growkit.models.live_layers import layers_of
from growkit.models.running import check_complete, load_model, loadable
from growkit.skills.gates.bundle_file import base_source, is_bundle, write_bundle
from growkit.skills.gates.certify import LEAST_CONTRAST, certified, contrast_of
from growkit.skills.gates.conformal import texts_needed
from growkit.skills.gates.gate import Gate
from growkit.skills.gates.gate_texts import named_texts, positions_of
from growkit.skills.gates.hidden_states import middle_layer, pooled_states
from growkit.skills.gates.learn_gate import gate_of_texts
from growkit.skills.gates.named_skills import NamedSkill, check_pairs
from growkit.skills.gates.own_file import has_gate, read_gate
from growkit.skills.gates.own_texts import MOST_TEXTS, OwnTexts
from growkit.skills.gates.skill_parts import parts_of
from growkit.skills.skill_cards import bundle_card

Path_ = str | Path
Advance = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class GatedRequest:
    """What is asked of a bundle. texts: at most so many general ones. own: data by skill's name, for skills without a
    gate of their own. together: pairs of names. layer: None for the skills' own, else the middle one."""

    text: Sequence[Path_]
    alpha: float = 0.01
    texts: int = 1000
    own: Mapping[str, Path_] = field(default_factory=dict)
    together: Sequence[tuple[str, str]] = ()
    layer: int | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Plugged:
    """A bundle that was made. said: what its certificate says. notes: what a person should know of it."""

    folder: Path
    said: Mapping[str, Any]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Where it is, and its certificate."""
        return {"folder": str(self.folder), "notes": list(self.notes), **self.said}


def plug_gated(
    base: Path_,
    skills: Sequence[NamedSkill],
    out: Path_,
    request: GatedRequest,
    *,
    device: str = "auto",
    force: bool = False,
    begin: Callable[[int], Advance] = lambda _total: lambda _done: None,
) -> Plugged:
    """Make a bundle. begin: called with the number of general texts, returns what is called as they are done.

    Raises RequestError or CheckpointError, having written nothing.
    """
    where, skills = device_named(device), sorted(skills, key=lambda skill: skill.name)
    _check(request, skills)
    source = open_checkpoint(base)
    source.close()
    named = [Path(path) for path in (base, *(skill.folder for skill in skills), *request.text, *request.own.values())]
    replaces = check_target(Path(out), [path for path in named if path.exists()], force, is_bundle, "bundle of skills")
    for skill in skills:
        check_adapter(skill.folder, source, "")
    with loadable(source) as folder:
        config = read_model_config(folder / CONFIG)
        vocabulary = open_tokenizer(folder) if tokenizer_folder(folder) is not None else None
        model, keys = load_model(config, folder, torch.float32)
    check_complete(keys, source.label, "no gate can read it")
    longest = positions_of(config)
    for skill in skills:
        parts_of(model, skill.folder)  # which refuses one that does not fit
    model.to(where)
    own = _own_texts(model, skills, request, vocabulary, source.label, longest)
    lengths = [int(length) for texts in own.values() for length in texts.lengths]
    enough = LEAST_CONTRAST + texts_needed(request.alpha, len(skills))
    general = named_texts(request.text, vocabulary, source.label, request.texts, lengths, request.seed, longest, enough)
    contrast = contrast_of(len(general.sequences), request.alpha, len(skills))  # which refuses too few
    first, advance = next(iter(own.values())), begin(len(general.sequences))
    states = pooled_states(model, general.sequences, first.layer, advance)
    if not torch.isfinite(states).all():
        raise CheckpointError(f"{source.label!r} puts out NaN or Inf for general text, so no gate can read it")
    gate, promise = certified(own, states, request.alpha, request.together)
    more = {
        "base": {"name": source.name, "source": base_source(base, Path(out)), "files": source.hashes()},
        "general": {
            "texts": len(general.sequences), "contrast": contrast, "documents": general.documents,
            "tokens": general.tokens, "sha256": general.sha256,
        },
        "own": {name: _opened(gate, number, texts) for number, (name, texts) in enumerate(own.items())},
        "seed": request.seed,
    }  # fmt: skip
    with new_folder(Path(out), replaces) as partial:
        said = write_bundle(partial, gate, promise, [(skill.folder, skill.strength) for skill in skills], more)
        (partial / CARD).write_text(bundle_card(source, said), "utf-8")
    return Plugged(folder=Path(out), said=said, notes=tuple(_notes(said)))


def _check(request: GatedRequest, skills: Sequence[NamedSkill]) -> None:
    """Refuse what can be seen before anything is opened."""
    if not request.text:
        raise RequestError("--gated sets its threshold by general text; give some with --text")
    names = [skill.name for skill in skills]
    strange = next((name for name in request.own if name not in names), None)
    if strange is not None:
        raise RequestError(f"--own names {strange!r}, which is none of the skills; these are {', '.join(names)}")
    check_pairs(request.together, names)


def _own_texts(
    model: Any, skills: Sequence[NamedSkill], request: GatedRequest, vocabulary: TextTokenizer | None, label: str,
    longest: int,
) -> dict[str, OwnTexts]:  # fmt: skip
    """What each skill's own texts look like: as its folder says, or of --own. All read one layer."""
    stored = {
        skill.name: read_gate(skill.folder)
        for skill in skills
        if skill.name not in request.own and has_gate(skill.folder)
    }
    lacking = next((skill for skill in skills if skill.name not in {*stored, *request.own}), None)
    if lacking is not None:
        raise RequestError(
            f"{str(lacking.folder)!r} has no gate of its own; name what it is for with --own {lacking.name}=DATA"
        )
    first = next(iter(stored.values()), None)
    layer = request.layer or (first.layer if first is not None else middle_layer(model))
    layers, hidden = len(layers_of(model)), model.config.hidden_size
    if layer > layers:
        raise RequestError(f"--layer {layer} is more than the {layers} layers of {label!r}")
    for name, texts in stored.items():
        if texts.layer != layer:
            raise RequestError(
                f"the gate of {name!r} reads layer {texts.layer}, and this bundle's layer {layer}; one gate reads one layer:"
                f" give its data with --own {name}=DATA"
            )
        if len(texts.mean) != hidden:
            raise CheckpointError(
                f"the gate of {name!r} is of states of {len(texts.mean)} entries, and {label!r} a hidden size of"
                f" {hidden}; it was learned on another base"
            )
    made = {}
    for name, data in request.own.items():
        found = named_texts([data], vocabulary, label, MOST_TEXTS, (), request.seed, longest)
        made[name] = gate_of_texts(model, found, layer=layer)
    return {skill.name: {**stored, **made}[skill.name] for skill in skills}


def _opened(gate: Gate, number: int, texts: OwnTexts) -> dict[str, int]:
    """Of a skill's own texts that its mean and spread have not seen: how many open it, and how many others only."""
    opened = gate.opened(texts.held)
    own = sum(number in each for each in opened)
    return {
        "texts": texts.texts, "held": len(opened), "opened": own,
        "others": sum(bool(each) and number not in each for each in opened),
    }  # fmt: skip


def _notes(said: Mapping[str, Any]) -> list[str]:
    notes = []
    promise, general = said["promise"], said["general"]
    if general["documents"] < general["texts"]:
        notes.append(
            f"the {general['texts']:,} general texts are pieces of {general['documents']:,} documents: the promise is for"
            " text like these; more documents make it wider"
        )
    if not promise["fresh"]:
        notes.append("no general text was left to confirm the thresholds on; more with --text would")
    elif promise["bound"] > 2 * promise["alpha"]:
        notes.append(
            f"{promise['fresh']:,} fresh texts bound the share at {promise['bound']:.2%} only; more with --text say more"
        )
    for skill in said["skills"]:
        own = skill["own"]
        if own["opened"] < 0.9 * own["held"]:
            notes.append(
                f"warning: {skill['name']} opens for {own['opened']} of {own['held']} own texts alone: its texts are too"
                " much like general text for this alpha"
            )
    return notes
