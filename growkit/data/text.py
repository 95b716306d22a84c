"""Documents out of files: .txt, .jsonl, .jsonl.gz and .parquet, one at a time. Knows file formats; ignorant of tokens.

Nothing is kept: a text file is read in blocks, JSON by the line, parquet by a few rows.
"""

import codecs
import glob
import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from growkit.checkpoint.small_files import LARGEST, open_plain, reading
from growkit.errors import RequestError, reason_of

SUFFIXES = (".txt", ".jsonl", ".jsonl.gz", ".parquet")
WHOLE = 256 << 10  # bytes of a text file that is one document; a longer one is several
PIECE = 64 << 10  # characters after which those end at the next blank line
FAR = 4 * PIECE  # characters in which that must come; else at the last line, word or character before
BLANK = re.compile(r"\n[ \t\r]*\n+")
ROWS = 256  # of parquet at a time
PROGRESS_LINES = 256

Advance = Callable[[int], None]


class TextSource(Protocol):
    """Where documents come from, whatever holds them."""

    @property
    def paths(self) -> Sequence[Path]:
        """What of it lies here."""

    @property
    def bytes(self) -> int | None:
        """How many there are to read; None where nobody knows before all are read."""

    def documents(self, text_key: str, advance: Advance) -> Iterator[str]:
        """The documents in order, each time the same ones; those of nothing but white space are left out.

        advance: called with numbers of bytes that were read. Raises RequestError for what cannot be read.
        """

    def described(self) -> list[dict[str, Any]]:
        """What meta.json says of it."""


@dataclass(frozen=True)
class TextFiles:
    """Documents out of files, in their order."""

    paths: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(path.stat().st_size for path in self.paths)

    def documents(self, text_key: str, advance: Advance) -> Iterator[str]:
        """As a TextSource's."""
        return documents(self.paths, text_key, advance)

    def described(self) -> list[dict[str, Any]]:
        """Path and bytes of each."""
        paths = [(os.fsencode(path).decode("utf-8", "replace"), path.stat().st_size) for path in self.paths]
        return [{"path": path, "bytes": size} for path, size in paths]


def find_files(inputs: Sequence[str | Path]) -> list[Path]:
    """The files that inputs name: files, folders (all below, by name) and patterns; each once, in the order given.

    Raises RequestError for what names none.
    """
    by_path: dict[Path, Path] = {}
    for name in inputs:
        path = Path(name)
        if path.exists() and not path.is_dir():
            if not path.name.endswith(SUFFIXES):
                raise RequestError(f"{str(name)!r} is no text that growkit reads: {', '.join(SUFFIXES)}")
            files = [path]
        elif path.is_dir():
            files = _below(path)
        elif glob.has_magic(str(name)):
            hits = [Path(hit) for hit in sorted(glob.glob(str(name), recursive=True))]
            files = [file for hit in hits for file in (_below(hit) if hit.is_dir() else [hit])]
            files = [file for file in files if file.name.endswith(SUFFIXES)]
        else:
            raise RequestError(
                f"{str(name)!r} does not exist; give text files, folders or patterns such as 'books/*.txt'"
            )
        if not files:
            raise RequestError(f"{str(name)!r} holds no {', '.join(SUFFIXES)} file")
        for file in files:
            by_path.setdefault(file.resolve(), file)
    if not by_path:
        raise RequestError("no text: name at least one file or folder")
    return list(by_path.values())


def _below(folder: Path) -> list[Path]:
    """Text files below a folder by name; hidden ones are left out."""
    paths = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(place, name) for name in files if name.endswith(SUFFIXES) and not name.startswith(".")]
    return sorted(paths)


def documents(files: Sequence[Path], text_key: str = "text", advance: Advance = lambda _: None) -> Iterator[str]:
    """The documents of all files in order; those of nothing but white space are left out.

    advance: called with numbers of bytes of the files that were read. Raises RequestError for what cannot be read.
    """
    for text in chain.from_iterable(_reader(path)(path, text_key, advance) for path in files):
        if text and not text.isspace():
            yield text


def _reader(path: Path) -> Callable[[Path, str, Advance], Iterator[str]]:
    if path.name.endswith(".txt"):
        return _plain
    return _parquet if path.name.endswith(".parquet") else _json_lines


