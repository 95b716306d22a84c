"""Fusion: the loss on held-out text of two models, of their averages, and of every way to make one model of them.

    python examples/benchmarks/fuse.py --work DIR [--corpus FOLDER]

The two are a and b of small_models.py, trained into DIR where they are not there: one shape, one tokenizer, each its
own seed and half of the text. "averaged": the mean of their logits, or of their probabilities, from both models at
work. "largest difference": of the logits from the averaged ones, relative to the largest of those. No fused model is
trained. The last row is a check: a model side by side with itself must be itself.
"""

import tempfile
from pathlib import Path

import torch
import transformers
from small_models import Predict, held_out, load, loss_of, options, predictor, quiet, small_model

import growkit


def average(one: Predict, other: Predict) -> Predict:
    return lambda ids: (one(ids) + other(ids)) / 2


def average_of_probabilities(one: Predict, other: Predict) -> Predict:
    return lambda ids: ((one(ids).softmax(-1) + other(ids).softmax(-1)) / 2).log()


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--tokens", type=int, default=100_000, help="tokens of held-out text")
    arguments = parser.parse_args()
    quiet()
    sequences = held_out(arguments.work, arguments.corpus, arguments.tokens)
    a, b = (small_model(name, arguments.work, arguments.corpus, arguments.steps) for name in ("a", "b"))
    models = {name: load(folder) for name, folder in (("a", a), ("b", b))}
    one, other = (predictor(model) for model in models.values())
    layers = 2 * models["a"].config.num_hidden_layers
    averaged = average(one, other)
    print(f"{sequences.numel():,} tokens of held-out text; nats per token\n")
    print("| model | layers | hidden | loss | largest difference |\n|---" + "|---" * 4 + "|")

    def row(name: str, predict: Predict, shape: str, reference: Predict | None) -> None:
        loss, difference = loss_of(predict, sequences), ""
        if reference is not None:
            with torch.no_grad():
                wanted, given = (p(sequences[:32]) for p in (reference, predict))
            difference = f"{((wanted - given).abs().max() / wanted.abs().max()).item():.1e}"
        print(f"| {name} | {shape} | {loss:.4f} | {difference} |", flush=True)

    def size(model: transformers.PreTrainedModel) -> str:
        return f"{model.config.num_hidden_layers} | {model.config.hidden_size}"

    for name, model in models.items():
        row(name, predictor(model), size(model), None)
    row("averaged logits", averaged, " | ", averaged)
    row("averaged probabilities", average_of_probabilities(one, other), " | ", None)
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        target = Path(folder) / "fused"
        for mode in ("side-by-side", "fpi", "aki"):
            model = load(growkit.fuse([a, b], target, mode=mode, force=True).folder)
            row(f"fused {mode}", predictor(model), size(model), averaged)
        for method in ("stack", "interleave"):
            model = load(growkit.stack([a, b], target, layers=layers, method=method, force=True).folder)
            row(f"layers of a and b: {method}", predictor(model), size(model), averaged)
        model = load(growkit.fuse([a, a], target, mode="side-by-side", force=True).folder)
        row("a side by side with a", predictor(model), size(model), one)


if __name__ == "__main__":
    main()
