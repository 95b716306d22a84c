"""A small model trained on the beginnings of books, for the benchmarks beside this file to tune."""

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers

import growkit

SHAPE: dict[str, Any] = dict(
    vocab_size=2048, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
)  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ message['content'] + '\\n=' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
CHARACTERS = 200_000  # of each book that are used
BASE: dict[str, Any] = dict(seq_len=128, batch_size=16, lr=3e-3, eval_every=200, eval_tokens=20_000, save_every=10**9)


def base_model(books: Path, work: Path, steps: int) -> Path:
    """The dense model, and the tokenizer's dataset in work/books; what is there already stays."""
    if not (work / "books").exists():
        text = "\n\n".join(file.read_text("utf-8")[:CHARACTERS] for file in sorted(books.rglob("*.txt")))
        parts = work / "books.txt", work / "books-val.txt"
        for part, own in zip(parts, (text[: -len(text) // 20], text[-len(text) // 20 :])):
            part.write_text(own, "utf-8")
        growkit.tokenize([parts[0]], work / "books", train_tokenizer=SHAPE["vocab_size"], val=[parts[1]])
    run = work / "base"
    if not (run / "final").exists():
        shutil.rmtree(run, ignore_errors=True)
        torch.manual_seed(0)
        blank = work / "blank"
        transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE)).save_pretrained(blank)
        shutil.copytree(work / "books" / "tokenizer", blank, dirs_exist_ok=True)
        done = growkit.pretrain(blank, work / "books", run, steps=steps, device="cpu", **BASE)
        print(f"the base: {done.loss:.4f} nats per token of books", flush=True)
    return run / "final"
