"""What a teacher says of a dataset, written down once: its pass over all windows, batch by batch. Knows processes and
what was done before; ignorant of students.

Batches are the same whatever stopped the pass and whoever goes on with it, and what is drawn depends on the seed and on
the place alone: so do the files, byte for byte on one kind of machine.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from growkit.checkpoint.headers import file_hash
from growkit.checkpoint.same_tokenizer import not_the_beginning
from growkit.checkpoint.source import Checkpoint
from growkit.data import word_store as stored
from growkit.data.batches import IGNORED, Batches
from growkit.data.tokenizer import open_tokenizer, tokenizer_folder
from growkit.data.tokens import Tokens, open_tokens
from growkit.data.word_store import NATS, WORDS, StoreHeader, StoreWriter
from growkit.errors import GrowkitError, RequestError
from growkit.families import vocabulary_size
from growkit.models.running import objective
from growkit.operators.seeds import stable_seed
from growkit.training.blank import Blank, blank_model, check_trainable
from growkit.training.machine import Machine, this_machine
from growkit.training.objective import Predicted
from growkit.training.ready import mask_token
from growkit.training.run_folder import check_place
from growkit.training.run_request import Origin, origin_of, window_of
from growkit.training.teachers.shared_vocabulary import nats_of, readable
from growkit.training.teachers.store_folder import StoreFolder
from growkit.training.teachers.summary import summarised, uniforms
from growkit.training.teachers.teacher import frozen

TOKENS = 1 << 12  # in a batch, if a window is no longer
PATIENCE = 20.0  # seconds of work that a process may lose when it is killed
Begin = Callable[[int], Callable[[int], None]]


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a pass left. folder: the store. header: what it is of. loss: the teacher's own, mean nats per predicted
    token of the validation split, None where there is none."""

    folder: Path
    header: StoreHeader
    loss: float | None

    def to_json(self) -> dict[str, Any]:
        """The figures as plain data."""
        return {"folder": str(self.folder), **self.header.to_json(), **self._figures()}

    def _figures(self) -> dict[str, Any]:
        return {"bytes": sum(self.header.sizes.values()), "bytes_each": self.header.record.itemsize, "loss": self.loss}


@dataclass(frozen=True, kw_only=True)
class PassPart:
    """One batch of the pass: its number, the windows of a split that it is of."""

    number: int
    name: str
    windows: range


def teach(
    checkpoint: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    head: int,
    tail: int,
    temperature: float,
    seq_len: int | None,
    seed: int,
    device: str,
    resume: bool,
    begin: Begin,
) -> Written:
    """Run a teacher once over a dataset and keep what it says. All processes of a torchrun call it alike.

    begin: called with the number of windows that are this process's, on the first one; returns what is called as they
    are done. Raises RequestError for what cannot be asked, CheckpointError for what cannot be read.
    """
    machine = this_machine(device, "auto")
    origin, folder = origin_of(checkpoint), Path(out)
    train, val, header = _asked(origin, data, head, tail, temperature, seq_len, seed, machine)
    check_place(folder, {"the teacher": Path(checkpoint), "the data": Path(data)})
    splits = {WORDS: train} | ({NATS: val} if val is not None else {})
    blank, place = blank_model(origin.source), StoreFolder(folder)
    try:
        if not machine.agreed(lambda: place.take(header, resume)):
            seen = begin if machine.is_first else lambda _: lambda _: None
            _pass(blank, splits, place, header, machine, seen)
            machine.agreed(lambda: place.on_disk(lambda: stored.finish(folder)))
        loss = machine.agreed(lambda: _mean(folder, header))
    finally:
        place.release()
    return Written(folder=folder, header=header, loss=loss)


def _mean(folder: Path, header: StoreHeader) -> float | None:
    """The teacher's mean nats over the positions of the validation split that it can tell; None where none are."""
    if not header.val_windows:
        return None
    nats = stored.StoredWords(folder).nats(np.arange(header.val_windows * header.predicted))
    known = nats[~np.isnan(nats)]
    return float(known.mean()) if len(known) else None


