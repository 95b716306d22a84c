"""Text to token ids, fast, in this process or in several. Knows the tokenizers library; ignorant of files and of torch,
so that a process of it starts in a moment.

Running text repeats its words. Where a tokenizer splits before it looks for tokens, a text is cut at some of the same
places and each different piece is encoded once. Tokenizers that do not split so are asked for whole documents.
"""

import json
import re
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import current_process
from typing import Any, NamedTuple, TypeVar

from growkit.data.workers import WorkerPool, environment, worker_pool
from growkit.errors import CheckpointError, reason_of

KNOWN_PIECES, LONGEST_KNOWN = 400_000, 64  # pieces kept at once, and their length: some 100 MB
# what splits text for BPE besides ByteLevel's own (GPT-2's): cl100k and Llama 3, Qwen 2
_WORD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {_WORD + numbers + _REST for numbers in (r"\p{N}{1,3}", r"\p{N}")}
# none of these has a token with a letter before one of "after", or a mark before a space, and none looks behind
_MARKS = r",.;:!?\"”\u2019"
_AFTER = r" \n\r\t,.;:!?\"”"
WORDS = re.compile(
    rf" ?[a-zA-Z]+(?=[{_AFTER}])|[{_MARKS}]+(?= )"
    rf"|.+?(?:(?<=[a-zA-Z])(?=[{_AFTER}])|(?<=[{_MARKS}])(?= )|\Z)",
    re.DOTALL,
)
UNCOMPOSED = re.compile(
    "[^\0-\u02ff\u2010-\u2027\u2e00-\u2e5d]"
)  # what NFC might change: neither Latin letters nor dashes and quotes
BETWEEN_BLANKS = re.compile(r"[^ \n\r\t]+")  # BERT's splits at blanks and drops them

Tag = TypeVar("Tag")


def unencodable(error: Exception) -> CheckpointError:
    """What to say where a tokenizer loads and cannot encode."""
    return CheckpointError(f"the tokenizer cannot encode this text ({reason_of(error)}); is it whole?")


class Encoding(NamedTuple):
    """What encoding needs: a tokenizer's own JSON, the token to end documents with, bytes per id."""

    tokenizer: str
    end: int | None
    itemsize: int


def splitter(content: dict[str, Any]) -> tuple[re.Pattern[str] | None, bool]:
    """(pieces that a tokenizer encodes one by one, whether it first composes letters); None for any other tokenizer."""
    normalizer, before, model = (content.get(key) or {} for key in ("normalizer", "pre_tokenizer", "model"))
    if model.get("dropout"):
        return None, False
    if before.get("type") == "BertPreTokenizer" and normalizer.get("type") in (None, "BertNormalizer", "Lowercase"):
        return BETWEEN_BLANKS, False
    steps = before["pretokenizers"] if before.get("type") == "Sequence" else [before]
    last = steps[-1] if steps else {}
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space") or normalizer.get("type") not in (None, "NFC"):
        return None, False
    split = steps[0] if len(steps) == 2 else {}
    known = split.get("type") == "Split" and split.get("behavior") == "Isolated" and not split.get("invert")
    pattern = split["pattern"].get("Regex") if known else None
    own = len(steps) == 1 and last.get("use_regex", True)
    if not own and (last.get("use_regex", True) or pattern not in SPLITS):
        return None, False
    return WORDS, bool(normalizer)


class Encoder:
    """Encodes documents, each with its end token, to ids as they lie on disk."""

    def __init__(self, recipe: Encoding):
        from tokenizers import Tokenizer

        content = json.loads(recipe.tokenizer)
        self._tokenizer = Tokenizer.from_str(recipe.tokenizer)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._code = {2: "H", 4: "I"}[recipe.itemsize]
        self._end = b"" if recipe.end is None else struct.pack(f"<{self._code}", recipe.end)
        self._pattern, self._composes = splitter(content)
        # a piece must not cut through a token that is looked for in the whole text
        self._added = {entry["content"][:2] for entry in content.get("added_tokens", ())}
        self._pieces = _Pieces(self._ids)

    def __call__(self, texts: list[str]) -> list[bytes]:
        """The ids of each text as little-endian bytes."""
        results: dict[int, bytes] = {}
        whole = [number for number, text in enumerate(texts) if not self._splits(text)]
        if whole:
            results = dict(zip(whole, map(self._stored, self._encodings([texts[number] for number in whole]))))
        return [
            (results[number] if number in results else self._pieces.of(self._pattern, text)) + self._end
            for number, text in enumerate(texts)
        ]

    def _splits(self, text: str) -> bool:
        if self._pattern is None or (self._composes and UNCOMPOSED.search(text)):
            return False
        return not any(start in text for start in self._added)

    def _encodings(self, texts: list[str]) -> list[Any]:
        try:
            return self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        except Exception as error:  # the library raises no kind of its own
            raise unencodable(error) from None

    def _ids(self, piece: str) -> bytes:
        return self._stored(self._encodings([piece])[0])

    def _stored(self, encoding: Any) -> bytes:
        ids = encoding.ids
        return struct.pack(f"<{len(ids)}{self._code}", *ids)


class _Pieces(dict[str, bytes]):
    """Pieces of text and their ids, encoded when they are first met."""

    def __init__(self, encode: Callable[[str], bytes]):
        super().__init__()
        self._encode = encode

    def __missing__(self, piece: str) -> bytes:
        ids = self._encode(piece)
        if len(piece) <= LONGEST_KNOWN:
            self[piece] = ids
        return ids

    def of(self, pattern: re.Pattern[str] | None, text: str) -> bytes:
        """The ids of a text, piece by piece."""
        assert pattern is not None
        if len(self) > KNOWN_PIECES:
            self.clear()
        return b"".join(map(self.__getitem__, pattern.findall(text)))


@contextmanager
def encoding(recipe: Encoding, workers: int) -> Iterator[Callable[[Iterable[tuple[Tag, list[str]]]], Iterator[Any]]]:
    """A function from (tag, texts) to (tag, ids of each text), in order, carried out by as many processes.

    One worker is this process itself; it and every other keep to one thread. Raises GrowkitError where a process dies.
    """
    with environment(TOKENIZERS_PARALLELISM="false"):  # no threads of the library's own; it looks at every call
        if workers == 1 or current_process().daemon:  # a daemon of multiprocessing's may have no processes
            encode = Encoder(recipe)
            yield lambda batches: ((tag, encode(texts)) for tag, texts in batches)
            return
        with worker_pool(workers, _begin, recipe) as pool:
            yield lambda batches: _in_order(pool, batches, 2 * workers)


def _in_order(
    pool: WorkerPool, batches: Iterable[tuple[Tag, list[str]]], most: int
) -> Iterator[tuple[Tag, list[bytes]]]:
    """Hand batches out and results back in the same order; only so many are on their way at any time."""
    waiting: deque[tuple[Tag, int]] = deque()
    for tag, texts in batches:
        waiting.append((tag, pool.submit(_encode, texts)))
        if len(waiting) > most:
            first, number = waiting.popleft()
            yield first, pool.result(number)
    while waiting:
        first, number = waiting.popleft()
        yield first, pool.result(number)


_encoder: Encoder | None = None  # of a process that encodes for another


def _begin(recipe: Encoding) -> None:
    global _encoder
    _encoder = Encoder(recipe)


def _encode(texts: list[str]) -> list[bytes]:
    assert _encoder is not None
    return _encoder(texts)
