"""All that a run needs, opened and checked before anything is written. Knows what can be wrong with a request; ignorant
of how a run is carried out.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.headers import file_hash, read_header
from growkit.checkpoint.source import Checkpoint
from growkit.checkpoint.token_ids import beyond_rows, token_at
from growkit.data.batches import Batches, BatchSource
from growkit.data.domains import domain_files
from growkit.data.learned import learned_files
from growkit.data.packed_batches import RowCounts
from growkit.data.tokenizer import open_tokenizer
from growkit.data.tokens import Tokens, open_tokens
from growkit.data.word_store import HEADER
from growkit.errors import RequestError
from growkit.families import family_named, vocabulary_size
from growkit.growth.muon_rules import MUON
from growkit.growth.optimizer import kept_rates, kept_state, rates_are_of
from growkit.growth.sources import open_source
from growkit.growth.width.sizes import read_sizes
from growkit.models.running import objective, tokenizer_of
from growkit.reports.boards import WRITERS, board_writer
from growkit.training.blank import blank_model, check_trainable
from growkit.training.checkpoints import check_space
from growkit.training.learning.learners import Learners
from growkit.training.learning.train_words import ALL, Trained, trained
from growkit.training.machine import Machine, this_machine
from growkit.training.optim import check_whose
from growkit.training.run_batches import run_batches, template_of
from growkit.training.run_folder import Standing, check_place, look
from growkit.training.run_request import usable_positions
from growkit.training.settings import OPTIMIZERS, Settings, check
from growkit.training.sharing import tensors_once
from growkit.training.stage_growth import check_growth
from growkit.training.teachers.domain_teachers import open_teachers
from growkit.training.teachers.inheriting import taught
from growkit.training.teachers.teacher import Teacher

BYTES = 12  # per parameter in a checkpoint: weight and two moments in float32


@dataclass(frozen=True, kw_only=True)
class ReadyRun:
    """A run that can begin, or go on. settings: with the precision and hashes of what was found. standing: how
    far it is in its folder. trained: who learns, and what is left. template: the chat template that the data was made
    with, where it is not the tokenizer's own. rows: what became of conversations. disk: bytes it needs there at most.
    notes: what was settled that nobody asked for."""

    settings: Settings
    machine: Machine
    source: Checkpoint
    train: BatchSource
    val: BatchSource | None
    teachers: dict[str, Teacher]  # by the domain that each speaks for
    trained: Trained
    template: Path | None
    rows: RowCounts | None
    standing: Standing
    disk: int
    notes: tuple[str, ...] = ()


def prepare(settings: Settings, resume: bool, part: Trained | None = None) -> ReadyRun:
    """Open and check what a run needs. part: who learns, instead of what settings.train says. Raises RequestError for
    what cannot be asked, CheckpointError for what cannot be read."""
    machine = this_machine(settings.device, settings.precision)
    out = Path(settings.out)
    source = open_source(settings.checkpoint)
    source.close()
    config = source.config or {}
    check_trainable(source)
    part = part or trained(settings.train, source, settings.stages)
    causal = objective(config, source.label)
    check(settings, machine.world, usable_positions(config))
    _check_optimizer(settings, source, part.small)
    check_place(out, _inputs(settings, source))
    parameters = sum(math.prod(tensor.shape) for tensor in source.tensors.values())
    machine.copies(settings.shard, parameters)
    for board in WRITERS:
        if getattr(settings, board):
            board_writer(board)
    train = open_tokens(settings.data)
    val = open_tokens(settings.data, "val") if train.has_val else None
    splits = [train] if val is None else [train, val]
    # each file is read once, not by every process
    check_tokens(splits, machine.agreed(lambda: [tokens.ids.max() for tokens in splits]), source, config)
    hashes = machine.agreed(lambda: {**_hashes(settings, train, val, source), **part.reads})
    settings = replace(settings, precision=str(machine.precision).removeprefix("torch."), hashes=hashes)
    teachers = open_teachers(settings, machine)
    for teacher in teachers.values():
        teacher.check(config, train)
    notes: tuple[str, ...] = ()
    if teachers:
        told = machine.agreed(lambda: {name: teacher.hashes() for name, teacher in teachers.items()})
        settings, notes = taught(replace(settings, hashes={**hashes, "teacher": told}), source, told, val is not None)
        notes = (*notes, *dict.fromkeys(note for teacher in teachers.values() for note in teacher.notes))
    standing = machine.agreed(lambda: look(settings, resume))
    masked, mask_seed = None, None
    if not causal:
        masked, mask_seed = _masks(
            mask_token(source, vocabulary_size(config)), vocabulary_size(config), teachers.values()
        )

    def windows(tokens: Tokens) -> Batches:
        return Batches(
            tokens=tokens.ids,
            length=settings.seq_len,
            size=settings.batch_size,
            seed=settings.seed,
            masked=masked,
            mask_seed=mask_seed,
            domains=tokens.domains,
        )

    family = family_named(config.get("model_type"))
    data = run_batches(settings, train, val, family, windows)
    disk = _disk_bytes(settings, _added(part.learners, source) if part.small else parameters, config)
    if not standing.begun:
        check_space(out, disk)
    check_growth(source, settings.stages)
    source.close()
    return ReadyRun(
        settings=settings,
        machine=machine,
        source=source,
        train=data.train,
        val=data.val,
        teachers=teachers,
        trained=part,
        template=template_of(train),
        rows=data.rows,
        standing=standing,
        disk=disk,
        notes=(*notes, *data.notes),
    )


def _check_optimizer(settings: Settings, source: Checkpoint, small: bool) -> None:
    """Refuse an optimizer that cannot move this model, or what another one left beside it."""
    name = OPTIMIZERS[settings.optimizer]
    if name == MUON and family_named((source.config or {}).get("model_type")).is_moe:
        raise RequestError(f"--optimizer muon is for dense models, and {source.label!r} has stacked experts; use adamw")
    if name == MUON and small:
        raise RequestError(
            f"--optimizer muon moves a model's own matrices; --train {settings.train} has others: use adamw"
        )
    if settings.train != ALL:
        return
    state, rates = kept_state(source.folder), kept_rates(source.folder)
    if state is not None and state.stat().st_size:
        check_whose(read_header(state), state, name)
    whose = None if rates is None or settings.multipliers == "off" else rates_are_of(rates)
    if whose not in (None, name):
        raise RequestError(
            f"{str(rates)!r} says {whose}'s multipliers, and this run is {name}'s: leave them out with"
            " --multipliers off"
        )


def _inputs(settings: Settings, source: Checkpoint) -> dict[str, Path]:
    """What a run reads, by what it is called, where it lies here; a hub id lies in the hub's cache."""
    given = Path(settings.checkpoint)
    folder = given if given.exists() or source.folder is None else source.folder
    inputs = {"the checkpoint": folder, "the data": Path(settings.data)}
    teachers = {f"the teacher{f' of {name}' if name else ''}": Path(spec) for name, spec in settings.teachers.items()}
    return inputs | {what: path for what, path in teachers.items() if path.exists()}


