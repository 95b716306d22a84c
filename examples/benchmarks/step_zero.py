"""Step zero: the loss of a grown model on held-out text before any training, by method of growth in width and in depth.

    python examples/benchmarks/step_zero.py --work DIR [--corpus FOLDER] [--model a bert] [--train-steps 50]

The sources are the models of small_models.py, trained into DIR where they are not there. A row is a way to double the
width (or to leave it), a column a way to double the depth (or to leave it); "random" is the largest shape of its
column, freshly initialised by stock transformers. Figures are nats per token.

The lines under the table hold it against what the literature reports: fpi alone gives the source's loss, aki a higher
one, a random start the highest; interleaved layers start below stacked ones; identity layers give the source's loss
where blocks are pre-norm. A line may say NO: these sources are small, shallow and trained briefly. With --train-steps
every start is then trained for so many steps on the same batches, to see how far the order at step zero lasts.
"""

import tempfile
from pathlib import Path

import torch
import transformers
from small_models import (
    held_out,
    load,
    loss_of,
    options,
    pieces,
    predictor,
    quiet,
    small_model,
    tokenizer_in,
    tokens_of,
    train,
)

import growkit

WIDTHS = {"source": {}, "fpi x2": dict(method="fpi"), "aki x2": dict(method="aki"), "random": None}
DEPTHS = ("none", "stack", "interleave", "identity")


def start(source: Path, target: Path, width: dict | None, depth: str) -> transformers.PreTrainedModel:
    """The source, grown in width and depth; a width of None is a random start of the shape that doubles both."""
    config = transformers.AutoConfig.from_pretrained(source)
    request = {} if depth == "none" else dict(layers=2 * config.num_hidden_layers, depth=depth)
    if width != {}:
        request |= dict(hidden=2 * config.hidden_size, **(width or {}))
    model = load(growkit.grow(source, target, force=True, **request).folder if request else source)
    if width is None:
        torch.manual_seed(0)
        return type(model)(model.config).eval()
    return model


def show(title: str, table: dict[str, list[float]]) -> None:
    print(f"\n{title}\n\n| width | depth: none | stack x2 | interleave x2 | identity x2 |\n|---" + "|---" * 4 + "|")
    for row, losses in table.items():
        print(f"| {row} | " + " | ".join(f"{loss:.4f}" for loss in losses) + " |", flush=True)


def pattern(losses: dict[str, list[float]], post_norm: bool) -> None:
    """Whether the published order holds in the table."""
    source, fpi, aki, random = losses.values()
    claims = {
        "fpi x2 gives the source's loss": abs(fpi[0] - source[0]) < 1e-3,
        "aki x2 starts above fpi x2 and below random": fpi[0] < aki[0] < random[0],
        "interleaved layers start below stacked ones": all(row[2] < row[1] for row in (source, fpi)),
    }
    if not post_norm:
        claims["identity layers give the source's loss"] = all(abs(row[3] - source[0]) < 1e-3 for row in (source, fpi))
    print()
    for claim, holds in claims.items():
        print(f"- {claim}: {'yes' if holds else 'NO'}")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--model", nargs="+", default=["a", "bert"], choices=["a", "b", "bert"], help="sources")
    parser.add_argument("--tokens", type=int, default=100_000, help="tokens of held-out text")
    parser.add_argument("--train-steps", type=int, default=0, help="train every start for so many steps")
    arguments = parser.parse_args()
    quiet()
    sequences = held_out(arguments.work, arguments.corpus, arguments.tokens)
    for name in arguments.model:
        source = small_model(name, arguments.work, arguments.corpus, arguments.steps)
        before: dict[str, list[float]] = {row: [] for row in WIDTHS}
        after: dict[str, list[float]] = {row: [] for row in WIDTHS}
        steps = arguments.train_steps
        text = tokens_of(tokenizer_in(arguments.work, arguments.corpus), pieces(arguments.corpus)[0]) if steps else None
        with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
            for row, width in WIDTHS.items():
                for depth in DEPTHS:
                    if width is None and depth in DEPTHS[2:]:  # the shape of the column before
                        for table in (before, after) if steps else (before,):
                            table[row].append(table[row][-1])
                        continue
                    model = start(source, Path(folder) / "grown", width, depth)
                    before[row].append(loss_of(predictor(model), sequences))
                    if text is not None:
                        train(model, text, steps, 1e-3, seed=4)
                        after[row].append(loss_of(predictor(model), sequences))
        show(f"{name}: loss at step 0 on {sequences.numel():,} tokens", before)
        pattern(before, post_norm=name == "bert")
        if steps:
            show(f"{name}: loss after {steps} steps on the same batches", after)


if __name__ == "__main__":
    main()
