"""What a model is measured on: a dataset, a bare file of tokens, or text made into tokens now. Knows how to tell them
apart and which bytes of text stand behind them; ignorant of models.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from growkit.data.domains import Domains
from growkit.data.encode import Encoding, encoding
from growkit.data.stored_ids import StoredIds
from growkit.data.text import documents, find_files
from growkit.data.tokenizer import TextTokenizer
from growkit.data.tokens import META, Tokens, dtype_for, open_tokens
from growkit.errors import CheckpointError, RequestError

ANSWERS = "conversations: what the assistant says counts, each conversation by itself"
NO_BYTES = "a bare .bin file does not say how much text it was, so there are no bits per byte"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Tokens to predict. ids: (tokens,). text_bytes: of the text behind them, and counted: which those are, in words.

    mask: of the tokenizer that made them, where that is known. domains: which one each token is of, where text is
    tagged. chat: the split, where it is of conversations.
    """

    ids: np.ndarray | StoredIds
    split: str | None
    text_bytes: int | None
    counted: str
    mask: int | None
    domains: Domains | None = None
    chat: Tokens | None = None
    notes: tuple[str, ...] = ()


def measured(data: str | Path, split: str, text_key: str, vocabulary: TextTokenizer | None, label: str) -> Measured:
    """Open or make the tokens that a name stands for. vocabulary: the checkpoint's, label: its name.

    Raises CheckpointError for data of another tokenizer and for text where the checkpoint has none.
    """
    path = Path(data)
    if path.name.endswith(".bin"):
        return Measured(
            ids=open_tokens(path).ids,
            split=None,
            text_bytes=None,
            counted="",
            mask=None,
            notes=(NO_BYTES,),
        )
    if path.is_dir() and (path / META).exists():
        return _dataset(path, split, vocabulary, label)
    return _text(data, text_key, vocabulary, label)


def _dataset(path: Path, split: str, vocabulary: TextTokenizer | None, label: str) -> Measured:
    tokens = open_tokens(path, split)
    notes: tuple[str, ...] = ()
    if vocabulary is None:
        notes = (f"{label} has no tokenizer, so nobody can say whether it is the one that made the data",)
    elif tokens.tokenizer is not None and tokens.tokenizer != vocabulary.hash:
        raise CheckpointError(
            f"{str(path)!r} was made with another tokenizer than {label!r} has; make it again with growkit tokenize"
            f" --tokenizer {label}"
        )
    if tokens.is_chat:
        return Measured(
            ids=tokens.ids, split=split, text_bytes=None, counted="", mask=None, domains=tokens.domains, chat=tokens,
            notes=(*notes, ANSWERS),
        )  # fmt: skip
    counted = f"UTF-8 bytes of all documents of {split} as {META} counts them; end-of-document tokens stand for none"
    return Measured(
        ids=tokens.ids,
        split=split,
        text_bytes=tokens.text_bytes,
        counted=counted,
        mask=tokens.meta.get("mask_id"),
        domains=tokens.domains,
        notes=notes,
    )


def _text(data: str | Path, text_key: str, vocabulary: TextTokenizer | None, label: str) -> Measured:
    files = find_files([data])
    if vocabulary is None:
        raise CheckpointError(f"{label!r} has no tokenizer to read text with; give a dataset of growkit tokenize")
    dtype = dtype_for(vocabulary.size)
    stored, text_bytes = bytearray(), 0
    with encoding(Encoding(vocabulary.json, vocabulary.end, dtype.itemsize), 1) as encode:
        for text, (ids,) in encode((text, [text]) for text in documents(files, text_key)):
            stored += ids
            text_bytes += len(text.encode("utf-8"))
    if not text_bytes:
        raise RequestError(f"there is no text in {str(data)!r}")
    counted = "UTF-8 bytes of all its documents; end-of-document tokens stand for none"
    return Measured(
        ids=np.frombuffer(stored, dtype),
        split=None,
        text_bytes=text_bytes,
        counted=counted,
        mask=vocabulary.mask,
    )
