"""What a weak teacher costs, by the weight that it begins with and by the temperature.

    python examples/benchmarks/weak_teacher.py BOOK --work DIR [--vocabulary 512 --rate 3e-3 --batch 16] [--seeds 3]

A Llama shape (hidden 128, 4 layers) learns from random weights for 150 steps, alone and taught in the first third of
them by a smaller one (hidden 64, 3 layers) that was trained as long: at weight 1 and temperature 2, held for all steps
and for a third; at weight 1; at the share of the first validation loss that the teacher takes away; at its square; and
as growkit does by default. The loss above what each seed comes to alone. BOOK: a .txt file. One thread, some 20 minutes of it.
"""

import argparse
import json
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table

import growkit

SHAPE = dict(
    architectures=["LlamaForCausalLM"], model_type="llama", num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=256, hidden_act="silu", rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=0,
    eos_token_id=0,
)  # fmt: skip
SIZES = {"large": (128, 4), "small": (64, 3)}
PIECE = 10_000  # characters of a document


def made_ready(book: Path, work: Path, vocabulary: int) -> Path:
    """A dataset of the book, and both models with random weights beside it."""
    text = book.read_text("utf-8")
    (work / "text").mkdir(parents=True)
    for start in range(0, len(text), PIECE):
        (work / "text" / f"{start:09d}.txt").write_text(text[start : start + PIECE], "utf-8")
    data = growkit.tokenize(
        [work / "text"], work / "data", train_tokenizer=vocabulary, val_fraction=0.05, workers=1
    ).folder
    for name, (hidden, layers) in SIZES.items():
        sizes = dict(hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers, vocab_size=vocabulary)
        (work / f"{name}.json").write_text(json.dumps({**SHAPE, **sizes}))
        growkit.init(work / f"{name}.json", work / name)
    return data


def measure(book: Path, work: Path, asked: argparse.Namespace) -> list[tuple[str, list[float]]]:
    """(what, loss above what is reached alone for each seed) of each way to be taught, that of alone itself first."""
    data, steps = made_ready(book, work, asked.vocabulary), asked.steps
    usual: dict[str, Any] = dict(
        steps=steps, seq_len=128, batch_size=asked.batch, lr=asked.rate, warmup=steps // 10, eval_tokens=20_000,
        eval_every=max(1, steps // 15), save_every=10**9, device="cpu", watch=lambda _: None,
    )  # fmt: skip

    def end(name: str, start: Path, **more: Any) -> float:
        return growkit.pretrain(start, data, work / name, **{**usual, **more}).loss or 0.0

    theirs = end("teacher", work / "small")
    teacher: dict[str, Any] = dict(teacher=work / "teacher" / "final")
    alone = [end(f"alone-{seed}", work / "large", seed=seed) for seed in range(asked.seeds)]
    first = growkit.evaluate(work / "large", data, context=128).loss or 1.0
    ways: dict[str, dict[str, Any]] = {
        "1, held, temperature 2": dict(teacher_weight=1.0, temperature=2.0, teacher_steps=steps, teacher_until="steps"),
        "1, temperature 2": dict(teacher_weight=1.0, temperature=2.0),
        "1": dict(teacher_weight=1.0),
        "the share": dict(teacher_weight=max(0.0, 1.0 - theirs / first)),
        "its square": dict(teacher_weight=max(0.0, 1.0 - theirs / first) ** 2),
        "as by default": {},
    }
    rows = [(f"alone (the teacher: {theirs:.3f})", alone)]
    for number, (way, words) in enumerate(ways.items()):
        ends = [
            end(f"taught-{number}-{seed}", work / "large", seed=seed, **teacher, **words) for seed in range(asked.seeds)
        ]
        rows.append((way, [taught - own for taught, own in zip(ends, alone)]))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("book", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="a folder to make")
    parser.add_argument("--vocabulary", type=int, default=512)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    table = Table(box=None)
    for heading in ("first weight", *(f"seed {seed}" for seed in range(asked.seeds)), "mean"):
        table.add_column(heading, justify="right")
    for way, losses in measure(asked.book, asked.work, asked):
        table.add_row(way, *(f"{loss:+.3f}" for loss in losses), f"{mean(losses):+.3f}")
    Console(width=110).print(table)
