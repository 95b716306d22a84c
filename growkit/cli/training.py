"""The command that trains: pretrain. Knows options and the live line; everything else is the library's."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from growkit.cli.app import app, people_errors
from growkit.cli.options import option
from growkit.errors import RequestError

RUN, STAGES, RATE, TEACHER, KEEPING = "The run", "Stages", "Optimizer", "Teacher", "Checkpoints and metrics"
EXPERTS = "Mixtures of experts"


@app.command()
def pretrain(
    checkpoint: Annotated[str, typer.Argument(metavar="CKPT", help="The checkpoint to go on from.")],
    data: Annotated[str, option(RUN, "DATA", "A dataset of growkit tokenize, or a .bin file of tokens.")],
    out: Annotated[str, option(RUN, "RUN", "Folder of the run; the trained checkpoint becomes RUN/final.")],
    steps: Annotated[Optional[int], option(RUN, "N", "Optimizer steps.", min=1)] = None,
    tokens: Annotated[Optional[int], option(RUN, "N", "Instead: tokens to train on.", min=1)] = None,
    epochs: Annotated[Optional[float], option(RUN, "X", "Instead: times through the data.", min=0)] = None,
    seq_len: Annotated[Optional[int], option(RUN, "N", "Tokens in a sequence; default 512, or the model's positions.", min=1)] = None,
    batch_size: Annotated[int, option(RUN, "N", "Sequences in a step, over all processes and accumulation.", min=1)] = 32,
    grad_accum: Annotated[int, option(RUN, "N", "Parts a process divides its share of a step into.", min=1)] = 1,
    seed: Annotated[int, option(RUN, "S", "For the order of the data, masks, prefixes and dropout.")] = 0,
    precision: Annotated[str, option(RUN, "auto|float32|bfloat16", "What products are computed in; weights stay float32.")] = "auto",
    device: Annotated[str, option(RUN, "auto|cpu|cuda", "Where.")] = "auto",
    shard: Annotated[str, option(RUN, "auto|none|node|all", "Over how many processes a copy of the model is divided; auto: none where it fits.")] = "auto",
    compiled: Annotated[Optional[bool], option(RUN, None, "Compile each layer; default on a GPU.", "--compile/--no-compile")] = None,
    grad_checkpointing: Annotated[bool, option(RUN, None, "Recompute activations instead of keeping them.", "--grad-checkpointing")] = False,
    schedule: Annotated[str, option(STAGES, "plain|two-stage|stackbert|mslt", "What is trained when.")] = "plain",
    sub_layers: Annotated[Optional[int], option(STAGES, "L", "two-stage: layers that learn in a step of the first stage; default a quarter.", min=1)] = None,
    sub_steps: Annotated[Optional[int], option(STAGES, "N", "two-stage: steps of the first stage; default an eighth.", min=0)] = None,
    to_layers: Annotated[Optional[int], option(STAGES, "N", "stackbert, mslt: layers at the end.", min=1)] = None,
    stages: Annotated[Optional[Path], option(STAGES, "FILE.toml", r"Instead of a schedule: \[\[stage]] tables of your own.")] = None,
    lr: Annotated[float, option(RATE, "X", "Peak learning rate.", min=0)] = 3e-4,
    warmup: Annotated[Optional[int], option(RATE, "N", "Steps of warm-up; default none where AdamW's state comes with the checkpoint, else 20, at most a quarter of the run.", min=0)] = None,
    decay: Annotated[str, option(RATE, "cosine|linear|wsd|constant", "How the rate falls.")] = "cosine",
    final_lr: Annotated[float, option(RATE, "X", "Share of the peak at the end.", min=0, max=1)] = 0.1,
    weight_decay: Annotated[float, option(RATE, "X", "Decoupled; none on norms and biases.", min=0)] = 0.1,
    clip: Annotated[float, option(RATE, "X", "Largest norm of the gradient; 0: any.", min=0)] = 1.0,
    teacher: Annotated[Optional[str], option(TEACHER, "CKPT", "A smaller model that teaches at first (knowledge inheritance).")] = None,
    teacher_steps: Annotated[Optional[int], option(TEACHER, "N", "How long; default a third of the run.", min=1)] = None,
    teacher_until: Annotated[str, option(TEACHER, "steps|overtaken", "overtaken: end it when validation finds the model better.")] = "steps",
    temperature: Annotated[float, option(TEACHER, "T", "Of both distributions.", min=0.01)] = 2.0,
    alpha_schedule: Annotated[str, option(TEACHER, "linear|constant|heaviside", "How the teacher's weight falls.")] = "linear",
    balance: Annotated[Optional[float], option(EXPERTS, "X", "Weight of the load-balancing loss, Switch scale; default 0.01.", min=0)] = None,
    router_z: Annotated[Optional[float], option(EXPERTS, "X", "Weight of the router z-loss; default 0.001.", min=0)] = None,
    expert_dropout: Annotated[float, option(EXPERTS, "P", "Dropout on the experts' hidden activation.", min=0, max=0.99)] = 0.0,
    eval_every: Annotated[int, option(KEEPING, "N", "Steps between validations.", min=1)] = 200,
    eval_tokens: Annotated[int, option(KEEPING, "N", "Validation tokens at most.", min=1)] = 100_000,
    save_every: Annotated[int, option(KEEPING, "N", "Steps between checkpoints.", min=1)] = 500,
    keep: Annotated[int, option(KEEPING, "K", "Checkpoints kept.", min=1)] = 2,
    log_every: Annotated[int, option(KEEPING, "N", "Steps between lines where there is no terminal.", min=1)] = 10,
    tensorboard: Annotated[bool, option(KEEPING, None, "Write RUN/tensorboard too.", "--tensorboard")] = False,
    dry_run: Annotated[bool, option(KEEPING, None, "Check everything, say what the run will be, and write nothing.", "--dry-run")] = False,
    as_json: Annotated[bool, option(KEEPING, None, "With --dry-run: as JSON.", "--json")] = False,
    resume: Annotated[str, option(KEEPING, "auto|never", "auto: go on with a run that is there.")] = "never",
) -> None:  # fmt: skip
    """Continue a checkpoint's pretraining: all layers at once, in stages, with a teacher or without."""
    with people_errors("interrupted; --resume auto goes on from the last checkpoint, if there is one"):
        if resume not in ("auto", "never"):
            raise RequestError(f"--resume {resume!r} is not one of auto, never")
        from growkit.training.pretrain import pretrain as train
        from growkit.training.run_request import settings

        asked = settings(
            checkpoint, data, out, steps=steps, tokens=tokens, epochs=epochs, schedule=schedule, sub_layers=sub_layers,
            sub_steps=sub_steps, to_layers=to_layers, stages=stages, teacher_steps=teacher_steps, seq_len=seq_len,
            batch_size=batch_size, grad_accum=grad_accum, seed=seed, precision=precision, device=device, shard=shard, compile=compiled, tensorboard=tensorboard, grad_checkpointing=grad_checkpointing,
            lr=lr, warmup=warmup, decay=decay, final_lr=final_lr, weight_decay=weight_decay, clip=clip, teacher=teacher, teacher_until=teacher_until,
            temperature=temperature, alpha_schedule=alpha_schedule, eval_every=eval_every, eval_tokens=eval_tokens,
            balance=balance, router_z=router_z, expert_dropout=expert_dropout, save_every=save_every, keep=keep, log_every=log_every,
        )  # fmt: skip
        if dry_run:
            from growkit.cli import show_data
            from growkit.training.outlook import outlook

            found = outlook(asked, resume == "auto")
            if _is_first():
                show_data.outlook(found, as_json)
            return
        if as_json:
            raise RequestError("--json is for --dry-run; a run's metrics are JSON as they are: RUN/metrics.jsonl")
        with _watching(asked.steps, log_every) as watch:
            finished = train(asked, resume == "auto", watch)
    if finished.folder is None:
        _say(f"stopped at step {finished.step}; the same line with --resume auto goes on")
    else:
        loss = f", validation loss {finished.loss:.4f}" if finished.loss is not None else ""
        _say(f"[bold]wrote[/] {finished.folder}{loss}")


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"  # of many processes one speaks


def _say(text: str) -> None:
    if not _is_first():
        return
    from rich.console import Console

    Console(stderr=True, highlight=False, soft_wrap=True).print(text)


@contextmanager
def _watching(steps: int, log_every: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A live line on a terminal; elsewhere a plain line every so often."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)
    text = "[bold]{task.fields[stage]}[/] step {task.completed}/{task.total}  {task.fields[state]}"
    columns = (TextColumn(text), BarColumn(bar_width=20), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=steps, stage="", state="")

        def watch(line: dict[str, Any]) -> None:
            kind = line["kind"]
            if kind == "train":
                state = f"loss {line['loss']:.4f}  {line['tok_per_s']:,.0f} tokens/s"
                state += f"  MFU {line['mfu']:.1%}" if "mfu" in line else ""
                bar.update(task, completed=line["step"], stage=line["stage"], state=state)
                if not console.is_terminal and line["step"] % log_every == 0:
                    console.print(f"step {line['step']}/{steps}  {line['stage']}  lr {line['lr']:.2e}  {state}")
            elif kind == "val":
                console.print(f"step {line['step']}  validation loss {line['loss']:.4f}")
            elif kind == "note":
                console.print(f"[dim]note:[/] {line['text']}")

        yield watch
