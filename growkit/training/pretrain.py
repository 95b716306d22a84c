"""From settings to a finished run: carries it out and leaves a folder to go on from. Knows files and stock models;
ignorant of what a step does.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.record import record, source_entries
from growkit.checkpoint.source import Checkpoint
from growkit.checkpoint.writer import write_json
from growkit.growth.sources import open_source
from growkit.maps.exactness import Exactness
from growkit.reports.tensorboard import tensorboard
from growkit.training.blank import Blank, blank_model
from growkit.training.learners import AllLearn, Learners
from growkit.training.loop import Run, Say
from growkit.training.outlook import Outlook
from growkit.training.ready import RUN, ReadyRun, prepare
from growkit.training.saved import Saved, WholeModel
from growkit.training.settings import Settings
from growkit.training.stage_growth import grow_stage
from growkit.version import __version__

FINAL, METRICS, BOARD = "final", "metrics.jsonl", "tensorboard"


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a run left, or with `dry_run` what it will be."""

    folder: Path | None  # the trained checkpoint; None where the run was stopped before its end, or was not begun
    step: int  # the last one done
    loss: float | None  # of the last validation
    outlook: Outlook | None = None  # what the run will be, where it was a dry one
    run: Run | None = None  # the run itself, as it ended


def pretrain(settings: Settings, resume: bool = False, watch: Say = lambda _: None) -> Finished:
    """Continue a checkpoint's pretraining. watch: called with each line of metrics, on the first process.

    Raises RequestError for what cannot be asked, CheckpointError for what cannot be read, NotFiniteError where the loss
    becomes NaN, NotSavedError where a checkpoint cannot be written; those written so far stay.
    """
    return carry_through(open_run(settings, resume, watch), resume)


def open_run(
    settings: Settings,
    resume: bool = False,
    watch: Say = lambda _: None,
    learners: Learners | None = None,
    saved: Callable[[Checkpoint], Saved] = WholeModel,
) -> Run:
    """A run that has its folder and has computed nothing yet; raises as pretrain does.

    learners: who learns, by default all. saved: called with the checkpoint that the run begins with, says what it
    leaves.
    """
    ready = prepare(settings, resume)
    ready.machine.wait()  # all have looked whether there is a run
    return Run(
        settings=ready.settings,
        machine=ready.machine,
        train=ready.train,
        val=ready.val,
        teacher=ready.teacher,
        open_model=_open_model,
        learners=learners or AllLearn(),
        saved=saved(ready.source),
        grow=grow_stage,
        say=_diary(ready, watch),
    )


def carry_through(run: Run, resume: bool = False) -> Finished:
    """Run to the end, or until a signal, and leave what is asked for; raises as pretrain does."""
    student = run.go(resume)
    if run.step < run.settings.steps:
        return Finished(folder=None, step=run.step, loss=None, run=run)
    final = Path(run.settings.out) / FINAL
    run.saved.export(student, final, lambda: _record(run.settings))
    return Finished(folder=final, step=run.step, loss=run.val_loss, run=run)


def _diary(ready: ReadyRun, watch: Say) -> Say:
    """Begin a run's folder, or go on with it; returns what writes a line of metrics, on the first process."""
    settings, first, out = ready.settings, ready.machine.is_first, Path(ready.settings.out)
    out.mkdir(parents=True, exist_ok=True)
    if first and not ready.begun:
        write_json(out / RUN, {"growkit": __version__, "torch": torch.__version__, "settings": settings.to_json()})
    if first and (out / METRICS).exists():
        text = (out / METRICS).read_bytes()
        (out / METRICS).write_bytes(text[: text.rfind(b"\n") + 1])  # a line that was torn when the run was killed
    board = tensorboard(out / BOARD) if settings.tensorboard and first else lambda _: None

    def say(line: dict[str, Any]) -> None:
        if first:
            with open(out / METRICS, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            board(line)
            watch(line)

    return say


def _record(settings: Settings) -> dict[str, Any]:
    """What growkit.json says of a trained checkpoint."""
    source = open_source(settings.checkpoint)
    source.close()
    entries = source_entries([source], [settings.hashes["checkpoint"]])
    request = {k: v for k, v in settings.to_json().items() if k not in ("out", "hashes")}
    return record("pretrain", request=request, sources=entries, exactness=Exactness.APPROXIMATE, maps_digest="")


def _open_model(name: str | Path) -> Blank:
    """A stock model whose weights lie in a checkpoint, float32 whatever they are stored in."""
    source = open_source(name)
    source.close()
    return blank_model(source)
