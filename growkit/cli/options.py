"""The options that several commands share, each said once. Knows how they are written; ignorant of what they do."""

from pathlib import Path
from typing import Annotated, Any, NamedTuple, Optional

import typer

from growkit.errors import RequestError

SIZES, HOW, OUTPUT, SOURCE = "What to grow", "How", "Output", "When the source has no config.json"
DEPTH = "How deep"
EXPERTS = "Which experts"


def option(panel: str, metavar: str | None, text: str, *names: str, **more: Any) -> Any:
    """A typer option with its panel, the word help shows for its value, and its help."""
    return typer.Option(*names, rich_help_panel=panel, metavar=metavar, help=text, **more)


Source = Annotated[str, typer.Argument(metavar="SRC", help="A folder, a .safetensors file or a hub id.")]
Number = Optional[int]
Hidden = Annotated[
    Number, option(SIZES, "N", "Width of the residual stream; alone, heads and ffn follow in proportion.", min=1)
]
Heads = Annotated[Number, option(SIZES, "N", "Query heads.", min=1)]
KvHeads = Annotated[Number, option(SIZES, "N", "Key-value heads.", min=1)]
HeadDim = Annotated[Number, option(SIZES, "N", "Slots of one head.", min=1)]
Ffn = Annotated[Number, option(SIZES, "N", "Inner width of the feed-forward layers.", min=1)]

Layers = Annotated[Number, option(DEPTH, "N", "Number of layers.", min=1)]
Overlap = Annotated[Number, option(DEPTH, "M", "solar: layers left out of each run; N is 2 x (source - M).", min=0)]
After = Annotated[Optional[str], option(DEPTH, "I,J,...", "identity: the layers, from 1, that a new one follows.")]
Every = Annotated[Number, option(DEPTH, "K", "identity: a new layer after every K-th.", min=1)]
Block = Annotated[
    Number,
    option(DEPTH, "B", "top, middle: how many layers are repeated; default what is missing, at most half.", min=1),
]
Slices = Annotated[
    Optional[str],
    option(DEPTH, "A-B,C-D", "The layers one by one, from 1, such as 1-8,5-12; with several sources A:1-8,B:1-8."),
]

Method = Annotated[
    str, option(HOW, "fpi|aki", "fpi keeps the function; aki takes new units from the layer above (bert2BERT).")
]
Mapping = Annotated[str, option(HOW, "cyclic|random", "cyclic, or the paper's random.")]
Noise = Annotated[
    Optional[float],
    option(HOW, "X", "How unevenly read copies are split, 0 to below 1; their sum stays. Default 0.5 for fpi, else 0."),
]
Seed = Annotated[int, option(HOW, "S", "For everything that is drawn at random.")]
Dtype = Annotated[
    Optional[str], option(HOW, "TYPE", "Store as float64, float32, bfloat16 or float16; default as the source.")
]
Optimizer = Annotated[
    Optional[list[Path]],
    option(HOW, "STATE", "AdamW state (<param>.exp_avg, <param>.exp_avg_sq) to grow along; one for each source."),
]
AllowNonfinite = Annotated[bool, option(HOW, None, "Grow NaN and Inf weights as they are.", "--allow-nonfinite")]

Out = Annotated[
    Optional[Path], option(OUTPUT, "OUT", "Folder to make; default here, named by what changed.", "-o", "--out")
]
ShardSize = Annotated[str, option(OUTPUT, "SIZE", "Largest weight file.")]
DryRun = Annotated[bool, option(OUTPUT, None, "Print the plan and write nothing.", "--dry-run")]
AsJson = Annotated[bool, option(OUTPUT, None, "Print for machines.", "--json")]
Force = Annotated[bool, option(OUTPUT, None, "Replace a checkpoint that is there.", "--force")]
Verify = Annotated[
    bool, option(OUTPUT, None, "Prove the result at the end, where it fits in memory.", "--verify/--no-verify")
]
FamilyName = Annotated[Optional[str], option(SOURCE, "NAME", "Its family, such as llama.")]
SourceHeads = Annotated[Number, option(SOURCE, "N", "Its number of query heads.", min=1)]


class Common(NamedTuple):
    """What every growth takes, whatever it grows."""

    out: Path | None
    shard_size: str
    dry_run: bool
    as_json: bool
    force: bool
    verify: bool
    optimizer: list[Path] | None
    allow_nonfinite: bool
    family: str | None
    source_heads: int | None


def size_in_bytes(text: str) -> int:
    """'5GB', '500MB' or a number of bytes. Raises RequestError for what is no such size."""
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "B": 1, "": 1}
    number = text.strip().rstrip("KMGIBkmgib")
    unit = text.strip()[len(number) :].upper()
    try:
        size = int(float(number) * units[unit])
    except (KeyError, ValueError, OverflowError):
        size = 0
    if size < 1:
        raise RequestError(f"--shard-size {text!r} is no size such as 5GB, 500MB or 1000000")
    return size


def layer_numbers(text: str | None) -> tuple[int, ...]:
    """'4,8,12' as numbers. Raises RequestError for what are none."""
    try:
        return tuple(int(number) for number in (text or "").split(",") if text)
    except ValueError:
        raise RequestError(f"--after {text!r} should be layer numbers such as 4,8,12") from None
