"""`growkit pretrain`: a checkpoint trained on. Its signature is the one declaration of a run's settings."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from growkit import limits
from growkit.api import words as w
from growkit.api.option import Argument, Callback, Option, quiet
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.training.pretrain import Finished
    from growkit.training.settings import Settings
    from growkit.training.stages import Stage

RUN, MACHINE, STAGES, RATE = "The run", "The machine", "Stages", "Optimizer"
TEACHER, EXPERTS, KEEPING = "Teacher", "Mixtures of experts", "Checkpoints and metrics"

Checkpoint = Annotated[w.PathLike, Argument("The checkpoint to go on from.", "CKPT")]
Data = Annotated[
    w.PathLike, Option(help="A dataset of growkit tokenize, or a .bin file of tokens.", panel=RUN, metavar="DATA")
]
Out = Annotated[
    w.PathLike, Option(help="Folder of the run; the trained checkpoint becomes RUN/final.", panel=RUN, metavar="RUN")
]
OwnStages = Annotated[
    Union[w.PathLike, Sequence["Stage"], None],
    Option(help="Instead of a schedule: [[stage]] tables of your own.", panel=STAGES, metavar="FILE.toml"),
]
Watch = Annotated[Callable[[dict[str, Any]], None], Callback("Called with each line of metrics, on the first process.")]
AnnounceRun = Annotated[Callable[["Settings"], None], Callback("Called with the settings before the run begins.")]


@public
def pretrain(
    checkpoint: Checkpoint,
    data: Data,
    out: Out,
    *,
    steps: Annotated[
        int | None, Option(help="Optimizer steps.", panel=RUN, metavar="N", within=(1, limits.STEPS))
    ] = None,
    tokens: Annotated[
        int | None, Option(help="Instead: tokens to train on.", panel=RUN, metavar="N", within=(1, limits.TOKENS))
    ] = None,
    epochs: Annotated[
        float | None, Option(help="Instead: times through the data.", panel=RUN, metavar="X", within=(0, 1_000_000))
    ] = None,
    seq_len: Annotated[
        int | None,
        Option(
            help="Tokens in a sequence; default 512, or the model's positions.",
            panel=RUN,
            metavar="N",
            within=(1, limits.AXIS),
        ),
    ] = None,
    batch_size: Annotated[
        int,
        Option(
            help="Sequences in a step, over all processes and accumulation.",
            panel=RUN,
            metavar="N",
            within=(1, limits.BATCH),
        ),
    ] = 32,
    grad_accum: Annotated[
        int,
        Option(
            help="Parts a process divides its share of a step into.", panel=RUN, metavar="N", within=(1, limits.BATCH)
        ),
    ] = 1,
    seed: Annotated[
        int,
        Option(
            help="For the order of the data, masks, prefixes and dropout.", panel=RUN, metavar="S", within=limits.SEEDS
        ),
    ] = 0,
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Option(help="what products are computed in; weights stay float32.", panel=MACHINE, metavar="TYPE"),
    ] = "auto",
    device: Annotated[w.Device, Option(help="Where.", panel=MACHINE)] = "auto",
    shard: Annotated[
        Literal["auto", "none", "node", "all"],
        Option(
            help="over how many processes a copy of the model is divided; auto: none where it fits.",
            panel=MACHINE,
            metavar="OVER",
        ),
    ] = "auto",
    compile: Annotated[bool | None, Option(help="Compile each layer; default on a GPU.", panel=MACHINE)] = None,
    grad_checkpointing: Annotated[
        bool, Option(help="Recompute activations instead of keeping them.", panel=MACHINE)
    ] = False,
    schedule: Annotated[
        Literal["plain", "two-stage", "stackbert", "mslt"],
        Option(help="what is trained when.", panel=STAGES, metavar="NAME"),
    ] = "plain",
    sub_layers: Annotated[
        int | None,
        Option(
            help="two-stage: layers that learn in a step of the first stage; default a quarter.",
            panel=STAGES,
            metavar="L",
            within=(1, limits.LAYERS),
        ),
    ] = None,
    sub_steps: Annotated[
        int | None,
        Option(
            help="two-stage: steps of the first stage; default an eighth.",
            panel=STAGES,
            metavar="N",
            within=(0, limits.STEPS),
        ),
    ] = None,
    to_layers: Annotated[
        int | None,
        Option(help="stackbert, mslt: layers at the end.", panel=STAGES, metavar="N", within=(1, limits.LAYERS)),
    ] = None,
    stages: OwnStages = None,
    lr: Annotated[float, Option(help="Peak learning rate.", panel=RATE, metavar="X", within=(0, 1e38))] = 3e-4,
    warmup: Annotated[
        int | None,
        Option(
            help="Steps of warm-up; default none where AdamW's state comes with the checkpoint, else 20, at most a quarter"
            " of the run.",
            panel=RATE,
            metavar="N",
            within=(0, limits.STEPS),
        ),
    ] = None,
    decay: Annotated[
        Literal["cosine", "linear", "wsd", "constant"], Option(help="how the rate falls.", panel=RATE, metavar="HOW")
    ] = "cosine",
    final_lr: Annotated[
        float, Option(help="Share of the peak at the end.", panel=RATE, metavar="X", within=(0, 1))
    ] = 0.1,
    weight_decay: Annotated[
        float, Option(help="Decoupled; none on norms and biases.", panel=RATE, metavar="X", within=(0, 1000))
    ] = 0.1,
    beta1: Annotated[
        float,
        Option(help="AdamW: how much of the mean gradient stays in a step.", panel=RATE, metavar="B", within=(0, 1)),
    ] = 0.9,
    beta2: Annotated[
        float,
        Option(
            help="AdamW: how much of the mean squared gradient stays in a step.", panel=RATE, metavar="B", within=(0, 1)
        ),
    ] = 0.95,
    eps: Annotated[
        float,
        Option(help="AdamW: added to the root of the mean squared gradient.", panel=RATE, metavar="E", within=(0, 1)),
    ] = 1e-8,
    clip: Annotated[
        float, Option(help="Largest norm of the gradient; 0: any.", panel=RATE, metavar="X", within=(0, 1e9))
    ] = 1.0,
    teacher: Annotated[
        w.PathLike | Sequence[w.PathLike] | None,
        Option(
            help="A smaller model that teaches at first (knowledge inheritance); on tagged text domain=CKPT, several"
            " times, each for its own domain.",
            panel=TEACHER,
            metavar="CKPT",
        ),
    ] = None,
    teacher_steps: Annotated[
        int | None,
        Option(help="How long; default a third of the run.", panel=TEACHER, metavar="N", within=(1, limits.STEPS)),
    ] = None,
    teacher_until: Annotated[
        Literal["overtaken", "steps"] | None,
        Option(
            help="overtaken: end it when validation finds the model better, before the first step and at every"
            " --eval-every; the default where the data has a validation split.",
            panel=TEACHER,
        ),
    ] = None,
    temperature: Annotated[
        float, Option(help="Of both distributions.", panel=TEACHER, metavar="T", within=(0.01, 1000))
    ] = 1.0,
    teacher_schedule: Annotated[
        Literal["linear", "constant", "heaviside", "wsd"],
        Option(help="how the teacher's weight falls.", panel=TEACHER, metavar="HOW"),
    ] = "linear",
    teacher_weight: Annotated[
        float | None,
        Option(
            help="That weight at the first step; default 1, and 0.5 for constant and where the model was grown exactly"
            " from this very teacher.",
            panel=TEACHER,
            metavar="X",
            within=(0, 1),
        ),
    ] = None,
    balance: Annotated[
        float | None,
        Option(
            help="Weight of the load-balancing loss, Switch scale; default 0.01.",
            panel=EXPERTS,
            metavar="X",
            within=(0, 1000),
        ),
    ] = None,
    router_z: Annotated[
        float | None,
        Option(help="Weight of the router z-loss; default 0.001.", panel=EXPERTS, metavar="X", within=(0, 1000)),
    ] = None,
    expert_dropout: Annotated[
        float, Option(help="Dropout on the experts' hidden activation.", panel=EXPERTS, metavar="P", within=(0, 0.99))
    ] = 0.0,
    eval_every: Annotated[
        int, Option(help="Steps between validations.", panel=KEEPING, metavar="N", within=(1, limits.STEPS))
    ] = 1.0,
    eval_tokens: Annotated[
        int, Option(help="Validation tokens at most.", panel=KEEPING, metavar="N", within=(1, limits.TOKENS))
    ] = 100_000,
    save_every: Annotated[
        int, Option(help="Steps between checkpoints.", panel=KEEPING, metavar="N", within=(1, limits.STEPS))
    ] = 500,
    keep: Annotated[int, Option(help="Checkpoints kept.", panel=KEEPING, metavar="K", within=(1, limits.STEPS))] = 2,
    log_every: Annotated[
        int,
        Option(
            help="Steps between lines where there is no terminal.", panel=KEEPING, metavar="N", within=(1, limits.STEPS)
        ),
    ] = 10,
    tensorboard: Annotated[bool, Option(help="Write RUN/tensorboard too.", panel=KEEPING)] = False,
    wandb: Annotated[
        bool, Option(help="Send them to Weights & Biases, as its own WANDB_... variables say.", panel=KEEPING)
    ] = False,
    dry_run: Annotated[
        bool, Option(help="Check everything, say what the run will be, and write nothing.", panel=KEEPING)
    ] = False,
    resume: Annotated[
        Literal["auto", "never"], Option(help="auto: go on with a run that is there.", panel=KEEPING)
    ] = "never",
    watch: Watch = quiet,
    announce: AnnounceRun = quiet,
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
    from growkit.errors import RequestError

    if resume not in ("auto", "never"):
        raise RequestError(f"--resume {resume!r} is not one of auto, never")
    from growkit.training import run_request as asked
    from growkit.training.pretrain import Finished
    from growkit.training.pretrain import pretrain as run
    from growkit.training.settings import Settings

    origin = asked.origin_of(checkpoint)
    window = asked.window_of(origin, seq_len)
    placing = asked.Staging(
        schedule=schedule, sub_layers=sub_layers, sub_steps=sub_steps, to_layers=to_layers, stages=stages
    )  # fmt: skip
    chosen = placing.chosen(asked.Duration(steps, tokens, epochs), origin.layers, batch_size * window, data)
    total = sum(stage.steps for stage in chosen)
    teachers = asked.asked_teachers(teacher)
    settings = Settings(
        checkpoint=str(checkpoint), data=str(data), out=str(out), steps=total, stages=chosen, seq_len=window,
        batch_size=batch_size, grad_accum=grad_accum, seed=seed,
        teacher=teachers, teacher_steps=asked.teaching_steps(teachers, teacher_steps, teacher_until, teacher_weight, total),
        teacher_until=teacher_until, temperature=temperature, teacher_schedule=teacher_schedule,
        teacher_weight=teacher_weight,
        balance=asked.mixture_weight(origin, checkpoint, "--balance", balance, asked.BALANCE),
        router_z=asked.mixture_weight(origin, checkpoint, "--router-z", router_z, asked.ROUTER_Z),
        expert_dropout=asked.mixture_weight(origin, checkpoint, "--expert-dropout", expert_dropout, 0.0),
        lr=lr, warmup=asked.warmup_steps(origin, warmup, total, beta2), decay=decay, final_lr=final_lr,
        weight_decay=weight_decay, beta1=beta1, beta2=beta2, eps=eps, clip=clip, precision=precision, device=device,
        shard=shard, compile=compile, grad_checkpointing=grad_checkpointing, eval_every=eval_every,
        eval_tokens=eval_tokens, save_every=save_every, keep=keep, log_every=log_every, tensorboard=tensorboard,
        wandb=wandb,
    )  # fmt: skip
    if dry_run:
        from growkit.training.outlook import outlook

        return Finished(folder=None, step=0, loss=None, outlook=outlook(settings, resume == "auto"))
    announce(settings)
    return run(settings, resume == "auto", watch)
