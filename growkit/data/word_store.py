"""What a teacher said of a dataset, on disk: flat files of records, addressed by place. Knows bytes, headers and what
an unfinished one looks like; ignorant of models and of what is made of the records.

A store is a folder: store.json, train.words (a record of one size for each position) and, where the data has a
validation split, val.nats (the teacher's own loss at each of its positions, float32). Until all is written store.json
is called store.unfinished.json, and beside it lies, for each process that writes, which batches it has done.
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from growkit.checkpoint.fields import Fields, MapOf, Null, Number, Text, Whole, checked
from growkit.checkpoint.new_folder import sync
from growkit.checkpoint.small_files import read_bytes, read_json
from growkit.checkpoint.source import runs
from growkit.checkpoint.system import reserve, write_at
from growkit.checkpoint.writer import write_json
from growkit.data.batches import masked_count
from growkit.data.stored_ids import StoredIds
from growkit.data.tokens import MOST_IDS, dtype_for
from growkit.errors import CheckpointError
from growkit.limits import AXIS, SEEDS, TOKENS
from growkit.version import __version__

HEADER, UNFINISHED_HEADER = "store.json", "store.unfinished.json"
WORDS, NATS, DONE = "train.words", "val.nats", "done-*.bin"
FORMAT = 1
BYTE, FLOAT32, INT64 = np.dtype("u1"), np.dtype("<f4"), np.dtype("<i8")
CURE = "make it again with growkit teach"


@dataclass(frozen=True, kw_only=True)
class StoreHeader:
    """What a store is of."""

    teacher: str  # the teacher's name
    teacher_files: dict[str, str]  # SHA-256 by name of its weight files
    data: str  # SHA-256 of the token file
    val: str | None  # and of its validation split
    seq_len: int  # tokens in a window
    temperature: float  # of the distributions
    vocabulary: int  # entries that the teacher has
    head: int  # k, entries of each record with their log-probabilities
    tail: int  # m, entries drawn from the others
    seed: int  # of what was drawn, and of the masks
    mask: int | None  # the mask token of a masked model, whose masks are drawn by window
    windows: int  # of the training split
    val_windows: int  # of the validation split
    precision: str  # what the teacher computed in

    @property
    def record(self) -> np.dtype:
        """Of one position."""
        return record_of(self.vocabulary, self.head, self.tail)

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        sizes = {WORDS: self.windows * self.predicted * self.record.itemsize}
        return sizes | ({NATS: self.val_windows * self.predicted * FLOAT32.itemsize} if self.val_windows else {})

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {"format": FORMAT, "growkit": __version__, **asdict(self)}

    @property
    def predicted(self) -> int:
        """Positions of a window that have records."""
        return self.seq_len if self.mask is None else masked_count(self.seq_len)


SHA = Text("[0-9a-f]{64}", "a SHA-256 in hexadecimal digits")


def record_of(vocabulary: int, head: int, tail: int) -> np.dtype:
    """Of one position: ids of the head, by size, and then of what was drawn; log-probabilities of the head; log-mass of
    the rest, NaN where the teacher says nothing; mean log-probability of what was drawn."""
    ids = dtype_for(vocabulary).str
    return np.dtype([("ids", ids, (head + tail,)), ("head", "<f2", (head,)), ("tail", "<f2"), ("drawn", "<f2")])


FIELDS = tuple(StoreHeader.__dataclass_fields__)
SCHEMA = Fields(
    {
        "teacher": Text(),
        "teacher_files": MapOf(SHA),
        "data": SHA,
        "val": Null(SHA),
        "seq_len": Whole(1, AXIS),
        "temperature": Number(0.01, 1000),
        "vocabulary": Whole(1, AXIS),
        "head": Whole(1, AXIS),
        "tail": Whole(0, AXIS),
        "seed": Whole(*SEEDS),
        "mask": Null(Whole(0, MOST_IDS)),
        "windows": Whole(1, TOKENS),
        "val_windows": Whole(0, TOKENS),
        "precision": Text(),
    },
    needed=FIELDS,
)


def read_header(path: Path) -> StoreHeader:
    """The header in a file. Raises CheckpointError where it is none, or is of another format."""
    content = read_json(path)
    if content.get("format") != FORMAT:
        raise CheckpointError(f"{str(path)!r} should have format {FORMAT}, not {content.get('format')!r}; {CURE}")
    said = checked(content, SCHEMA, path, CURE)
    header = StoreHeader(**{name: said[name] for name in FIELDS})
    if header.head + header.tail > AXIS or header.head > header.vocabulary:
        raise CheckpointError(
            f"{str(path)!r} should have head as at most the vocabulary of {header.vocabulary}, not {header.head}; {CURE}"
        )
    return header


def is_store(folder: Path) -> bool:
    """Whether a folder is a store, finished or not."""
    return (folder / HEADER).is_file() or (folder / UNFINISHED_HEADER).is_file()


def open_header(folder: Path) -> StoreHeader:
    """The header of a finished store. Raises CheckpointError where it is not finished, or cut short."""
    if not (folder / HEADER).is_file():
        raise CheckpointError(
            f"{str(folder)!r} is unfinished: growkit is at it, or was stopped; go on with growkit teach --resume auto"
        )
    header = read_header(folder / HEADER)
    check_sizes(folder, header)
    return header


def check_sizes(folder: Path, header: StoreHeader) -> None:
    """Refuse a store whose files are not as large as its header says. Raises CheckpointError."""
    for name, size in header.sizes.items():
        there = (folder / name).stat().st_size if (folder / name).is_file() else 0
        if there != size:
            raise CheckpointError(
                f"{str(folder / name)!r} has {there:,} bytes, its header says {size:,}: the store was cut short; {CURE}"
            )


class StoredWords:
    """The records of a finished store, read by system calls each time. Raises CheckpointError as open_header does."""

    def __init__(self, folder: Path):
        self.header = open_header(folder)
        self.path = folder / WORDS
        self._bytes = StoredIds(self.path, BYTE)
        self._nats = StoredIds(folder / NATS, FLOAT32) if self.header.val_windows else None

    def at(self, entries: np.ndarray) -> np.ndarray:
        """Records (n,) by their numbers (n,) int64. Raises CheckpointError for a file that is damaged."""
        record = self.header.record
        size = record.itemsize
        pieces = [self._bytes[first * size : (first + count) * size] for first, count in runs(entries)]
        read = np.concatenate([np.empty(0, BYTE), *pieces])
        if len(read) != len(entries) * size:
            raise CheckpointError(f"{str(self.path)!r} has no record {int(entries.max()):,}; {CURE}")
        records = read.view(record)
        sound = ~np.isnan(records["tail"])
        if sound.any() and (
            int(records["ids"].max()) >= self.header.vocabulary or not (records["head"][sound] <= 0.01).all()
        ):
            raise CheckpointError(f"{str(self.path)!r} is damaged: it holds what no teacher says; {CURE}")
        return records

    def nats(self, entries: np.ndarray) -> np.ndarray:
        """The teacher's own loss (n,) float64 at positions of the validation split, NaN where it says nothing."""
        assert self._nats is not None, "the data has no validation split"
        pieces = [self._nats[first : first + count] for first, count in runs(entries)]
        return np.concatenate([np.empty(0), *pieces]).astype(np.float64)


