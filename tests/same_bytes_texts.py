"""Tokenizers, stages and made-up runs for same_bytes_sources.py."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import transformers

STAGES = """
[[stage]]
name = "low"
steps = 3
train_top = 1
[[stage]]
steps = 3
layers = 5
depth = "identity"
lr = 0.5
warmup = 2
[[stage]]
steps = 2
sub_layers = 2
"""


def byte_pairs(text: str) -> transformers.PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        [text], trainers.BpeTrainer(vocab_size=400, special_tokens=["<end>"], initial_alphabet=alphabet)
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")


def word_pieces(text: str) -> transformers.PreTrainedTokenizerFast:
    """BERT's kind, of frequent words and letters: training one would break ties differently in each process."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    special, letters = ["[UNK]", "[PAD]", "[SEP]", "[MASK]"], [*"abcdefghijklmnopqrstuvwxyz0123456789.,;:!?-'\""]
    count = Counter(re.findall("[a-z]{2,}", text.lower()))
    words = sorted(count, key=lambda word: (-count[word], word))[:200]
    entries = [*special, *letters, *(f"##{letter}" for letter in letters), *words]
    made = Tokenizer(models.WordPiece({entry: n for n, entry in enumerate(entries)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    names = dict(unk_token="[UNK]", pad_token="[PAD]", sep_token="[SEP]", mask_token="[MASK]")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names)


def vocabulary(folder: Path, words: list[str]) -> None:
    """Give a model a tokenizer.json that says these words in this order."""
    model = {"type": "WordLevel", "vocab": {word: number for number, word in enumerate(words)}}
    (folder / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": []}))


def made_up_run(folder: Path, losses: list[float], flops: float, seconds: float, experts: bool) -> None:
    """What pretrain would have left of a run of 100 steps between validations."""
    folder.mkdir()
    settings = {"steps": 100 * len(losses), "seq_len": 128, "hashes": {"data": "abc", "tokens": 9}}
    (folder / "run.json").write_text(json.dumps({"growkit": "0", "settings": settings}))
    lines: list[dict[str, Any]] = [{"kind": "note", "text": "begun"}]
    for number, loss in enumerate(losses, start=1):
        spent = {"step": 100 * number, "flops": 1e9 * flops * number, "elapsed_s": 100 * seconds * number}
        routed = {"expert_load": [[1.5, 0.5], [1.0, 1.0]], "router_entropy": [0.5, 0.6], "dead_experts": []}
        lines += [{"kind": "train", "loss": loss + 0.1, **spent}]
        lines += [{"kind": "val", "loss": loss, **spent, **(routed if experts else {})}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
