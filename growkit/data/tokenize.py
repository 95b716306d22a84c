"""Text to a dataset: the `tokenize` command. Knows the order of things; every step lives beside it.

Documents stream from files through the tokenizer to disk; what is held at any time is a few batches of them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from growkit.checkpoint.new_folder import new_folder
from growkit.checkpoint.system import cores
from growkit.checkpoint.writer import check_target, write_json
from growkit.data.chats.answers import Answers
from growkit.data.chats.chat import chat_notes, check_chat, check_chat_files, write_conversations
from growkit.data.chats.chat_template import open_template
from growkit.data.chats.conversations import conversations
from growkit.data.datasets_library import LibraryRequest
from growkit.data.encode import Encoding, encoding
from growkit.data.tagged import Inputs, read_inputs
from growkit.data.text import Advance, TextSource
from growkit.data.tokenizer import TextTokenizer, check_entries, described, loaded_tokenizer, new_tokenizer
from growkit.data.tokens import FORMAT, META, SPLITS, TEMPLATE, TOKENIZER, TokenWriter, dtype_for, is_dataset
from growkit.errors import RequestError
from growkit.operators.seeds import stable_seed
from growkit.version import __version__

BATCH_CHARACTERS, BATCH_DOCUMENTS = 1 << 20, 4096
WORTH_A_PROCESS = 8 << 20  # bytes of files; a process takes half a second to start

Path_ = str | Path
Begin = Callable[[str, int], Advance]  # called with what is done and how many bytes it takes, 0: nobody knows
Piece = tuple[str, int, Any]  # (split, number of its domain, document: text or a conversation)


@dataclass(frozen=True)
class Dataset:
    """What was made: the folder, what its meta.json says, and what a person should know of it."""

    folder: Path
    meta: dict[str, Any]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The dataset as plain data."""
        return {"folder": str(self.folder), **self.meta, "notes": list(self.notes)}


