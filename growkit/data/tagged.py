"""Inputs as people write them, tagged with a domain or not: name=PATH. Knows paths; ignorant of what is in files."""

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from growkit.data.datasets_library import LibraryRequest
from growkit.data.domains import MOST, NAME
from growkit.data.text import TextFiles, TextSource, find_files
from growkit.errors import RequestError

Path_ = str | Path


@dataclass(frozen=True)
class Inputs:
    """What text is made of. domains: the names of all, none where nothing is tagged. train, val: (domain's number, what
    is of it) of each part. named: the paths that were given."""

    domains: tuple[str, ...]
    train: tuple[tuple[int, TextSource], ...]
    val: tuple[tuple[int, TextSource], ...]
    named: tuple[Path, ...]


def read_inputs(inputs: Sequence[Path_], val: Sequence[Path_], library: LibraryRequest) -> Inputs:
    """The files of inputs and of what validates, and what the library has, by domain. Raises RequestError for what
    names none, for a file that is in two places, and where only some are tagged.
    """
    pairs = [(*untagged(name), name) for name in (*inputs, *val, *library.names)]
    tags = list(dict.fromkeys(tag for tag, _, _ in pairs if tag is not None))
    bare = next((name for tag, _, name in pairs if tag is None), None)
    if tags and bare is not None:
        raise RequestError(
            f"{str(bare)!r} has no tag and others have ({', '.join(tags[:3])}); tag all inputs as name=PATH, those of --val"
            " too, or none"
        )
    if len(tags) > MOST:
        raise RequestError(f"{len(tags)} domains are more than {MOST}, the most that a dataset has")
    if not inputs and not library.names:
        raise RequestError("no text: name at least one file or folder, or a --dataset")
    numbered = [(tags.index(tag) if tag is not None else 0, path) for tag, path, _ in pairs]
    ends = len(inputs), len(inputs) + len(val)
    files = [_files_by_domain(given) for given in (numbered[: ends[0]], numbered[ends[0] : ends[1]])]
    _check_apart(tags, *files)
    parts: list[list[tuple[int, TextSource]]] = [list(group) for group in files]
    for part, split in zip(parts, library.splits):
        part += [(number, library.opened(str(name), split)) for number, name in numbered[ends[1] :]]
    return Inputs(tuple(tags), tuple(parts[0]), tuple(parts[1]), tuple(Path(path) for _, path, _ in pairs))


def _files_by_domain(given: Sequence[tuple[int, Path_]]) -> list[tuple[int, TextFiles]]:
    groups: dict[int, list[Path_]] = {}
    for number, path in given:
        groups.setdefault(number, []).append(path)
    return [(number, TextFiles(tuple(find_files(paths)))) for number, paths in groups.items()]


def untagged(name: Path_) -> tuple[str | None, Path_]:
    """(tag, path) of an input: name=PATH, unless a file of the whole text is there, or it is no such thing."""
    match = re.fullmatch(rf"({NAME})=(.+)", str(name), re.DOTALL)
    if match is None or Path(name).exists() or (glob.has_magic(str(name)) and glob.glob(str(name), recursive=True)):
        return None, name
    return match[1], match[2]


def _check_apart(tags: list[str], *parts: list[tuple[int, TextFiles]]) -> None:
    """Refuse a file that is of two domains, or both for training and for validation."""
    seen: dict[Path, tuple[int, int]] = {}
    for part, groups in enumerate(parts):
        for domain, files in groups:
            for file in files.paths:
                before = seen.setdefault(file.resolve(), (part, domain))
                if before[0] != part:
                    raise RequestError(
                        f"{str(file.resolve())!r} is both for training and for validation; leave it out of one"
                    )
                if before[1] != domain:
                    raise RequestError(
                        f"{str(file)!r} is in {tags[before[1]]} and in {tags[domain]}; leave it out of one"
                    )
