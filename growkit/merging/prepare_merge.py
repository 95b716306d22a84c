"""Everything that is settled before a merge writes a byte: sources opened, the request planned, the output checked.
Knows the order of things; ignorant of how a plan is carried out.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from growkit.checkpoint.companions import modules_conflict, sentence_modules
from growkit.checkpoint.new_folder import Contents
from growkit.checkpoint.same_tokenizer import known_ids, tokenizer_files, unlike
from growkit.checkpoint.source import Checkpoint
from growkit.checkpoint.stream import Progress
from growkit.checkpoint.token_ids import token_ids
from growkit.checkpoint.writer import check_target
from growkit.errors import RequestError
from growkit.families import family_named, vocabulary_size
from growkit.growth.names import folder_for
from growkit.growth.prepare import SHARD_BYTES
from growkit.growth.source_headers import Headers
from growkit.growth.sources import headers_of
from growkit.growth.untied import tied_alike
from growkit.merging.base_and_delta import base_and_delta, open_member, paths_of, untied_member
from growkit.merging.by_tensor import Number, Spelling, by_tensor
from growkit.merging.merge_plan import MergePlan, keys_of, merge_plan
from growkit.merging.merger import Deltas, FineTuned, Merger
from growkit.merging.methods import MergeRequest, parse_member
from growkit.merging.vocabulary import Vocabulary

Path_ = str | Path
Member = Path_ | tuple[Path_, Spelling]


@dataclass(frozen=True, kw_only=True)
class MergeOptions:
    """How a merge is carried out, whatever is merged."""

    shard_bytes: int = SHARD_BYTES  # largest weight file
    force: bool = False  # replace a checkpoint that is there
    allow_nonfinite: bool = False  # merge NaN and Inf as they are
    dry_run: bool = False  # plan and check everything, and write nothing
    progress: Progress = lambda _: None  # called with bytes written
    announce: Callable[[MergePlan], None] = lambda _: None  # called with the plan before anything is written


@dataclass(frozen=True, kw_only=True)
class ReadyMerge:
    """All that is settled before a byte is written. sources: the base, where there is one, then the plan's members."""

    merger: Merger
    first: Checkpoint
    sources: list[Checkpoint]
    folder: Path
    replaces: Contents  # what lies there and may give way


def weighted_path(member: Member) -> tuple[Path_, Number]:
    """A member as (path, weight), from 'path:0.5', a path or a pair."""
    if isinstance(member, tuple):
        return member[0], by_tensor(member[1], f"the weight of {str(member[0])!r}")
    return parse_member(str(member), Path(member).exists())


def path_parts(source: Path_) -> tuple[str, ...]:
    """A path in parts, by whose end a member is known; a hub id's own, or those of BASE+DELTA one after the other."""
    both = base_and_delta(source)
    if both is not None:
        return path_parts(both[0]) + path_parts(both[1])
    path = Path(source)
    return path.resolve().parts if path.exists() else tuple(str(source).split("/"))


def weighted_paths(members: Sequence[Member]) -> list[tuple[Path_, Number]]:
    """Members as (path, weight). Raises RequestError where there are none, and for a weight that is no number."""
    if not members:
        raise RequestError("nothing to merge: name the members, such as M1 M2:0.5")
    return [weighted_path(member) for member in members]


