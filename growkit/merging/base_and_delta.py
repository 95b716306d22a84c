"""BASE+DELTA: a base with a stored delta on it, read as if it were one checkpoint. Knows how people write it and how
its rows come to be; ignorant of what it is read for. Nothing is written: rows are added up as they are asked for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from growkit.checkpoint.source import Checkpoint, Stretch
from growkit.families import Family, family_named
from growkit.growth.kin import names_of, stem_of
from growkit.growth.source_headers import Headers
from growkit.growth.sources import headers_of, open_source
from growkit.growth.untied import untied
from growkit.merging.merge_plan import check_fits
from growkit.merging.merged_tensor import Giver
from growkit.merging.stored_deltas import Skill, open_skill

UNTIED = (
    "the head gets weights of its own: the adapter is on it, or on the embedding, alone, and in the base both are one"
    " tensor"
)


@dataclass(kw_only=True)
class Adapted(Checkpoint):
    """A base with a delta on it. Rows that change come in the dtype they are added in: float32, or float64."""

    base: Checkpoint
    skill: Skill
    stems: Mapping[str, str]  # stored name of a tensor that changes -> its stem

    def rows(self, name: str, rows: np.ndarray, columns_as_rows: bool = False) -> torch.Tensor:
        """Rows of a tensor seen as (rows, rest), with what the delta adds."""
        base = self.base.rows(name, rows, columns_as_rows)
        stem = self.stems.get(name)
        if stem is None:
            return base
        assert not columns_as_rows, "merging reads rows"
        wide = torch.float64 in (base.dtype, self.skill.giver.dtypes[stem])
        base = base.to(torch.float64 if wide else torch.float32)
        return base + self.skill.member.change(stem, rows, base)

    def stretch(self, name: str, first: int, count: int, dtype: torch.dtype) -> Stretch | None:
        """Where rows lie; None for those that change, which lie nowhere."""
        return None if name in self.stems else self.base.stretch(name, first, count, dtype)

    def files(self) -> list[Path]:
        """The weight files of both."""
        return sorted({*self.base.files(), *self.skill.stored.files()})

    def hashes(self, stopped: Callable[[], bool] = lambda: False) -> dict[str, str]:
        """SHA-256 of every weight file by name, of both."""
        return self.base.hashes(stopped) | self.skill.stored.hashes(stopped)

    def close(self) -> None:
        """Close the weight files of both."""
        self.base.close()
        self.skill.stored.close()


def base_and_delta(member: str | Path) -> tuple[str, Path] | None:
    """What BASE+DELTA names; None for a member that is no such thing. What exists under the whole name is that.

    The delta is what stands behind the last plus after which a folder's name comes.
    """
    text = str(member)
    if Path(member).exists():
        return None
    for place in (place for place in reversed(range(1, len(text))) if text[place] == "+"):
        if text[place + 1 :] and Path(text[place + 1 :]).is_dir():
            return text[:place], Path(text[place + 1 :])
    return None


def paths_of(member: str | Path) -> list[Path]:
    """What of a member lies on this disk, so that an output may not be there."""
    both = base_and_delta(member)
    places = [Path(member)] if both is None else [Path(both[0]), both[1]]
    return [path for path in places if path.exists()]


def open_member(member: str | Path) -> Checkpoint:
    """Open a checkpoint, or BASE+DELTA as one. Raises CheckpointError or RequestError as opening either does."""
    both = base_and_delta(member)
    if both is None:
        return open_source(member)
    base = open_source(both[0])
    headers = headers_of(base)
    family = family_named(headers.config.get("model_type"))
    skill = open_skill(both[1], base, headers, family)
    if skill.untied:
        base = untied(base, family)
        headers = headers_of(base)
    check_fits(skill.giver, headers)
    by_stem = {name: stem_of(family, headers, name) for name in headers.shapes if not family.is_buffer(name)}
    return Adapted(
        label=str(member),
        tensors=base.tensors,
        config=base.config,
        folder=base.folder,
        inferred=base.inferred,
        notes=base.notes,
        base=base,
        skill=skill,
        stems={name: stem for name, stem in by_stem.items() if stem in skill.giver.names},
    )


def untied_member(member: Checkpoint, family: Family) -> Checkpoint:
    """`untied`, for a base with a delta on it too: what that changes of the embedding it changes of the head."""
    if not isinstance(member, Adapted):
        return untied(member, family)
    base = untied(member.base, family)
    assert base.config is not None, "as its base had one"
    stems = dict(member.stems)
    for name in {*base.tensors} - {*member.tensors}:
        if family.stem(name) in family.heads and family.embedding in stems.values():
            stems[name] = family.embedding
    return replace(member, base=base, tensors=base.tensors, config=base.config, stems=stems)


def on_both(skill: Skill, family: Family, headers: Headers) -> Giver:
    """What a delta changes of a model that was untied: one that knows a single tensor there changes both."""
    head = next(stem for stem in names_of(family, headers) if stem in family.heads)
    giver, one = skill.giver, family.embedding
    if skill.untied or one not in giver.names:
        return giver
    return replace(giver, names={**giver.names, head: one}, dtypes={**giver.dtypes, head: giver.dtypes[one]})
