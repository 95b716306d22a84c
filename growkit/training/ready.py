"""All that a run needs, opened and checked before anything is written. Knows what can be wrong with a request; ignorant
of how a run is carried out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from growkit.checkpoint.headers import file_hash
from growkit.checkpoint.source import Checkpoint
from growkit.checkpoint.token_ids import beyond_rows, token_at
from growkit.data.batches import Batches
from growkit.data.domains import domain_files
from growkit.data.tokenizer import open_tokenizer
from growkit.data.tokens import Tokens, open_tokens
from growkit.errors import RequestError
from growkit.families import family_named, vocabulary_size
from growkit.growth.optimizer import kept_rates
from growkit.growth.sources import open_source
from growkit.growth.width.sizes import read_sizes
from growkit.models.running import objective, tokenizer_of
from growkit.reports.boards import WRITERS, board_writer
from growkit.training.blank import check_trainable
from growkit.training.checkpoints import check_space
from growkit.training.domain_teachers import open_teachers
from growkit.training.inheriting import taught
from growkit.training.machine import Machine, this_machine
from growkit.training.run_folder import Standing, check_place, look
from growkit.training.run_request import usable_positions
from growkit.training.settings import Settings, check
from growkit.training.stage_growth import check_growth
from growkit.training.teacher import Teacher

BYTES = 12  # per parameter in a checkpoint: weight and two moments in float32


@dataclass(frozen=True, kw_only=True)
class ReadyRun:
    """A run that can begin, or go on. settings: with the precision and hashes of what was found. standing: how
    far it is in its folder. disk: bytes it needs there at most. notes: what was settled that nobody asked for."""

    settings: Settings
    machine: Machine
    source: Checkpoint
    train: Batches
    val: Batches | None
    teachers: dict[str, Teacher]  # by the domain that each speaks for
    standing: Standing
    disk: int
    notes: tuple[str, ...] = ()


def prepare(settings: Settings, resume: bool) -> ReadyRun:
    """Open and check what a run needs. Raises RequestError for what cannot be asked, CheckpointError for what cannot be
    read."""
    machine = this_machine(settings.device, settings.precision)
    out = Path(settings.out)
    source = open_source(settings.checkpoint)
    source.close()
    config = source.config or {}
    check_trainable(source)
    causal = objective(config, source.label)
    check(settings, machine.world, usable_positions(config))
    check_place(out, _inputs(settings, source))
    parameters = sum(math.prod(tensor.shape) for tensor in source.tensors.values())
    machine.copies(settings.shard, parameters)
    for board in WRITERS:
        if getattr(settings, board):
            board_writer(board)
    train = open_tokens(settings.data)
    val = open_tokens(settings.data, "val") if _has_val(train) else None
    splits = [train] if val is None else [train, val]
    # each file is read once, not by every process
    _check_tokens(splits, machine.agreed(lambda: [tokens.ids.max() for tokens in splits]), source, config)
    teachers = open_teachers(settings, machine)
    for teacher in teachers.values():
        teacher.check(config, train)
    hashes = machine.agreed(lambda: _hashes(train, val, source, teachers))
    notes: tuple[str, ...] = ()
    if teachers:
        settings, notes = taught(settings, source, hashes["teacher"], val is not None)
    settings = replace(settings, precision=str(machine.precision).removeprefix("torch."), hashes=hashes)
    standing = machine.agreed(lambda: look(settings, resume))
    masked = None if causal else (_mask_token(source, vocabulary_size(config)), vocabulary_size(config))

    def batches(tokens: Tokens) -> Batches:
        return Batches(
            tokens=tokens.ids,
            length=settings.seq_len,
            size=settings.batch_size,
            seed=settings.seed,
            masked=masked,
            domains=tokens.domains,
        )

    disk = _disk_bytes(settings, parameters, config)
    if not standing.begun:
        check_space(out, disk)
    check_growth(source, settings.stages)
    source.close()
    return ReadyRun(
        settings=settings,
        machine=machine,
        source=source,
        train=batches(train),
        val=batches(val) if val else None,
        teachers=teachers,
        standing=standing,
        disk=disk,
        notes=notes,
    )


def _inputs(settings: Settings, source: Checkpoint) -> dict[str, Path]:
    """What a run reads, by what it is called, where it lies here; a hub id lies in the hub's cache."""
    given = Path(settings.checkpoint)
    folder = given if given.exists() or source.folder is None else source.folder
    inputs = {"the checkpoint": folder, "the data": Path(settings.data)}
    teachers = {f"the teacher{f' of {name}' if name else ''}": Path(spec) for name, spec in settings.teachers.items()}
    return inputs | {what: path for what, path in teachers.items() if path.exists()}


def _hashes(train: Tokens, val: Tokens | None, source: Checkpoint, teachers: dict[str, Teacher]) -> dict[str, Any]:
    """SHA-256 of what a run reads, by which a resumed one knows that it is the same."""
    rates = kept_rates(source.folder)
    tagged = [
        file
        for tokens in (train, val)
        if tokens and tokens.domains
        for file in domain_files(tokens.path.parent, tokens.split)
    ]
    return {
        **({} if rates is None else {"multipliers": file_hash(rates)}),
        **({"domains": [file_hash(file) for file in tagged]} if tagged else {}),
        "data": file_hash(train.path),
        "val": file_hash(val.path) if val else None,
        "checkpoint": source.hashes(),
        **({"teacher": {name: one.hashes() for name, one in teachers.items()}} if teachers else {}),
    }


def _disk_bytes(settings: Settings, parameters: int, config: dict[str, Any]) -> int:
    """Bytes a run needs on disk at most: checkpoints kept and the one being written, the result, and what stages grow
    from."""
    depths = [stage.layers for stage in settings.stages if stage.layers is not None]
    layers = read_sizes(family_named(config.get("model_type")), config)["layer"]
    deeper = max([layers, *depths]) / layers  # a little too much: embeddings do not grow
    return int((settings.keep + 2 + 2 * len(depths)) * BYTES * parameters * deeper)


def _has_val(tokens: Tokens) -> bool:
    return bool(tokens.meta.get("splits", {}).get("val"))


def _check_tokens(
    splits: Sequence[Tokens], largest_ids: Sequence[int], source: Checkpoint, config: dict[str, Any]
) -> None:
    """Refuse tokens that another tokenizer made, or that the model has no embeddings for."""
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


def _mask_token(source: Checkpoint, rows: int) -> int:
    token = getattr(tokenizer_of(source.folder or Path()), "mask_token_id", None)
    if token is None:
        raise RequestError(
            f"the tokenizer of {source.label!r} has no mask token, which masked-language modelling needs"
        )
    if token >= rows:
        raise RequestError(beyond_rows("masks are", token, token_at(source.folder, token), source.label, rows))
    return int(token)