def _masks(token: int, entries: int, teachers: Collection[Teacher]) -> tuple[tuple[int, int], int | None]:
    """(mask token, vocabulary; the seed of masks that stay the same, None: drawn anew each time) of a masked model.

    Raises RequestError for teachers that were written down with other masks than the model's, or than one another.
    """
    fixed = list(dict.fromkeys(teacher.masks for teacher in teachers if teacher.masks is not None))
    if not fixed:
        return (token, entries), None
    (its, vocabulary, seed), *others = fixed
    if its != token:
        raise RequestError(f"the teacher's masks are token {its}, the model's {token}; they must be one and the same")
    if others:
        raise RequestError(
            f"two teachers' stores are of different masks: token {its}, vocabulary {vocabulary} and seed {seed}, and"
            f" {others[0][0]}, {others[0][1]} and {others[0][2]}; write them with one --seed"
        )
    return (its, vocabulary), seed


def _hashes(settings: Settings, train: Tokens, val: Tokens | None, source: Checkpoint) -> dict[str, Any]:
    """SHA-256 of what a run reads, by which a resumed one knows that it is the same."""
    rates = kept_rates(source.folder)
    headers = {name: Path(spec) / HEADER for name, spec in settings.teachers.items()}
    stores = {name: header for name, header in headers.items() if header.is_file()}
    splits = [tokens for tokens in (train, val) if tokens]
    tagged = [file for each in splits if each.domains for file in domain_files(each.path.parent, each.split)]
    learned = [file for each in splits if each.is_chat for file in learned_files(each.path.parent, each.split)]
    return {
        **({"store": {name: file_hash(header) for name, header in stores.items()}} if stores else {}),
        **({} if rates is None else {"multipliers": file_hash(rates)}),
        **({"domains": [file_hash(file) for file in tagged]} if tagged else {}),
        **({"learned": [file_hash(file) for file in learned]} if learned else {}),
        "data": file_hash(train.path),
        "val": file_hash(val.path) if val else None,
        "checkpoint": source.hashes(),
    }


def _disk_bytes(settings: Settings, parameters: int, config: dict[str, Any]) -> int:
    """Bytes a run needs on disk at most: checkpoints kept and the one being written, the result, and what stages grow
    from."""
    depths = [stage.layers for stage in settings.stages if stage.layers is not None]
    layers = read_sizes(family_named(config.get("model_type")), config)["layer"]
    deeper = max([layers, *depths]) / layers  # a little too much: embeddings do not grow
    return int((settings.keep + 2 + 2 * len(depths)) * BYTES * parameters * deeper)


def _added(learners: Learners, source: Checkpoint) -> int:
    """Numbers that checkpoints hold where a small module learns."""
    model = blank_model(source).model
    learners.choose(model)
    kept = [t for t in tensors_once(model).values() if t.requires_grad or not isinstance(t, torch.nn.Parameter)]
    return sum(tensor.numel() for tensor in kept)


def check_tokens(
    splits: Sequence[Tokens], largest_ids: Sequence[int], source: Checkpoint, config: dict[str, Any]
) -> None:
    """Refuse tokens of a dataset's splits that another tokenizer made, or that the model has no embeddings for. Raises
    RequestError."""
    rows = vocabulary_size(config)
    for tokens, largest in zip(splits, largest_ids):
        if largest >= rows:
            raise RequestError(
                beyond_rows(
                    f"{str(tokens.path)!r} holds", largest, token_at(source.folder, largest), source.label, rows
                )
            )
    tokens = splits[0]
    if tokens.tokenizer is None or source.folder is None:
        return
    if (source.folder / "tokenizer.json").exists() and open_tokenizer(source.folder).hash != tokens.tokenizer:
        raise RequestError(
            f"{str(tokens.path)!r} was made by another tokenizer than {source.label!r} has; tokenize with its own"
        )


def mask_token(source: Checkpoint, rows: int) -> int:
    """The token that hides another in a masked model of so many rows. Raises RequestError where it has none."""
    token = getattr(tokenizer_of(source.folder or Path()), "mask_token_id", None)
    if token is None:
        raise RequestError(
            f"the tokenizer of {source.label!r} has no mask token, which masked-language modelling needs"
        )
    if token >= rows:
        raise RequestError(beyond_rows("masks are", token, token_at(source.folder, token), source.label, rows))
    return int(token)
