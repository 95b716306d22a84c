"""Should the learning rate rise anew after growth? Losses by warm-up, with the grown AdamW state and with a fresh one.

    python examples/benchmarks/rewarm.py CORPUS [--seed S] [--steps 80]

Trains a Llama shape (hidden 64, 3 layers, a BPE vocabulary of 1024 of the corpus) and grows what is left, rates fallen
to a tenth: twice as wide by FPI and by AKI, and twice as deep; each is trained on at the source's peak rate and at a
third of it, over other batches. Validation, nats per token, after some steps and at the end; "spike": how far a
training loss of steps 2 to 10 lies above what the grown model had on that batch before it learned. CORPUS: a folder of
.txt files, or one; so much of its beginning is used as --characters says. One thread, some six minutes of it.
"""

import argparse
import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table

import growkit

SHAPE = dict(
    vocab_size=1024, hidden_size=64, intermediate_size=192, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
)  # fmt: skip
PEAK, RUN = 3e-3, dict(seq_len=128, batch_size=4, eval_tokens=8192, save_every=10**9)
WARMUPS, RATES, SHOWN, EARLY = (0.0, 0.04, 0.1, 0.25), (1.0, 1 / 3), (0.125, 0.25, 0.5, 1.0), 10
GROWN = {
    "widen fpi": (growkit.widen, dict(hidden=128)),
    "widen aki": (growkit.widen, dict(hidden=128, method="aki")),
    "stack": (growkit.stack, dict(layers=6)),
}


def dataset(corpus: Path, characters: int, work: Path) -> Path:
    """The corpus' beginning as tokens of a new vocabulary, in documents of 10,000 characters."""
    files = [corpus] if corpus.is_file() else sorted(corpus.rglob("*.txt"))
    text, folder = "", work / "text"
    for file in files:
        text += file.read_text("utf-8")[: characters - len(text)]
    folder.mkdir()
    for start in range(0, len(text), 10_000):
        (folder / f"{start:09d}.txt").write_text(text[start : start + 10_000], "utf-8")
    growkit.tokenize([folder], out=work / "data", train_tokenizer=SHAPE["vocab_size"], val_fraction=0.05)
    return work / "data"


def losses(checkpoint: Path, data: Path, run: Path, steps: int, **more: Any) -> tuple[list[float], dict[int, float]]:
    """(training loss of each step, validation losses by step) of a run."""
    train, val = [], {}

    def watch(line: dict[str, Any]) -> None:
        if line["kind"] == "train":
            train.append(line["loss"])
        elif line["kind"] == "val":
            val[line["step"]] = line["loss"]

    growkit.pretrain(checkpoint, data, run, steps=steps, watch=watch, **{**RUN, **more})
    return train, val


def measure(corpus: Path, characters: int, seed: int, steps: int) -> list[dict[str, Any]]:
    """One row for each growth, state, rate and warm-up."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        work = Path(folder)
        data = dataset(corpus, characters, work)
        torch.manual_seed(seed)
        transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE)).save_pretrained(work / "init")
        source = dict(lr=PEAK, warmup=20, eval_every=200, seed=seed)
        _, val = losses(work / "init", data, work / "source", 200, **source)
        rows.append({"growth": "source", "val": val})
        for name, (grow, sizes) in GROWN.items():
            for state in (True, False):
                grown = work / f"{name}-{state}"
                moments = work / "source" / "final" / "optimizer" / "optimizer.safetensors" if state else None
                grow(work / "source" / "final", grown, optimizer=moments, verify=False, seed=seed, **sizes)
                usual = dict(eval_every=max(1, int(steps * SHOWN[0])), seed=seed + 1000)
                before, _ = losses(grown, data, work / f"{name}-{state}-0", EARLY, **{**usual, "lr": 0.0})
                for rate in RATES:
                    for share in WARMUPS:
                        run = work / f"{name}-{state}-{rate}-{share}"
                        warmup = round(share * steps)
                        train, val = losses(grown, data, run, steps, lr=PEAK * rate, warmup=warmup, **usual)
                        spike = max(after - first for after, first in zip(train[1:EARLY], before[1:]))
                        row = {"growth": name, "state": state, "rate": rate, "warmup": warmup, "spike": spike}
                        rows.append({**row, "before": before[0], "val": val})
    return rows


def show(rows: list[dict[str, Any]], steps: int) -> None:
    """A table for people."""
    table = Table(box=None, title=f"source: {next(iter(rows[0]['val'].values())):.3f}", title_justify="left")
    for heading in ("growth", "AdamW", "peak", "warm-up", "spike", *(f"step {int(steps * share)}" for share in SHOWN)):
        table.add_column(heading, justify="left" if heading in ("growth", "AdamW") else "right")
    for row in rows[1:]:
        figures = [row["spike"], *(row["val"][int(steps * share)] for share in SHOWN)]
        words = ["grown" if row["state"] else "fresh", f"{PEAK * row['rate']:.0e}", str(row["warmup"])]
        table.add_row(row["growth"], *words, *(f"{figure:.3f}" for figure in figures))
    Console(width=110).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--characters", type=int, default=2_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=80)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    found = measure(asked.corpus, asked.characters, asked.seed, asked.steps)
    show(found, asked.steps)
