"""Tokenizers trained on the excerpt, and files of text and of tokens."""

from pathlib import Path

import numpy as np
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from growkit.data import encode

EXCERPT = Path(__file__).parents[1] / "examples" / "text" / "excerpt.txt"


def bpe(normalizer=None, pre_tokenizer=None, entries=400):
    """A byte-level BPE of the excerpt."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer or pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=entries, special_tokens=["<end>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([EXCERPT.read_text("utf-8")[:50_000]], trainer)
    return tokenizer


def split_before(pattern):
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), last])


def wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]", "[SEP]", "[MASK]"])
    tokenizer.train_from_iterator([EXCERPT.read_text("utf-8")[:50_000]], trainer)
    return tokenizer


LLAMA3, QWEN2 = sorted(encode.SPLITS, key=lambda pattern: "{1,3}" not in pattern)


TOKENIZERS = {
    "gpt2": bpe(),
    "llama3": bpe(pre_tokenizer=split_before(LLAMA3)),
    "qwen2": bpe(normalizers.NFC(), split_before(QWEN2)),
    "bert": wordpiece(),
    "t5": bpe(pre_tokenizer=pre_tokenizers.Metaspace()),
    "prefixed": bpe(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)),
}


def wrap(tokenizer, **special):
    copy = Tokenizer.from_str(tokenizer.to_str())
    return transformers.PreTrainedTokenizerFast(tokenizer_object=copy, **special)


def put(name, content):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def header(magic, version, count, width=0):
    return np.array([magic, version, count, width] + [0] * 252, "<i4").tobytes()
