"""Merging, measuring and applying deltas, from request to result. Knows the order of things; every step lives below."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from growkit.checkpoint.companions import modules_conflict
from growkit.checkpoint.folder import write_folder
from growkit.checkpoint.writer import check_target
from growkit.errors import RequestError
from growkit.families import family_named
from growkit.growth.names import folder_for
from growkit.growth.sources import headers_of, open_source
from growkit.growth.untied import untied
from growkit.merging.base_and_delta import UNTIED, on_both
from growkit.merging.by_tensor import Number
from growkit.merging.delta_sizes import DeltaReport, measure
from growkit.merging.kept_files import givers_of, kept_notes
from growkit.merging.lora_file import save_low_rank
from growkit.merging.merge_plan import MergePlan, apply_plan, keys_of
from growkit.merging.merger import Merger
from growkit.merging.methods import MergeRequest, merge_request
from growkit.merging.prepare_merge import MergeOptions, Path_, path_parts, prepared_merge
from growkit.merging.rounding import Rounding
from growkit.merging.sparse_file import SparseFile
from growkit.merging.stored_deltas import Skill, open_skill
from growkit.merging.write_merge import describe, lora_card, write_merged


@dataclass(frozen=True)
class Merged:
    """What a merge did, or with `dry_run` would do."""

    folder: Path  # the folder that was made, or would be
    plan: MergePlan  # what was followed
    dry_run: bool = False  # whether nothing was written
    notes: tuple[str, ...] = ()  # what carrying it out has shown


def merge(
    members: Sequence[Path_], base: Path_ | None, out: Path_ | None, request: MergeRequest, options: MergeOptions
) -> Merged:
    """Merge members, whose weights the request holds, into one: theta = base + scale * C({(w_t, S(theta_t - base))}).

    Raises CheckpointError or RequestError, having written nothing and touched nothing.
    """
    with prepared_merge(members, base, out, request, options) as ready:
        plan = ready.merger.plan
        kept = kept_notes(givers_of(ready.first, ready.sources[plan.base is not None :]), plan.first)
        merger = replace(ready.merger, plan=replace(plan, notes=(*plan.notes, *kept)))
        if not options.dry_run:
            options.announce(merger.plan)
            write_merged(
                merger, ready.first, ready.sources, ready.folder, options.shard_bytes, ready.replaces, options.progress
            )
        return Merged(ready.folder, merger.plan, options.dry_run)


@dataclass(frozen=True)
class MeasuredDelta:
    """What `delta` found, and where it saved what. errors: of a low-rank delta, relative, by module."""

    report: DeltaReport
    folder: Path | None = None
    errors: dict[str, float] | None = None


def delta(
    base: Path_,
    member: Path_,
    save: Path_ | None,
    *,
    drop: float | None,
    rank: int | None,
    body: bool,
    seed: int,
    force: bool,
) -> MeasuredDelta:
    """Measure what a fine-tuned model changed of its base, and save it as a small file: sparse, or of low rank for
    PEFT.

    drop: DARE's p, the share of a sparse delta that is left out (None: nothing). rank: instead, a LoRA of the linear
    layers; embeddings, head, norms and biases are left out of it. body: of the base models alone. Raises as `merge`
    does.
    """
    if save is None and (drop is not None or rank is not None):
        raise RequestError("--drop and --rank say how a delta is saved: say where with --save")
    if drop is not None and rank is not None:
        raise RequestError("--drop makes a sparse delta and --rank a low-rank one; give one of them")
    if rank is not None and rank < 1:
        raise RequestError(f"--rank {rank} should be 1 or more")
    request = merge_request((1.0,), True, "dare", drop=drop or 0.0, seed=seed, body=body)
    options = MergeOptions(force=force or save is None)
    with prepared_merge([member], base, save or Path("nowhere"), request, options) as ready:
        changed = tuple(tensor for tensor in ready.merger.plan.tensors if tensor.origins[0])
        plan = replace(ready.merger.plan, tensors=changed)
        merger = replace(ready.merger, plan=plan)
        if rank is not None and plan.family.is_moe:
            raise RequestError(
                f"--rank {rank}: stock models hold a mixture's experts stacked, where PEFT's LoRA finds no linear"
                " layers; save a sparse delta with --drop"
            )
        if save is None:
            return MeasuredDelta(measure(merger))
        measured: MeasuredDelta

        def fill(folder: Path) -> None:
            nonlocal measured
            errors: dict[str, float] | None = None
            if rank is None:
                with SparseFile(merger=merger, folder=folder) as file:
                    report = measure(merger, file.add)  # each block is read once, for both
                    file.finish()
            else:
                report = measure(merger)
                errors = save_low_rank(merger, folder, rank, str(base))
            measured = MeasuredDelta(report, Path(save), errors)

        asked = {"drop": drop or 0.0, "rank": rank, "seed": seed, **({"body": True} if body else {})}
        write_folder(
            Path(save),
            sources=ready.sources,
            fill=fill,
            record=lambda hashes: describe(plan, "delta", asked, ready.sources, hashes),
            card=None if rank is None else lora_card(plan, ready.sources, rank),
            replaces=ready.replaces,
        )
        return measured


def apply(
    base: Path_,
    deltas: Sequence[tuple[Path_, Number]],
    out: Path_ | None,
    dtype: torch.dtype | None,
    options: MergeOptions,
) -> Merged:
    """Add stored deltas, each with its weight, to a base: theta = base + sum of weight * delta.

    deltas: folders of `delta` or of PEFT's LoRA. dtype: what is stored; None: as the base. Raises as `merge` does.
    """
    if not deltas:
        raise RequestError("nothing to apply: name the deltas, such as D1 D2:0.5")
    keys = keys_of([path_parts(path) for path, _ in deltas])
    request = merge_request(tuple(weight for _, weight in deltas), True, "task-arithmetic", dtype=dtype)
    with ExitStack() as opened:
        checkpoint = open_source(base)
        opened.callback(checkpoint.close)
        modules_conflict([checkpoint.folder])  # refuses a list of modules that is none
        headers = headers_of(checkpoint)
        family = family_named(headers.config.get("model_type"))
        skills: dict[str, Skill] = {}
        for key, (path, weight) in zip(keys, deltas):
            skills[key] = open_skill(Path(path), checkpoint, headers, family, key, weight)
            opened.callback(skills[key].stored.close)
        givers, notes = [skill.giver for skill in skills.values()], []
        if any(skill.untied for skill in skills.values()):
            checkpoint = untied(checkpoint, family)
            headers = headers_of(checkpoint)
            givers = [on_both(skill, family, headers) for skill in skills.values()]
            notes = [UNTIED]
        plan = apply_plan(headers, givers, request, notes)
        order = [member.key for member in plan.members]
        folder = (
            Path(out)
            if out is not None
            else folder_for([base], "+".join([checkpoint.name, *(k.split("/")[-1] for k in keys)]))
        )
        named = [Path(path) for path in (base, *(path for path, _ in deltas))]
        replaces = check_target(folder, [path for path in named if path.exists()], options.force)
        rounding = Rounding()
        if not options.dry_run:
            options.announce(plan)
            merger = Merger(
                plan=plan, base=checkpoint, members=[skills[key].member for key in order],
                allow_nonfinite=options.allow_nonfinite, rounding=rounding,
            )  # fmt: skip
            sources = [checkpoint, *(skills[key].stored for key in order)]
            write_merged(merger, checkpoint, sources, folder, options.shard_bytes, replaces, options.progress)
        return Merged(folder, plan, options.dry_run, rounding.notes(plan.tensors[0].dtype))