@contextmanager
def prepared_merge(
    members: Sequence[Path_],
    base: Path_ | None,
    out: Path_ | None,
    request: MergeRequest,
    options: MergeOptions,
) -> Iterator[ReadyMerge]:
    """Open, plan and check everything that can be checked; close what was opened.

    request: with a weight for each member. out: the folder to make; None: one here, named by members and method. Raises
    CheckpointError or RequestError.
    """
    keys = keys_of([path_parts(path) for path in members])
    paths = [base, *members] if base is not None else list(members)
    opened: list[Checkpoint] = []
    try:
        for path in paths:
            opened.append(open_member(path))
        if not request.body:  # which leaves heads as they are
            opened = tied_alike(opened, untied_member)
        headers = [headers_of(checkpoint) for checkpoint in opened]
        vocabularies = _vocabularies(opened, headers)
        based = base is not None
        plan = merge_plan(headers[0] if based else None, headers[based:], keys, request, vocabularies)
        _check_modules(opened)
        by_key = dict(zip(keys, opened[based:]))
        sources = [by_key[member.key] for member in plan.members]
        twins = _twins(plan, opened[0] if based else None, sources)
        plan = replace(plan, notes=(*plan.notes, *_tokenizer_notes(opened), *twins))
        folder = (
            Path(out)
            if out is not None
            else folder_for(paths, f"{'+'.join(c.name for c in opened[based:])}-{request.method}")
        )
        replaces = check_target(folder, [place for path in paths for place in paths_of(path)], options.force)
        deltas: list[Deltas] = [FineTuned(source) for source in sources]
        merger = Merger(
            plan=plan, base=opened[0] if based else None, members=deltas, allow_nonfinite=options.allow_nonfinite
        )
        yield ReadyMerge(
            merger=merger, first=opened[0], sources=[*opened[:based], *sources], folder=folder, replaces=replaces
        )
    finally:
        for checkpoint in opened:
            checkpoint.close()


def _vocabularies(models: Sequence[Checkpoint], headers: Sequence[Headers]) -> list[Vocabulary]:
    """What is known of each model's tokens; transformers is asked only where their files differ. Of models that read
    images, that they have none.
    """
    if all(family_named(header.config.get("model_type")).reads_pixels for header in headers):
        return [Vocabulary(model.label, 0, {}) for model in models]
    files = [tokenizer_files(model.folder) for model in models]
    alike = all(own == files[0] for own in files if own)
    read = token_ids if alike else known_ids
    return [
        Vocabulary(model.label, vocabulary_size(header.config), read(model.folder), own)
        for model, header, own in zip(models, headers, files)
    ]


def _tokenizer_notes(models: Sequence[Checkpoint]) -> list[str]:
    """What is unlike in tokenizers that have the same tokens, of which the result gets the first's."""
    first = models[0]
    notes = [unlike((first.label, other.label), (first.folder, other.folder)).note for other in models[1:]]
    return [f"{note}; the result has the first's" for note in notes if note]


def _check_modules(opened: Sequence[Checkpoint]) -> None:
    for checkpoint in opened:
        conflict = modules_conflict([opened[0].folder, checkpoint.folder])
        if conflict:
            raise RequestError(f"{opened[0].label!r} and {checkpoint.label!r} have different {conflict}")
        modules = sentence_modules(checkpoint.folder) if checkpoint.folder is not None else []
        if any(kind == "Dense" for kind, _ in modules):
            raise RequestError(f"{checkpoint.label!r} ends in a Dense module, whose weights growkit does not merge")


def _twins(plan: MergePlan, base: Checkpoint | None, members: Sequence[Checkpoint]) -> list[str]:
    """Warnings of members that are the base, or one another; reads up to the first difference."""
    names = [[tensor.origins[number] for tensor in plan.tensors] for number in range(len(members))]
    ours = [tensor.base for tensor in plan.tensors]
    notes = []
    for number, member in enumerate(members):
        if base is not None and _same(base, ours, member, names[number]):
            notes.append(f"warning: {member.label!r} equals the base {base.label!r}: it has nothing to give")
        for before, other in enumerate(members[:number]):
            if _same(other, names[before], member, names[number]):
                notes.append(f"warning: {other.label!r} and {member.label!r} are the same model under two names")
    return notes


def _same(one: Checkpoint, ours: Sequence[str], other: Checkpoint, theirs: Sequence[str]) -> bool:
    return all(_same_tensor(one, other, *names) for names in zip(ours, theirs) if all(names))


def _same_tensor(one: Checkpoint, other: Checkpoint, name: str, theirs: str) -> bool:
    a, b = one.tensors[name], other.tensors[theirs]
    if a.shape != b.shape:
        return False
    rows = a.shape[0] if a.shape else 1
    step = max(1, (1 << 20) // max(1, a.elements // max(1, rows)))
    pieces = (np.arange(start, min(start + step, rows)) for start in range(0, rows, step))
    return all(torch.equal(*(c.rows(n, piece).double() for c, n in ((one, name), (other, theirs)))) for piece in pieces)
