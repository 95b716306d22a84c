"""The checkpoint a person means who names none: the newest growth in the current folder. Knows folders and the records
in growkit.json; ignorant of weights.
"""

import os
from pathlib import Path
from typing import Any

from growkit.checkpoint.headers import file_hash
from growkit.checkpoint.new_folder import UNFINISHED
from growkit.checkpoint.record import record_of
from growkit.checkpoint.small_files import read_json
from growkit.checkpoint.source import CONFIG, INDEX, PROVENANCE, SINGLE
from growkit.errors import RequestError

DEEPEST = 3  # folders below the current one that are looked into
SHOWN = 8


def current_checkpoint(folder: Path) -> Path:
    """The checkpoint in a folder, or the one growkit output below it that no other output came from.

    Raises RequestError, listing the candidates, where there is none or more than one.
    """
    outputs, plain = _checkpoints_below(folder)
    records = {path: record_of(path) for path in outputs}
    sources = [entry for path in outputs for entry in _sources(path)]
    used = [entry.get("record") for entry in sources]
    leaves = [path for path, record in records.items() if record not in used]
    here = _weights(folder)
    if here is not None and folder not in outputs and not any(_is_of(entry, folder) for entry in sources):
        leaves.insert(0, here)
    if len(leaves) == 1:
        return leaves[0]
    candidates = leaves or plain
    if not candidates:
        raise RequestError(f"no checkpoint in or below {str(folder.resolve())!r}; say which one to grow")
    shown = ", ".join(str(path) for path in candidates[:SHOWN]) + ", ..." * (len(candidates) > SHOWN)
    what = "several growths here that nothing was grown from yet" if leaves else "no growth of growkit's here"
    raise RequestError(f"{what}: say which checkpoint you mean: {shown}")


def _checkpoints_below(folder: Path) -> tuple[list[Path], list[Path]]:
    """(what growkit made, other checkpoints) in a folder and below, in order of name; unfinished work left out."""
    outputs, plain = [], []
    for place, folders, files in os.walk(folder):
        path = Path(place)
        deep = len(path.relative_to(folder).parts) >= DEEPEST
        folders[:] = sorted(f for f in folders if not f.startswith(".") and not deep)
        if UNFINISHED in files:
            folders.clear()
        elif PROVENANCE in files and CONFIG in files and _weights(path) is not None:
            outputs.append(path)
        elif _weights(path) is not None:
            plain.append(path if SINGLE in files or INDEX in files else next(path.glob("*.safetensors")))
        else:
            plain += sorted(path.glob("*.safetensors"))
    return outputs, plain


def _weights(folder: Path) -> Path | None:
    """The checkpoint a folder is: itself, or the one weight file in it that has a name of its own; None for no or
    several.
    """
    if (folder / SINGLE).exists() or (folder / INDEX).exists():
        return folder
    files = sorted(folder.glob("*.safetensors"))
    return files[0] if len(files) == 1 else None


def _sources(output: Path) -> list[dict[str, Any]]:
    entries = read_json(output / PROVENANCE).get("sources")
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _is_of(entry: dict[str, Any], folder: Path) -> bool:
    """Whether a result's record of its source speaks of the weight files in this folder."""
    files = entry.get("files")
    if not isinstance(files, dict) or not files or not all((folder / name).is_file() for name in files):
        return False
    return all(file_hash(folder / name) == digest for name, digest in files.items())
