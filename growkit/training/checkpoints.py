"""Checkpoints of a run: saved whole or not at all, found again, the newest sound one first. Knows folders and
processes; ignorant of what a step does and of how its state lies in files.

A checkpoint is a folder step-00001000 with the model and the optimizer by parameter name (so the number of processes
may change) and trainer.json. It is written under another name and renamed when it is whole.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as ended
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from growkit.checkpoint.fields import Fields, Flag, MapOf, Null, Number, Whole, checked
from growkit.checkpoint.new_folder import sync
from growkit.checkpoint.small_files import read_json
from growkit.checkpoint.writer import write_json
from growkit.errors import CheckpointError, FailedError, RequestError
from growkit.training.state_files import PLAN, Share, Written, own_share, read_state, state_of, write_plan, write_share
from growkit.units import size

TRAINER = "trainer.json"
SCHEMA = Fields(
    {
        "step": Whole(),
        "stage": Whole(),
        "tokens": Whole(),
        "weight": Null(Number(0, 1)),
        "teachers": MapOf(
            Fields({"overtaken": Flag(), "loss": Null(Number())}, needed=("overtaken", "loss")),
        ),
        "flops": Number(0),
        "elapsed_s": Number(0),
    },
    needed=("step", "stage", "tokens", "weight", "teachers", "flops", "elapsed_s"),
)
PICKLED = ".metadata"  # of PyTorch's distributed checkpoint


class NotSavedError(FailedError):
    """A checkpoint, or another part of a run's folder, could not be written."""


class Saver:
    """Writes checkpoints while training goes on. folder: where. keep: how many of the newest stay."""

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder, keep
        self._pending: tuple[Future[list[Written]], int, dict[str, Any]] | None = None
        self._writer = ThreadPoolExecutor(1)
        self._tidy()
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
            shares = own_share(state_of(model, optimizer), _is_first())
            self._pending = self._writer.submit(self._write, partial, shares), step, trainer
        return self.folder / name_of(step)

    def settle(self, wait: bool = False) -> None:
        """Give the checkpoint its name if it is written; wait: when it is, and then all processes call this together.

        Raises NotSavedError where it could not be written.
        """
        if self._pending is not None and (wait or self._pending[0].done()):
            (writing, step, trainer), self._pending = self._pending, None
            with self._saying_what_failed():
                written = writing.result()  # ends after all have written
                if _is_first():
                    self._name(step, trainer, written)
        if wait:
            _wait()  # also where it was settled before: the other processes' writing may end later

    def end(self) -> None:
        """Let what is being written come to its end, unnamed: a run that failed must not write on while another one
        begins."""
        if self._pending is not None:
            ended([self._pending[0]])
            self._pending = None
        self._writer.shutdown()
        self._tidy()

    def _write(self, partial: Path, shares: Mapping[str, Share]) -> list[Written]:
        """Write what this process has; returns what all have written. Raises OSError, all processes together."""
        try:
            mine, why = write_share(partial, _rank(), dist.get_world_size() if self._group else 1, shares), None
        except OSError as error:
            mine, why = {}, error.strerror or str(error)
        told = _told((mine, why), self._group)
        for _, reason in told:
            if reason is not None:
                raise OSError(reason)
        return [written for written, _ in told]

    def _name(self, step: int, trainer: dict[str, Any], written: list[Written]) -> None:
        partial, target = self._partial(step), self.folder / name_of(step)
        write_plan(partial, written)
        write_json(partial / TRAINER, {**trainer, "step": step})
        for path in (partial / PLAN, partial / TRAINER, partial):
            sync(path)
        replaced = target.with_name(target.name + ".replaced.partial")
        if target.exists():
            os.rename(target, replaced)
        os.rename(partial, target)
        shutil.rmtree(replaced, ignore_errors=True)
        sync(self.folder)
        for old in checkpoints_in(self.folder)[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)

    def _tidy(self) -> None:
        """Give back the room of what was never finished."""
        for unfinished in self.folder.glob("step-*.partial") if _is_first() else ():
            shutil.rmtree(unfinished, ignore_errors=True)

    def _partial(self, step: int) -> Path:
        return self.folder / (name_of(step) + ".partial")

    @contextmanager
    def _saying_what_failed(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            kept = checkpoints_in(self.folder)
            why = error.strerror or error
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
            f"--out {str(folder)!r}: its checkpoints and the result need about {size(needed)}, {size(free)} are"
            " free; make room, choose another disk, or a smaller --keep"
        )


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first; what was never finished is none."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir() and path.suffix != ".partial")


def trainer_of(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of its run. Raises CheckpointError where that cannot be read, RequestError for one that
    holds pickles."""
    check_plain(checkpoint)
    said = checked(read_json(checkpoint / TRAINER), SCHEMA, checkpoint / TRAINER)
    if checkpoint.name != name_of(said["step"]):
        raise CheckpointError(f"{str(checkpoint / TRAINER)!r} is of step {said['step']}, not of {checkpoint.name}")
    return said


def load(checkpoint: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's state into a model and an optimizer. All processes call this together, and where one cannot
    all raise CheckpointError for a checkpoint that is damaged."""
    why = None
    try:
        read_state(checkpoint, state_of(model, optimizer))
    except CheckpointError as error:
        why = str(error)
    for reason in _told(why, None):
        if reason is not None:
            raise CheckpointError(f"{str(checkpoint)!r} is damaged: {reason}")


def check_plain(checkpoint: Path) -> None:
    """Refuse a checkpoint that an older growkit saved through pickles. Raises RequestError."""
    if (checkpoint / PICKLED).exists() and not (checkpoint / PLAN).exists():
        raise RequestError(
            f"{str(checkpoint)!r} holds pickles, as growkit saved them before 0.3, and they can run code when they are read;"
            " finish the run with the growkit that began it, or begin anew in another --out"
        )


def _told(mine: Any, group: Any) -> list[Any]:
    """What each process says, in their order; all of them call this together."""
    if not dist.is_initialized():
        return [mine]
    everybodys: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everybodys, mine, group=group)
    return everybodys


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _is_first() -> bool:
    return _rank() == 0


def _wait() -> None:
    if dist.is_initialized():
        dist.barrier()
