"""`growkit skill learn`: a small program on a panel's control matrices, by the loop of `growkit tune`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from growkit import limits
from growkit.api import run_words as r
from growkit.api import words as w
from growkit.api.option import Argument, Option, quiet
from growkit.api.public import public
from growkit.api.tune import Data, Epochs, Mix, Warmup, with_defaults_of_tune

if TYPE_CHECKING:
    from growkit.training.pretrain import Finished

SKILL = "The skill"

Panel = Annotated[w.PathLike, Argument("Its panel, of growkit panel.", "PANEL")]
Size = Annotated[
    int | None,
    Option(
        help="Input and output directions of each weight, m; the transform has m x m numbers. Default 64, or the panel's"
        " rank where that is less.",
        panel=SKILL,
        metavar="M",
        within=(1, limits.AXIS),
    ),
]
Adapter = Annotated[
    int | None,
    Option(
        help="Then an adapter learns too, as long as the validation loss falls: for the first R input directions any"
        " output, out x R numbers.",
        panel=SKILL,
        metavar="R",
        within=(1, limits.AXIS),
    ),
]
Protect = Annotated[
    w.PathLike | Sequence[w.PathLike] | None,
    Option(
        help="Choose input directions that an earlier skill of this panel hardly uses; general: that its general texts"
        " hardly use. May be given again.",
        panel=SKILL,
        metavar="SKILL|general",
    ),
]
SketchTokens = Annotated[
    int,
    Option(
        help="Tokens of the data by which directions are chosen, at least one step's.",
        panel=SKILL,
        metavar="N",
        within=(1, limits.TOKENS),
    ),
]
Lr = Annotated[
    float | None,
    Option(
        help="Peak learning rate of the transform; default 0.004. An adapter's is a fifth.",
        panel=r.RATE,
        metavar="X",
        within=(0, 1e38),
    ),
]


@public
def skill_learn(
    checkpoint: r.Checkpoint,
    panel: Panel,
    data: Data,
    out: r.Out,
    *,
    size: Size = None,
    adapter: Adapter = None,
    protect: Protect = None,
    sketch_tokens: SketchTokens = 32_768,
    mix: Mix = None,
    steps: r.Steps = None,
    tokens: r.Tokens = None,
    epochs: Epochs = None,
    seq_len: r.SeqLen = None,
    batch_size: r.BatchSize = 32,
    grad_accum: r.GradAccum = 1,
    seed: r.Seed = 0,
    precision: r.Precision = "auto",
    device: r.Device = "auto",
    shard: r.Shard = "auto",
    compile: r.Compile = None,
    grad_checkpointing: r.GradCheckpointing = False,
    lr: Lr = None,
    warmup: Warmup = None,
    decay: r.Decay = "cosine",
    final_lr: r.FinalLr = 0.1,
    weight_decay: r.WeightDecay = 0.0,
    beta1: r.Beta1 = 0.9,
    beta2: r.Beta2 = 0.95,
    eps: r.Eps = 1e-8,
    clip: r.Clip = 1.0,
    eval_every: r.EvalEvery = 200,
    eval_tokens: r.EvalTokens = 100_000,
    save_every: r.SaveEvery = 500,
    keep: r.Keep = 2,
    log_every: r.LogEvery = 10,
    tensorboard: r.Tensorboard = False,
    wandb: r.Wandb = False,
    dry_run: r.DryRun = False,
    resume: r.Resume = "never",
    watch: r.Watch = quiet,
    announce: r.AnnounceRun = quiet,
) -> "Finished":
    """Learn a skill: a small program on the panel of a model, which stays as it is.

    The transform of every weight that the panel has learns first; then, where one is asked for, an adapter, as long as
    validation falls. out: the run's folder, with metrics.jsonl, checkpoints and, at the end, final, the skill, which
    is also a LoRA of PEFT. With an adapter the first half of the steps is the transform's, the second at most its own.
    Everything else is as in tune.

    Returns a Finished and raises as tune does; RequestError also for another model's panel, a size beyond its rank, and
    a skill to be protected that is of another panel.
    """
    words = dict(locals())
    from growkit.skills.learn import learn_skill

    return learn_skill(with_defaults_of_tune(words))
