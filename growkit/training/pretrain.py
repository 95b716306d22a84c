"""From settings to a finished run: opens what a run needs, checks it, runs it, and leaves a Hugging Face folder. Knows files and
stock models; ignorant of what a step does.
"""

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from growkit.api import stack
from growkit.checkpoint.companions import copy_companions
from growkit.checkpoint.headers import file_hash
from growkit.checkpoint.source import PROVENANCE, Checkpoint, read_json
from growkit.checkpoint.writer import write_json
from growkit.errors import CheckpointError, RequestError
from growkit.families import family_named
from growkit.planners.sizes import read_sizes
from growkit.provenance import record_of
from growkit.running import is_causal, load_model, loadable, tokenizer_of
from growkit.sources import open_source
from growkit.training.batches import Batches
from growkit.training.board import tensorboard
from growkit.training.loop import Run
from growkit.training.machine import this_machine
from growkit.training.request import usable_positions
from growkit.training.settings import Settings, check
from growkit.training.stages import Stage
from growkit.training.state import check_space
from growkit.training.tokens import Tokens, open_tokens
from growkit.training.vocabulary import open_vocabulary
from growkit.version import __version__

FINAL, METRICS, RUN, BOARD = "final", "metrics.jsonl", "run.json", "tensorboard"
BYTES = 12  # per parameter in a checkpoint: weight and two moments in float32


@dataclass(frozen=True)
class Finished:
    """What a run left. folder: the trained checkpoint, None where it was stopped before its end. step: the last one done."""

    folder: Path | None
    step: int
    loss: float | None


def pretrain(
    settings: Settings, resume: bool = False, watch: Callable[[dict[str, Any]], None] = lambda _: None
) -> Finished:
    """Continue a checkpoint's pretraining. watch: called with each line of metrics, on the first process.

    Raises RequestError for what cannot be asked, CheckpointError for what cannot be read, NotFiniteError where the loss
    becomes NaN; checkpoints written so far stay.
    """
    machine = this_machine(settings.device, settings.precision)
    out = Path(settings.out)
    source = open_source(settings.checkpoint)
    source.close()
    config = source.config or {}
    check(settings, machine.world, usable_positions(config))
    train = open_tokens(settings.data)
    val = open_tokens(settings.data, "val") if _has_val(train) else None
    _check_tokens(train, source, config)
    settings = replace(
        settings,
        precision=str(machine.precision).removeprefix("torch."),
        hashes={
            "data": file_hash(train.path),
            "val": file_hash(val.path) if val else None,
            "checkpoint": source.hashes(),
        },
    )
    begun = (out / RUN).exists()
    if begun and not resume:
        raise RequestError(f"{str(out)!r} holds a run; go on with it by --resume auto, or choose another --out")
    _check_resumable(out, settings)
    masked = None if is_causal(config) else (_mask_token(source), config["vocab_size"])

    def batches(tokens: Tokens) -> Batches:
        return Batches(tokens.ids, settings.seq_len, settings.batch_size, settings.seed, masked)

    seen = batches(train), batches(val) if val else None
    if settings.teacher_until == "overtaken" and val is None:
        raise RequestError("--teacher-until overtaken is told by validation, and the data has no validation split")
    if not begun:
        check_space(out, disk_bytes(settings, source, config))
    machine.total([0.0])  # all have looked whether there is a run
    out.mkdir(parents=True, exist_ok=True)
    if machine.is_first and not begun:
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
        *seen,
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


def disk_bytes(settings: Settings, source: Checkpoint, config: dict[str, Any]) -> int:
    """Bytes a run needs on disk at most: checkpoints kept and the one being written, the result, and what stages grow from."""
    parameters = sum(math.prod(tensor.shape) for tensor in source.tensors.values())
    depths = [stage.layers for stage in settings.stages if stage.layers is not None]
    layers = read_sizes(family_named(config.get("model_type")), config)["layer"]
    deeper = max([layers, *depths]) / layers  # a little too much: embeddings do not grow
    return int((settings.keep + 2 + 2 * len(depths)) * BYTES * parameters * deeper)


def _check_resumable(out: Path, settings: Settings) -> None:
    """Refuse to go on with other settings than a run began with. Raises RequestError with the list of differences."""
    recorded = out / RUN
    if recorded.exists():
        different = settings.differences(read_json(recorded).get("settings", {}))
        if different:
            raise RequestError(
                f"{str(out)!r} was begun with other settings: {'; '.join(different)}; give the old ones, or another --out"
            )


def _has_val(tokens: Tokens) -> bool:
    return bool(tokens.meta.get("splits", {}).get("val"))


def _check_tokens(tokens: Tokens, source: Checkpoint, config: dict[str, Any]) -> None:
    """Refuse tokens that another tokenizer made, or that the model has no embeddings for."""
    largest, size = tokens.meta.get("vocab_size"), config.get("vocab_size", 0)
    if largest is None:
        largest = int(tokens.ids[: 1 << 24].max()) + 1
    if largest > size:
        raise RequestError(
            f"{str(tokens.path)!r} has {largest} kinds of tokens, the model a vocabulary of {size}; tokenize with its tokenizer"
        )
    if tokens.tokenizer is None or source.folder is None:
        return
    if (source.folder / "tokenizer.json").exists() and open_vocabulary(source.folder).hash != tokens.tokenizer:
        raise RequestError(
            f"{str(tokens.path)!r} was made by another tokenizer than {source.label!r} has; tokenize with its own"
        )


def _mask_token(source: Checkpoint) -> int:
    token = getattr(tokenizer_of(source.folder or Path()), "mask_token_id", None)
    if token is None:
        raise RequestError(
            f"the tokenizer of {source.label!r} has no mask token, which masked-language modelling needs"
        )
    return int(token)


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
    stack(
        before, after, layers=stage.layers, method=stage.depth, optimizer=before / "optimizer.safetensors", force=True
    )
