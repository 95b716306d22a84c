"""Documents out of what the `datasets` library reads: names on the hub, folders of save_to_disk, folders of parquet,
JSON, CSV, Arrow or text. Knows that library; ignorant of tokens.

What is on the hub is streamed, nothing of it kept; what save_to_disk wrote is read from the disk as it lies there.
Scripts are never run: the library has stopped to, and formats beyond these are refused.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growkit.checkpoint.small_files import real_path
from growkit.data.text import ROWS, Advance, checked_text, no_key
from growkit.errors import GrowkitError, RequestError, reason_of

FORMATS = ("parquet", "json", "csv", "arrow", "text")  # as the library calls what reads them
SAVED, SAVED_SPLITS = "state.json", "dataset_dict.json"  # what save_to_disk leaves of one split, and of several
DEFAULT = "train"
HINTS = {
    "config": "name one with --config",
    "split": "name one with --split",
    "hub": "check the name and your connection, or log in with hf auth login where it is not for everybody",
}


@dataclass(frozen=True, kw_only=True)
class LibraryRequest:
    """What is asked of the library. names: on the hub, or of folders, each with its tag or without. config: which of
    several a dataset has. split: what trains; None: the usual one. val_split: what validates, if anything."""

    names: tuple[str, ...]
    config: str | None
    split: str | None
    val_split: str | None
    text_key: str

    def __post_init__(self) -> None:
        stray = [key for key in ("config", "split", "val_split") if getattr(self, key) is not None]
        if stray and not self.names:
            raise RequestError(f"--{stray[0].replace('_', '-')} is of a --dataset, and none is given")
        if self.val_split is not None and self.val_split == (self.split or DEFAULT):
            raise RequestError(f"split {self.val_split!r} is both for training and for validation; name another")

    @property
    def splits(self) -> tuple[str | None, ...]:
        """What trains and, if anything, what validates."""
        return (self.split,) if self.val_split is None else (self.split, self.val_split)

    def opened(self, name: str, split: str | None) -> "LibraryText":
        """A split of one of them. Raises RequestError as open_library_text does."""
        return open_library_text(name, self.config, split, self.text_key)


@dataclass(frozen=True)
class LibraryText:
    """One split of a dataset. rows: the library's own, to be read in order. said: what meta.json says of it. paths:
    what of it lies here."""

    rows: Any
    said: dict[str, Any]
    paths: tuple[Path, ...]
    bytes: int | None = None  # nobody knows before all is read

    def documents(self, text_key: str, advance: Advance) -> Iterator[str]:
        """As a TextSource's; bytes are those of text."""
        where, number = _called(self.said), 0
        with _quiet(), _library_errors(where):
            there = self.rows.column_names
            rows = self.rows.select_columns([text_key]) if there and text_key in there else self.rows
            for batch in rows.iter(ROWS):
                if text_key not in batch:
                    raise no_key(text_key, list(there or batch), "every row", where)
                for value in batch[text_key]:
                    number += 1
                    text = checked_text(value, text_key, f"row {number}", where)
                    if text and not text.isspace():
                        advance(len(text) if text.isascii() else len(text.encode("utf-8")))
                        yield text

    def described(self) -> list[dict[str, Any]]:
        """What meta.json says of it."""
        return [self.said]


def open_library_text(name: str, config: str | None, split: str | None, text_key: str) -> LibraryText:
    """A split of a dataset: a name on the hub, or a folder. config: which of several it has. split: default train.

    Raises RequestError where the library is missing, or says that there is nothing of the kind.
    """
    try:
        import datasets  # noqa: F401
    except ImportError:
        raise RequestError("--dataset needs an extra: pip install 'growkit[datasets]'") from None
    folder = Path(name)
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"--dataset {name!r} is a file; give files as INPUT, and here a folder or a name on the hub")
    with _quiet(), _library_errors(name):
        saved = folder.is_dir() and ((folder / SAVED).exists() or (folder / SAVED_SPLITS).exists())
        if saved and config is not None:
            raise RequestError(f"--config {config!r} is for names on the hub; {name!r} was saved without any")
        source = _saved(folder, split) if saved else _streamed(name, config, split or DEFAULT, text_key)
    there = source.rows.column_names
    if there and text_key not in there:
        raise no_key(text_key, there, "every row", _called(source.said))
    return source


