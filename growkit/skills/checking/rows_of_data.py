"""A skill's data, and general text, as rows to run a model over. Knows datasets, text and conversations; ignorant of
what is measured on them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from growkit.checkpoint.token_ids import beyond_rows, token_at
from growkit.data.batches import Batch, batch_of
from growkit.data.measured import Measured, measured
from growkit.data.packed_batches import PackedBatches
from growkit.data.tokenizer import open_tokenizer, tokenizer_folder
from growkit.data.tokens import META, open_tokens
from growkit.data.windows import Windows
from growkit.errors import CheckpointError, RequestError
from growkit.families import family_named, vocabulary_size

LENGTH = 512  # tokens of a row, where the model has as many positions
Path_ = str | Path


class RowsOfData:
    """Makes rows for one checkpoint. folder, config: its own; label: its name; causal: whether it predicts the next
    token, as it must. tokens: about so many of each data, spread over it."""

    def __init__(self, folder: Path, config: dict[str, Any], label: str, tokens: int):
        self._config, self._label, self._tokens, self._folder = config, label, tokens, folder
        self._vocabulary = open_tokenizer(folder) if tokenizer_folder(folder) is not None else None

    def of(self, names: Sequence[Path_]) -> Batch:
        """Rows of datasets, .bin files or text, of a dataset its validation split where it has one.

        Each conversation has a row of its own, filled up behind it; there `places` are -1. Raises RequestError for text
        that fills no row, CheckpointError for tokens of another tokenizer.
        """
        parts = [self._of(name, max(1, self._tokens // len(names))) for name in names]
        length = max(part.inputs.shape[1] for part in parts)
        sides = (("inputs", 0), ("labels", -100), ("places", -1))
        inputs, labels, places = (
            torch.cat([_wide(getattr(part, side), length, value) for part in parts]) for side, value in sides
        )
        return batch_of(inputs, labels, places)

    def _of(self, name: Path_, tokens: int) -> Batch:
        path = Path(name)
        split = "val"
        if path.is_dir() and (path / META).is_file() and not open_tokens(path).has_val:
            split = "train"
        text = measured(name, split, "text", self._vocabulary, self._label)
        longest = min(LENGTH, family_named(self._config.get("model_type")).longest(self._config) or LENGTH)
        rows = self._rows(text, str(name), longest)
        each = longest if text.chat is None else max(1, len(text.ids) // rows.windows)
        count = min(rows.windows, max(1, tokens // each))
        batch = rows.at(np.linspace(0, rows.windows - 1, count).round().astype(int).tolist())
        size = vocabulary_size(self._config)
        largest = int(max(batch.inputs.max(), batch.labels.max()))
        if largest >= size:
            raise CheckpointError(
                beyond_rows(f"{str(name)!r} holds", largest, token_at(self._folder, largest), self._label, size)
            )
        used = int((batch.places >= 0).sum(1).max())
        return batch_of(batch.inputs[:, :used], batch.labels[:, :used], batch.places[:, :used])

    def _rows(self, text: Measured, name: str, longest: int) -> Windows | PackedBatches:
        if text.chat is not None:
            return PackedBatches(text.chat, length=longest, size=1, packs=False)
        if len(text.ids) < 2:
            raise RequestError(f"{name!r} is too short: it makes {len(text.ids)} tokens")
        length = min(longest, len(text.ids) - 1)
        return Windows(ids=text.ids, context=length, stride=length)


def parts_of_rows(rows: Batch, numbers: int) -> Iterator[Batch]:
    """The rows in parts of at most so many positions, one row at least."""
    count = max(1, numbers // rows.inputs.shape[1])
    for first in range(0, len(rows.inputs), count):
        part = slice(first, first + count)
        yield batch_of(rows.inputs[part], rows.labels[part], rows.places[part])


def _wide(side: torch.Tensor, length: int, value: int) -> torch.Tensor:
    return torch.nn.functional.pad(side, (0, length - side.shape[1]), value=value)
