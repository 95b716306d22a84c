"""Texts for a gate to look at, out of what people have: prompts of conversations, and pieces of text. Knows datasets
and text files; ignorant of models.

Of a conversation the gate sees what it will see when the model is asked: all that stands before the first answer. Of
text it sees pieces; where the lengths of a skill's own texts are known, pieces of such lengths, so that no gate can
tell a skill by the length alone. The first piece of every document comes first, then the second of every one: with
enough documents no two pieces are of one.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from growkit.data.domains import INT64, header_of
from growkit.data.encode import Encoding, encoding
from growkit.data.stored_ids import StoredIds
from growkit.data.text import documents, find_files
from growkit.data.tokenizer import TextTokenizer
from growkit.data.tokens import META, Tokens, dtype_for, open_tokens
from growkit.errors import CheckpointError, RequestError
from growkit.families import family_named
from growkit.operators.seeds import generator

PIECE = 64  # tokens of a piece, where no lengths are known
LONGEST = 1024  # tokens that a gate is made to look at
MOST_READ = 20_000  # documents of a text that is not yet tokens
MOST_CHARACTERS = 50_000_000

Span = tuple[int, int]  # (first token, the one behind the last)


@dataclass(frozen=True, kw_only=True)
class GateTexts:
    """Sequences of token ids (length,), int64. documents: how many they are from. sha256: of all their tokens."""

    sequences: list[torch.Tensor]
    documents: int

    @property
    def tokens(self) -> int:
        """In all of them."""
        return sum(map(len, self.sequences))

    @property
    def sha256(self) -> str:
        """Of the lengths and the tokens, in order."""
        state = hashlib.sha256()
        for ids in self.sequences:
            state.update(len(ids).to_bytes(8, "little") + ids.numpy().astype("<i8").tobytes())
        return state.hexdigest()


def positions_of(config: Mapping[str, Any]) -> int:
    """The longest text that a gate looks at in a model of this config."""
    return min(LONGEST, family_named(config.get("model_type")).longest(config) or LONGEST)


def dataset_texts(
    tokens: Tokens, most: int, lengths: Sequence[int] = (), seed: int = 0, longest: int = LONGEST
) -> GateTexts:
    """At most so many texts of a split: of a chat dataset prompts, spread over it; else pieces.

    lengths: of pieces, drawn from these by the seed. longest: where texts are cut. Raises CheckpointError for damaged
    files.
    """
    lengths = [min(longest, length) for length in lengths or (PIECE,)]
    if not tokens.is_chat:
        return _pieces(tokens.ids.__getitem__, _documents(tokens), most, lengths, seed)
    starts = tokens.learned.starts
    chosen = np.linspace(0, len(starts) - 2, min(most, len(starts) - 1)).round().astype(int)
    sequences = []
    for first, last in zip(starts[chosen].tolist(), starts[chosen + 1].tolist()):
        told = np.flatnonzero(tokens.learned.marks[first:last])
        asked = int(told[0]) if len(told) else last - first
        if asked:
            sequences.append(_ids(tokens.ids[first : first + min(asked, longest)]))
    return GateTexts(sequences=sequences, documents=len(sequences))


def named_texts(
    names: Sequence[str | Path], vocabulary: TextTokenizer | None, label: str, most: int,
    lengths: Sequence[int] = (), seed: int = 0, longest: int = LONGEST, enough: int = MOST_READ,
) -> GateTexts:  # fmt: skip
    """Texts of datasets of growkit tokenize, .bin files of tokens and text files. vocabulary: the model's, label: its
    name. enough: where there are so many documents, each gives one text alone, so that texts are as independent as
    these are.

    Raises RequestError for what is no text, CheckpointError for a dataset of another tokenizer.
    """
    made = [name for name in names if (Path(name) / META).is_file() or str(name).endswith(".bin")]
    files = [name for name in names if name not in made]
    parts = []
    for name in made:
        tokens = open_tokens(name)
        if vocabulary is not None and tokens.tokenizer not in (None, vocabulary.hash):
            raise CheckpointError(
                f"{str(name)!r} was made with another tokenizer than {label!r} has; make it again with growkit tokenize"
                f" --tokenizer {label}"
            )
        parts.append(dataset_texts(tokens, most, lengths, seed, longest))
    if files:
        if vocabulary is None:
            raise CheckpointError(f"{label!r} has no tokenizer to read text with; give a dataset of growkit tokenize")
        parts.append(
            _files_texts(files, vocabulary, most, [min(longest, length) for length in lengths or (PIECE,)], seed)
        )
    each_one = sum(part.documents for part in parts) >= enough
    sequences = [ids for part in parts for ids in part.sequences[: part.documents if each_one else most]]
    if not sequences:
        raise RequestError(f"there is no text in {', '.join(map(str, names)) or 'nothing'}")
    order = torch.randperm(len(sequences), generator=generator(seed, "texts")).tolist()[:most]
    return GateTexts(sequences=[sequences[number] for number in order], documents=sum(part.documents for part in parts))


def _files_texts(
    names: Sequence[str | Path], vocabulary: TextTokenizer, most: int, lengths: Sequence[int], seed: int
) -> GateTexts:
    dtype = dtype_for(vocabulary.size)
    stored: list[np.ndarray] = []
    characters = 0
    with encoding(Encoding(vocabulary.json, vocabulary.end, dtype.itemsize), 1) as encode:
        for _, (ids,) in encode((None, [text]) for text in documents(find_files(names))):
            stored.append(np.frombuffer(ids, dtype))
            characters += len(ids)
            if len(stored) >= MOST_READ or characters >= MOST_CHARACTERS:
                break
    ends = np.cumsum([0, *map(len, stored)]).tolist()
    if not stored:
        raise RequestError(f"there is no text in {', '.join(map(str, names))}")
    whole = np.concatenate(stored)
    return _pieces(whole.__getitem__, list(pairwise(ends)), most, lengths, seed)


def _documents(tokens: Tokens) -> list[Span]:
    """Where the documents of a split of text lie; a bare file of tokens is one."""
    index = tokens.path.with_name(f"{tokens.split}.idx.npy")
    if not tokens.meta:
        return [(0, len(tokens))]
    starts = StoredIds(index, INT64, header_of(index))[:]
    if starts[0] or starts[-1] != len(tokens) or (np.diff(starts) < 0).any():
        raise CheckpointError(f"{str(index)!r} should say where each document starts; make the dataset again")
    return list(zip(starts.tolist(), starts[1:].tolist()))


def _pieces(
    read: Callable[[slice], np.ndarray], spans: list[Span], most: int, lengths: Sequence[int], seed: int
) -> GateTexts:
    """Pieces of documents, which are taken in an order drawn by the seed, one of each in turn."""
    draws = generator(seed, "pieces")
    order = torch.randperm(len(spans), generator=draws).tolist()
    left = [spans[number] for number in order if spans[number][0] < spans[number][1]]
    used, sequences = len(left), []
    for first, last in _in_turn(left, most, lengths, draws):
        sequences.append(_ids(read(slice(first, last))))
    return GateTexts(sequences=sequences, documents=min(used, len(sequences)))


def _in_turn(left: list[Span], most: int, lengths: Sequence[int], draws: torch.Generator) -> Iterator[Span]:
    """Spans of pieces. A document gives at least one, however short; what is then left of it and too short is not
    taken."""
    taken, turn = 0, 0
    while left and taken < most:
        further: list[Span] = []
        for first, last in left[: most - taken]:
            length = lengths[int(torch.randint(len(lengths), (), generator=draws))]
            if turn and last - first < length:
                continue
            yield first, min(last, first + length)
            taken += 1
            further.append((first + length, last))
        left, turn = [span for span in further if span[0] < span[1]], turn + 1


def _ids(stored: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(stored.astype(np.int64))
