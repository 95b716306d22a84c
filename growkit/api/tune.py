"""`growkit tune`: a checkpoint taught what it should do, whole or in part. The loop is that of `growkit pretrain`."""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Annotated, Any

from growkit import limits
from growkit.api import run_words as r
from growkit.api import words as w
from growkit.api.option import Option, quiet
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.training.pretrain import Finished

LEARNING = "What learns"

Data = Annotated[
    w.PathLike,
    Option(
        help="A dataset of growkit tokenize: of conversations, whose answers are learned, or of text.",
        panel=r.RUN,
        metavar="DATA",
    ),
]
Epochs = Annotated[
    float | None,
    Option(
        help="Instead: times through the data; 2 where nothing is said.",
        panel=r.RUN,
        metavar="X",
        within=(0, 1_000_000),
    ),
]
Mix = Annotated[
    float | str | Sequence[str] | None,
    Option(
        help="How often tasks are drawn: a temperature T, in proportion to sizes^(1/T), or name=weight for each; default"
        " every conversation as often as every other.",
        panel=LEARNING,
        metavar="T|NAME=X",
    ),
]
Train = Annotated[
    str,
    Option(
        help="all; top:N, the last N layers alone; inserted, the layers that a growth inserted as identities; a small"
        " module: lora[:r], lora-mlp[:r], ia3, control[:r], mov[:n] or molora[:n[:r]]; of a mixture of experts:"
        " experts, router or dense-part.",
        panel=LEARNING,
        metavar="WHAT",
    ),
]
Lr = Annotated[
    float | None,
    Option(
        help="Peak learning rate; default 2e-5, of a mixture of experts 5e-5, of small modules 2e-4 to 4e-3.",
        panel=r.RATE,
        metavar="X",
        within=(0, 1e38),
    ),
]
Warmup = Annotated[
    int | None,
    Option(
        help="Steps of warm-up; default 3 % of the run, and where no state of AdamW comes with the checkpoint 20, at most"
        " a quarter of the run.",
        panel=r.RATE,
        metavar="N",
        within=(0, limits.STEPS),
    ),
]
Balance = Annotated[
    float | None,
    Option(
        help="Weight of the load-balancing loss, Switch scale; off by default.",
        panel=r.EXPERTS,
        metavar="X",
        within=(0, 1000),
    ),
]
RouterZ = Annotated[
    float | None,
    Option(help="Weight of the router z-loss; off by default.", panel=r.EXPERTS, metavar="X", within=(0, 1000)),
]


@public
def tune(
    checkpoint: r.Checkpoint,
    data: Data,
    out: r.Out,
    *,
    train: Train = "all",
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
    schedule: r.Schedule = "plain",
    sub_layers: r.SubLayers = None,
    sub_steps: r.SubSteps = None,
    to_layers: r.ToLayers = None,
    jump_at: r.JumpAt = None,
    stages: r.OwnStages = None,
    lr: Lr = None,
    warmup: Warmup = None,
    decay: r.StagedDecay = None,
    final_lr: r.FinalLr = 0.1,
    weight_decay: r.WeightDecay = 0.0,
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
    resume: r.Resume = "never",
    watch: r.Watch = quiet,
    announce: r.AnnounceRun = quiet,
) -> "Finished":
    """Teach a checkpoint what it should do, whole or in part: instruction tuning, or any text.

    train: what learns; everything else stays as it is, bit for bit, without optimizer state. data: what it learns
    from; of conversations the answers alone. out: the run's folder, with metrics.jsonl, checkpoints and, at the end,
    final, a stock checkpoint or the small module alone. How long: one of steps, tokens and epochs, or stages.
    Everything else is as in pretrain; the defaults are those of fine-tuning.

    Returns a Finished and raises as pretrain does; RequestError also for a part that the checkpoint does not have.
    """
    words = dict(locals())  # the signature declares a run; what each word comes to is known below
    from growkit.training.asked_run import TUNE, asked_run

    return asked_run(TUNE, words)


def with_defaults_of_tune(words: Mapping[str, Any]) -> dict[str, Any]:
    """The words of a command that runs as tune does and declares fewer: what it leaves out is as tune has it."""
    usual = {name: p.default for name, p in signature(tune).parameters.items() if p.default is not p.empty}
    return {**usual, **words}
