"""What panel.json says of a control panel: its schema, and the words in it as values. Knows the format and its bounds;
ignorant of tensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from growkit.checkpoint.fields import Fields, MapOf, Null, Number, OneOf, Text, Whole, checked
from growkit.checkpoint.small_files import read_json
from growkit.checkpoint.source import PANEL
from growkit.errors import CheckpointError
from growkit.limits import AXIS, SEEDS, TOKENS
from growkit.version import __version__

FORMAT = 1
SVD, DATA = "svd", "data"
RELATIVE, ABSOLUTE = "relative", "absolute"
_HASH = Text(r"[0-9a-f]{64}", "a SHA-256 in hexadecimal")
_SHARE = Number(-1e3, 1.001)  # of a sum of squares; less than 0 where what is kept points the wrong way for the text
MAKE_AGAIN = "make it again with growkit panel"
BASE_FIELDS = Fields({"name": Text(), "files": MapOf(_HASH)}, needed=("name", "files"))
SCHEMA = Fields(
    {
        "format": OneOf([FORMAT]),
        "growkit": Text(),
        "base": BASE_FIELDS,
        "rank": Whole(1, AXIS),
        "basis": OneOf([SVD, DATA]),
        "scale": OneOf([RELATIVE, ABSOLUTE]),
        "weights": MapOf(
            Fields(
                {
                    "input": Text(),
                    "rank": Whole(1, AXIS),
                    "energy": _SHARE,
                    "text_energy": Null(_SHARE),
                    "error": Number(0, 1e3),
                },
                needed=("input", "rank", "energy", "text_energy", "error"),
            )
        ),
        "texts": Null(
            Fields({"sha256": _HASH, "tokens": Whole(1, TOKENS), "seq_len": Whole(1, AXIS)}, ("sha256", "tokens"))
        ),
        "seed": Whole(*SEEDS),
    },
    needed=("format", "base", "rank", "basis", "scale", "weights", "texts", "seed"),
)


@dataclass(frozen=True, kw_only=True)
class PanelWeight:
    """What panel.json says of a weight.

    input: its group. energy: the share of |W|_F^2 that U C0 V^T keeps. text_energy: the share that it keeps of E|Wx|^2,
    what the weight puts out for the panel's text. error: the residual of the singular value decomposition that its
    basis is from, |W V - U S|_F / |S|_F.
    """

    input: str
    rank: int
    energy: float
    text_energy: float | None
    error: float


@dataclass(frozen=True, kw_only=True)
class PanelHeader:
    """What panel.json says. base: the model's name; files: its weight files' hashes, by name. texts: sha256 and number
    of tokens of the general text, and how many to a sequence; None where there was none."""

    base: str
    files: Mapping[str, str]
    rank: int
    basis: str
    scale: str
    weights: Mapping[str, PanelWeight]
    texts: Mapping[str, Any] | None = None
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """The content of panel.json."""
        return {
            "format": FORMAT,
            "growkit": __version__,
            "base": {"name": self.base, "files": dict(self.files)},
            "rank": self.rank,
            "basis": self.basis,
            "scale": self.scale,
            "weights": {name: dict(vars(weight)) for name, weight in self.weights.items()},
            "texts": None if self.texts is None else dict(self.texts),
            "seed": self.seed,
        }

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """The weights that read each input, in the order of the file."""
        groups: dict[str, list[str]] = {}
        for name, weight in self.weights.items():
            groups.setdefault(weight.input, []).append(name)
        return groups


def is_panel(folder: str | Path) -> bool:
    """Whether a folder holds a panel."""
    return (Path(folder) / PANEL).is_file()


def read_panel_header(folder: Path) -> PanelHeader:
    """What a folder's panel.json says. Raises CheckpointError for what is no panel or a damaged one."""
    path = folder / PANEL
    if not is_panel(folder):
        raise CheckpointError(f"{str(folder)!r} holds no {PANEL}, so it is no panel; make one with growkit panel")
    said = checked(read_json(path), SCHEMA, path, MAKE_AGAIN)
    if not said["weights"]:
        raise CheckpointError(f"{str(path)!r} speaks of no weights; {MAKE_AGAIN}")
    return PanelHeader(
        base=said["base"]["name"],
        files=said["base"]["files"],
        rank=said["rank"],
        basis=said["basis"],
        scale=said["scale"],
        weights={
            name: PanelWeight(**{key: entry[key] for key in PanelWeight.__dataclass_fields__})
            for name, entry in said["weights"].items()
        },
        texts=said["texts"],
        seed=said["seed"],
    )
