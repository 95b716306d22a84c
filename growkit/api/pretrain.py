"""`growkit pretrain`: a checkpoint trained on. Its signature is the one declaration of a run's settings."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

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
Data = Annotated[w.PathLike, Option("A dataset of growkit tokenize, or a .bin file of tokens.", RUN, "DATA")]
Out = Annotated[w.PathLike, Option("Folder of the run; the trained checkpoint becomes RUN/final.", RUN, "RUN")]
OwnStages = Annotated[
    Union[w.PathLike, Sequence["Stage"], None],
    Option("Instead of a schedule: [[stage]] tables of your own.", STAGES, "FILE.toml"),
]
Watch = Annotated[Callable[[dict[str, Any]], None], Callback("Called with each line of metrics, on the first process.")]
AnnounceRun = Annotated[Callable[["Settings"], None], Callback("Called with the settings before the run begins.")]


@public
def pretrain(
    checkpoint: Checkpoint,
    data: Data,
    out: Out,
    *,
    steps: Annotated[int | None, Option("Optimizer steps.", RUN, "N", min=1)] = None,
    tokens: Annotated[int | None, Option("Instead: tokens to train on.", RUN, "N", min=1)] = None,
    epochs: Annotated[float | None, Option("Instead: times through the data.", RUN, "X", min=0)] = None,
    seq_len: Annotated[
        int | None, Option("Tokens in a sequence; default 512, or the model's positions.", RUN, "N", min=1)
    ] = None,
    batch_size: Annotated[
        int, Option("Sequences in a step, over all processes and accumulation.", RUN, "N", min=1)
    ] = 32,
    grad_accum: Annotated[int, Option("Parts a process divides its share of a step into.", RUN, "N", min=1)] = 1,
    seed: Annotated[int, Option("For the order of the data, masks, prefixes and dropout.", RUN, "S")] = 0,
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Option("what products are computed in; weights stay float32.", MACHINE, "TYPE"),
    ] = "auto",
    device: Annotated[w.Device, Option("Where.", MACHINE)] = "auto",
    shard: Annotated[
        Literal["auto", "none", "node", "all"],
        Option("over how many processes a copy of the model is divided; auto: none where it fits.", MACHINE, "OVER"),
    ] = "auto",
    compile: Annotated[bool | None, Option("Compile each layer; default on a GPU.", MACHINE)] = None,
    grad_checkpointing: Annotated[bool, Option("Recompute activations instead of keeping them.", MACHINE)] = False,
    schedule: Annotated[
        Literal["plain", "two-stage", "stackbert", "mslt"], Option("what is trained when.", STAGES, "NAME")
    ] = "plain",
    sub_layers: Annotated[
        int | None,
        Option("two-stage: layers that learn in a step of the first stage; default a quarter.", STAGES, "L", min=1),
    ] = None,
    sub_steps: Annotated[
        int | None, Option("two-stage: steps of the first stage; default an eighth.", STAGES, "N", min=0)
    ] = None,
    to_layers: Annotated[int | None, Option("stackbert, mslt: layers at the end.", STAGES, "N", min=1)] = None,
    stages: OwnStages = None,
    lr: Annotated[float, Option("Peak learning rate.", RATE, "X", min=0)] = 3e-4,
    warmup: Annotated[
        int | None,
        Option(
            "Steps of warm-up; default none where AdamW's state comes with the checkpoint, else 20, at most a quarter"
            " of the run.",
            RATE,
            "N",
            min=0,
        ),
    ] = None,
    decay: Annotated[
        Literal["cosine", "linear", "wsd", "constant"], Option("how the rate falls.", RATE, "HOW")
    ] = "cosine",
    final_lr: Annotated[float, Option("Share of the peak at the end.", RATE, "X", min=0, max=1)] = 0.1,
    weight_decay: Annotated[float, Option("Decoupled; none on norms and biases.", RATE, "X", min=0)] = 0.1,
    beta1: Annotated[
        float, Option("AdamW: how much of the mean gradient stays in a step.", RATE, "B", min=0, max=1)
    ] = 0.9,
    beta2: Annotated[
        float, Option("AdamW: how much of the mean squared gradient stays in a step.", RATE, "B", min=0, max=1)
    ] = 0.95,
    eps: Annotated[float, Option("AdamW: added to the root of the mean squared gradient.", RATE, "E", min=0)] = 1e-8,
    clip: Annotated[float, Option("Largest norm of the gradient; 0: any.", RATE, "X", min=0)] = 1.0,
    teacher: Annotated[
        w.PathLike | None,
        Option("A smaller model that teaches at first (knowledge inheritance).", TEACHER, "CKPT"),
    ] = None,
    teacher_steps: Annotated[int | None, Option("How long; default a third of the run.", TEACHER, "N", min=1)] = None,
    teacher_until: Annotated[
        Literal["steps", "overtaken"],
        Option("overtaken: end it when validation finds the model better.", TEACHER),
    ] = "steps",
    temperature: Annotated[float, Option("Of both distributions.", TEACHER, "T", min=0.01)] = 2.0,
    alpha_schedule: Annotated[
        Literal["linear", "constant", "heaviside"], Option("how the teacher's weight falls.", TEACHER, "HOW")
    ] = "linear",
    balance: Annotated[
        float | None,
        Option("Weight of the load-balancing loss, Switch scale; default 0.01.", EXPERTS, "X", min=0),
    ] = None,
    router_z: Annotated[
        float | None, Option("Weight of the router z-loss; default 0.001.", EXPERTS, "X", min=0)
    ] = None,
    expert_dropout: Annotated[
        float, Option("Dropout on the experts' hidden activation.", EXPERTS, "P", min=0, max=0.99)
    ] = 0.0,
    eval_every: Annotated[int, Option("Steps between validations.", KEEPING, "N", min=1)] = 200,
    eval_tokens: Annotated[int, Option("Validation tokens at most.", KEEPING, "N", min=1)] = 100_000,
    save_every: Annotated[int, Option("Steps between checkpoints.", KEEPING, "N", min=1)] = 500,
    keep: Annotated[int, Option("Checkpoints kept.", KEEPING, "K", min=1)] = 2,
    log_every: Annotated[int, Option("Steps between lines where there is no terminal.", KEEPING, "N", min=1)] = 10,
    tensorboard: Annotated[bool, Option("Write RUN/tensorboard too.", KEEPING)] = False,
    dry_run: Annotated[bool, Option("Check everything, say what the run will be, and write nothing.", KEEPING)] = False,
    resume: Annotated[Literal["auto", "never"], Option("auto: go on with a run that is there.", KEEPING)] = "never",
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
    settings = Settings(
        checkpoint=str(checkpoint), data=str(data), out=str(out), steps=total, stages=chosen, seq_len=window,
        batch_size=batch_size, grad_accum=grad_accum, seed=seed,
        teacher=None if teacher is None else str(teacher),
        teacher_steps=asked.teaching_steps(teacher, teacher_steps, teacher_until, total),
        teacher_until=teacher_until, temperature=temperature, alpha_schedule=alpha_schedule,
        balance=asked.mixture_weight(origin, checkpoint, "--balance", balance, asked.BALANCE),
        router_z=asked.mixture_weight(origin, checkpoint, "--router-z", router_z, asked.ROUTER_Z),
        expert_dropout=asked.mixture_weight(origin, checkpoint, "--expert-dropout", expert_dropout, 0.0),
        lr=lr, warmup=asked.warmup_steps(origin, warmup, total, beta2), decay=decay, final_lr=final_lr,
        weight_decay=weight_decay, beta1=beta1, beta2=beta2, eps=eps, clip=clip, precision=precision, device=device,
        shard=shard, compile=compile, grad_checkpointing=grad_checkpointing, eval_every=eval_every,
        eval_tokens=eval_tokens, save_every=save_every, keep=keep, log_every=log_every, tensorboard=tensorboard,
    )  # fmt: skip
    if dry_run:
        from growkit.training.outlook import outlook

        return Finished(None, 0, None, outlook(settings, resume == "auto"))
    announce(settings)
    return run(settings, resume == "auto", watch)
