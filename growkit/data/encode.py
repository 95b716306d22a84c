"""Text to token ids, fast, in this process or in several. Knows the tokenizers library; ignorant of files and of torch, so
that a process of it starts in a moment.

Running text repeats its words. Where a tokenizer splits before it looks for tokens, a text is cut at some of the same places
and each different piece is encoded once. Tokenizers that do not split so are asked for whole documents.
"""

import json
import os
import pickle
import queue
import re
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple, TypeVar

from growkit.errors import GrowkitError

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
        return self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)

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

    One worker is this process itself; it and every other keep to one thread.
    """
    with ExitStack() as stack:
        stack.enter_context(_one_thread())
        if workers == 1:
            encode = Encoder(recipe)
            yield lambda batches: ((tag, encode(texts)) for tag, texts in batches)
            return
        processes = []
        for _ in range(workers):
            processes.append(_Process(recipe))
            stack.callback(processes[-1].end)
        free: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        for process in processes:
            free.put(process)
        pool = ThreadPoolExecutor(workers)
        stack.callback(pool.shutdown, cancel_futures=True)
        for process in processes:  # ended before the pool is waited for, so that no thread waits for one
            stack.callback(process.end)

        def ask(texts: list[str]) -> list[bytes]:
            process = free.get()
            try:
                return process.encode(texts)
            finally:
                free.put(process)

        def encode_all(batches: Iterable[tuple[Tag, list[str]]]) -> Iterator[tuple[Tag, list[bytes]]]:
            waiting: deque[tuple[Tag, Future[list[bytes]]]] = deque()
            for tag, texts in batches:
                waiting.append((tag, pool.submit(ask, texts)))
                if len(waiting) > 2 * workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            for first, future in waiting:
                yield first, future.result()

        yield encode_all


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let the tokenizers library use no threads of its own; it reads this at every call."""
    name, before = "TOKENIZERS_PARALLELISM", os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


class _Process:
    """A Python process that encodes what it is sent; it ends when nobody can send it anything any more."""

    def __init__(self, recipe: Encoding):
        paths = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
            start_new_session=True,  # Ctrl-C is the parent's to answer
        )
        self._send(tuple(recipe))

    def encode(self, texts: list[str]) -> list[bytes]:
        """The ids of each text. Raises GrowkitError where the process is gone."""
        self._send(texts)
        try:
            return pickle.load(self._process.stdout)  # type: ignore[arg-type]
        except (EOFError, pickle.UnpicklingError, ValueError):
            raise self._gone() from None

    def end(self) -> None:
        """Stop the process, whatever it does; again is nothing."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # what was still to be sent has nobody to go to
                stream.close()  # type: ignore[union-attr]

    def _send(self, what: Any) -> None:
        try:
            pickle.dump(what, self._process.stdin)  # type: ignore[arg-type]
            self._process.stdin.flush()  # type: ignore[union-attr]
        except (OSError, ValueError):
            raise self._gone() from None

    def _gone(self) -> GrowkitError:
        code = self._process.wait()
        return GrowkitError(f"a process that encodes text ended (exit code {code}); try fewer --workers")


def serve() -> None:
    """Encode what comes on standard input, for ever."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    try:
        encode = Encoder(Encoding(*pickle.load(source)))
        while True:
            texts = pickle.load(source)
            pickle.dump(encode(texts), sink)
            sink.flush()
    except (EOFError, BrokenPipeError):
        os._exit(0)
