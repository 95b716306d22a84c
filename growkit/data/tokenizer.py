"""A tokenizer, found or made: its entries, its special tokens, its hash. Knows the tokenizers and transformers
libraries; ignorant of documents and files of tokens.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growkit.checkpoint.companions import TOKENIZERS
from growkit.checkpoint.same_tokenizer import SETTINGS, stock_tokenizer
from growkit.checkpoint.small_files import read_json
from growkit.checkpoint.source import HUB_ID, from_hub
from growkit.checkpoint.writer import write_json
from growkit.data.tokens import META, TOKENIZER
from growkit.errors import CheckpointError, RequestError, reason_of

END, MASK = "<|endoftext|>", "<|mask|>"
STOCK_CLASS = "PreTrainedTokenizerFast"
OF_TOKENIZERS = ("*.json", "*.txt", "*.model", "*.jinja")  # what is fetched of a hub id
LEAST = 256 + 2  # every byte, and the two special tokens
LONGEST = 1 << 20  # tokens; a tokenizer does not know its model, and transformers would write 10^30


@dataclass(frozen=True, kw_only=True)
class TextTokenizer:
    """What is known of a tokenizer. json: its own, which is all that it is. size: entries, special ones too.

    end: the token that ends a document, mask: the one that hides another; None where there is none.
    """

    source: str
    json: str
    size: int
    end: int | None
    mask: int | None

    @property
    def hash(self) -> str:
        """SHA-256 of the tokenizer's own JSON."""
        return hashlib.sha256(self.json.encode("utf-8")).hexdigest()


def tokenizer_folder(source: str | Path) -> Path | None:
    """Where the tokenizer of a checkpoint or dataset lies; None where it has no file of one."""
    path = Path(source)
    folder = path if path.is_dir() else path.parent
    if (folder / META).is_file() and (folder / TOKENIZER).is_dir():
        folder /= TOKENIZER
    return folder if any((folder / name).is_file() for name in TOKENIZERS) else None


def open_tokenizer(source: str | Path) -> TextTokenizer:
    """The tokenizer of a folder, a dataset that holds its own, or a hub id. Raises CheckpointError where none loads."""
    return described(loaded_tokenizer(source)[0], str(source))


def loaded_tokenizer(source: str | Path) -> tuple[Any, Path]:
    """(what transformers makes of the tokenizer that a name means, the folder it lies in). Raises CheckpointError."""
    path, label = Path(source), str(source)
    if not path.exists():
        if not HUB_ID.fullmatch(label):
            raise CheckpointError(f"{label!r} does not exist; give a folder with a tokenizer, or a hub id")
        path = Path(from_hub(label, OF_TOKENIZERS))
    folder = tokenizer_folder(path)
    if folder is None:
        raise CheckpointError(f"{label!r} has no tokenizer: expected {', '.join(TOKENIZERS[:-1])} or {TOKENIZERS[-1]}")
    try:
        return stock_tokenizer(folder), folder
    except Exception as error:  # transformers raises many kinds; each means that this tokenizer does not load
        raise CheckpointError(f"the tokenizer of {label!r} does not load: {reason_of(error)}") from None


def described(tokenizer: Any, source: str) -> TextTokenizer:
    """What is known of a tokenizer that is loaded. Raises CheckpointError where it is none of the tokenizers
    library."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise CheckpointError(
            f"the tokenizer of {source!r} is a {type(tokenizer).__name__}, which is none of the tokenizers library; save"
            " it as tokenizer.json"
        )
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    size = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    return TextTokenizer(source=source, json=backend.to_str(), size=size, end=end, mask=tokenizer.mask_token_id)


def check_entries(entries: int) -> None:
    """Refuse a vocabulary that cannot be trained."""
    if entries < LEAST:
        raise RequestError(
            f"--train-tokenizer {entries} is too few: {LEAST - 2} bytes and 2 special tokens make {LEAST} before any word"
        )


def new_tokenizer(texts: Iterable[str], entries: int, folder: Path, workers: int) -> TextTokenizer:
    """A byte-level BPE of (at most) so many entries, saved in a folder as AutoTokenizer finds it.

    The special tokens: an end of document, which also stands for a beginning, for padding and, as in GPT-2, for what is
    unknown, though every byte is known; and a mask for masked models.
    """
    os.environ.setdefault("RAYON_NUM_THREADS", str(workers))  # the library reads it when it first needs threads
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    check_entries(entries)
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=entries, special_tokens=[END, MASK], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(iter(texts), trainer)
    stands_for = {f"{kind}_token": END for kind in ("bos", "eos", "unk", "pad")}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, mask_token=MASK, model_max_length=LONGEST, **stands_for
    )
    tokenizer.save_pretrained(folder)
    # transformers 5 writes a name that 4 does not have
    write_json(folder / SETTINGS, {**read_json(folder / SETTINGS), "tokenizer_class": STOCK_CLASS})
    return described(tokenizer, str(folder))
