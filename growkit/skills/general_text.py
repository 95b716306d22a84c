"""General text as windows of tokens: what a panel gathers the moments of inputs on. Knows datasets and text; ignorant
of what models make of it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from growkit.checkpoint.token_ids import beyond_rows
from growkit.data.measured import measured
from growkit.data.tokenizer import open_tokenizer, tokenizer_folder
from growkit.errors import CheckpointError, RequestError
from growkit.families import family_named, vocabulary_size

LENGTH = 512  # tokens of a window, where the model has as many positions


@dataclass(frozen=True)
class GeneralText:
    """ids: (windows, length), int64."""

    ids: torch.Tensor

    @property
    def words(self) -> dict[str, Any]:
        """What panel.json says of it."""
        digest = hashlib.sha256(self.ids.numpy().astype("<i8").tobytes()).hexdigest()
        return {"sha256": digest, "tokens": self.ids.numel(), "seq_len": self.ids.shape[1]}


def general_text(
    texts: Sequence[str | Path], folder: Path, config: dict[str, Any], label: str, tokens: int, seq_len: int | None
) -> GeneralText:
    """About so many tokens of datasets, .bin files or text, in whole windows spread evenly over all of them.

    folder: of the checkpoint, for its tokenizer; label: its name. A window has the model's positions, at most 512.
    Raises RequestError for text that fills no window, CheckpointError for tokens of another tokenizer.
    """
    longest = family_named(config.get("model_type")).longest(config) or LENGTH
    if seq_len is not None and seq_len > longest:
        raise RequestError(f"--seq-len {seq_len} is more than the model's {longest} positions")
    vocabulary = open_tokenizer(folder) if tokenizer_folder(folder) is not None else None
    pieces = [measured(text, "train", "text", vocabulary, label).ids for text in texts]
    length = seq_len or min(longest, LENGTH, max(map(len, pieces)))
    ends = np.cumsum([len(piece) // length for piece in pieces])  # windows up to and with each piece
    if not ends[-1]:
        raise RequestError(
            f"--text makes {max(map(len, pieces)):,} tokens at most, too few for a window of {length}; give more, or a"
            " smaller --seq-len"
        )
    chosen = np.linspace(0, ends[-1] - 1, min(ends[-1], max(1, tokens // length))).round().astype(int)
    ids = np.stack([_window(pieces, ends, number, length) for number in chosen])
    largest, size = int(ids.max()), vocabulary_size(config)
    if largest >= size:
        raise CheckpointError(beyond_rows("--text holds", largest, None, label, size))
    return GeneralText(torch.from_numpy(ids))


def _window(pieces: Sequence[Any], ends: np.ndarray, number: int, length: int) -> np.ndarray:
    """(length,) int64: a window by its number over all pieces."""
    place = int(np.searchsorted(ends, number, side="right"))
    start = (number - (ends[place - 1] if place else 0)) * length
    return pieces[place][start : start + length].astype(np.int64)
