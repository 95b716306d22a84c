"""Metrics on boards, beside metrics.jsonl: TensorBoard's files, and Weights & Biases. Knows their writers; ignorant of
runs.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from growkit.errors import RequestError, reason_of

WRITERS = {"tensorboard": ("torch.utils.tensorboard", "SummaryWriter"), "wandb": ("wandb", "init")}


class Board(Protocol):
    """Where scalars are shown. name: as the option that asks for it."""

    name: str

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        """Show numbers by name, at a step."""

    def close(self, failed: bool) -> None:
        """Say that no more will come."""


class TensorBoard:
    """TensorBoard's files in a folder."""

    name = "tensorboard"

    def __init__(self, folder: Path):
        self._writer = board_writer(self.name)(folder)

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        """Write numbers by name, at a step."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, failed: bool) -> None:
        """Close the file."""
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases, whose own environment variables say where and whether it goes: WANDB_PROJECT,
    WANDB_MODE and the others.

    folder: of the run, whose name it has. key: the same each time a run goes on. settings: what the run was told.
    Raises RequestError where none can be begun.
    """

    name = "wandb"

    def __init__(self, folder: Path, key: str, settings: Mapping[str, Any]):
        given = os.environ.get
        try:
            self._run = board_writer(self.name)(
                dir=given("WANDB_DIR") or str(folder),
                id=given("WANDB_RUN_ID") or key,
                name=given("WANDB_NAME") or folder.resolve().name,
                config=dict(settings),
                resume="allow",
                allow_val_change=True,
            )
            # a run that was killed does some steps twice: its own count would leave them out
            self._run.define_metric("*", step_metric="step")
        except Exception as error:  # it raises many kinds
            raise RequestError(
                f"--wandb began no run ({reason_of(error).rstrip('.')}); log in with wandb login, or set WANDB_MODE=offline"
            ) from None

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        """Send numbers by name, at a step."""
        self._run.log({**scalars, "step": step})

    def close(self, failed: bool) -> None:
        """Send what is left, and how it ended."""
        self._run.finish(exit_code=int(failed))


class Boards:
    """What lines of metrics go to; one that fails is let go, for training matters more."""

    def __init__(self) -> None:
        self._boards: list[Board] = []

    def begin(self, boards: Iterable[Board]) -> None:
        """Open them, in their order."""
        self._boards += boards

    def add(self, line: Mapping[str, Any]) -> list[str]:
        """Show the numbers of a line as kind/name at its step, losses by domain too. Returns notes on boards that have
        failed."""
        if line["kind"] not in ("train", "val"):
            return []
        domains = {f"loss/{name}": loss for name, loss in line.get("domains", {}).items()}
        numbers = {name: value for name, value in {**line, **domains}.items() if isinstance(value, (int, float))}
        scalars = {f"{line['kind']}/{name}": value for name, value in numbers.items() if name != "step"}
        return self._each(lambda board: board.add(scalars, line["step"]))

    def close(self, failed: bool) -> list[str]:
        """Close all. failed: whether what they show has. Returns notes as add does."""
        notes = self._each(lambda board: board.close(failed))
        self._boards = []
        return notes

    def _each(self, act: Callable[[Board], None]) -> list[str]:
        notes = []
        for board in list(self._boards):
            try:
                act(board)
            except Exception as error:
                self._boards.remove(board)
                notes.append(f"warning: --{board.name} has failed and gets no more lines: {reason_of(error)}")
        return notes


def board_writer(name: str) -> Callable[..., Any]:
    """What opens a board of a name. Raises RequestError without the extra."""
    module, opener = WRITERS[name]
    try:
        writer: Callable[..., Any] = getattr(import_module(module), opener)
        return writer
    except (ImportError, AttributeError):  # a folder of that name is a module with nothing in it
        raise RequestError(f"--{name} needs an extra: pip install 'growkit[{name}]'") from None