def _saved(folder: Path, split: str | None) -> LibraryText:
    """What save_to_disk wrote."""
    from datasets import DatasetDict, load_from_disk

    rows = load_from_disk(str(folder))
    only = DEFAULT if split is None else split
    if isinstance(rows, DatasetDict):
        if only not in rows:
            raise RequestError(f"{str(folder)!r} has no split {only!r}; name one of {', '.join(rows)} with --split")
        rows = rows[only]
    elif split not in (None, str(rows.split)):
        raise RequestError(f"{str(folder)!r} holds one split, saved by itself; leave --split {split} out")
    _check_own(str(folder), [entry["filename"] for entry in rows.cache_files], str(folder))
    return LibraryText(rows, {"dataset": str(folder), "split": only}, (folder,))


def _streamed(name: str, config: str | None, split: str, text_key: str) -> LibraryText:
    """What is read as it comes: files of a folder, or of the hub."""
    from datasets import load_dataset_builder
    from huggingface_hub.utils import validate_repo_id

    here = Path(name).is_dir()
    if not here:
        try:
            validate_repo_id(name)
        except ValueError as error:
            raise RequestError(f"--dataset {name!r} is no folder, and no name on the hub: {reason_of(error)}") from None
    # a whole path is never taken for a name on the hub, nor for the name of a format
    builder = load_dataset_builder(os.path.abspath(name) if here else name, config)
    kind = type(builder).__module__.rpartition(".")[2]
    files = [str(file) for files in (builder.config.data_files or {}).values() for file in files]
    if not here and name == kind:  # which the library would read the current folder as
        raise RequestError(f"--dataset {name!r} is a format and no name on the hub; give a folder, or OWNER/NAME")
    if kind not in FORMATS or not files:
        raise RequestError(f"{name!r} is no text that growkit reads ({kind}); it reads {', '.join(FORMATS)}")
    _check_own(name, files, os.path.abspath(name) if here else None)
    rows = builder.as_streaming_dataset(split=split)
    if kind == "parquet" and text_key in (rows.column_names or ()):  # no other column is fetched, and few rows at once
        builder.config.columns, builder.config.batch_size = [text_key], ROWS
        builder.config.fragment_scan_options = _unhurried()
        rows = builder.as_streaming_dataset(split=split)
    said = {"dataset": name, "config": builder.config.name, "split": split}
    return LibraryText(rows, said if here else {**said, "revision": builder.hash}, (Path(name),) if here else ())


def _unhurried() -> Any:
    """How Arrow reads parquet without fetching ahead, which keeps all that was read of a file until its end."""
    from pyarrow.dataset import ParquetFragmentScanOptions

    return ParquetFragmentScanOptions(pre_buffer=False)


def _check_own(name: str, files: list[str], folder: str | None) -> None:
    """Refuse files that are not the dataset's own, which what lies in it may name. folder: where it lies; None: hub."""
    for file in files:
        if folder is None:
            own = file.startswith(f"hf://datasets/{name}@") and ".." not in file.split("/")
        else:
            own = real_path(Path(folder)) in real_path(Path(file)).parents
        if not own:
            raise RequestError(f"{name!r} names {file!r}, which is none of its own files; put a copy there")


def _called(said: dict[str, Any]) -> str:
    return f"{said['dataset']}, {said['split']}"


@contextmanager
def _library_errors(name: str) -> Iterator[None]:
    """Say in one sentence what the library cannot do."""
    try:
        yield
    except GrowkitError:
        raise
    except Exception as error:  # it raises many kinds, those of pandas, Arrow and HTTP among them
        reason = " ".join(str(error).split("Example of usage")[0].split()) or type(error).__name__
        lost = isinstance(error, ConnectionError) or type(error).__name__ == "DatasetNotFoundError"
        kind = "hub" if lost else next((key for key in ("config", "split") if key in reason.lower()), "")
        raise RequestError(
            f"{name!r} cannot be read by datasets: {reason.rstrip('.')}{'; ' * bool(kind)}{HINTS.get(kind, '')}"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Let the library, and the hub's client below it, neither draw bars nor write lines of their own for a while."""
    import datasets
    from huggingface_hub.utils import logging as hub

    bars, levels = datasets.are_progress_bars_disabled(), [log.get_verbosity() for log in (datasets.logging, hub)]
    datasets.disable_progress_bars()
    for log in (datasets.logging, hub):
        log.set_verbosity(log.CRITICAL)
    try:
        yield
    finally:
        for log, level in zip((datasets.logging, hub), levels):
            log.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()
