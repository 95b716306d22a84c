"""Whether a small module was made for a model. Knows growkit.json and hashes of weight files; ignorant of what modules
compute.
"""

from collections.abc import Mapping
from pathlib import Path

from growkit.checkpoint.record import record_of
from growkit.checkpoint.source import PROVENANCE, Checkpoint
from growkit.errors import CheckpointError, RequestError

TRAINING = (
    "pretrain",
    "tune",
    "skill learn",
    "skill plug",
    "skill carry",
    "skill apply-layer",
)  # commands whose result, where it is a small module, is for the one model it began with
RUN, FINAL = "run.json", "final"  # of a run's folder
SHOWN = 12  # digits of a hash in a sentence


def check_result(folder: Path, option: str = "") -> None:
    """Refuse a path at which nothing is, and a run's folder, whose result is in another. option: how it was asked for.
    Raises CheckpointError."""
    if not folder.exists():
        raise CheckpointError(
            f"{option}{str(folder)!r} does not exist; name a folder that growkit tune or delta left, or that PEFT saved as"
            " safetensors"
        )
    if (folder / RUN).is_file():
        raise CheckpointError(f"{option}{str(folder)!r} is a run; name {str(folder / FINAL)!r}, its result")


def check_made_for(folder: Path, base: Checkpoint) -> None:
    """Refuse a small module that a run of growkit made for other weights. Raises RequestError with both hashes.

    Nothing is known of what others made, nor of deltas, which people do add to other models of the same base.
    """
    record = record_of(folder) or {}
    sources = record.get("sources")
    entry = sources[0] if isinstance(sources, list) and sources and isinstance(sources[0], dict) else {}
    files = entry.get("files")
    if record.get("command") not in TRAINING or not isinstance(files, dict) or not files:
        return
    check_same_weights(folder, str(entry.get("name")), {str(key): str(value) for key, value in files.items()}, base)


def check_same_weights(
    folder: Path, name: str, files: Mapping[str, str], base: Checkpoint, where: str = PROVENANCE
) -> None:
    """Refuse a model other than the one that what lies in a folder was made for. name, files: of that one, with the
    hashes of its weights by file; where: the file in the folder that says so. Raises RequestError with both hashes."""
    wanted, there = {*files.values()}, {*base.hashes().values()}
    if wanted == there:
        return
    one, other = (sorted(hashes)[0][:SHOWN] for hashes in (wanted - there or wanted, there - wanted or there))
    raise RequestError(
        f"{str(folder)!r} was made for {name!r}, weights of SHA-256 {one}... ({where}), and"
        f" {base.label!r} has {other}...; name the model it was made for"
    )
