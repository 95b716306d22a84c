"""What a result says of itself: growkit.json. Knows how it is written and read back; ignorant of plans and of
weights.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from growkit.checkpoint.fields import Fields, Number, checked
from growkit.checkpoint.small_files import read_json
from growkit.checkpoint.source import PROVENANCE, Checkpoint
from growkit.errors import CheckpointError
from growkit.maps.exactness import Exactness
from growkit.version import __version__

INSERTED = "inserted_layers"  # a key: those that growths before this result inserted, counted from 1
LEARNED = "learned"  # a key: what learning the maps of a growth came to
SAID = Fields({LEARNED: Fields({"flops": Number(0.0, 1e40)}, needed=("flops",))})
FORMAT = 2  # of the JSON a plan and growkit.json hold


def record(
    command: str,
    *,
    request: Mapping[str, Any],
    sources: Sequence[Mapping[str, Any]],
    family: str | None = None,
    architecture: str | None = None,
    exactness: Exactness | None = None,
    axes: Sequence[Mapping[str, Any]] | None = None,
    maps_digest: str | None = None,
    maps: Mapping[str, Any] | None = None,
    inserted: Sequence[int] = (),
    learned: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What growkit.json says: which command, asked how, made this of which sources. What is not given has no place in
    it.

    inserted: layers, from 0, that growths of its source inserted as identities. learned: what came of learning its
    maps.
    sources: from source_entries. maps: as JSON, those that are not the identity; maps_digest: of all sources' maps.
    """
    known = {
        "format": FORMAT,
        "growkit": __version__,
        "command": command,
        "family": family,
        "architecture": architecture,
        "request": dict(request),
        "exactness": None if exactness is None else str(exactness),
        "axes": None if axes is None else list(axes),
        "maps_digest": maps_digest,
        "sources": list(sources),
        LEARNED: None if learned is None else dict(learned),
        INSERTED: [layer + 1 for layer in inserted] or None,
        "maps": dict(maps or {}),
    }
    return {key: value for key, value in known.items() if value is not None}


def source_entries(
    sources: Sequence[Checkpoint], hashes: Sequence[Mapping[str, str]], parts: Sequence[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """What growkit.json says of the sources: names, hashes of their files and, where growkit made them, how.

    parts: what else there is to say of each, such as its weight in a merge.
    """
    entries = []
    for source, files, part in zip(sources, hashes, parts or [{}] * len(sources)):
        own = record_of(source.folder)
        entries.append({"name": source.name, **part, "files": dict(files), **({"record": own} if own else {})})
    return entries


def learning_flops(folder: Path | None) -> float:
    """Operations that it took to learn the maps by which a checkpoint was grown; 0 where they were exact. Raises
    CheckpointError for a growkit.json that says what growkit never says."""
    path = folder / PROVENANCE if folder is not None else None
    if path is None or not path.exists():
        return 0.0
    return float(checked(read_json(path), SAID, path).get(LEARNED, {"flops": 0.0})["flops"])


def record_of(folder: Path | None) -> dict[str, Any] | None:
    """What a checkpoint's own growkit.json says of how it was made, without its maps; None where it has none.

    Two records are equal exactly when the same request was made of the same bytes.
    """
    path = folder / PROVENANCE if folder is not None else None
    if path is None or not path.exists():
        return None
    content = read_json(path)
    return {key: content.get(key) for key in ("command", "sources", "request", "exactness", "maps_digest")}


def record_text(content: Mapping[str, Any]) -> str:
    """growkit.json: indented for people, except for the maps of axes, one to a line."""
    if "axes" not in content:
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    maps = ",\n".join(f"    {json.dumps(axis)}: {json.dumps(entry)}" for axis, entry in content["maps"].items())
    rest = json.dumps({key: value for key, value in content.items() if key != "maps"}, indent=2, ensure_ascii=False)
    return rest.removesuffix("\n}") + f',\n  "maps": {{\n{maps}\n  }}\n}}\n'


def came_from_grown(provenance: Mapping[str, Any]) -> bool:
    """Whether growkit made any of the sources of this result too."""
    return any("record" in entry for entry in _entries(provenance))


def promised(provenance: Mapping[str, Any], hashes: list[str] | None) -> Exactness:
    """The exactness a result promises of a source, known by the sorted hashes of its files: the worst of the growths
    that lie between them. hashes None: of its own sources.

    Raises CheckpointError for a growkit.json that says what growkit never says.
    """
    if hashes is None:
        return _stated(provenance)
    exactness = _between(provenance, hashes)
    return _worst(provenance) if exactness is None else exactness


def _between(record: Mapping[str, Any], hashes: list[str]) -> Exactness | None:
    """The worst exactness from the files with these hashes to this record; None where they are not below it."""
    for entry in _entries(record):
        files = entry.get("files")
        if isinstance(files, dict) and sorted(map(str, files.values())) == hashes:
            return _stated(record)
        below = _between(entry["record"], hashes) if isinstance(entry.get("record"), dict) else None
        if below is not None:
            return max(_stated(record), below)
    return None


def grown_exactly(record: Mapping[str, Any], hashes: list[str]) -> bool:
    """Whether nothing but exact growths of one model each lie between the files with these sorted hashes and a result.

    Raises CheckpointError for a record that says what growkit never says.
    """
    entries = _entries(record)
    if len(entries) != 1 or _stated(record) is not Exactness.EXACT:
        return False
    files, below = entries[0].get("files"), entries[0].get("record")
    if isinstance(files, dict) and sorted(map(str, files.values())) == hashes:
        return True
    return isinstance(below, dict) and grown_exactly(below, hashes)


def _worst(record: Mapping[str, Any]) -> Exactness:
    below = [_worst(entry["record"]) for entry in _entries(record) if isinstance(entry.get("record"), dict)]
    return max([_stated(record), *below])


def _entries(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    entries = record.get("sources")
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _stated(record: Mapping[str, Any]) -> Exactness:
    known = {str(exactness): exactness for exactness in Exactness}
    word = record.get("exactness", "exact")
    if not isinstance(word, str) or word not in known:
        raise CheckpointError(f"{PROVENANCE} says exactness {word!r}; verify against an intact result")
    return known[word]
