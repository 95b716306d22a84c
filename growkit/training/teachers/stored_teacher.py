"""A teacher that was written down: what it says is read from a store, and no model is loaded. Knows records and places;
ignorant of how they came about.
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from growkit.data.batches import IGNORED, Batch, BatchSource, masked_positions, seed_of_mask
from growkit.data.tokens import Tokens
from growkit.data.word_store import StoredWords, StoreHeader, is_store, open_header
from growkit.errors import CheckpointError, RequestError
from growkit.families import vocabulary_size
from growkit.models.running import is_causal
from growkit.operators.seeds import stable_seed
from growkit.training.machine import Machine
from growkit.training.objective import Word
from growkit.training.settings import Settings
from growkit.training.teachers.estimates import ESTIMATES, ShortWord, Summary
from growkit.training.teachers.shared_vocabulary import mean_of_known, of_the_beginning
from growkit.training.teachers.summary import uniforms


class StoredTeacher:
    """The word of a store, as one of ESTIMATES takes it. Raises RequestError for a store that is not whole."""

    def __init__(self, spec: str, settings: Settings, machine: Machine):
        self._spec, self._settings, self._machine = spec, settings, machine
        self.notes: tuple[str, ...] = ()
        try:
            self.header = open_header(Path(spec))
        except CheckpointError as error:
            raise RequestError(f"--teacher: {error}") from None

    @cached_property
    def _words(self) -> StoredWords:
        return StoredWords(Path(self._spec))

    @property
    def masks(self) -> tuple[int, int, int] | None:
        """(mask token, vocabulary, seed) of the masks that it was written down with; None of a causal one."""
        header = self.header
        return None if header.mask is None else (header.mask, header.vocabulary, header.seed)

    def check(self, config: dict[str, Any], tokens: Tokens) -> None:
        """Refuse to teach a model that it was not written down for, with both values. Raises RequestError."""
        s, header, hashes = self._settings, self.header, self._settings.hashes
        entries = vocabulary_size(config)
        if header.vocabulary > entries:
            self._refuse(f"is of a vocabulary of {header.vocabulary}, the model of {entries}; it must not have more")
        if (header.mask is None) != is_causal(config):
            self._refuse("and the model do not predict alike: one fills in masked tokens, the other goes on")
        if header.seq_len != s.seq_len:
            self._refuse(f"is of --seq-len {header.seq_len}, the run of {s.seq_len}; give the same")
        if header.temperature != s.temperature:
            self._refuse(f"is of --temperature {header.temperature:g}, the run of {s.temperature:g}; leave it out")
        for split, its, own in (("", header.data, hashes["data"]), (" validation", header.val, hashes["val"])):
            if its != own:
                self._refuse(
                    f"is of other{split} data: its file's SHA-256 is {_short(its)}, that of {s.data!r} {_short(own)};"
                    " write it again with growkit teach"
                )
        if header.tail == 0 and header.head < header.vocabulary and "sampled" in (s.teacher_estimate or ""):
            self._refuse(
                f"has nothing drawn (--tail 0), so --teacher-estimate {s.teacher_estimate} cannot be; take bucket"
            )

        if header.vocabulary < entries:
            self.notes = (of_the_beginning(header.vocabulary, entries),)

    def _refuse(self, why: str) -> None:
        raise RequestError(f"the teacher's store {self._spec!r} {why}")

    def says(self, batch: Batch) -> Callable[[slice], Word]:
        """What it says of a piece of the positions that the batch predicts."""
        header, device = self.header, self._machine.device
        chosen = (batch.labels != IGNORED).cpu()
        places = batch.places[chosen].numpy()
        records = self._words.at(entries_of(header, places))
        speaks = ~np.isnan(records["tail"])
        lots = None
        if self._settings.teacher_estimate == "sampled":
            each = places[:, None] * header.tail + np.arange(header.tail)
            lots = torch.from_numpy(uniforms(stable_seed(header.seed, "lots"), each))

        def column(values: np.ndarray | torch.Tensor) -> torch.Tensor:
            tensor = torch.as_tensor(values)
            tensor = tensor.pin_memory() if device.type == "cuda" else tensor
            return tensor.to(device, non_blocking=True)

        row = Summary(
            ids=column(records["ids"].astype(np.int32)).long(),
            head=column(records["head"]).float(),
            tail=column(records["tail"]).float(),
            drawn=column(records["drawn"]).float(),
            lots=None if lots is None else column(lots),
        )
        assert self._settings.teacher_estimate is not None, "a store without a way to read it"
        terms = ESTIMATES[self._settings.teacher_estimate](row.normalised())
        silent = None if speaks.all() else ~speaks

        def word(piece: slice) -> Word:
            part, rows = terms.of(piece), None
            if silent is not None:
                rows = torch.from_numpy((~silent[piece]).nonzero()[0]).to(device)
                part = part.of(rows)
            return ShortWord(part, header.vocabulary, header.temperature, rows)

        return word

    def validation_loss(self, val: BatchSource) -> float:
        """Its own mean nats per predicted token of the validation windows, measured when it was written."""

        def nats(batch: Batch) -> torch.Tensor:
            places = batch.places[batch.labels != IGNORED].numpy()
            return torch.from_numpy(self._words.nats(entries_of(self.header, places)))

        return mean_of_known(val, self._settings, self._machine, nats)

    def flops(self, tokens: int, length: int) -> float:
        """None: they were spent when it was written down."""
        return 0.0

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the weight files of the model whose word it is, by name."""
        return self.header.teacher_files


def stored_teacher(spec: str, settings: Settings, machine: Machine) -> StoredTeacher | None:
    """The teacher of a store, None for what is none."""
    return StoredTeacher(spec, settings, machine) if is_store(Path(spec)) else None


def entries_of(header: StoreHeader, places: np.ndarray) -> np.ndarray:
    """(n,) the numbers of the records of predicted positions by their places in the token file, (n,) int64."""
    if header.mask is None:
        return places
    windows, positions = np.divmod(places, header.seq_len)
    entries = np.empty_like(places)
    for window in np.unique(windows):
        own = windows == window
        chosen = masked_positions(header.seq_len, seed_of_mask(header.seed, int(window)))
        rank = np.searchsorted(chosen, positions[own])
        assert (chosen[np.minimum(rank, len(chosen) - 1)] == positions[own]).all(), "masks that are not the store's"
        entries[own] = window * header.predicted + rank
    return entries


def _short(digest: str | None) -> str:
    return "none" if digest is None else f"{digest[:12]}..."
