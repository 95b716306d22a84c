"""Tokens on disk: flat arrays with document offsets, written as a stream and read by place. Knows the file formats;
ignorant of text and of models.

A dataset is a folder: train.bin and val.bin (little-endian uint16, uint32 where the vocabulary needs it), train.idx.npy
and val.idx.npy (where each document starts, and the total), meta.json; and of tagged text train.domains and val.domains
(the domain of each document); and of a chat dataset, whose documents are conversations, train.learned and val.learned
(which tokens are learned). Bare .bin files of nanoGPT (uint16, no header), and of llm.c and NeMo AutoModel (a header of
256 int32) are read as they are.
"""

import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from growkit.checkpoint.fields import Fields, ListOf, MapOf, Null, OneOf, Text, Whole, checked
from growkit.checkpoint.new_folder import UNFINISHED
from growkit.checkpoint.small_files import open_plain, read_json, reading
from growkit.data.domains import MOST, NAME, Domains, read_domains
from growkit.data.learned import Learned
from growkit.data.stored_ids import StoredIds
from growkit.errors import CheckpointError

META = "meta.json"
TOKENIZER = "tokenizer"  # the folder in a dataset that holds a tokenizer trained on it
TEMPLATE = "chat_template.jinja"  # in a chat dataset: the template that was given instead of the tokenizer's own
SPLITS = ("train", "val")
FORMAT = 1
MOST_IDS = 1 << 32  # that uint32 holds
UINT16, UINT32 = np.dtype("<u2"), np.dtype("<u4")
HEADER_BYTES = 4 * 256  # int32: magic, version, number of tokens, and for AutoModel bytes per token
SPLIT = Fields(
    {"tokens": Whole(1), "documents": Whole(), "text_bytes": Null(Whole()), "learned": Whole()}, needed=("tokens",)
)
CHAT = Fields({"template": Text("[0-9a-f]{64}", "a SHA-256")}, needed=("template",))
META_FIELDS = Fields(
    {
        "dtype": OneOf(("uint16", "uint32")),
        "vocab_size": Whole(1, MOST_IDS),
        "eos_id": Null(Whole(0, MOST_IDS)),
        "mask_id": Null(Whole(0, MOST_IDS)),
        "tokenizer": Null(Text()),
        "domains": ListOf(Text(NAME, "a name"), 1, MOST),
        "chat": CHAT,
        "splits": MapOf(SPLIT),
    },
    needed=("dtype", "splits"),
)
# -> version, dtype (None: the header says)
MAGIC: dict[int, tuple[int, np.dtype | None]] = {20240520: (1, UINT16), 20240801: (7, UINT32), 278895051: (1, None)}


@dataclass(frozen=True)
class Tokens:
    """Token ids of one split. ids: (tokens,), read from the file each time. meta: what meta.json says of the dataset,
    {} for a bare file.
    """

    path: Path
    ids: StoredIds
    meta: dict[str, Any]
    split: str

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def domains(self) -> Domains | None:
        """Which domain each token is of, read when first asked for; None of untagged text. Raises CheckpointError."""
        if "domains" not in self.meta:
            return None
        documents = self.meta["splits"][self.split].get("documents", 0)
        return read_domains(self.path.parent, self.split, self.meta["domains"], documents, len(self))

    @property
    def is_chat(self) -> bool:
        """Whether its documents are conversations, of which the assistant's turns alone are learned."""
        return "chat" in self.meta

    @cached_property
    def learned(self) -> Learned:
        """Where its conversations begin and what is learned of them, of a chat dataset. Raises CheckpointError."""
        documents = self.meta["splits"][self.split].get("documents", 0)
        return Learned(self.path.parent, self.split, documents, len(self))

    @property
    def has_val(self) -> bool:
        """Whether their dataset has a validation split."""
        return bool(self.meta.get("splits", {}).get("val"))

    @property
    def tokenizer(self) -> str | None:
        """SHA-256 of the tokenizer that made them, where it is known."""
        return self.meta.get("tokenizer")

    @property
    def text_bytes(self) -> int | None:
        """Bytes of UTF-8 text behind them, where it is known."""
        return self.meta.get("splits", {}).get(self.split, {}).get("text_bytes")


def dtype_for(vocab_size: int) -> np.dtype:
    """What ids of a vocabulary are stored as."""
    return UINT16 if vocab_size <= 1 << 16 else UINT32


def is_dataset(folder: Path) -> bool:
    """Whether a folder is a dataset of growkit's and holds nothing else, so that a new one may replace it."""
    if not (folder / META).is_file() or not isinstance(read_json(folder / META).get("splits"), dict):
        return False
    ends = (".bin", ".idx.npy", ".domains", ".learned")
    own = {META, TOKENIZER, TEMPLATE, *(f"{split}{end}" for split in SPLITS for end in ends)}
    return "growkit" in read_json(folder / META) and {path.name for path in folder.iterdir()} <= own


