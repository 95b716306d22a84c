"""From a request and headers to the plan of a merge: which tensors, from whom, which rows. Knows what must agree
between models that are merged; ignorant of values and of files.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from growkit.checkpoint.record import FORMAT
from growkit.errors import RequestError
from growkit.families import Family, family_named
from growkit.growth.kin import bytes_of, dtypes_of, names_of, stem_of
from growkit.growth.plan import process_bytes
from growkit.growth.source_headers import Headers
from growkit.growth.width.sizes import read_sizes
from growkit.merging.mergeable import check_each, check_mergeable
from growkit.merging.merged_tensor import Giver, MergedTensor, merged_tensor
from growkit.merging.methods import MergeRequest
from growkit.merging.taking_part import taking_part
from growkit.merging.vocabulary import Vocabulary, rows_of

IN_FLIGHT = 3  # blocks being computed or waiting for it


@dataclass(frozen=True, kw_only=True)
class MergePlan:
    """Everything needed to merge."""

    command: str
    request: MergeRequest
    base: Headers | None
    first: str  # label of the model whose config, names and files the result has: the base, or a member
    members: tuple[Giver, ...]  # in the order of their keys, so that the order they were named in changes nothing
    tensors: tuple[MergedTensor, ...]
    config: dict[str, Any]
    source_bytes: int
    changed: dict[str, Any]  # settings that the result has otherwise than the first
    notes: tuple[str, ...] = ()

    @property
    def family(self) -> Family:
        return family_named(self.config.get("model_type"))

    @property
    def parameters(self) -> int:
        return sum(prod(tensor.shape) for tensor in self.tensors)

    @property
    def bytes(self) -> int:
        return sum(prod(t.shape) * t.dtype.itemsize * len(t.names) for t in self.tensors)

    @property
    def peak_bytes(self) -> int:
        """Expected peak resident memory: the process, and members' parts of the blocks in flight with temporaries."""
        largest = max((min(t.block_rows, t.height) * t.width * t.compute.itemsize for t in self.tensors), default=0)
        return process_bytes() + IN_FLIGHT * largest * (len(self.members) + 4)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data: what `--dry-run --json` prints."""
        return {
            "format": FORMAT,
            "command": self.command,
            "family": self.family.model_type,
            "base": self.base.label if self.base is not None else None,
            "members": [member.to_json() for member in self.members],
            "request": self.request.to_json(),
            "tensors": sum(len(tensor.names) for tensor in self.tensors),
            "parameters": self.parameters,
            "bytes": {"before": self.source_bytes, "after": self.bytes},
            "peak_memory_bytes": self.peak_bytes,
            "config": self.changed,
            "notes": list(self.notes),
        }


def keys_of(names: Sequence[tuple[str, ...]]) -> list[str]:
    """What each member is called: the shortest end of its path, given in parts, that no other has.

    Raises RequestError for one that is named twice.
    """
    keys = []
    for number, name in enumerate(names):
        others = [other for place, other in enumerate(names) if place != number]
        if name in others:
            raise RequestError(
                f"member {'/'.join(name).replace('//', '/')!r} is named twice; name it once, with a larger weight"
            )
        ends = (name[-length:] for length in range(1, len(name) + 1))
        keys.append("/".join(next((end for end in ends if all(o[-len(end) :] != end for o in others)), name)))
    return keys


def merge_plan(
    base_model: Headers | None,
    members: Sequence[Headers],
    keys: Sequence[str],
    request: MergeRequest,
    vocabularies: Sequence[Vocabulary],
) -> MergePlan:
    """Plan a merge. vocabularies: of the base, where there is one, then of the members.

    Raises RequestError for models that do not belong together, CheckpointError for one that is not understood.
    """
    models = [base_model, *members] if base_model is not None else list(members)
    family = check_each(models)
    parts, left = taking_part(family, models, base_model is not None, request.body)
    notes = [*(note for model in models for note in model.notes), *left]
    for other in parts[1:]:
        notes += check_mergeable(family, parts[0], other, request.body)
    rows = [rows_of(vocabularies[0], vocabulary, request.vocab) for vocabulary in vocabularies[-len(members) :]]
    for member, matched in zip(members, rows):
        if matched is not None:
            notes.append(
                f"vocabulary: {member.label!r} has {int((matched >= 0).sum()):,} of the base's {len(matched):,} rows;"
                " it changes nothing in the others"
            )
    givers = [
        Giver(
            label=model.label,
            key=key,
            weight=weight,
            bytes=bytes_of(family, model),
            names=names_of(family, model),
            dtypes=dtypes_of(family, model),
        )
        for model, key, weight in zip(parts[-len(members) :], keys, request.weights)
    ]
    return _plan("merge", base_model or parts[0], base_model is not None, givers, rows, request, notes)


def apply_plan(
    base_model: Headers,
    skills: Sequence[Giver],
    request: MergeRequest,
    notes: Sequence[str] = (),
    command: str = "apply",
) -> MergePlan:
    """Plan the adding of deltas stored by themselves. Raises RequestError for one that does not fit the base."""
    check_each([base_model])
    for skill in skills:
        check_fits(skill, base_model)
    rows = [None] * len(skills)
    return _plan(command, base_model, True, skills, rows, request, [*base_model.notes, *notes])


def check_fits(skill: Giver, base_model: Headers) -> None:
    """Raises RequestError for a stored delta of tensors that a base does not have, or has in another shape."""
    ours = names_of(family_named(base_model.config.get("model_type")), base_model)
    strange = sorted({*skill.names} - {*ours})
    if strange:
        raise RequestError(f"{skill.label!r} changes tensor {strange[0]!r}, which {base_model.label!r} does not have")
    for stem, shape in skill.shapes.items():
        if shape != base_model.shapes[ours[stem]]:
            raise RequestError(
                f"{skill.label!r} changes tensor {ours[stem]!r} of shape {list(shape)} and {base_model.label!r} has"
                f" {list(base_model.shapes[ours[stem]])}; apply it to the base it was made from"
            )


def _plan(
    command: str,
    first: Headers,
    based: bool,
    givers: Sequence[Giver],
    rows: Sequence[np.ndarray | None],
    request: MergeRequest,
    notes: Sequence[str],
) -> MergePlan:
    family = family_named(first.config.get("model_type"))
    order = sorted(range(len(givers)), key=lambda number: givers[number].key)
    members = tuple(givers[number] for number in order)
    matched = tuple(rows[number] for number in order)
    by_member = tuple(request.by_member[number] for number in order) if request.by_member else ()
    request = replace(request, weights=tuple(member.weight for member in members), by_member=by_member)
    names: dict[str, list[str]] = {}
    for name in first.shapes:
        if not family.is_buffer(name):
            names.setdefault(stem_of(family, first, name), []).append(name)
    layers = read_sizes(family, first.config)["layer"]
    if request.layers not in (None, layers):
        raise RequestError(f"the recipe's slices make {request.layers} layers and {first.label!r} has {layers}")
    tensors = tuple(
        merged_tensor(family, first, based, layers, stem, tuple(stored), members, matched, request)
        for stem, stored in names.items()
    )
    config = dict(first.config)
    if first.head_is_copy is False:
        config["tie_word_embeddings"] = False  # two different tensors cannot be tied; transformers would not either
    dtypes = {tensor.dtype for tensor in tensors}
    if len(dtypes) == 1 and dtypes != {first.dtypes[name] for stored in names.values() for name in stored}:
        config["torch_dtype" if "torch_dtype" in config else "dtype"] = str(*dtypes).removeprefix("torch.")
    base_bytes = bytes_of(family, first) if based else 0
    return MergePlan(
        command=command,
        request=request,
        base=first if based else None,
        first=first.label,
        members=members,
        tensors=tensors,
        config=config,
        source_bytes=base_bytes + sum(member.bytes for member in members),
        changed={key: value for key, value in config.items() if first.config.get(key) != value},
        notes=tuple(dict.fromkeys((*request.notes, *notes))),
    )
