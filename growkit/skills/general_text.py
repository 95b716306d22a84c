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
    places = [(piece, start) for piece in pieces for start in range(0, len(piece) - length + 1, length)]
    if not places:
        raise RequestError(
            f"--text makes {max(map(len, pieces)):,} tokens at most, too few for a window of {length}; give more, or a"
            " smaller --seq-len"
        )
    chosen = np.linspace(0, len(places) - 1, min(len(places), max(1, tokens // length))).round().astype(int)
    ids = np.stack([places[n][0][places[n][1] : places[n][1] + length].astype(np.int64) for n in chosen])
    largest, size = int(ids.max()), vocabulary_size(config)
    if largest >= size:
        raise CheckpointError(beyond_rows("--text holds", largest, None, label, size))
    return GeneralText(torch.from_numpy(ids))