def open_tokens(data: str | Path, split: str = "train") -> Tokens:
    """Open a split of a dataset folder, or a bare .bin file, which has but one.

    Raises CheckpointError for what is missing, empty or damaged.
    """
    path = Path(data)
    if path.is_dir():
        return _open_dataset(path, split)
    if not path.exists():
        raise CheckpointError(
            f"{str(path)!r} does not exist; give a dataset folder of growkit tokenize, or a .bin file of tokens"
        )
    with open_plain(path) as stream, reading(path):
        beginning = stream.read(16)
    header = np.frombuffer(beginning[: len(beginning) // 4 * 4], "<i4")
    if not len(header) or int(header[0]) not in MAGIC:
        return Tokens(path, StoredIds(path, UINT16), {}, split)
    version, dtype = MAGIC[int(header[0])]
    if len(header) < 4 or header[1] != version or (dtype is None and header[3] not in (2, 4)):
        raise CheckpointError(f"{str(path)!r} has the magic {header[0]} but not the header that goes with it")
    if dtype is None:
        dtype = UINT32 if header[3] == UINT32.itemsize else UINT16
    ids = StoredIds(path, dtype, HEADER_BYTES)
    if len(ids) != header[2]:
        raise CheckpointError(
            f"{str(path)!r} has {len(ids)} tokens, its header says {header[2]}; fetch or make it again"
        )
    return Tokens(path, ids, {}, split)


def _open_dataset(folder: Path, split: str) -> Tokens:
    if (folder / UNFINISHED).exists():
        raise CheckpointError(f"{str(folder)!r} is unfinished: growkit is at it, or was stopped; make it again")
    meta = read_json(folder / META) if (folder / META).exists() else {}
    if meta.get("format") != FORMAT:
        raise CheckpointError(
            f"{str(folder)!r} is no dataset: it has no {META} of format {FORMAT}; make one with growkit tokenize"
        )
    splits = checked(meta, META_FIELDS, folder / META, "make the dataset again")["splits"]
    if split not in splits:
        more = "; growkit tokenize makes val with --val-fraction or --val" if split == "val" else ""
        raise CheckpointError(f"{str(folder)!r} has no split {split!r}; it has {' and '.join(splits)}{more}")
    ids = StoredIds(folder / f"{split}.bin", UINT16 if meta["dtype"] == "uint16" else UINT32)
    if len(ids) != splits[split]["tokens"]:
        raise CheckpointError(
            f"{str(folder / f'{split}.bin')!r} has {len(ids)} tokens, {META} says {splits[split]['tokens']};"
            " make the dataset again"
        )
    return Tokens(folder / f"{split}.bin", ids, meta, split)


class TokenWriter:
    """Streams documents of token ids into a split of a dataset; nothing of them stays in memory. domains: the names of
    what documents are of, none where they are not tagged. chat: whether some tokens are learned and others not."""

    def __init__(self, folder: Path, split: str, dtype: np.dtype, domains: Sequence[str] = (), chat: bool = False):
        with ExitStack() as opened:  # where one cannot be opened the others are closed
            self._file = opened.enter_context(open(folder / f"{split}.bin", "wb"))
            self._tags = opened.enter_context(open(folder / f"{split}.domains", "wb")) if domains else None
            self._learned = opened.enter_context(open(folder / f"{split}.learned", "wb")) if chat else None
            # where documents start: in a file without a name, as how many there are is known at the end
            self._starts = opened.enter_context(tempfile.TemporaryFile(dir=folder))
            opened.pop_all()  # close() ends them
        self._starts.write(bytes(8))
        self._index = folder / f"{split}.idx.npy"
        self._dtype, self._domains = dtype, domains
        self.tokens = 0
        self._counts: list[Counter[str]] = [Counter() for _ in domains or ("",)]  # of each domain

    def add(self, ids: Sequence[int] | np.ndarray, text_bytes: int, domain: int = 0) -> None:
        """One document: its token ids, how many bytes of text they stand for, and which domain it is of."""
        self.add_stored(np.asarray(ids, dtype=self._dtype).tobytes(), text_bytes, domain)

    def add_stored(self, ids: bytes, text_bytes: int, domain: int = 0, learned: bytes = b"") -> None:
        """One document whose token ids are bytes as they will lie on disk. learned: of a conversation, 1 for each token
        that is, else 0."""
        self._file.write(ids)
        if self._learned is not None:
            self._learned.write(learned)
            self._counts[domain].update(learned=learned.count(1))
        if self._tags is not None:
            self._tags.write(bytes([domain]))
        tokens = len(ids) // self._dtype.itemsize
        self._counts[domain].update(tokens=tokens, documents=1, text_bytes=text_bytes)
        self.tokens += tokens
        self._starts.write(self.tokens.to_bytes(8, "little"))

    def close(self) -> dict[str, Any]:
        """Finish the files; returns what meta.json says of the split."""
        self._file.close()
        if self._tags is not None:
            self._tags.close()
        if self._learned is not None:
            self._learned.close()
        if not self._starts.closed:
            with self._starts:
                self._starts.flush()
                np.save(self._index, np.memmap(self._starts, "<i8", "r"))
        keys = ("tokens", "documents", "text_bytes", *(["learned"] if self._learned is not None else []))
        said: dict[str, Any] = {key: sum(count[key] for count in self._counts) for key in keys}
        if self._domains:
            counted = zip(self._domains, self._counts)
            said["domains"] = {name: dict(count) for name, count in counted if count["documents"]}
        return said
