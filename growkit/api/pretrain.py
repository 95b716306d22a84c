"""`growkit pretrain`: a checkpoint trained on. Its signature, and that of `growkit tune`, declare a run's settings."""

from typing import TYPE_CHECKING, Annotated

from growkit import limits
from growkit.api import run_words as r
from growkit.api import words as w
from growkit.api.option import Option, quiet
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.training.pretrain import Finished

Data = Annotated[
    w.PathLike, Option(help="A dataset of growkit tokenize, or a .bin file of tokens.", panel=r.RUN, metavar="DATA")
]
Epochs = Annotated[
    float | None, Option(help="Instead: times through the data.", panel=r.RUN, metavar="X", within=(0, 1_000_000))
]
Lr = Annotated[float, Option(help="Peak learning rate.", panel=r.RATE, metavar="X", within=(0, 1e38))]
Warmup = Annotated[
    int | None,
    Option(
        help="Steps of warm-up; default none where AdamW's state comes with the checkpoint, else 20, at most a quarter"
        " of the run.",
        panel=r.RATE,
        metavar="N",
        within=(0, limits.STEPS),
    ),
]
Balance = Annotated[
    float | None,
    Option(
        help="Weight of the load-balancing loss, Switch scale; default 0.01.",
        panel=r.EXPERTS,
        metavar="X",
        within=(0, 1000),
    ),
]
RouterZ = Annotated[
    float | None,
    Option(help="Weight of the router z-loss; default 0.001.", panel=r.EXPERTS, metavar="X", within=(0, 1000)),
]


Forecast = Annotated[
    w.PathLike | None,
    Option(
        help="With --dry-run: a folder of growkit forecast, which says what loss it ends with.",
        panel=r.KEEPING,
        metavar="DIR",
    ),
]


@public
def pretrain(
    checkpoint: r.Checkpoint,
    data: Data,
    out: r.Out,
    *,
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
    schedule: r.Schedule = "plain",
    sub_layers: r.SubLayers = None,
    sub_steps: r.SubSteps = None,
    to_layers: r.ToLayers = None,
    jump_at: r.JumpAt = None,
    stages: r.OwnStages = None,
    lr: Lr = 3e-4,
    warmup: Warmup = None,
    decay: r.StagedDecay = None,
    final_lr: r.FinalLr = 0.1,
    weight_decay: r.WeightDecay = 0.1,
    beta1: r.Beta1 = 0.9,
    beta2: r.Beta2 = 0.95,
    eps: r.Eps = 1e-8,
    clip: r.Clip = 1.0,
    optimizer: r.OptimizerName = "adamw",
    multipliers: r.Multipliers = "relax",
    teacher: r.Teacher = None,
    teacher_steps: r.TeacherSteps = None,
    teacher_until: r.TeacherUntil = None,
    teacher_estimate: r.TeacherEstimate = None,
    temperature: r.Temperature = None,
    teacher_schedule: r.TeacherSchedule = "linear",
    teacher_weight: r.TeacherWeight = None,
    balance: Balance = None,
    router_z: RouterZ = None,
    expert_dropout: r.ExpertDropout = 0.0,
    capacity: r.Capacity = None,
    eval_every: r.EvalEvery = 200,
    eval_tokens: r.EvalTokens = 100_000,
    save_every: r.SaveEvery = 500,
    keep: r.Keep = 2,
    log_every: r.LogEvery = 10,
    tensorboard: r.Tensorboard = False,
    wandb: r.Wandb = False,
    dry_run: r.DryRun = False,
    forecast: Forecast = None,
    resume: r.Resume = "never",
    watch: r.Watch = quiet,
    announce: r.AnnounceRun = quiet,
) -> "Finished":
    """Continue a checkpoint's pretraining: all layers at once, in stages, with a teacher or without.

    data: what it learns from. out: the run's folder, with metrics.jsonl, checkpoints and, at the end, final, a stock
    checkpoint with AdamW's state beside it. How long: one of steps, tokens and epochs, or stages. All processes of a
    torchrun call it alike. Rates: the peak is reached after warmup steps and falls to final_lr of itself.

    Returns a Finished: .folder (None where the run was stopped before its end), .step, .loss; with dry_run only
    .outlook. Raises RequestError for what cannot be asked, CheckpointError for what cannot be read, growkit.training's
    NotFiniteError where the loss is NaN and NotSavedError where a checkpoint cannot be written; checkpoints written so
    far stay.
    """
    words = dict(locals())  # the signature declares a run; what each word comes to is known below
    from growkit.training.asked_run import PRETRAIN, asked_run

    return asked_run(PRETRAIN, words)