def tokenize(
    inputs: Path_ | Sequence[Path_] | None,
    out: Path_,
    tokenizer: Path_ | None = None,
    *,
    dataset: str | Sequence[str] | None = None,
    config: str | None = None,
    split: str | None = None,
    val_split: str | None = None,
    train_tokenizer: int | None = None,
    val_fraction: float = 0.0,
    val: Path_ | Sequence[Path_] = (),
    text_key: str = "text",
    chat: bool = False,
    template: Path_ | None = None,
    workers: int | None = None,
    seed: int = 0,
    force: bool = False,
    begin: Begin = lambda _what, _size: lambda _read: None,
) -> Dataset:
    """Make a dataset of text: .txt, .jsonl, .jsonl.gz, .parquet, folders of them and patterns, each tagged with its
    domain as name=PATH or none; and of datasets of the Hugging Face library.

    dataset: names on the hub, or folders that the library reads, whose config, split and val_split (which validates)
    these are. tokenizer: a checkpoint, a folder or a hub id; or train_tokenizer: entries of a new one, trained on the
    training documents. val_fraction: share of documents (of each domain) that validate, drawn by seed; or val: files
    that do. workers: processes; by default as many as there are cores. chat: the JSON lines are conversations, of which
    the assistant's turns are learned; template: a file, or "chatml", instead of the tokenizer's own. Raises
    RequestError or CheckpointError, having written nothing.
    """
    library = LibraryRequest(
        names=tuple(map(str, _listed(dataset))), config=config, split=split, val_split=val_split, text_key=text_key
    )
    _check_fraction(val_fraction, bool(_listed(val)) or val_split is not None)
    _check(tokenizer, train_tokenizer, workers)
    check_chat(chat, template, tokenizer, text_key, bool(library.names))
    text = read_inputs(_listed(inputs), _listed(val), library)
    if chat:
        check_chat_files([path for _, source in (*text.train, *text.val) for path in source.paths])
    folder = Path(out)
    named = [*text.named, *(Path(name) for name in (tokenizer, template) if name is not None)]
    within = [path for _, source in (*text.train, *text.val) for path in source.paths]
    roots = [path for path in (*named, *within) if path.exists()]
    replaces = check_target(folder, list(dict.fromkeys(roots)), force, is_dataset, "dataset of growkit's alone")
    sizes = _bytes(text.train), _bytes(text.train + text.val)
    most = workers or cores()
    loaded, home = loaded_tokenizer(tokenizer) if tokenizer is not None else (None, Path())
    vocabulary = None if tokenizer is None else described(loaded, str(tokenizer))
    answers = Answers(open_template(loaded, home, str(tokenizer), template)) if chat else None

    def read(source: TextSource, advance: Advance) -> Iterator[Any]:
        return conversations(source.paths, advance) if chat else source.documents(text_key, advance)

    def pieces(splits: Sequence[str], advance: Advance) -> Iterator[Piece]:
        for domain, source in text.train:
            for number, document in enumerate(read(source, advance)):
                split = "val" if validates(number, val_fraction, seed) else "train"
                if split in splits:
                    yield split, domain, document
        for domain, source in text.val if "val" in splits else ():
            yield from (("val", domain, document) for document in read(source, advance))

    with new_folder(folder, replaces) as partial:
        if vocabulary is None:
            texts = (document for _, _, document in pieces(["train"], begin("training a tokenizer", sizes[0])))
            vocabulary = new_tokenizer(texts, train_tokenizer or 0, partial / TOKENIZER, most)
            vocabulary = replace(vocabulary, source=TOKENIZER)
        stream = pieces(SPLITS, begin("tokenizing", sizes[1]))
        most = workers or (min(most, 1 + sizes[1] // WORTH_A_PROCESS) if sizes[1] else most)
        if answers is None:
            splits = _write(stream, vocabulary, partial, text.domains, most)
        else:
            splits = write_conversations(stream, answers, vocabulary.size, partial, text.domains)
            if answers.template.own is not None:
                (partial / TEMPLATE).write_text(answers.template.own, "utf-8")
        _check_splits(splits, val_fraction, bool(text.val), [str(path) for path in text.named])
        for domain in text.domains if val_fraction else ():
            own = {split: said["domains"][domain] for split, said in splits.items() if domain in said["domains"]}
            _check_splits(own, val_fraction, False, [domain], f" of {domain}")
        meta = {
            "format": FORMAT,
            "growkit": __version__,
            "dtype": dtype_for(vocabulary.size).name,
            "vocab_size": vocabulary.size,
            "eos_id": vocabulary.end,
            "mask_id": vocabulary.mask,
            "tokenizer": vocabulary.hash,
            "tokenizer_source": vocabulary.source,
            **({"domains": list(text.domains)} if text.domains else {}),
            **({"chat": {"template": answers.template.hash, "answers": answers.seen.answers}} if answers else {}),
            "splits": splits,
            "request": {"val_fraction": val_fraction, "text_key": text_key, "seed": seed, "entries": train_tokenizer},
            "sources": {"train": _sources(text, text.train), **({"val": _sources(text, text.val)} if text.val else {})},
        }
        write_json(partial / META, meta)
    if answers is not None:
        return Dataset(folder, meta, tuple(chat_notes(answers.seen, answers.template)))
    return Dataset(folder, meta, tuple(_notes(vocabulary, train_tokenizer)))


def validates(number: int, fraction: float, seed: int) -> bool:
    """Whether a document is one of the share that validates: one of every 1 / fraction documents, drawn by the seed.

    So the share is right to within a document, however few there are.
    """
    if fraction <= 0:
        return False
    draws = range(int(number * fraction), int((number + 1) * fraction) + 1)
    return any(int((n + stable_seed(seed, f"val {n}") / 2**63) / fraction) == number for n in draws)


def _listed(names: Path_ | Sequence[Path_] | None) -> list[Path_]:
    return [names] if isinstance(names, str | Path) else list(names or ())


def _bytes(part: Sequence[tuple[int, TextSource]]) -> int:
    """Bytes to read; 0 where nobody knows."""
    sizes = [source.bytes for _, source in part]
    return 0 if None in sizes else sum(size or 0 for size in sizes)


def _check_fraction(fraction: float, val: bool) -> None:
    if not 0 <= fraction < 1:
        raise RequestError(f"--val-fraction {fraction} should be from 0 to below 1")
    if fraction and val:
        raise RequestError("--val-fraction and --val both say what validates; give one")


def _check(tokenizer: Path_ | None, entries: int | None, workers: int | None) -> None:
    if (tokenizer is None) == (entries is None):
        raise RequestError(
            "say which tokenizer: --tokenizer CKPT or a new one with --train-tokenizer N, one of the two"
        )
    if entries is not None:
        check_entries(entries)
    if workers is not None and workers < 1:
        raise RequestError(f"--workers {workers} should be 1 or more")


def _write(
    stream: Iterator[Piece], vocabulary: TextTokenizer, folder: Path, domains: tuple[str, ...], workers: int
) -> dict[str, dict[str, Any]]:
    """Encode a stream of documents into a folder; returns what meta.json says of each split."""
    dtype = dtype_for(vocabulary.size)
    writers: dict[str, TokenWriter] = {}
    with ExitStack() as stack:
        encode = stack.enter_context(encoding(Encoding(vocabulary.json, vocabulary.end, dtype.itemsize), workers))
        for tags, encoded in encode(_batches(stream)):
            for (split, domain, text_bytes), ids in zip(tags, encoded):
                if split not in writers:
                    writers[split] = TokenWriter(folder, split, dtype, domains)
                    stack.callback(writers[split].close)
                writers[split].add_stored(ids, text_bytes, domain)
    return {split: writers[split].close() for split in SPLITS if split in writers}


def _batches(stream: Iterator[Piece]) -> Iterator[tuple[list[tuple[str, int, int]], list[str]]]:
    """((split, domain, bytes of text) of each document, the documents) of stretches that are worth sending
    somewhere."""
    tags: list[tuple[str, int, int]] = []
    texts: list[str] = []
    characters = 0
    for split, domain, text in stream:
        tags.append((split, domain, len(text) if text.isascii() else len(text.encode("utf-8"))))
        texts.append(text)
        characters += len(text)
        if characters >= BATCH_CHARACTERS or len(texts) >= BATCH_DOCUMENTS:
            yield tags, texts
            tags, texts, characters = [], [], 0
    if texts:
        yield tags, texts


def _check_splits(
    splits: dict[str, dict[str, Any]], fraction: float, val: bool, names: list[str], which: str = ""
) -> None:
    """Refuse a dataset without text where there should be some. which: the domain that is looked at, in words."""
    count = sum(split["documents"] for split in splits.values())
    if not count or (val and "train" not in splits):
        raise RequestError(f"there is no text in {', '.join(names)}")
    if val and "val" not in splits:
        raise RequestError("there is no text in what --val names")
    lacking = [split for split in SPLITS if split not in splits and (split == "train" or fraction)]
    if lacking:
        raise RequestError(
            f"--val-fraction {fraction:g} of {count} documents{which} leaves none for {lacking[0]};"
            + (f" give {1 / count:.2g} or more, or" if count > 1 and lacking == ["val"] else "")
            + " name files with --val"
        )
    if not all(split["tokens"] for split in splits.values()):
        raise RequestError("the tokenizer makes no tokens of this text")


def _sources(text: Inputs, part: Sequence[tuple[int, TextSource]]) -> list[dict[str, Any]]:
    return [
        {**said, **({"domain": text.domains[domain]} if text.domains else {})}
        for domain, source in part
        for said in source.described()
    ]


def _notes(vocabulary: TextTokenizer, entries: int | None) -> Iterator[str]:
    if vocabulary.end is None:
        yield "the tokenizer has neither an end-of-text nor a separator token, so nothing stands between documents"
    if entries is not None and vocabulary.size < entries:
        yield f"the text gave a vocabulary of {vocabulary.size:,}, not {entries:,}"
