"""The folder of an application: application.json and application.safetensors. Knows the format and its bounds; ignorant
of skills' own files and of training.

application.safetensors, all float32, for each weight by its name in the checkpoint:
    WEIGHT.alpha  (skills,)                       the strength of each skill, in the order of application.json
    WEIGHT.R      (outputs of all, inputs of all)  what crosses, block (s, t) from the directions that t reads to those
                                                   that s puts out; where it was not learned, it is not there
PEFT's two files beside it are what it does as a LoRA, skills and all: those are what goes on a model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.fields import Fields, Flag, ListOf, MapOf, Number, OneOf, Text, Whole, checked
from growkit.checkpoint.small_files import read_json
from growkit.checkpoint.source import Checkpoint, open_state
from growkit.checkpoint.writer import write_json
from growkit.errors import CheckpointError
from growkit.limits import STEPS
from growkit.skills.small_tensors import check_names, write_tensors_file
from growkit.version import __version__

APPLICATION, APPLICATION_WEIGHTS, FORMAT = "application.json", "application.safetensors", 1
MOST_TOGETHER = 256  # skills
_HASH = Text(r"[0-9a-f]{64}", "a SHA-256 in hexadecimal")
SCHEMA = Fields(
    {
        "format": OneOf([FORMAT]),
        "base": Fields({"name": Text(), "files": MapOf(_HASH)}, needed=("name", "files")),
        "skills": ListOf(Fields({"sha256": _HASH, "strength": Number(-1e6, 1e6)}, ("sha256", "strength")), 1, MOST_TOGETHER),
        "crossing": Flag(),
        "steps": Whole(0, STEPS),
    },
    needed=("format", "base", "skills", "crossing", "steps"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ApplicationFacts:
    """What application.json says. base: {name, files: {file: SHA-256}} of the model. skills: {sha256, strength} of
    each, the strength it began with. crossing: whether R was learned."""

    base: Mapping[str, Any]
    skills: Sequence[Mapping[str, Any]]
    crossing: bool
    steps: int


def is_application(folder: str | Path) -> bool:
    """Whether a folder holds an application."""
    return (Path(folder) / APPLICATION).is_file()


def write_application(place: Path, facts: ApplicationFacts, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put an application's two files into a folder that is there. Raises OSError for the disk."""
    write_tensors_file(place / APPLICATION_WEIGHTS, {name: tensor.float() for name, tensor in tensors.items()})
    write_json(place / APPLICATION, {"format": FORMAT, "growkit": __version__, **asdict(facts)})


def read_application(folder: str | Path) -> tuple[ApplicationFacts, Checkpoint]:
    """What an application's folder says, and its tensors. Raises CheckpointError where there is none, and for files
    that are not as the format says."""
    path = Path(folder) / APPLICATION
    if not path.is_file():
        raise CheckpointError(
            f"{str(folder)!r} is no application: it has no {APPLICATION}; name a folder of growkit skill apply-layer"
        )
    said = checked(read_json(path), SCHEMA, path)
    facts = ApplicationFacts(**{name: said[name] for name in ApplicationFacts.__dataclass_fields__})
    stored = open_state(path.with_name(APPLICATION_WEIGHTS))
    weights = {name.rpartition(".")[0] for name in stored.tensors}
    parts = ("alpha", "R") if facts.crossing else ("alpha",)
    wanted = {f"{weight}.{part}" for weight in weights for part in parts}
    check_names(stored, wanted, "learn the application again", "to an application")
    for name, tensor in stored.tensors.items():
        sound = tensor.shape == (len(facts.skills),) if name.endswith(".alpha") else len(tensor.shape) == 2
        if not sound or tensor.dtype != torch.float32:
            raise CheckpointError(
                f"{stored.label!r} has {name!r} as {str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}, which is"
                f" none of {len(facts.skills)} skills; learn the application again"
            )
    return facts, stored
