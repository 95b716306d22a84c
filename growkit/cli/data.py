"""The commands around training: tokenize, init, eval. Knows options; everything else is the library's."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from growkit.cli.app import app, people_errors
from growkit.cli.options import AsJson, option

TEXT, SPLITS, OUTPUT = "Text", "Training and validation", "Output"
TextKey = Annotated[str, typer.Option(metavar="KEY", help="Where JSON lines and parquet hold the text.")]


@app.command()
def tokenize(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Files (.txt, .jsonl, .jsonl.gz, .parquet), folders of them, patterns.")],
    out: Annotated[Path, option(OUTPUT, "DATA", "Folder to make.", "-o", "--out")],
    tokenizer: Annotated[Optional[str], option(TEXT, "CKPT", "Whose tokenizer: a checkpoint, a folder, a dataset or a hub id.")] = None,
    train_tokenizer: Annotated[Optional[int], option(TEXT, "N", "Instead: a new byte-level BPE of N entries, trained on the training text.")] = None,
    text_key: Annotated[str, option(TEXT, "KEY", "Where JSON lines and parquet hold the text.")] = "text",
    val_fraction: Annotated[float, option(SPLITS, "F", "Share of the documents that validate, drawn by the seed.")] = 0.0,
    val: Annotated[Optional[list[str]], option(SPLITS, "INPUT", "Instead: what validates; may be given several times.")] = None,
    seed: Annotated[int, option(SPLITS, "S", "For the documents that validate.")] = 0,
    workers: Annotated[Optional[int], option(OUTPUT, "N", "Processes; default as many as there are cores.", min=1)] = None,
    force: Annotated[bool, option(OUTPUT, None, "Replace a dataset that is there.", "--force")] = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Make a dataset of text: token ids as flat files, for training and eval."""
    with people_errors("interrupted; nothing was kept"):
        from growkit.cli import show_data
        from growkit.data.tokenize import tokenize as make

        with show_data.bars(as_json) as begin:
            made = make(
                inputs, out, tokenizer, train_tokenizer=train_tokenizer, val_fraction=val_fraction, val=val or (),
                text_key=text_key, workers=workers, seed=seed, force=force, begin=begin,
            )  # fmt: skip
        show_data.dataset(made, as_json)


@app.command()
def init(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A config.json, a checkpoint (its tokenizer comes along) or a hub id.")],
    out: Annotated[Path, option(OUTPUT, "OUT", "Folder to make.", "-o", "--out")],
    seed: Annotated[int, typer.Option(metavar="S", help="For the weights.")] = 0,
    dtype: Annotated[Optional[str], typer.Option(metavar="TYPE", help="Store as float64, float32, bfloat16 or float16; default as the config says.")] = None,
    force: Annotated[bool, option(OUTPUT, None, "Replace a checkpoint that is there.", "--force")] = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Make a checkpoint with random weights: the model from scratch that growing is compared with."""
    with people_errors("interrupted; nothing was kept"):
        from growkit.cli import show_data
        from growkit.models.init import init as make

        show_data.initialised(make(config, out, seed=seed, dtype=dtype, force=force), as_json)


@app.command("eval")
def evaluate(
    checkpoint: Annotated[str, typer.Argument(metavar="CKPT", help="A folder, a .safetensors file or a hub id.")],
    data: Annotated[str, typer.Option(metavar="DATA|TEXT", help="A dataset of growkit tokenize, a .bin file of tokens, or text.")],
    split: Annotated[str, typer.Option(metavar="train|val", help="Which part of a dataset.")] = "val",
    context: Annotated[Optional[int], typer.Option(metavar="N", min=1, help="Tokens in a window; default the model's positions, at most 1024.")] = None,
    stride: Annotated[Optional[int], typer.Option(metavar="N", min=1, help="Tokens from a window to the next; default the context. Fewer give each token more context.")] = None,
    batch_size: Annotated[Optional[int], typer.Option(metavar="N", min=1, help="Windows at a time; default what takes 256 MB of logits.")] = None,
    limit: Annotated[Optional[int], typer.Option(metavar="TOKENS", min=1, help="Predict about so many tokens, spread evenly over the data.")] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")] = "auto",
    text_key: TextKey = "text",
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Measure how well a model predicts text: nats per token, perplexity, bits per byte; masked models: loss and accuracy."""
    with people_errors():
        from growkit.cli import show_data
        from growkit.models.evaluate import evaluate as measure

        with show_data.bar("evaluating", as_json) as begin:
            found = measure(
                checkpoint, data, split=split, context=context, stride=stride, batch_size=batch_size, limit=limit,
                device=device, text_key=text_key, begin=begin,
            )  # fmt: skip
        show_data.evaluation(found, as_json)
