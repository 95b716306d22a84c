"""The commands that train: pretrain, tune, skill learn, skill apply-layer. Knows the live line; everything else is the
library's.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from growkit import api
from growkit.cli.commands import command
from growkit.errors import RequestError

if TYPE_CHECKING:
    from growkit.training.pretrain import Finished
    from growkit.training.settings import Settings


def training(call: Callable[..., "Finished"], as_json: bool) -> None:
    """Train with a live line shown, or show what a run will be. Of many processes the first one speaks."""
    if as_json and not call.keywords.get("dry_run"):  # type: ignore[attr-defined]
        raise RequestError("--json is for --dry-run; a run's metrics are JSON as they are: RUN/metrics.jsonl")
    with watching() as (announce, watch):
        finished = call(announce=announce, watch=watch)
    if os.environ.get("RANK", "0") != "0":
        return
    from growkit.cli.terminal import err

    if finished.outlook is not None:
        from growkit.cli import show_data

        show_data.outlook(finished.outlook, as_json)
    elif finished.folder is None:
        err.say(f"stopped at step {finished.step}; the same line with --resume auto goes on")
    else:
        loss = f", validation loss {finished.loss:.4f}" if finished.loss is not None else ""
        err.say(("wrote", "bold"), f" {finished.folder}{loss}")


@contextmanager
def watching() -> Iterator[tuple[Callable[["Settings"], None], Callable[[dict[str, Any]], None]]]:
    """(announce, watch) of a run: a live line on a terminal; elsewhere a plain line every so often."""
    from rich.progress import BarColumn, Progress, TimeRemainingColumn

    from growkit.cli.terminal import Words, err

    words = Words("{task.fields[stage]}", "bold"), Words("step {task.completed}/{task.total}  {task.fields[state]}")
    columns = (*words, BarColumn(bar_width=20), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("training", total=None, visible=False, stage="", state="")
        steps = every = 0

        def announce(settings: "Settings") -> None:
            nonlocal steps, every
            steps, every = settings.steps, settings.log_every
            bar.update(task, total=steps, completed=0, visible=True)

        def watch(line: dict[str, Any]) -> None:
            kind = line["kind"]
            if kind == "train":
                state = f"loss {line['loss']:.4f}  {line['tok_per_s']:,.0f} tokens/s"
                state += f"  MFU {line['mfu']:.1%}" if "mfu" in line else ""
                bar.update(task, completed=line["step"], stage=line["stage"], state=state)
                if not err.is_terminal and line["step"] % every == 0:
                    err.print(f"step {line['step']}/{steps}  {line['stage']}  lr {line['lr']:.2e}  {state}")
            elif kind == "val":
                each = "".join(f"  {name} {loss:.4f}" for name, loss in line.get("domains", {}).items())
                err.say(f"step {line['step']}  validation loss {line['loss']:.4f}{each}")
            elif kind == "note":
                err.note(line["text"])

        yield announce, watch


INTERRUPTED = "interrupted; --resume auto goes on from the last checkpoint, if there is one"
command(api.pretrain, training, interrupted=INTERRUPTED)
command(api.tune, training, interrupted=INTERRUPTED)
command(api.skill_learn, training, interrupted=INTERRUPTED)
command(api.skill_apply_layer, training, interrupted=INTERRUPTED)
