"""The gate that lies in a skill's folder: gate.json and gate.safetensors. Knows the format and its bounds; ignorant of
how its numbers are found and of what they are used for.
"""

from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.fields import Fields, OneOf, Whole, checked
from growkit.checkpoint.small_files import read_json
from growkit.checkpoint.source import open_state
from growkit.checkpoint.writer import write_json
from growkit.errors import CheckpointError
from growkit.limits import AXIS, LAYERS
from growkit.skills.gates.own_texts import MOST_TEXTS, OwnTexts
from growkit.skills.small_tensors import check_names, check_tensor, read_tensor, write_tensors_file
from growkit.version import __version__

GATE, GATE_WEIGHTS, FORMAT = "gate.json", "gate.safetensors", 2
SCHEMA = Fields(
    {"format": OneOf([FORMAT]), "layer": Whole(1, LAYERS)},
    needed=("format", "layer"),
)
AGAIN = "learn the skill again, or name its texts with --own"
ROWS = ("spread", "held")


def has_gate(folder: str | Path) -> bool:
    """Whether a skill's folder holds a gate."""
    return (Path(folder) / GATE).is_file()


def write_gate(place: Path, gate: OwnTexts) -> None:
    """Put a gate's two files into a folder that is there. Raises OSError for the disk."""
    write_tensors_file(place / GATE_WEIGHTS, {name: getattr(gate, name) for name in ("mean", *ROWS, "lengths")})
    write_json(place / GATE, {"format": FORMAT, "growkit": __version__, "layer": gate.layer})


def read_gate(folder: str | Path) -> OwnTexts:
    """The gate in a skill's folder. Raises CheckpointError where there is none, and for files that are not as the
    format says."""
    path = Path(folder) / GATE
    if not path.is_file():
        raise CheckpointError(f"{str(folder)!r} has no {GATE}: it was learned without one; {AGAIN}")
    said = checked(read_json(path), SCHEMA, path, AGAIN)
    with closing(open_state(path.with_name(GATE_WEIGHTS))) as stored:
        check_names(stored, {"mean", *ROWS, "lengths"}, AGAIN)
        width = next(iter(stored.tensors["mean"].shape), 0)
        check_tensor(stored, "mean", torch.float32, (1, AXIS), (), AGAIN)
        for name in ROWS:
            check_tensor(stored, name, torch.float32, (1, MOST_TEXTS), (width,), AGAIN)
        check_tensor(stored, "lengths", torch.int64, (1, MOST_TEXTS), (), AGAIN)
        tensors: dict[str, Any] = {name: read_tensor(stored, name) for name in ("mean", *ROWS, "lengths")}
    if int(tensors["lengths"].min()) < 1:
        raise CheckpointError(f"{stored.label!r} has a text of no tokens under 'lengths'; {AGAIN}")
    return OwnTexts(layer=said["layer"], **tensors)
