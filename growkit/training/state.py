"""Checkpoints of a run: saved whole or not at all, found again, the newest sound one first. Knows folders and PyTorch's
distributed checkpoint; ignorant of what a step does.

A checkpoint is a folder step-00001000 with the model and the optimizer by parameter name (so the number of processes may
change) and trainer.json. It is written under another name and renamed when it is whole.
"""

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from growkit.checkpoint.source import read_json
from growkit.checkpoint.writer import sync, write_json
from growkit.errors import CheckpointError, GrowkitError

TRAINER = "trainer.json"
OPTIONS = StateDictOptions(flatten_optimizer_state_dict=True)


def save(
    folder: Path,
    step: int,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    trainer: dict[str, Any],
    keep: int,
) -> Path:
    """Save a step's state and remove all but the newest `keep` checkpoints. All processes call this together."""
    target = folder / f"step-{step:08d}"
    partial = target.with_name(target.name + ".partial")
    if _is_first():
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    _wait()
    weights, moments = get_state_dict(model, optimizer, options=OPTIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there is one process is known
        dcp.save({"model": weights, "optim": moments}, checkpoint_id=partial, no_dist=not dist.is_initialized())
    if _is_first():
        write_json(partial / TRAINER, {**trainer, "step": step})
        for path in partial.iterdir():
            sync(path)
        replaced = target.with_name(target.name + ".replaced.partial")
        if target.exists():
            os.rename(target, replaced)
        os.rename(partial, target)
        shutil.rmtree(replaced, ignore_errors=True)
        sync(folder)
        for old in found(folder)[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
    _wait()
    return target


def found(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first; what was never finished is none."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir() and path.suffix != ".partial")


def trainer_of(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of its run. Raises CheckpointError where that cannot be read."""
    return read_json(checkpoint / TRAINER)


def load(checkpoint: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's state into a model and an optimizer. Raises CheckpointError for one that is damaged."""
    try:
        weights, moments = get_state_dict(model, optimizer, options=OPTIONS)
        state: dict[str, Any] = {"model": weights, "optim": moments}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that there is one process is known
            dcp.load(state, checkpoint_id=checkpoint, no_dist=not dist.is_initialized())
        set_state_dict(
            model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optim"], options=OPTIONS
        )
    except GrowkitError:
        raise
    except (
        Exception,
        CheckpointException,
    ) as error:  # torch raises many kinds; each means that this checkpoint cannot be used
        raise CheckpointError(f"{str(checkpoint)!r} is damaged: {str(error).strip().splitlines()[0][:200]}") from None


def _is_first() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0


def _wait() -> None:
    if dist.is_initialized():
        dist.barrier()
