"""The parameters that several public functions share, each said once. Knows how they are written; ignorant of what they
do.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from growkit.api.option import Argument, Callback, Option

if TYPE_CHECKING:
    from growkit.growth.plan import Plan
    from growkit.merging.merge_plan import MergePlan

SIZES, HOW, OUTPUT, SOURCE = "What to grow", "How", "Output", "When the source has no config.json"
DEPTH = "How deep"

PathLike = str | Path
DtypeName = Literal["float64", "float32", "bfloat16", "float16"]
DepthMethod = Literal["stack", "interleave", "top", "middle", "identity", "solar"]

Source = Annotated[PathLike, Argument("A folder, a .safetensors file or a hub id.", "SRC")]
Checkpoint = Annotated[PathLike, Argument("A folder, a .safetensors file or a hub id.", "CKPT")]

Hidden = Annotated[
    int | None, Option("Width of the residual stream; alone, heads and ffn follow in proportion.", SIZES, "N", min=1)
]
Heads = Annotated[int | None, Option("Query heads.", SIZES, "N", min=1)]
KvHeads = Annotated[int | None, Option("Key-value heads.", SIZES, "N", min=1)]
HeadDim = Annotated[int | None, Option("Slots of one head.", SIZES, "N", min=1)]
Ffn = Annotated[int | None, Option("Inner width of the feed-forward layers.", SIZES, "N", min=1)]

Layers = Annotated[int | None, Option("Number of layers.", DEPTH, "N", min=1)]
DepthHow = Annotated[DepthMethod, Option("which layer each new one copies.", DEPTH, "METHOD")]
Overlap = Annotated[int | None, Option("solar: layers left out of each run; N is 2 x (source - M).", DEPTH, "M", min=0)]
After = Annotated[
    str | Sequence[int] | None, Option("identity: the layers, from 1, that a new one follows.", DEPTH, "I,J,...")
]
Every = Annotated[int | None, Option("identity: a new layer after every K-th.", DEPTH, "K", min=1)]
Block = Annotated[
    int | None,
    Option("top, middle: how many layers are repeated; default what is missing, at most half.", DEPTH, "B", min=1),
]
Slices = Annotated[
    str | None,
    Option("The layers one by one, from 1, such as 1-8,5-12; with several sources A:1-8,B:1-8.", DEPTH, "A-B,C-D"),
]

WidthMethod = Annotated[
    Literal["fpi", "aki"],
    Option("fpi keeps the function; aki takes new units from the layer above (bert2BERT).", HOW),
]
Mapping = Annotated[Literal["cyclic", "random"], Option("cyclic, or the paper's random.", HOW)]
Noise = Annotated[
    float | None,
    Option("How unevenly read copies are split, 0 to below 1; their sum stays. Default 0.5 for fpi, else 0.", HOW, "X"),
]
Seed = Annotated[int, Option("For everything that is drawn at random.", HOW, "S")]
Dtype = Annotated[DtypeName | None, Option("what is stored; default as the source.", HOW, "TYPE")]
Optimizer = Annotated[
    PathLike | Sequence[PathLike] | None,
    Option("AdamW state (<param>.exp_avg, <param>.exp_avg_sq) to grow along; one for each source.", HOW, "STATE"),
]
AllowNonfinite = Annotated[bool, Option("Grow NaN and Inf weights as they are.", HOW)]

Out = Annotated[
    PathLike | None,
    Option("Folder to make; default here, named by what changed.", OUTPUT, "OUT", flags=("-o", "--out")),
]
Folder = Annotated[PathLike, Option("Folder to make.", OUTPUT, "OUT", flags=("-o", "--out"))]
ShardSize = Annotated[int | str, Option("Largest weight file, such as 5GB, 500MB or 1000000.", OUTPUT, "SIZE")]
DryRun = Annotated[bool, Option("Plan and check everything, and write nothing.", OUTPUT)]
Force = Annotated[bool, Option("Replace a checkpoint that is there.", OUTPUT)]
Verify = Annotated[
    bool,
    # somebody before a terminal wants to see it proved; a program asks for what it needs
    Option("Prove the result at the end, where it fits in memory.", OUTPUT, command_default=True),
]
FamilyName = Annotated[str | None, Option("Its family, such as llama.", SOURCE, "NAME")]
SourceHeads = Annotated[int | None, Option("Its number of query heads.", SOURCE, "N", min=1)]

Device = Literal["auto", "cpu", "cuda"]
TextKey = Annotated[str, Option("Where JSON lines and parquet hold the text.", None, "KEY")]

Progress = Annotated[Callable[[int], None], Callback("Called with the number of bytes that were just written.")]
AnnouncePlan = Annotated[Callable[["Plan"], None], Callback("Called with the plan before anything is written.")]
AnnounceMerge = Annotated[Callable[["MergePlan"], None], Callback("Called with the plan before anything is written.")]
