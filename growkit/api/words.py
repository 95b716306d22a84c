"""The parameters that several public functions share, each said once. Knows how they are written; ignorant of what they
do.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from growkit import limits
from growkit.api.option import Argument, Callback, Option

if TYPE_CHECKING:
    from growkit.growth.plan import Plan
    from growkit.merging.merge_plan import MergePlan

SIZES, HOW, OUTPUT, SOURCE = "What to grow", "How", "Output", "When the source has no config.json"
DEPTH = "How deep"

PathLike = str | Path
DtypeName = Literal["float64", "float32", "bfloat16", "float16"]
DepthMethod = Literal["stack", "interleave", "top", "middle", "identity", "average", "solar", "auto"]

Source = Annotated[PathLike, Argument("A folder, a .safetensors file or a hub id.", "SRC")]
Checkpoint = Annotated[PathLike, Argument("A folder, a .safetensors file or a hub id.", "CKPT")]

Hidden = Annotated[
    int | None,
    Option(
        help="Width of the residual stream; alone, heads and ffn follow in proportion.",
        panel=SIZES,
        metavar="N",
        within=(1, limits.AXIS),
    ),
]
Heads = Annotated[int | None, Option(help="Query heads.", panel=SIZES, metavar="N", within=(1, limits.AXIS))]
KvHeads = Annotated[int | None, Option(help="Key-value heads.", panel=SIZES, metavar="N", within=(1, limits.AXIS))]
HeadDim = Annotated[int | None, Option(help="Slots of one head.", panel=SIZES, metavar="N", within=(1, limits.AXIS))]
Ffn = Annotated[
    int | None,
    Option(help="Inner width of the feed-forward layers.", panel=SIZES, metavar="N", within=(1, limits.AXIS)),
]

Experts = Annotated[
    int | None,
    Option(
        help="Experts of each layer of a mixture, copies of those it has.",
        panel=SIZES,
        metavar="N",
        within=(1, limits.EXPERTS),
    ),
]
TopK = Annotated[
    int | None,
    Option(
        help="With --experts: experts a token takes; as many times more as there are experts is exact.",
        panel=SIZES,
        metavar="K",
        within=(1, limits.EXPERTS),
    ),
]

Layers = Annotated[
    int | None,
    Option(
        help="Number of layers; where a decoder has others than its encoder, of that one: both grow as many times.",
        panel=DEPTH,
        metavar="N",
        within=(1, limits.LAYERS),
    ),
]
DepthHow = Annotated[DepthMethod, Option(help="which layer each new one copies.", panel=DEPTH, metavar="METHOD")]
Overlap = Annotated[
    int | None,
    Option(
        help="solar: layers left out of each run; N is 2 x (source - M).",
        panel=DEPTH,
        metavar="M",
        within=(0, limits.LAYERS),
    ),
]
After = Annotated[
    str | Sequence[int] | None,
    Option(
        help="identity, interleave, average: the layers, from 1, that a new one follows.",
        panel=DEPTH,
        metavar="I,J,...",
    ),
]
Every = Annotated[
    int | None,
    Option(
        help="identity, interleave: a new layer after every K-th.", panel=DEPTH, metavar="K", within=(1, limits.LAYERS)
    ),
]
Where = Annotated[
    Literal["spread", "middle", "top"] | None,
    Option(
        help="identity, interleave, average: where single new layers go; default spread evenly.",
        panel=DEPTH,
        metavar="PLACE",
    ),
]
Block = Annotated[
    int | None,
    Option(
        help="top, middle: how many layers are repeated; default what is missing, at most half.",
        panel=DEPTH,
        metavar="B",
        within=(1, limits.LAYERS),
    ),
]
Slices = Annotated[
    str | None,
    Option(
        help="The layers one by one, from 1, such as 1-8,5-12; with several sources A:1-8,B:1-8.",
        panel=DEPTH,
        metavar="A-B,C-D",
    ),
]

WidthMethod = Annotated[
    Literal["fpi", "aki", "shrink-perturb", "direct-copy", "auto"],
    Option(
        help="fpi keeps the function; aki takes new units from the layer above (bert2BERT); shrink-perturb keeps a share"
        " of every weight and fills up its length at random; direct-copy puts the source in a corner of a new model;"
        " auto: what a study found to train best.",
        panel=HOW,
        metavar="METHOD",
    ),
]
Keep = Annotated[
    float | None,
    Option(
        help="shrink-perturb: what weights are multiplied by, 0 to 1; sqrt(1 - X^2) of their size is drawn. Default 0.8.",
        panel=HOW,
        metavar="X",
        within=(0, 1),
    ),
]
Mapping = Annotated[Literal["cyclic", "random"], Option(help="cyclic, or the paper's random.", panel=HOW)]
Noise = Annotated[
    float | str | None,
    Option(
        help="How unevenly read copies are split, 0 to below 1; their sum stays. auto: 0.5 x sqrt(growth / 2) of what is"
        " read. Default 0.5 for fpi, else 0.",
        panel=HOW,
        metavar="X",
    ),
]
Seed = Annotated[
    int, Option(help="For everything that is drawn at random.", panel=HOW, metavar="S", within=limits.SEEDS)
]
Dtype = Annotated[DtypeName | None, Option(help="what is stored; default as the source.", panel=HOW, metavar="TYPE")]
Optimizer = Annotated[
    PathLike | Sequence[PathLike] | None,
    Option(
        help="AdamW state (<param>.exp_avg, <param>.exp_avg_sq) to grow along; one for each source.",
        panel=HOW,
        metavar="STATE",
    ),
]
StateBeside = Annotated[
    PathLike | Sequence[PathLike] | None,
    Option(
        help="AdamW state to grow along: auto, what lies beside the source; none; or files, one for each source.",
        panel=HOW,
        metavar="auto|none|FILE",
    ),
]
AllowNonfinite = Annotated[bool, Option(help="Grow NaN and Inf weights as they are.", panel=HOW)]

Out = Annotated[
    PathLike | None,
    Option(
        help="Folder to make; default here, named by what changed.", panel=OUTPUT, metavar="OUT", flags=("-o", "--out")
    ),
]
Folder = Annotated[PathLike, Option(help="Folder to make.", panel=OUTPUT, metavar="OUT", flags=("-o", "--out"))]
ShardSize = Annotated[
    int | str, Option(help="Largest weight file, such as 5GB, 500MB or 1000000.", panel=OUTPUT, metavar="SIZE")
]
DryRun = Annotated[bool, Option(help="Plan and check everything, and write nothing.", panel=OUTPUT)]
Force = Annotated[bool, Option(help="Replace a checkpoint that is there.", panel=OUTPUT)]
Verify = Annotated[
    bool,
    # somebody before a terminal wants to see it proved; a program asks for what it needs
    Option(help="Prove the result at the end, where it fits in memory.", panel=OUTPUT, command_default=True),
]
FamilyName = Annotated[str | None, Option(help="Its family, such as llama.", panel=SOURCE, metavar="NAME")]
SourceHeads = Annotated[
    int | None, Option(help="Its number of query heads.", panel=SOURCE, metavar="N", within=(1, limits.AXIS))
]

Device = Literal["auto", "cpu", "cuda"]
Adapter = Annotated[
    PathLike | None,
    Option(help="A small module on the model: PEFT's, or growkit tune's.", panel=None, metavar="FOLDER"),
]

Progress = Annotated[Callable[[int], None], Callback("Called with the number of bytes that were just written.")]
AnnouncePlan = Annotated[Callable[["Plan"], None], Callback("Called with the plan before anything is written.")]
AnnounceMerge = Annotated[Callable[["MergePlan"], None], Callback("Called with the plan before anything is written.")]


def listed(words: Any) -> list[Any]:
    """What was given as a list; a path alone is one of one."""
    return [words] if isinstance(words, str | Path) else list(words)
