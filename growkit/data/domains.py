"""Which domain each token is of: a number for each document, stored beside the tokens and looked up by place.
Knows two flat files; ignorant of text and of what a domain is about.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from growkit.checkpoint.small_files import open_plain, reading
from growkit.data.stored_ids import AT_ONCE, StoredIds
from growkit.errors import CheckpointError

MOST = 255  # domains of a dataset: each document's number is one byte, and NOWHERE is none of them
NOWHERE = 255  # the domain of a position that predicts nothing, or holds nothing
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
UINT8, INT64 = np.dtype("u1"), np.dtype("<i8")
NPY = re.compile(rb"\{'descr': '<i8', 'fortran_order': False, 'shape': \(\d+,\), \} *\n")
CURE = "make the dataset again"


@dataclass(frozen=True)
class Domains:
    """The domains of one split. names: of all. starts, numbers: (runs,), the first token of each stretch of documents
    of one domain, and which domain that is."""

    names: tuple[str, ...]
    starts: np.ndarray
    numbers: np.ndarray

    def of(self, places: np.ndarray) -> np.ndarray:
        """The domain's number, uint8, of each token by its place in the file, in the shape that places have."""
        return self.numbers[np.searchsorted(self.starts, places, side="right") - 1]

    def shown(self, places: np.ndarray) -> np.ndarray:
        """As `of` says it, NOWHERE for a place of -1, at which a row holds no token."""
        return np.where(places < 0, np.uint8(NOWHERE), self.of(places))

    def tokens(self, total: int) -> list[int]:
        """How many tokens each domain has in a split of `total`."""
        lengths = np.diff(self.starts, append=total)
        return [int(lengths[self.numbers == number].sum()) for number in range(len(self.names))]


class DomainLosses:
    """Nats by domain, summed up as they come. names: of the domains."""

    def __init__(self, names: Sequence[str]):
        self.names = names
        self.nats, self.predicted = np.zeros(len(names)), np.zeros(len(names))

    def add(self, numbers: np.ndarray, nats: np.ndarray) -> None:
        """Positions (n,), of which domain each is and what its prediction cost."""
        self.nats += np.bincount(numbers, nats, len(self.names))
        self.predicted += np.bincount(numbers, minlength=len(self.names))

    def means(self) -> dict[str, float]:
        """Mean nats per predicted token of each domain of which anything was predicted."""
        pairs = zip(self.names, self.nats.tolist(), self.predicted.tolist())
        return {name: nats / count for name, nats, count in pairs if count}


def domain_files(folder: Path, split: str) -> tuple[Path, Path]:
    """(where each document starts, which domain each is of) of a split that is tagged."""
    return folder / f"{split}.idx.npy", folder / f"{split}.domains"


def read_domains(folder: Path, split: str, names: Sequence[str], documents: int, tokens: int) -> Domains:
    """The domains of a split of so many documents and tokens. Raises CheckpointError where its two files do not say
    them."""
    if len(set(names)) < len(names):
        raise CheckpointError(f"{str(folder / 'meta.json')!r} names a domain twice in {', '.join(names[:9])}; {CURE}")
    index, path = domain_files(folder, split)
    numbers, starts = StoredIds(path, UINT8), StoredIds(index, INT64, header_of(index))
    for file, has, should in ((path, len(numbers), documents), (index, len(starts), documents + 1)):
        if has != should:
            raise CheckpointError(f"{str(file)!r} has {has:,} entries where {should:,} should be; {CURE}")
    changes, kinds = [], []
    before, last = 0, NOWHERE
    for first in range(0, documents, AT_ONCE):
        own, begin = numbers[first : first + AT_ONCE], starts[first : first + AT_ONCE]
        if own.max() >= len(names):
            raise CheckpointError(
                f"{str(path)!r} has a document of domain {own.max()}, and meta.json names {len(names)}; {CURE}"
            )
        if begin[0] < before or (first == 0 and begin[0]) or (np.diff(begin) < 0).any():
            raise CheckpointError(f"{str(index)!r} has documents that start before the one before them; {CURE}")
        chosen = np.flatnonzero(np.diff(own, prepend=np.uint8(last)))
        changes.append(begin[chosen])
        kinds.append(own[chosen])
        before, last = int(begin[-1]), int(own[-1])
    end = int(starts[documents : documents + 1][0])
    if end != tokens or before > end:
        raise CheckpointError(f"{str(index)!r} ends at token {max(before, end):,}, the split at {tokens:,}; {CURE}")
    return Domains(tuple(names), np.concatenate(changes), np.concatenate(kinds))


def header_of(path: Path) -> int:
    """Where the numbers of a NumPy file of whole numbers begin, which is read as a flat file from there on. Raises
    CheckpointError for a file of anything else."""
    with open_plain(path) as file, reading(path):
        start = file.read(10)
        length = int.from_bytes(start[8:], "little")
        header = file.read(length)
    if start[:8] != b"\x93NUMPY\x01\x00" or not NPY.fullmatch(header):
        raise CheckpointError(f"{str(path)!r} is no NumPy file of int64 numbers, one for each document; {CURE}")
    return 10 + length