def _plain(path: Path, _key: str, advance: Advance) -> Iterator[str]:
    """A text file as one document or, where it is long, as several that end at blank lines and together are all of
    it.
    """
    decoder, rest, place = codecs.getincrementaldecoder("utf-8")(), "", 0
    with open_plain(path) as stream:
        cuts = os.fstat(stream.fileno()).st_size > WHOLE
        while True:
            with reading(path):
                block = stream.read(FAR)
            start = place - len(decoder.getstate()[0])
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise _undecodable(f"byte {start + error.start}", path) from None
            rest += text.removeprefix("\ufeff") if not place else text
            place += len(block)
            advance(len(block))
            while cuts and len(rest) > (FAR if block else 2 * PIECE):
                end = _document_end(rest)
                yield rest[:end]
                rest = rest[end:]
            if not block:
                yield rest
                return


def _document_end(text: str) -> int:
    """Where a piece of a long text ends."""
    blank = BLANK.search(text, PIECE, FAR)
    if blank:
        return blank.end()
    ends = (text.rfind(mark, PIECE, FAR) + 1 for mark in "\n ")
    return next((end for end in ends if end), min(FAR, len(text)))


def json_objects(path: Path, advance: Advance = lambda _: None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, the object) of each line of a .jsonl or .jsonl.gz file that is not blank; where: "line 3".

    Raises RequestError, with the line, for what is none.
    """
    with open_plain(path) as raw:
        lines: Any = gzip.GzipFile(fileobj=raw) if path.name.endswith(".gz") else raw
        number = reported = 0
        while True:
            try:
                line = lines.readline(LARGEST + 1)
            except (EOFError, zlib.error, OSError) as error:
                if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
                    raise RequestError(f"cannot read {str(path)!r}: {error.strerror or error}") from None
                raise RequestError(f"{str(path)!r} is no sound gzip file ({error}); fetch it again") from None
            number += 1
            if len(line) > LARGEST:
                raise RequestError(f"line {number} of {str(path)!r} has more than {LARGEST:,} bytes; is it JSON lines?")
            if not line or not number % PROGRESS_LINES:
                advance(raw.tell() - reported)
                reported = raw.tell()
            if not line:
                return
            if line.strip():
                yield f"line {number}", _object_of(line, f"line {number}", path)


def _json_lines(path: Path, key: str, advance: Advance) -> Iterator[str]:
    for where, content in json_objects(path, advance):
        if key not in content:
            raise no_key(key, list(content), where, path)
        yield checked_text(content[key], key, where, path)


def _object_of(line: bytes, where: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(line.decode("utf-8").removeprefix("\ufeff"))
    except UnicodeDecodeError:
        raise _undecodable(where, path) from None
    except (ValueError, RecursionError) as error:
        # of a line alone its parser counts lines too
        why = f"{error.msg}, character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise RequestError(
            f"{where} of {str(path)!r} is no valid JSON ({why}); each line should be one object"
        ) from None
    if not isinstance(content, dict):
        raise RequestError(f"{where} of {str(path)!r} is a {type(content).__name__}; each line should be a JSON object")
    return content


def checked_text(text: Any, key: str, where: str, path: Path | str) -> str:
    """A document's text, where it is one; nothing at all is an empty one. Raises RequestError, by where it stands, for
    anything else.
    """
    if text is None:
        return ""
    if not isinstance(text, str):
        raise RequestError(f"{where} of {str(path)!r} has a {type(text).__name__} under {key!r}, not text")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise RequestError(f"{where} of {str(path)!r} holds half a character (a lone surrogate); mend it") from None
    return text


def _parquet(path: Path, key: str, advance: Advance) -> Iterator[str]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise RequestError(f"reading {str(path)!r} needs pyarrow: pip install 'growkit[parquet]'") from None
    number, size = 0, path.stat().st_size
    try:
        with open_plain(path) as raw, parquet.ParquetFile(raw) as table:
            if key not in table.schema_arrow.names:
                raise no_key(key, table.schema_arrow.names, "every row", path)
            rows = max(1, table.metadata.num_rows)
            for batch in table.iter_batches(ROWS, columns=[key]):
                for text in batch.column(0).to_pylist():
                    number += 1
                    yield checked_text(text, key, f"row {number}", path)
                advance(size * number // rows - size * (number - len(batch)) // rows)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = reason_of(error)
        raise RequestError(f"{str(path)!r} is no sound parquet file ({reason}); fetch it again") from None


def no_key(key: str, there: list[str], where: str, path: Path | str) -> RequestError:
    """What to say where the text is under another key."""
    keys = ", ".join(map(repr, there)) or "none"
    return RequestError(f"{where} of {str(path)!r} has no key {key!r}; it has {keys}: name the text's with --text-key")


def _undecodable(where: str, path: Path) -> RequestError:
    return RequestError(f"{where} of {str(path)!r} is not UTF-8; convert it, such as with iconv -t utf-8")
