"""What a result says of itself: growkit.json and the model card. Knows how to write a plan down and read maps back; ignorant
of weights.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from growkit.checkpoint.source import PROVENANCE, read_json
from growkit.errors import CheckpointError
from growkit.maps.exactness import Exactness

FORMAT = 2  # of the JSON a plan and growkit.json hold


def record_of(folder: Path | None) -> dict[str, Any] | None:
    """What a checkpoint's own growkit.json says of how it was made, without its maps; None where it has none.

    Two records are equal exactly when the same request was made of the same bytes.
    """
    path = folder / PROVENANCE if folder is not None else None
    if path is None or not path.exists():
        return None
    content = read_json(path)
    return {key: content.get(key) for key in ("command", "sources", "request", "exactness", "maps_digest")}


def provenance_text(content: Mapping[str, Any]) -> str:
    """growkit.json: indented for people, except for the maps, one to a line."""
    maps = ",\n".join(f"    {json.dumps(axis)}: {json.dumps(entry)}" for axis, entry in content["maps"].items())
    rest = json.dumps({key: value for key, value in content.items() if key != "maps"}, indent=2, ensure_ascii=False)
    return rest.removesuffix("\n}") + f',\n  "maps": {{\n{maps}\n  }}\n}}\n'


def came_from_grown(provenance: Mapping[str, Any]) -> bool:
    """Whether growkit made any of the sources of this result too."""
    return any("record" in entry for entry in _entries(provenance))


def promised(provenance: Mapping[str, Any], hashes: list[str] | None) -> Exactness:
    """The exactness a result promises of a source, known by the sorted hashes of its files: the worst of the growths that
    lie between them. hashes None: of its own sources.

    Raises CheckpointError for a growkit.json that says what growkit never says.
    """
    if hashes is None:
        return _stated(provenance)
    found = _between(provenance, hashes)
    return _worst(provenance) if found is None else found


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


def _worst(record: Mapping[str, Any]) -> Exactness:
    below = [_worst(entry["record"]) for entry in _entries(record) if isinstance(entry.get("record"), dict)]
    return max([_stated(record), *below])


def _entries(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    entries = record.get("sources")
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _stated(record: Mapping[str, Any]) -> Exactness:
    known = {str(exactness): exactness for exactness in Exactness}
    said = record.get("exactness", "exact")
    if not isinstance(said, str) or said not in known:
        raise CheckpointError(f"{PROVENANCE} says exactness {said!r}; verify against an intact result")
    return known[said]
