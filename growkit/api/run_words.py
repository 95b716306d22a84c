"""The parameters that the commands which train share, each said once. Knows how they are written; ignorant of what they
do.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from growkit import limits
from growkit.api import words as w
from growkit.api.option import Argument, Callback, Option

if TYPE_CHECKING:
    from growkit.training.settings import Settings
    from growkit.training.stages import Stage

RUN, MACHINE, STAGES, RATE = "The run", "The machine", "Stages", "Optimizer"
TEACHER, EXPERTS, KEEPING = "Teacher", "Mixtures of experts", "Checkpoints and metrics"

Checkpoint = Annotated[w.PathLike, Argument("The checkpoint to go on from.", "CKPT")]
Out = Annotated[
    w.PathLike, Option(help="Folder of the run; the trained checkpoint becomes RUN/final.", panel=RUN, metavar="RUN")
]
OwnStages = Annotated[
    Union[w.PathLike, Sequence["Stage"], None],
    Option(help="Instead of a schedule: [[stage]] tables of your own.", panel=STAGES, metavar="FILE.toml"),
]
Watch = Annotated[Callable[[dict[str, Any]], None], Callback("Called with each line of metrics, on the first process.")]
AnnounceRun = Annotated[Callable[["Settings"], None], Callback("Called with the settings before the run begins.")]

Steps = Annotated[int | None, Option(help="Optimizer steps.", panel=RUN, metavar="N", within=(1, limits.STEPS))]
Tokens = Annotated[
    int | None, Option(help="Instead: tokens to train on.", panel=RUN, metavar="N", within=(1, limits.TOKENS))
]
SeqLen = Annotated[
    int | None,
    Option(
        help="Tokens in a sequence; default 512, or the model's positions.",
        panel=RUN,
        metavar="N",
        within=(1, limits.AXIS),
    ),
]
BatchSize = Annotated[
    int,
    Option(
        help="Sequences in a step, over all processes and accumulation.",
        panel=RUN,
        metavar="N",
        within=(1, limits.BATCH),
    ),
]
GradAccum = Annotated[
    int,
    Option(help="Parts a process divides its share of a step into.", panel=RUN, metavar="N", within=(1, limits.BATCH)),
]
Seed = Annotated[
    int,
    Option(help="For the order of the data, masks, prefixes and dropout.", panel=RUN, metavar="S", within=limits.SEEDS),
]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16"],
    Option(help="what products are computed in; weights stay float32.", panel=MACHINE, metavar="TYPE"),
]
Device = Annotated[w.Device, Option(help="Where.", panel=MACHINE)]
Shard = Annotated[
    Literal["auto", "none", "node", "all"],
    Option(
        help="over how many processes a copy of the model is divided; auto: none where it fits.",
        panel=MACHINE,
        metavar="OVER",
    ),
]
Compile = Annotated[bool | None, Option(help="Compile each layer; default on a GPU.", panel=MACHINE)]
GradCheckpointing = Annotated[bool, Option(help="Recompute activations instead of keeping them.", panel=MACHINE)]
Schedule = Annotated[
    Literal["plain", "two-stage", "stackbert", "mslt", "late"],
    Option(help="what is trained when.", panel=STAGES, metavar="NAME"),
]
SubLayers = Annotated[
    int | None,
    Option(
        help="two-stage: layers that learn in a step of the first stage; default a quarter.",
        panel=STAGES,
        metavar="L",
        within=(1, limits.LAYERS),
    ),
]
SubSteps = Annotated[
    int | None,
    Option(
        help="two-stage: steps of the first stage; default an eighth.",
        panel=STAGES,
        metavar="N",
        within=(0, limits.STEPS),
    ),
]
ToLayers = Annotated[
    int | None,
    Option(help="stackbert, mslt, late: layers at the end.", panel=STAGES, metavar="N", within=(1, limits.LAYERS)),
]
JumpAt = Annotated[
    float | None,
    Option(
        help="late: share of the steps before its one jump; default 0.6.",
        panel=STAGES,
        metavar="X",
        within=(0.01, 0.8),
    ),
]
DecayName = Literal["cosine", "linear", "wsd", "constant"]
Decay = Annotated[DecayName, Option(help="how the rate falls.", panel=RATE, metavar="HOW")]
StagedDecay = Annotated[
    DecayName | None,
    Option(help="how the rate falls; default cosine, with --schedule late wsd.", panel=RATE, metavar="HOW"),
]
FinalLr = Annotated[float, Option(help="Share of the peak at the end.", panel=RATE, metavar="X", within=(0, 1))]
WeightDecay = Annotated[
    float, Option(help="Decoupled; none on norms and biases.", panel=RATE, metavar="X", within=(0, 1000))
]
Beta1 = Annotated[
    float,
    Option(help="AdamW: how much of the mean gradient stays in a step.", panel=RATE, metavar="B", within=(0, 1)),
]
Beta2 = Annotated[
    float,
    Option(
        help="AdamW: how much of the mean squared gradient stays in a step.", panel=RATE, metavar="B", within=(0, 1)
    ),
]
Eps = Annotated[
    float,
    Option(help="AdamW: added to the root of the mean squared gradient.", panel=RATE, metavar="E", within=(0, 1)),
]
Clip = Annotated[float, Option(help="Largest norm of the gradient; 0: any.", panel=RATE, metavar="X", within=(0, 1e9))]
OptimizerName = Annotated[
    Literal["adamw", "muon"],
    Option(
        help="muon: matrices by Muon, with --lr scaled to AdamW's size of steps, all else by AdamW.",
        panel=RATE,
        metavar="NAME",
    ),
]
Multipliers = Annotated[
    str,
    Option(
        help="exact, relax[:N] or off: a grown checkpoint keeps what lr_multipliers.json says; lets it fall to 1 over N"
        " steps, half of the run where N is not said; begins without it.",
        panel=RATE,
        metavar="HOW",
    ),
]
Teacher = Annotated[
    w.PathLike | Sequence[w.PathLike] | None,
    Option(
        help="A smaller model that teaches at first (knowledge inheritance), or what growkit teach wrote of one; on"
        " tagged text domain=CKPT, several times, each for its own domain.",
        panel=TEACHER,
        metavar="CKPT|STORE",
    ),
]
TeacherSteps = Annotated[
    int | None,
    Option(help="How long; default a third of the run.", panel=TEACHER, metavar="N", within=(1, limits.STEPS)),
]
TeacherUntil = Annotated[
    Literal["overtaken", "steps"] | None,
    Option(
        help="overtaken: end it when validation finds the model better, before the first step and at every"
        " --eval-every; the default where the data has a validation split.",
        panel=TEACHER,
    ),
]
TeacherEstimate = Annotated[
    Literal["head+sampled", "bucket", "sampled", "top-k"] | None,
    Option(help="how a store is read; default head+sampled.", panel=TEACHER, metavar="HOW"),
]
Temperature = Annotated[
    float | None,
    Option(help="Of both distributions; default 1, or a store's.", panel=TEACHER, metavar="T", within=(0.01, 1000)),
]
TeacherSchedule = Annotated[
    Literal["linear", "constant", "heaviside", "wsd"],
    Option(help="how the teacher's weight falls.", panel=TEACHER, metavar="HOW"),
]
TeacherWeight = Annotated[
    float | None,
    Option(
        help="That weight at the first step; default 0 to 1 for a teacher that takes away a quarter to a half of the"
        " model's validation loss, 1 where nobody can tell or it speaks for a domain, and 0.5 for constant and where the"
        " model was grown exactly from this very teacher.",
        panel=TEACHER,
        metavar="X",
        within=(0, 1),
    ),
]
ExpertDropout = Annotated[
    float, Option(help="Dropout on the experts' hidden activation.", panel=EXPERTS, metavar="P", within=(0, 0.99))
]
Capacity = Annotated[
    float | None,
    Option(
        help="While training an expert takes at most X times its even share of a part's tokens, the most probable ones;"
        " default any number.",
        panel=EXPERTS,
        metavar="X",
        within=(0.01, 10_000),
    ),
]
EvalEvery = Annotated[
    int, Option(help="Steps between validations.", panel=KEEPING, metavar="N", within=(1, limits.STEPS))
]
EvalTokens = Annotated[
    int, Option(help="Validation tokens at most.", panel=KEEPING, metavar="N", within=(1, limits.TOKENS))
]
SaveEvery = Annotated[
    int, Option(help="Steps between checkpoints.", panel=KEEPING, metavar="N", within=(1, limits.STEPS))
]
Keep = Annotated[int, Option(help="Checkpoints kept.", panel=KEEPING, metavar="K", within=(1, limits.STEPS))]
LogEvery = Annotated[
    int,
    Option(
        help="Steps between lines where there is no terminal.", panel=KEEPING, metavar="N", within=(1, limits.STEPS)
    ),
]
Tensorboard = Annotated[bool, Option(help="Write RUN/tensorboard too.", panel=KEEPING)]
Wandb = Annotated[
    bool, Option(help="Send them to Weights & Biases, as its own WANDB_... variables say.", panel=KEEPING)
]
DryRun = Annotated[bool, Option(help="Check everything, say what the run will be, and write nothing.", panel=KEEPING)]
Resume = Annotated[Literal["auto", "never"], Option(help="auto: go on with a run that is there.", panel=KEEPING)]
