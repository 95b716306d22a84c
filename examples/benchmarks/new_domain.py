"""A larger model learns a new domain with a small teacher of it: what it gains there, and what it forgets.

    python examples/benchmarks/new_domain.py BOOKS DOCS --work DIR [--seed S] [--steps 150]

Domain adaptation as in knowledge inheritance (Qin et al., arXiv 2105.13880). A Llama shape (hidden 96, 4 layers, a BPE
vocabulary of 1024) is trained on BOOKS, a small one (hidden 48, 2 layers) on DOCS. Then the larger one goes on, on DOCS
alone and on as much of each, without a teacher and with the small one (at temperature 1, and at growkit's usual 2), and
on the mixture with both: the small one for DOCS and the model as it was for BOOKS. `growkit report` tells both sides.
BOOKS, DOCS: .txt or .jsonl files, or folders of them; of each so much of the beginning is used as --characters says.
One thread, some five minutes of it.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table

import growkit
from growkit.data.text import documents, find_files

VOCABULARY, LARGE, SMALL = 1024, (96, 4), (48, 2)
RUN: dict[str, Any] = dict(seq_len=128, batch_size=8, eval_every=25, eval_tokens=32_768, save_every=10**9, lr=3e-3)
BEGUN: dict[str, Any] = dict(steps=300, warmup=20)  # of the larger model on books
ADAPTING: dict[str, Any] = dict(lr=1e-3, warmup=10)
SHARP, SOFT = 1.0, 2.0  # temperatures
PIECE = 8000  # characters of a document


def texts(given: Path, characters: int, folder: Path) -> tuple[Path, Path]:
    """The beginning of a text as (files to train on, files to validate on), in documents of some length."""
    parts = folder / "train", folder / "val"
    for part in parts:
        part.mkdir(parents=True)
    text = ""
    for document in documents(find_files([given])):
        text += document[: characters - len(text)] + "\n"
        if len(text) >= characters:
            break
    for number, start in enumerate(range(0, len(text), PIECE)):
        (parts[number % 20 == 19] / f"{number:06d}.txt").write_text(text[start : start + PIECE], "utf-8")
    return parts


def blank(sizes: tuple[int, int], data: Path, seed: int, folder: Path) -> Path:
    """A Llama shape of (hidden, layers) without training."""
    hidden, layers = sizes
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
        num_attention_heads=hidden // 12, num_key_value_heads=hidden // 24, max_position_embeddings=128,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(seed)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    shutil.copytree(data / "tokenizer", folder, dirs_exist_ok=True)
    return folder


def measure(books: Path, docs: Path, work: Path, characters: int, seed: int, steps: int) -> list[Path]:
    """The runs that adapt, carried out; those that are there are taken as they are."""
    read = {"books": texts(books, characters, work / "books"), "docs": texts(docs, characters, work / "docs")}
    val = [f"{name}={parts[1]}" for name, parts in read.items()]
    train = {name: f"{name}={parts[0]}" for name, parts in read.items()}
    mixed = growkit.tokenize(
        list(train.values()), work / "mixed", train_tokenizer=VOCABULARY, val=val, workers=1
    ).folder
    data = {"mixed": mixed}
    for name, own in train.items():
        data[name] = growkit.tokenize([own], work / f"on-{name}", mixed, val=val, workers=1).folder
    quiet: dict[str, Any] = dict(device="cpu", seed=seed, watch=lambda _: None)
    made = {}
    for name, domain, sizes in (("large", "books", LARGE), ("small", "docs", SMALL)):
        begun = blank(sizes, mixed, seed, work / f"{name}-blank")
        longer = {**BEGUN, "steps": 2 * BEGUN["steps"]} if name == "small" else BEGUN
        made[name] = growkit.pretrain(begun, data[domain], work / name, **RUN, **longer, **quiet).folder
    runs = []
    of_docs, of_both = [f"docs={made['small']}"], [f"docs={made['small']}", f"books={made['large']}"]
    for name, domain, teachers, temperature in (
        ("docs-alone", "docs", None, SHARP),
        ("docs-taught", "docs", of_docs, SHARP),
        ("docs-taught-at-2", "docs", of_docs, SOFT),
        ("mixed-alone", "mixed", None, SHARP),
        ("mixed-taught", "mixed", of_docs, SHARP),
        ("mixed-taught-both", "mixed", of_both, SHARP),
    ):
        taught = {} if teachers is None else {"teacher": teachers, "teacher_steps": steps, "temperature": temperature}
        asked = {**RUN, **ADAPTING, **quiet, **taught, "seed": seed + 1000}
        growkit.pretrain(made["large"], data[domain], work / name, steps=steps, **asked)
        runs.append(work / name)
    return runs


def show(work: Path, runs: list[Path]) -> None:
    """What `growkit report` says of the domains, of runs on the same data side by side."""
    for kind in ("docs", "mixed"):
        own = [run for run in runs if run.name.startswith(kind)]
        made = growkit.report(own, work / f"report-{kind}")
        title, headings, rows = made.tables()[-1]
        table = Table(box=None, title=f"{title}; {kind}", title_justify="left")
        for heading in headings:
            table.add_column(heading, justify="right")
        for row in rows:
            table.add_row(*(Path(cell).parent.name if "/" in cell else cell for cell in row))
        Console(width=110).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("books", type=Path)
    parser.add_argument("docs", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="a folder to make")
    parser.add_argument("--characters", type=int, default=4_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=150)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    show(asked.work, measure(asked.books, asked.docs, asked.work, asked.characters, asked.seed, asked.steps))