def _asked(
    origin: Origin,
    data: str | Path,
    head: int,
    tail: int,
    temperature: float,
    seq_len: int | None,
    seed: int,
    machine: Machine,
) -> tuple[Batches, Batches | None, StoreHeader]:
    """(training split, validation split, what the store will be of). Raises RequestError or CheckpointError."""
    source, config = origin.source, origin.config
    check_trainable(source)
    causal, entries, length = objective(config, source.label), vocabulary_size(config), window_of(origin, seq_len)
    if head > entries:
        raise RequestError(f"--head {head} is more than the {entries} entries of the teacher's vocabulary")
    mask = None if causal else mask_token(source, entries)
    tokens = open_tokens(data)
    if tokens.is_chat:
        raise RequestError(f"{str(data)!r} holds conversations, of which answers alone are learned; teach takes text")
    _check_tokenizer(source, tokens, data, entries)
    others = open_tokens(data, "val") if tokens.has_val else None
    masked = None if mask is None else (mask, entries)

    def batches(split: Tokens) -> Batches:
        return Batches(tokens=split.ids, length=length, size=1, seed=seed, masked=masked)

    train, val = batches(tokens), batches(others) if others is not None else None
    files, hash_of_train, hash_of_val = machine.agreed(
        lambda: (source.hashes(), file_hash(tokens.path), None if others is None else file_hash(others.path))
    )
    return train, val, StoreHeader(
        teacher=source.name, teacher_files=files, data=hash_of_train, val=hash_of_val, seq_len=length,
        temperature=temperature, vocabulary=entries, head=head, tail=tail if head < entries else 0, seed=seed, mask=mask,
        windows=train.windows, val_windows=val.windows if val is not None else 0,
        precision=str(machine.precision).removeprefix("torch."),
    )  # fmt: skip


def _check_tokenizer(source: Checkpoint, tokens: Tokens, data: str | Path, entries: int) -> None:
    """Refuse tokens of which the teacher's are not the beginning. Raises RequestError, CheckpointError for a tokenizer
    that cannot be read."""
    if tokens.tokenizer is None or source.folder is None or not (source.folder / "tokenizer.json").is_file():
        return
    if open_tokenizer(source.folder).hash == tokens.tokenizer:
        return
    made = tokenizer_folder(data) or Path(str(tokens.meta.get("tokenizer_source")))
    why = f"{str(made)!r}, which made the data, is not here to compare"
    if made.is_dir():
        why = not_the_beginning((source.label, str(made)), (source.folder, made), entries)
    if why:
        raise RequestError(f"{str(data)!r} was made by another tokenizer than {source.label!r} has: {why}")


def _pass(
    blank: Blank,
    splits: dict[str, Batches],
    place: StoreFolder,
    header: StoreHeader,
    machine: Machine,
    begin: Begin,
) -> None:
    """Write what is not there yet, each process its own batches."""
    done = machine.agreed(lambda: stored.batches_done(place.out))
    mine = [part for part in _parts(header) if part.number not in done][machine.rank :: machine.world]
    if mine:
        try:
            model = frozen(blank, machine)
        except GrowkitError:
            place.forget()
            raise
    writer = place.on_disk(lambda: StoreWriter(place.out, header, machine.rank))
    advance, settled = begin(sum(len(part.windows) for part in mine)), time.monotonic()
    try:
        for part in mine:
            values = _said(model, splits[part.name], part, header, machine)
            place.on_disk(partial(writer.write, part.number, part.name, part.windows[0] * header.predicted, values))
            if time.monotonic() - settled > PATIENCE:
                place.on_disk(writer.settle)
                settled = time.monotonic()
            advance(len(part.windows))
        place.on_disk(writer.settle)
    finally:
        writer.close()
    machine.wait()


def _parts(header: StoreHeader) -> Iterator[PassPart]:
    """All batches of the pass, numbered as they come."""
    rows, number = max(1, TOKENS // header.seq_len), 0
    for name, windows in ((WORDS, header.windows), (NATS, header.val_windows)):
        for first in range(0, windows, rows):
            yield PassPart(number=number, name=name, windows=range(first, min(windows, first + rows)))
            number += 1


@torch.no_grad()
def _said(model: Any, batches: Batches, part: PassPart, header: StoreHeader, machine: Machine) -> np.ndarray:
    """What goes into the file of some windows: records, or of the validation split nats, a value for each position."""
    whole = batches.at(part.windows)
    if part.name == NATS:
        return nats_of(model, whole, header.vocabulary, machine).numpy().astype(stored.FLOAT32)
    places = whole.places[whole.labels != IGNORED].numpy()
    batch, speaks = readable(whole, header.vocabulary, header.mask is None)
    predicted = Predicted(model, batch.to(machine.device))
    shifts = torch.from_numpy(uniforms(stable_seed(header.seed, "tail"), places)).to(machine.device)
    pieces = [
        summarised(
            predicted.logits(predicted.hidden[piece]), shifts[piece], header.head, header.tail, header.temperature
        )
        for piece in predicted.pieces
    ]
    records = np.zeros(len(places), header.record)
    with np.errstate(over="ignore"):  # of what half precision cannot hold the probability is 0
        for name, values in zip(("ids", "head", "tail", "drawn"), zip(*pieces)):
            records[name] = torch.cat(values).cpu().numpy()
    if speaks is not None:
        silent = ~speaks.numpy()
        records[silent] = np.zeros((), header.record)
        records["tail"][silent] = np.nan
    return records