class StoreWriter:
    """A store that is being made, by one of several processes; what is done stays done, whenever it is killed.

    rank: this process. Every method raises OSError for the disk.
    """

    def __init__(self, folder: Path, header: StoreHeader, rank: int):
        self._files = {name: os.open(folder / name, os.O_WRONLY) for name in header.sizes}
        self._done = os.open(folder / DONE.replace("*", str(rank)), os.O_WRONLY | os.O_CREAT, 0o666)
        # a number that was cut in half goes
        self._place = os.fstat(self._done).st_size // INT64.itemsize * INT64.itemsize
        self._waiting: list[int] = []

    def write(self, batch: int, name: str, first: int, values: np.ndarray) -> None:
        """The values (n,) of a batch, by its number, in one of the files from the first-th on."""
        content: memoryview = memoryview(np.ascontiguousarray(values).view(BYTE))  # type: ignore[arg-type]
        write_at(self._files[name], content, first * values.dtype.itemsize)
        self._waiting.append(batch)

    def settle(self) -> None:
        """Say that the batches written so far are done, once they are on disk."""
        for descriptor in self._files.values():
            os.fsync(descriptor)
        done = np.array(self._waiting, INT64).tobytes()
        write_at(self._done, memoryview(done), self._place)
        os.fsync(self._done)
        self._place += len(done)
        self._waiting.clear()

    def close(self) -> None:
        """Close the files."""
        for descriptor in (*self._files.values(), self._done):
            os.close(descriptor)


def begin(folder: Path, header: StoreHeader) -> None:
    """Lay out the files of a new store, as large as they will be, and its header last. Raises OSError for the disk."""
    for name, size in header.sizes.items():
        with open(folder / name, "wb") as file:
            reserve(file.fileno(), size)
    partial = folder / f"{UNFINISHED_HEADER}.partial"
    write_json(partial, header.to_json())
    sync(partial)
    os.replace(partial, folder / UNFINISHED_HEADER)
    sync(folder)


def batches_done(folder: Path) -> set[int]:
    """The numbers of the batches that an unfinished store has, whoever wrote them."""
    done: set[int] = set()
    for path in folder.glob(DONE):
        content = read_bytes(path)
        done |= set(np.frombuffer(content[: len(content) // INT64.itemsize * INT64.itemsize], INT64).tolist())
    return done


def finish(folder: Path) -> None:
    """Give a store its header's name, when all of it is there. Raises OSError for the disk."""
    os.replace(folder / UNFINISHED_HEADER, folder / HEADER)
    sync(folder)
    tidy(folder)


def tidy(folder: Path) -> None:
    """Remove what a finished store needs no more. Raises OSError for the disk."""
    for path in folder.glob(DONE):
        path.unlink()
