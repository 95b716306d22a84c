"""From settings to a finished run: carries it out and leaves a folder to go on from. Knows files and stock models;
ignorant of what a step does.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growkit.checkpoint.inserted import inserted_layers
from growkit.checkpoint.record import learning_flops, record, source_entries
from growkit.checkpoint.small_files import open_plain
from growkit.checkpoint.source import Checkpoint
from growkit.growth.sources import open_source
from growkit.maps.exactness import Exactness
from growkit.reports.boards import Board, Boards, TensorBoard, WeightsAndBiases
from growkit.training.blank import Blank, blank_model
from growkit.training.checkpoints import NotSavedError
from growkit.training.learning.learners import Learners
from growkit.training.loop import Run, Say
from growkit.training.outlook import Outlook
from growkit.training.ready import ReadyRun, prepare
from growkit.training.run_folder import BOARD, FINAL, METRICS, Held, board_key, not_ours
from growkit.training.run_request import origin_of
from growkit.training.saved import Saved
from growkit.training.settings import Settings
from growkit.training.stage_growth import grow_stage
from growkit.training.teachers.lessons import Lessons


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
    saved: Callable[[Checkpoint], Saved] | None = None,
) -> Run:
    """A run that has its folder and has computed nothing yet; raises as pretrain does.

    learners, saved: who learns and what is left, instead of what settings.train says.
    """
    return run_of(prepare(settings, resume), watch, learners, saved)


def run_of(
    ready: ReadyRun,
    watch: Say = lambda _: None,
    learners: Learners | None = None,
    saved: Callable[[Checkpoint], Saved] | None = None,
) -> Run:
    """The run that can begin, as open_run returns it."""
    held = Held(Path(ready.settings.out))
    ready.machine.agreed(lambda: held.take(ready.settings, ready.standing))
    if ready.standing.finished and ready.machine.is_first:
        made = f"{str(held.out / FINAL)!r} is there already; take it away to have it made again"
        watch({"kind": "note", "text": made})
    boards = Boards()
    try:
        ready.machine.agreed(lambda: boards.begin(_boards(ready)))
    except BaseException:
        held.forget()
        held.release()
        raise

    def release() -> None:
        for text in boards.close(failed=sys.exc_info()[0] is not None):
            watch({"kind": "note", "text": text})
        held.release()

    return Run(
        settings=ready.settings,
        machine=ready.machine,
        train=ready.train,
        val=ready.val,
        lessons=Lessons(ready.settings, ready.teachers),
        open_model=_open_model,
        learners=learners or ready.trained.learners,
        saved=saved(ready.source) if saved else ready.trained.saved(ready.source, ready.template),
        grow=grow_stage,
        say=_diary(ready, boards, watch),
        course=ready.trained.course,
        finished=ready.standing.finished,
        release=release,
        forget=held.forget,
        notes=ready.notes,
        spent=learning_flops(ready.source.folder),
    )


def carry_through(run: Run, resume: bool = False) -> Finished:
    """Run to the end, or until a signal, and leave what is asked for; raises as pretrain does.

    Where the result is there already nothing is computed, and nothing of it changes."""
    s, final = run.settings, Path(run.settings.out) / FINAL
    try:
        if run.finished:
            return Finished(folder=final, step=s.steps, loss=None, run=run)
        student = run.go(resume)
        if not run.is_complete:
            return Finished(folder=None, step=run.step, loss=None, run=run)
        run.saved.export(student, final, lambda: _record(s))
        return Finished(folder=final, step=run.step, loss=run.val_loss, run=run)
    finally:
        run.release()


def _boards(ready: ReadyRun) -> Iterator[Board]:
    """What a run's metrics are shown on; one that is done shows nothing more."""
    settings, out = ready.settings, Path(ready.settings.out)
    if settings.tensorboard and not ready.standing.finished:
        yield TensorBoard(out / BOARD)
    if settings.wandb and not ready.standing.finished:
        yield WeightsAndBiases(out, board_key(out), settings.to_json())


def _diary(ready: ReadyRun, boards: Boards, watch: Say) -> Say:
    """What writes a line of metrics, on the first process; a line that is torn goes first."""
    first, out = ready.machine.is_first, Path(ready.settings.out)
    if first and (out / METRICS).exists():
        with open_plain(out / METRICS) as written:
            text = written.read()
        (out / METRICS).write_bytes(text[: text.rfind(b"\n") + 1])  # a line that was torn when the run was killed

    def say(line: dict[str, Any]) -> None:
        if first:
            try:
                with open(out / METRICS, "a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
            except OSError as error:
                why = error.strerror or error
                raise NotSavedError(
                    f"cannot write {str(out / METRICS)!r}: {why}; make room and go on with --resume auto"
                ) from None
            watch(line)
            for text in boards.add(line):
                watch({"kind": "note", "text": text})

    return say


def _record(settings: Settings) -> dict[str, Any]:
    """What growkit.json says of a trained checkpoint. Raises RequestError where there is something of its name, which
    would be replaced now."""
    if os.path.lexists(final := Path(settings.out) / FINAL):
        raise not_ours(final)
    origin = origin_of(settings.checkpoint)
    entries = source_entries([origin.source], [settings.hashes["checkpoint"]])
    request = {k: v for k, v in settings.to_json().items() if k not in ("command", "out", "hashes")}
    inserted = inserted_layers(origin.source.folder, origin.layers) if settings.keeps_layers else ()
    return record(
        settings.command, request=request, sources=entries, exactness=Exactness.APPROXIMATE, maps_digest="",
        inserted=inserted,
    )  # fmt: skip


def _open_model(name: str | Path) -> Blank:
    """A stock model whose weights lie in a checkpoint, float32 whatever they are stored in."""
    source = open_source(name)
    source.close()
    return blank_model(source)
