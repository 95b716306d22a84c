"""`growkit tokenize`: a dataset of text."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

from growkit import limits
from growkit.api import words as w
from growkit.api.option import Argument, Callback, Option
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.data.tokenize import Dataset

TEXT, DATASETS, CHAT = "Text", "Datasets of the library of that name", "Conversations"
SPLITS = "Training and validation"
Inputs = Annotated[
    w.PathLike | Sequence[w.PathLike] | None,
    Argument(
        "Files (.txt, .jsonl, .jsonl.gz, .parquet), folders of them, patterns; name=PATH tags a domain.",
        "INPUT...",
        may_lack=True,
    ),
]
Tokenizer = Annotated[
    w.PathLike | None,
    Option(help="Whose tokenizer: a checkpoint, a folder, a dataset or a hub id.", panel=TEXT, metavar="CKPT"),
]
Begin = Annotated[
    Callable[[str, int], Callable[[int], None]],
    Callback(
        "Called with what is done and how many bytes it takes, 0 where nobody knows; returns what is called with bytes"
        " that were read."
    ),
]


def _quiet(_what: str, _size: int) -> Callable[[int], None]:
    return lambda _read: None


@public
def tokenize(
    inputs: Inputs,
    out: Annotated[w.PathLike, Option(help="Folder to make.", panel=w.OUTPUT, metavar="DATA", flags=("-o", "--out"))],
    tokenizer: Tokenizer = None,
    *,
    train_tokenizer: Annotated[
        int | None,
        Option(
            help="Instead: a new byte-level BPE of N entries, trained on the training text.",
            panel=TEXT,
            metavar="N",
            within=(1, limits.AXIS),
        ),
    ] = None,
    text_key: Annotated[
        str, Option(help="Where JSON lines, parquet and datasets hold the text.", panel=TEXT, metavar="KEY")
    ] = "text",
    dataset: Annotated[
        str | Sequence[str] | None,
        Option(
            help="Text of the Hugging Face library datasets: a name on the hub, which is streamed, or a folder; again for"
            " more.",
            panel=DATASETS,
            metavar="NAME",
        ),
    ] = None,
    config: Annotated[
        str | None, Option(help="Which of several a dataset has.", panel=DATASETS, metavar="CONFIG")
    ] = None,
    split: Annotated[
        str | None, Option(help="The split to read; default train.", panel=DATASETS, metavar="SPLIT")
    ] = None,
    val_split: Annotated[str | None, Option(help="A split that validates.", panel=DATASETS, metavar="SPLIT")] = None,
    chat: Annotated[
        bool,
        Option(
            help="The JSON lines are conversations (messages, prompt and completion, or instruction and output), of which"
            " the assistant's turns alone are learned.",
            panel=CHAT,
        ),
    ] = False,
    template: Annotated[
        w.PathLike | None,
        Option(
            help="A chat template instead of the tokenizer's own: a file of Jinja, or chatml.",
            panel=CHAT,
            metavar="FILE|chatml",
        ),
    ] = None,
    val_fraction: Annotated[
        float,
        Option(
            help="Share of the documents, of each domain, that validate, drawn by the seed.",
            panel=SPLITS,
            metavar="F",
            within=(0, 1),
        ),
    ] = 0.0,
    val: Annotated[
        w.PathLike | Sequence[w.PathLike] | None,
        Option(help="Instead: what validates; may be given several times.", panel=SPLITS, metavar="INPUT"),
    ] = None,
    seed: Annotated[
        int, Option(help="For the documents that validate.", panel=SPLITS, metavar="S", within=limits.SEEDS)
    ] = 0,
    workers: Annotated[
        int | None,
        Option(help="Processes; default as many as there are cores.", panel=w.OUTPUT, metavar="N", within=(1, 1024)),
    ] = None,
    force: Annotated[bool, Option(help="Replace a dataset that is there.", panel=w.OUTPUT)] = False,
    begin: Begin = _quiet,
) -> "Dataset":
    """Make a dataset of text: token ids as flat files, for training and eval.

    inputs: .txt, .jsonl, .jsonl.gz and .parquet files, folders of them and patterns, all tagged with their domain as
    name=PATH or none. dataset: names on the hub, or folders of save_to_disk, parquet, JSON or CSV, tagged likewise.
    out: the folder to make. tokenizer: a checkpoint, a folder, a dataset or a hub id; or train_tokenizer, entries of a
    new one. The same text gives the same bytes with any number of workers.

    Returns a Dataset: .folder, .meta, .notes. Raises RequestError or CheckpointError, having written nothing.
    """
    from growkit.data.tokenize import tokenize as make

    return make(
        inputs, out, tokenizer, dataset=dataset, config=config, split=split, val_split=val_split,
        train_tokenizer=train_tokenizer, val_fraction=val_fraction, val=val or (), text_key=text_key, chat=chat,
        template=template, workers=workers, seed=seed, force=force, begin=begin,
    )  # fmt: skip
