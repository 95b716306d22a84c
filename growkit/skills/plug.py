"""Skills plugged into their base: its weights with them added, or one LoRA of all of them. Knows the order of things;
ignorant of arithmetic.

The base is read and never touched. Skills are added in the order of their hashes, so that the order they are named in
and what their folders are called change no bit.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.card import ADAPTER as RELATION
from growkit.checkpoint.card import FINE_TUNE, model_card
from growkit.checkpoint.companions import modules_conflict
from growkit.checkpoint.folder import write_folder
from growkit.checkpoint.new_folder import Contents
from growkit.checkpoint.source import ADAPTER, PROVENANCE, Checkpoint
from growkit.checkpoint.writer import check_target, is_checkpoint
from growkit.errors import RequestError
from growkit.growth.sources import headers_of, open_source
from growkit.merging.merge import apply
from growkit.merging.merge_plan import MergePlan, apply_plan
from growkit.merging.merger import Merger
from growkit.merging.methods import merge_request
from growkit.merging.prepare_merge import MergeOptions
from growkit.merging.rounding import Rounding
from growkit.merging.write_merge import describe, write_merged
from growkit.skills.application_file import is_application, read_application
from growkit.skills.checking.rho import Interference
from growkit.skills.gates.named_skills import NamedSkill
from growkit.skills.joined_lora import JoinedLora, write_joined
from growkit.skills.plugged_pairs import plugged_pairs
from growkit.skills.plugged_skill import SkillDelta, skill_member
from growkit.skills.skill_file import read_skill
from growkit.version import __version__

Path_ = str | Path
COMMAND, LORA = "skill plug", "lora"


@dataclass(frozen=True, kw_only=True)
class PluggedModel:
    """What was plugged, or with `dry_run` would be. rank: of the LoRA; None: weights are written. pairs: what each
    skill does on each other one's data, where that is known. notes: what was seen while weights were written."""

    folder: Path
    plan: MergePlan
    rank: int | None
    pairs: Sequence[Interference]
    dry_run: bool = False
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Where it is, the plan, and the pairs."""
        pairs = [pair.to_json() for pair in self.pairs]
        return {
            "folder": str(self.folder), "rank": self.rank, "pairs": pairs, "rounding": list(self.notes),
            **self.plan.to_json(),
        }  # fmt: skip


def plug_skills(
    base: Path_,
    skills: Sequence[NamedSkill],
    out: Path_,
    options: MergeOptions,
    *,
    as_lora: bool = False,
    dtype: torch.dtype | None = None,
    announce: Callable[[PluggedModel], None] = lambda _: None,
) -> PluggedModel:
    """Plug skills into the base's weights, or make one LoRA of them; an application, which has its skills in it, alone.
    dtype: of the weights that are written, None for the base's.

    options.force: also skills that disturb one another, and in the place of a result that is there. announce: called
    with what will be done before anything is written. Raises CheckpointError or RequestError, having written nothing.
    """
    application = next((named for named in skills if is_application(named.folder)), None)
    if application is not None:
        if len(skills) > 1 or as_lora:
            raise RequestError(
                f"{str(application.folder)!r} is an application, which has its skills in it and is one LoRA already; plug it"
                " alone, without --as lora"
            )
        read_application(application.folder)
        told = replace(options, announce=lambda plan: announce(_applied(Path(out), plan, options)))
        done = apply(base, [(application.folder, application.strength)], out, dtype, told)
        return replace(_applied(done.folder, done.plan, options), notes=tuple(done.notes))
    if len({named.name for named in skills}) < len(skills):
        skills = [replace(named, name=str(named.folder)) for named in skills]
    with ExitStack() as opened:
        checkpoint = open_source(base)
        opened.callback(checkpoint.close)
        modules_conflict([checkpoint.folder])  # refuses a list of modules that is none
        headers = headers_of(checkpoint)
        givers, members = [], dict[str, SkillDelta]()
        for named in skills:
            skill = read_skill(named.folder)
            opened.callback(skill.close)
            giver, member = skill_member(skill, named, checkpoint, headers)
            twin = members.get(skill.hash)
            if twin is not None:
                raise RequestError(
                    f"{str(named.folder)!r} is the skill of {str(twin.skill.folder)!r}; name it once, with a larger strength"
                )
            givers.append(giver)
            members[skill.hash] = member
        pairs = plugged_pairs([(named, members[giver.key].skill) for named, giver in zip(skills, givers)])
        notes = pairs.checked(options.force)
        strengths = {giver.key: named.strength for named, giver in zip(skills, givers)}
        request = merge_request(tuple(strengths.values()), True, "task-arithmetic", dtype=dtype)
        plan = apply_plan(headers, givers, request, notes, COMMAND)
        order = [members[giver.key] for giver in plan.members]
        joined = JoinedLora(order, [strengths[giver.key] for giver in plan.members]) if as_lora else None
        if joined is not None:
            plan = replace(plan, tensors=tuple(tensor for tensor in plan.tensors if any(tensor.origins)))
        plugged = PluggedModel(
            folder=Path(out), plan=plan, rank=None if joined is None else joined.rank, pairs=pairs.known, dry_run=options.dry_run
        )  # fmt: skip
        sources = [
            checkpoint,
            *(replace(member.skill.stored, label=giver.label) for member, giver in zip(order, plan.members)),
        ]
        replaces = _check_target(Path(out), [base, *(named.folder for named in skills)], options.force, as_lora)
        if options.dry_run:
            return plugged
        announce(plugged)
        rounding = Rounding()
        card = _card(plugged, sources)
        if joined is None:
            merger = Merger(
                plan=plan, base=checkpoint, members=order, allow_nonfinite=options.allow_nonfinite, rounding=rounding
            )  # fmt: skip
            size, progress = options.shard_bytes, options.progress
            write_merged(merger, checkpoint, sources, Path(out), size, replaces, progress, card)
        else:
            asked = {"as": LORA, "rank": joined.rank}
            write_folder(
                Path(out),
                sources=sources,
                fill=lambda place: write_joined(joined, plan, str(base), place),
                record=lambda hashes: describe(plan, COMMAND, asked, sources, hashes),
                card=card,
                replaces=replaces,
            )
        return replace(plugged, notes=tuple(rounding.notes(plan.tensors[0].dtype)))


def _applied(out: Path, plan: MergePlan, options: MergeOptions) -> PluggedModel:
    return PluggedModel(folder=out, plan=plan, rank=None, pairs=(), dry_run=options.dry_run)


def _check_target(out: Path, sources: Sequence[Path_], force: bool, as_lora: bool) -> Contents:
    paths = [path for path in map(Path, sources) if path.exists()]
    replaceable, kind = (is_lora, "LoRA of growkit's") if as_lora else (is_checkpoint, "checkpoint")
    return check_target(out, paths, force, replaceable, kind)


def is_lora(folder: Path) -> bool:
    """Whether a folder holds a LoRA that growkit made, which may give way to another."""
    return (folder / ADAPTER).is_file() and (folder / PROVENANCE).is_file()


def _card(plugged: PluggedModel, sources: Sequence[Checkpoint]) -> str:
    """README.md. sources: the base, then the plan's members."""
    base, plan, names = sources[0], plugged.plan, [source.name for source in sources[1:]]
    rows = "\n".join(f"| {name} | {giver.weight:g} | `{giver.key[:12]}` |" for name, giver in zip(names, plan.members))
    what = "Skills plugged into" if plugged.rank is None else f"One LoRA of rank {plugged.rank} that carries skills of"
    return model_card(
        " + ".join([base.name, *names]),
        f"{what} `{base.label}` ({plan.family.model_type}), by growkit {__version__}. The base is as it was: what plugs"
        f" other skills, or none, begins with it again.\n\n| skill | strength | SHA-256 |\n|---|---|---|\n{rows}\n\nHashes"
        f" of all sources: `{PROVENANCE}`.",
        sources=[base],
        relation=FINE_TUNE if plugged.rank is None else RELATION,
        tags=("growkit", "skills", *(() if plugged.rank is None else ("lora",))),
        library=None if plugged.rank is None else "peft",
    )
