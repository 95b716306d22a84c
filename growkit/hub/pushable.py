"""What may be pushed to the hub: finished folders, and which of their files go. Knows what growkit leaves
in folders; ignorant of the network.

What never goes: hidden files and folders, and growkit's own marks of unfinished work. AdamW's state goes where it is
asked for. A link is followed within its folder alone.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growkit.checkpoint.card import CARD
from growkit.checkpoint.headers import read_header
from growkit.checkpoint.new_folder import UNFINISHED
from growkit.checkpoint.small_files import KINDS, check_inside, read_json, reading
from growkit.checkpoint.source import ADAPTER, ADAPTER_CONFIG, CONFIG, open_checkpoint, open_state
from growkit.data.tokens import META, SPLITS, open_tokens
from growkit.data.word_store import is_store, open_header
from growkit.errors import CheckpointError, RequestError
from growkit.growth.optimizer import OPTIMIZER, PLACE
from growkit.merging.stored_deltas import SPARSE
from growkit.models.small.small_file import SMALL, SMALL_WEIGHTS, is_small, read_small
from growkit.skills.application_file import APPLICATION as APPLICATION_FILE
from growkit.skills.application_file import is_application, read_application
from growkit.skills.gates.bundle_file import is_bundle, read_bundle
from growkit.skills.gates.own_file import has_gate, read_gate
from growkit.skills.panel_file import open_panel
from growkit.skills.panel_header import is_panel
from growkit.skills.skill_file import SKILL as SKILL_FILE
from growkit.skills.skill_file import is_skill, read_skill
from growkit.training.checkpoints import TRAINER
from growkit.training.run_folder import FINAL, METRICS, RUN
from growkit.training.state_files import PLAN

PARTIAL = ".partial"
CHECKPOINT, LORA, DELTA, DATASET, STORE = "checkpoint", "LoRA", "delta", "data set", "store of a teacher"
IA3, MIXTURE, CONTROLS = "IA3", "soft mixture", "control panel"
SKILL, APPLICATION, BUNDLE = "skill", "application", "bundle of skills"


@dataclass(frozen=True, kw_only=True)
class Pushable:
    """A finished folder. files: (path within it, bytes) of what goes, by path. left_out: what does not go; of a folder
    its name alone, with a slash. notes: what a person should know before it is public.
    """

    folder: Path
    kind: str
    files: tuple[tuple[str, int], ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def repo_type(self) -> str:
        """What kind of repository the hub has for it."""
        return "dataset" if self.kind in (DATASET, STORE) else "model"

    @property
    def bytes(self) -> int:
        """Bytes of all that goes."""
        return sum(size for _, size in self.files)

    def to_json(self) -> dict[str, Any]:
        """What goes and what does not, as plain data."""
        files = [{"path": path, "bytes": size} for path, size in self.files]
        said = {"folder": str(self.folder), "kind": self.kind, "repo_type": self.repo_type, "bytes": self.bytes}
        return {**said, "files": files, "left_out": list(self.left_out), "notes": list(self.notes)}


def open_pushable(folder: str | Path, optimizer: bool = False) -> Pushable:
    """What of a folder goes to the hub. optimizer: AdamW's state too.

    Raises RequestError for a folder that is unfinished, a run or of no kind that is pushed; CheckpointError for one
    that is damaged, or has a link out of it.
    """
    path = Path(folder)
    with reading(path):
        kind = _kind(path)
        files, left_out = _files(path, optimizer)
    notes = []
    if CARD not in dict(files):
        notes.append(f"{str(path)!r} has no {CARD}, so its page on the hub will say nothing of licence and origin")
    return Pushable(folder=path, kind=kind, files=files, left_out=left_out, notes=tuple(notes))


def _kind(folder: Path) -> str:
    """What a folder is, its headers read: that nothing is pushed which nobody could load."""
    name = str(folder)
    if not folder.is_dir():
        what = "is a file; push the folder it is in" if folder.exists() else "does not exist; give the folder to push"
        raise RequestError(f"{name!r} {what}")
    if (folder / UNFINISHED).exists() or folder.name.endswith(PARTIAL):
        raise RequestError(
            f"{name!r} is unfinished: growkit is at it, or was stopped; run what was to make it again, and push that"
        )
    if (folder / RUN).exists() or (folder / METRICS).exists():
        done = (folder / FINAL).is_dir()
        then = f"push {str(folder / FINAL)!r}" if done else "it has no result yet: go on with --resume auto"
        raise RequestError(f"{name!r} is a run and no checkpoint; {then}")
    if (folder / TRAINER).exists() and (folder / PLAN).exists():
        raise RequestError(f"{name!r} is a checkpoint of a run, which growkit alone reads; push RUN/{FINAL}")
    if (folder / ADAPTER_CONFIG).exists() and not (folder / CONFIG).exists():
        kind = IA3 if read_json(folder / ADAPTER_CONFIG).get("peft_type") == "IA3" else LORA
        if not (folder / ADAPTER).exists():
            raise CheckpointError(f"{name!r} has {ADAPTER_CONFIG} but no {ADAPTER}; save the adapter as safetensors")
        read_header(folder / ADAPTER)
        return _of_skills(folder) or kind
    if is_small(folder) and not (folder / CONFIG).exists():
        read_small(folder)
        if not (folder / SMALL_WEIGHTS).exists():
            raise CheckpointError(f"{name!r} has {SMALL} but no {SMALL_WEIGHTS}; fetch the folder whole")
        read_header(folder / SMALL_WEIGHTS)
        return MIXTURE
    if (folder / SPARSE).exists() and not (folder / CONFIG).exists():
        open_state(folder / SPARSE)
        return DELTA
    if is_store(folder):
        open_header(folder)
        return STORE
    if (folder / META).exists() and not (folder / CONFIG).exists():
        for split in [split for split in SPLITS if split == "train" or (folder / f"{split}.bin").exists()]:
            open_tokens(folder, split)
        return DATASET
    if is_panel(folder):
        open_panel(folder).close()
        return CONTROLS
    if is_bundle(folder):
        read_bundle(folder)
        return BUNDLE
    lone = next((file for file in (SKILL_FILE, APPLICATION_FILE) if (folder / file).exists()), None)
    if lone is not None and not (folder / CONFIG).exists():
        raise CheckpointError(
            f"{name!r} has {lone} but no {ADAPTER_CONFIG}, with which it goes on a model; fetch it whole"
        )
    checkpoint = open_checkpoint(folder)
    checkpoint.close()
    if checkpoint.config is None:
        raise CheckpointError(f"{name!r} has weights but no {CONFIG}, so nothing could load it; put its config there")
    return CHECKPOINT


def _of_skills(folder: Path) -> str:
    """What a LoRA of PEFT is beside that: a skill or an application, whose own files are read; "" for neither."""
    if is_application(folder):
        read_application(folder)[1].close()
        return APPLICATION
    if not is_skill(folder):
        return ""
    read_skill(folder).close()
    if has_gate(folder):
        read_gate(folder)
    return SKILL


def _files(folder: Path, optimizer: bool) -> tuple[tuple[tuple[str, int], ...], tuple[str, ...]]:
    """(what goes with its size, what does not) of a folder, by path."""
    files, left_out = [], []
    for place, folders, names in os.walk(folder, onerror=_raised):
        for name in [*folders, *names]:
            path = Path(place, name)
            within, is_folder = path.relative_to(folder).as_posix(), name in folders
            if _stays(within, optimizer):
                left_out.append(within + "/" * is_folder)
                folders[:] = [kept for kept in folders if not is_folder or kept != name]
            elif is_folder and path.is_symlink():
                raise CheckpointError(f"{str(path)!r} is a link to a folder, which is not followed; put a copy there")
            elif not is_folder:
                check_inside(path, folder)
                with reading(path):
                    state = os.stat(path)
                if not stat.S_ISREG(state.st_mode):
                    what = KINDS.get(stat.S_IFMT(state.st_mode), "something else")
                    raise CheckpointError(f"{str(path)!r} is {what} and no file; take it out of the folder")
                files.append((within, state.st_size))
    return tuple(sorted(files)), tuple(sorted(left_out))


def _raised(error: OSError) -> None:
    raise error


def _stays(within: str, optimizer: bool) -> bool:
    """Whether a file or folder never goes, or AdamW's state does not; growkit 0.2 laid that beside the weights."""
    name = within.rpartition("/")[2]
    hidden = name.startswith(".")
    return hidden or name == UNFINISHED or name.endswith(PARTIAL) or (not optimizer and within in (PLACE, OPTIMIZER))
