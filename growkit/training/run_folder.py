"""The folder of a run: where it may be, whose it is, and that one growkit at a time is at it. Knows names of files;
ignorant of what a run computes.
"""

import hashlib
import os
import shutil
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import lock_descriptor

from growkit.checkpoint.fields import Fields, Text, checked
from growkit.checkpoint.new_folder import sync
from growkit.checkpoint.small_files import read_bytes, read_json
from growkit.checkpoint.source import PROVENANCE
from growkit.checkpoint.writer import overlap, write_json
from growkit.errors import RequestError
from growkit.training.settings import Settings
from growkit.version import __version__

RUN, METRICS, CHECKPOINTS, GROWN, FINAL = "run.json", "metrics.jsonl", "checkpoints", "stages", "final"
BOARD, WANDB, WANDB_RUN = "tensorboard", "wandb", "wandb.json"  # folders of boards, and which run one of them shows

BEGINNING = f"{RUN}.partial"
SCHEMA = Fields({"settings": Fields({})}, needed=("settings",))
KEPT = Fields({"id": Text(r"[0-9a-f]{16}", "16 hexadecimal digits")}, needed=("id",))


@dataclass(frozen=True)
class Standing:
    """How far the run in a folder is. begun: it is there. finished: its result is too."""

    begun: bool
    finished: bool


def check_place(out: Path, inputs: Mapping[str, Path]) -> None:
    """Refuse a folder that is, contains or lies in what the run reads, by what that is called. Raises RequestError."""
    for what, path in inputs.items():
        clash = overlap(out, path)
        if clash:
            raise RequestError(f"--out {str(out)!r} {clash} {what}, {str(path)!r}; choose another")


def look(settings: Settings, resume: bool) -> Standing:
    """What stands in a run's folder. Raises RequestError for a run that may not go on, or that began with other
    settings, with the list of differences, and for what no run of growkit, or another one, left there."""
    out = Path(settings.out)
    begun, final = (out / RUN).exists(), out / FINAL
    if begun and not resume:
        raise RequestError(f"{str(out)!r} holds a run; go on with it by --resume auto, or choose another --out")
    if not begun:
        own = (METRICS, BOARD, WANDB, WANDB_RUN, CHECKPOINTS, GROWN, FINAL)
        strange = next((out / name for name in own if os.path.lexists(out / name)), None)
        if strange is not None:
            raise RequestError(f"{str(strange)!r} is there, but no {RUN}: no run made it; choose another --out")
        return Standing(begun=False, finished=False)
    different = settings.differences(checked(read_json(out / RUN), SCHEMA, out / RUN)["settings"])
    if different:
        raise RequestError(
            f"{str(out)!r} was begun with other settings: {'; '.join(different)}; give the old ones, or another --out"
        )
    if os.path.lexists(final) and not _made(final, settings):
        raise not_ours(final)
    return Standing(begun=True, finished=os.path.lexists(final))


def not_ours(final: Path) -> RequestError:
    """What to say of a folder that lies where a run's result goes."""
    return RequestError(
        f"{str(final)!r} is there, and this run did not make it; move it away and go on with --resume auto"
    )


def _made(final: Path, settings: Settings) -> bool:
    """Whether a folder is the result of a run with these settings."""
    if not (final / PROVENANCE).is_file():
        return False
    said = read_json(final / PROVENANCE)
    request = said.get("request")
    if not isinstance(request, dict):
        return False
    return not settings.differences({**request, "command": said.get("command"), "hashes": settings.hashes})


def board_key(out: Path) -> str:
    """What Weights & Biases knows a run by: made of when and with which settings it began, and kept in its folder."""
    kept = out / WANDB_RUN
    if kept.exists():
        return str(checked(read_json(kept), KEPT, kept)["id"])
    began = f"{(out / RUN).stat().st_mtime_ns}".encode()
    key = hashlib.sha256(began + read_bytes(out / RUN)).hexdigest()[:16]
    write_json(kept, {"id": key})
    return key


def hold(folder: Path) -> int:
    """A descriptor that holds a folder against other growkits until it is closed. Raises OSError, and RequestError
    where another one holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    if lock_descriptor(descriptor, blocking=False):
        return descriptor
    os.close(descriptor)
    raise RequestError(f"another growkit is at work in {str(folder)!r}; wait for it or choose another --out")


class Held:
    """A run's folder, held against other growkits until it is released; the lock ends with the process."""

    def __init__(self, out: Path):
        self.out = out
        self._close: Callable[[], object] = lambda: None
        self._began = False

    def release(self) -> None:
        """Let others into the folder."""
        self._close()

    def forget(self) -> None:
        """Take back what `take` began: the model could not be made, so there is no run."""
        if self._began:
            self._began = False
            (self.out / RUN).unlink()
            for board in (BOARD, WANDB):
                shutil.rmtree(self.out / board, ignore_errors=True)
            (self.out / WANDB_RUN).unlink(missing_ok=True)
            with suppress(OSError):  # somebody's own files are in it
                self.out.rmdir()

    def take(self, settings: Settings, standing: Standing) -> None:
        """Make the folder where it is missing, hold it, and begin its run where it has none. standing: what was seen.

        Raises RequestError where another growkit is at it or was since, or the disk fails.
        """
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            self._close = weakref.finalize(self, os.close, hold(self.out))
            if (self.out / RUN).exists() != standing.begun:
                raise RequestError(f"another growkit was in {str(self.out)!r} just now; look, and try again")
            if not standing.begun:
                self._begin(settings)
        except OSError as error:
            (self.out / BEGINNING).unlink(missing_ok=True)
            self.release()
            raise RequestError(f"cannot write into {str(self.out)!r}: {error.strerror or error}") from None
        except RequestError:
            self.release()
            raise

    def _begin(self, settings: Settings) -> None:
        partial = self.out / BEGINNING
        said = {"growkit": __version__, "torch": torch.__version__, "settings": settings.to_json()}
        write_json(partial, said)
        sync(partial)
        os.replace(partial, self.out / RUN)
        self._began = True
