"""Checkpoints of a run: saved whole or not at all, found again, the newest sound one first. Knows folders and PyTorch's
distributed checkpoint; ignorant of what a step does.

A checkpoint is a folder step-00001000 with the model and the optimizer by parameter name (so the number of processes
may change) and trainer.json. It is written under another name and renamed when it is whole.
"""

import os
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import wait as ended
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from growkit.checkpoint.source import read_json
from growkit.checkpoint.writer import sync, write_json
from growkit.errors import CheckpointError, FailedError, GrowkitError, RequestError

TRAINER = "trainer.json"
ALONE = "torch.distributed is disabled"  # a warning that there is one process, which is known
# what does not learn is as it was in the checkpoint that the run began with, and read from there
OPTIONS = StateDictOptions(flatten_optimizer_state_dict=True, ignore_frozen_params=True, strict=False)


class NotSavedError(FailedError):
    """A checkpoint could not be written."""


class Saver:
    """Writes checkpoints while training goes on. folder: where. keep: how many of the newest stay."""

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder, keep
        self._pending: tuple[Future[Any], int, dict[str, Any]] | None = None
        # the thread that writes talks to the other processes on a line of its own
        self._group = dist.new_group(backend="gloo") if dist.is_initialized() else None

    def begin(
        self, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer, trainer: dict[str, Any]
    ) -> Path:
        """Copy a step's state and begin to write it. All processes call this together. Raises NotSavedError as settle
        does."""
        self.settle(wait=True)
        partial = self._partial(step)
        with self._saying_what_failed():
            if _is_first():
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            _wait()
            weights, moments = get_state_dict(model, optimizer, options=OPTIONS)
            warnings.filterwarnings("ignore", message=ALONE)  # said in the thread that writes
            writing = dcp.async_save(
                {"model": weights, "optim": moments},
                checkpoint_id=partial,
                process_group=self._group,
                no_dist=self._group is None,
            )
            assert isinstance(writing, Future)
            self._pending = writing, step, trainer
        return self.folder / name_of(step)

    def settle(self, wait: bool = False) -> None:
        """Give the checkpoint its name if it is written; wait: when it is, and then all processes call this together.

        Raises NotSavedError where it could not be written.
        """
        if self._pending is not None and (wait or self._pending[0].done()):
            (writing, step, trainer), self._pending = self._pending, None
            with self._saying_what_failed():
                writing.result()  # ends in the first process after all have written
                if _is_first():
                    self._name(step, trainer)
        if wait:
            _wait()  # also where it was settled before: the other processes' writing may end later

    def end(self) -> None:
        """Let what is being written come to its end, unnamed: a run that failed must not write on while another one
        begins."""
        if self._pending is not None:
            ended([self._pending[0]])
            self._pending = None

    def _name(self, step: int, trainer: dict[str, Any]) -> None:
        partial, target = self._partial(step), self.folder / name_of(step)
        write_json(partial / TRAINER, {**trainer, "step": step})
        for path in partial.iterdir():
            sync(path)
        replaced = target.with_name(target.name + ".replaced.partial")
        if target.exists():
            os.rename(target, replaced)
        os.rename(partial, target)
        shutil.rmtree(replaced, ignore_errors=True)
        sync(self.folder)
        for old in checkpoints_in(self.folder)[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)

    def _partial(self, step: int) -> Path:
        return self.folder / (name_of(step) + ".partial")

    @contextmanager
    def _saying_what_failed(self) -> Iterator[None]:
        try:
            yield
        except (OSError, CheckpointException) as error:
            kept = checkpoints_in(self.folder)
            why = str(error).strip().splitlines()[-1][:200]
            raise NotSavedError(
                f"cannot write a checkpoint into {str(self.folder)!r}: {why}; the last good one is"
                f" {kept[-1].name if kept else 'none'}; make room and go on with --resume auto"
            ) from None


def name_of(step: int) -> str:
    """The folder of a step's checkpoint."""
    return f"step-{step:08d}"


def check_space(folder: Path, needed: int) -> None:
    """Refuse to begin a run whose checkpoints have no room. needed: bytes. Raises RequestError."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise RequestError(
            f"--out {str(folder)!r}: its checkpoints and the result need about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are"
            " free; make room, choose another disk, or a smaller --keep"
        )


def checkpoints_in(folder: Path) -> list[Path]:
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
        warnings.filterwarnings("ignore", message=ALONE)
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
