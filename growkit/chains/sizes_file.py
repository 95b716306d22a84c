"""The sizes of a family as a file says them: one [[size]] table each, and columns that all of them share. Knows words
and their kinds; ignorant of what can be grown or trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from growkit.checkpoint.fields import FieldKind, Fields, ListOf, OneOf, Text, checked
from growkit.checkpoint.toml_text import read_toml
from growkit.errors import CheckpointError, RequestError

MOST = 100  # sizes of a family
REPORT, CHAIN = "report", "chain.json"  # beside the runs
START, STORE, ALONE = "-start", "-teacher", "-alone"  # how the names of folders end that belong to a size
TEACHERS = ("none", "live", "stored")
ORIGINS = ("init", "checkpoint")  # what the first size is made of: a config, or a model
PATH = Text(r"[^\0]{1,1000}", "text of at most 1000 characters")
NAME = Text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", "a name of at most 60 letters, digits, dots and dashes")
CURE = "mend it"


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What a table may say: how a size grows from the one before, keywords of `growkit.grow`, and how it is trained,
    keywords of `growkit.pretrain`."""

    growing: Mapping[str, FieldKind]
    training: Mapping[str, FieldKind]


@dataclass(frozen=True, kw_only=True)
class Size:
    """One size of a family. growing: what differs from the size before; empty where it is the origin itself. training:
    how it is trained. teacher: how the size before teaches it, one of TEACHERS."""

    name: str
    growing: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    teacher: str = "none"


@dataclass(frozen=True, kw_only=True)
class Generations:
    """Sizes in their order. origin: what the first is made of. drawn: whether that is a config, whose weights are drawn
    at random, and not a model."""

    origin: str
    drawn: bool
    sizes: tuple[Size, ...]


def read_sizes_file(path: str | Path, columns: Columns) -> Generations:
    """A family from its file. Raises CheckpointError for what is no such file, RequestError for a family that cannot
    be."""
    file = Path(path)
    shared = {**columns.training, "teacher": OneOf(TEACHERS)}
    own = {"name": NAME, **shared, **columns.growing}
    kinds = {**dict.fromkeys(ORIGINS, PATH), **shared, "size": ListOf(Fields({}), least=1, most=MOST)}
    content = checked(read_toml(file, "sizes"), Fields(kinds, needed=("size",)), file, "write one [[size]] for each")
    _known(content, kinds, f"{str(path)!r}", own)
    given = [key for key in ORIGINS if key in content]
    if len(given) != 1:
        raise RequestError(
            f"{str(path)!r} should say what the first size is made of by one of init, a config, and checkpoint, a model"
        )
    for number, table in enumerate(content["size"], start=1):
        where = f"{str(path)!r}, size {number}"
        _known(table, own, where, {})
        checked(table, Fields(own, needed=("name",)), where, CURE)
    common = {key: value for key, value in content.items() if key not in (*ORIGINS, "size")}
    drawn = given[0] == "init"
    sizes = [_size(table, number, common, columns, drawn) for number, table in enumerate(content["size"])]
    _check_names(sizes)
    return Generations(origin=content[given[0]], drawn=drawn, sizes=tuple(sizes))


def _known(table: Mapping[str, Any], kinds: Mapping[str, FieldKind], where: str, elsewhere: Mapping[str, Any]) -> None:
    """Refuse a column that nothing is known of. Raises CheckpointError."""
    for key in table:
        if key not in kinds:
            place = "; it belongs into a [[size]]" if key in elsewhere else ""
            raise CheckpointError(f"{where}: {key!r} is none of {', '.join(kinds)}{place}")


def _size(table: Mapping[str, Any], number: int, common: Mapping[str, Any], columns: Columns, drawn: bool) -> Size:
    """One size, with what all share; the seed rises from size to size, so that no batch is seen again."""
    growing = {key: value for key, value in table.items() if key in columns.growing}
    training = {key: value for key, value in table.items() if key in columns.training}
    what = f"size {table['name']!r}"
    if number == 0 and drawn and growing:
        raise RequestError(f"{what}: the first size is the config's of init; take {', '.join(growing)} out")
    if number and not growing:
        raise RequestError(
            f"{what} says nothing of how it grows from the one before; give it hidden, layers or the like"
        )
    teacher = table.get("teacher", common.get("teacher", "live") if growing else "none")
    if teacher != "none" and not growing:
        raise RequestError(f"{what}: it has no smaller one that could teach it; take teacher out")
    words = {key: value for key, value in common.items() if key != "teacher"}
    of_teachers = [key for key in training if key.startswith("teacher_")]
    if teacher == "none" and of_teachers:
        raise RequestError(f"{what}: {of_teachers[0]} says how it is taught, but it has no teacher; take it out")
    if teacher == "none":
        words = {key: value for key, value in words.items() if not key.startswith("teacher_")}
    words["seed"] = common.get("seed", 0) + number
    return Size(
        name=table["name"], growing=growing, training={**_without(words, training), **training}, teacher=teacher
    )


def _without(words: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What all share, less what a size says in another way: its length in tokens rather than in steps."""
    lengths = ("steps", "tokens", "epochs")
    drop = lengths if any(key in own for key in lengths) else ()
    return {key: value for key, value in words.items() if key not in drop}


def _check_names(sizes: list[Size]) -> None:
    """Refuse names whose folders would be one. Raises RequestError."""
    seen = {REPORT: "the report", CHAIN: "what the chain says of itself"}
    for size in sizes:
        for end in ("", START, STORE, ALONE, ALONE + START):
            folder = f"{size.name}{end}".lower()  # some disks take large and small letters for one
            if folder in seen:
                raise RequestError(f"size {size.name!r} and {seen[folder]} would share a folder; give it another name")
            seen[folder] = f"size {size.name!r}"
