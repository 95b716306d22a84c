"""From settings to a finished run: carries it out and leaves a Hugging Face folder. Knows files and stock models;
ignorant of what a step does.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.companions import copy_companions
from growkit.checkpoint.record import record_of
from growkit.checkpoint.source import PROVENANCE, Checkpoint
from growkit.checkpoint.writer import write_json
from growkit.errors import CheckpointError
from growkit.growth.carry_out import carry_out
from growkit.growth.prepare import Options
from growkit.growth.request import stack_recipe
from growkit.growth.sources import open_source
from growkit.models.running import load_model, loadable
from growkit.reports.tensorboard import tensorboard
from growkit.training.loop import Run
from growkit.training.outlook import Outlook
from growkit.training.ready import RUN, prepare
from growkit.training.settings import Settings
from growkit.training.stages import Stage
from growkit.version import __version__

FINAL, METRICS, BOARD = "final", "metrics.jsonl", "tensorboard"


@dataclass(frozen=True)
class Finished:
    """What a run left, or with `dry_run` what it will be."""

    folder: Path | None  # the trained checkpoint; None where the run was stopped before its end, or was not begun
    step: int  # the last one done
    loss: float | None  # of the last validation
    outlook: Outlook | None = None  # what the run will be, where it was a dry one


def pretrain(
    settings: Settings, resume: bool = False, watch: Callable[[dict[str, Any]], None] = lambda _: None
) -> Finished:
    """Continue a checkpoint's pretraining. watch: called with each line of metrics, on the first process.

    Raises RequestError for what cannot be asked, CheckpointError for what cannot be read, NotFiniteError where the loss
    becomes NaN, NotSavedError where a checkpoint cannot be written; those written so far stay.
    """
    ready = prepare(settings, resume)
    settings, machine, source, out = ready.settings, ready.machine, ready.source, Path(settings.out)
    machine.total([0.0])  # all have looked whether there is a run
    out.mkdir(parents=True, exist_ok=True)
    if machine.is_first and not ready.begun:
        write_json(out / RUN, {"growkit": __version__, "torch": torch.__version__, "settings": settings.to_json()})
    if machine.is_first and (out / METRICS).exists():
        text = (out / METRICS).read_bytes()
        (out / METRICS).write_bytes(text[: text.rfind(b"\n") + 1])  # a line that was torn when the run was killed
    last: dict[str, Any] = {}
    board = tensorboard(out / BOARD) if settings.tensorboard and machine.is_first else lambda _: None

    def say(line: dict[str, Any]) -> None:
        if machine.is_first:
            last.update({line["kind"]: line})
            with open(out / METRICS, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            board(line)
            watch(line)

    run = Run(
        settings,
        machine,
        ready.train,
        ready.val,
        _load,
        lambda model, folder, weights: _save(model, folder, weights, source),
        _grow,
        say,
    )
    student = run.go(resume)
    if run.step < settings.steps:
        return Finished(None, run.step, None)
    student.export(out / FINAL, run.save_model)
    if machine.is_first:
        entry = {"name": source.name, "files": source.hashes()}
        record = record_of(source.folder)
        made = {"format": 2, "growkit": __version__, "command": "pretrain", "exactness": "approximate"}
        request = {k: v for k, v in settings.to_json().items() if k not in ("out", "hashes")}
        sources = [{**entry, **({"record": record} if record else {})}]
        write_json(
            out / FINAL / PROVENANCE, {**made, "request": request, "maps": {}, "maps_digest": "", "sources": sources}
        )
    val_line = last.get("val", {})
    return Finished(out / FINAL, run.step, val_line.get("loss"))


def _load(name: str | Path) -> tuple[Any, Path | None]:
    """(a stock model with float32 weights, whatever they are stored in, the folder it came from)."""
    source = open_source(name)
    source.close()
    with loadable(source) as folder:
        model, keys = load_model(source.config or {}, folder, torch.float32)
    missing = [key for key in keys if key.startswith("missing")]
    if missing:
        raise CheckpointError(f"{source.label!r} lacks weights that its class needs ({missing[0]}); nothing to train")
    return model, source.folder


def _save(model: Any, folder: Path, weights: Mapping[str, Any], source: Checkpoint) -> None:
    """A model as a Hugging Face folder, with the tokenizer of the checkpoint the run began with."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial, state_dict=weights)
    if source.folder is not None:
        hidden = model.config.hidden_size
        copy_companions(source.folder, partial, (hidden, hidden))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _grow(before: Path, after: Path, stage: Stage) -> None:
    """Stack a model between two stages, its optimizer state along with it."""
    options = Options(optimizer=before / "optimizer.safetensors", force=True)
    carry_out([before], after, stack_recipe(layers=stage.layers, method=stage.depth), options)
