"""The models that the GPU's benchmark trains, and the settings of their runs. Data, and nothing else."""

from dataclasses import dataclass
from typing import Any

from on_gpu.bed import Bed

SKIPPED = 5  # first steps, which compile and warm up


@dataclass(frozen=True)
class Shape:
    """A stock config; tokens in a row, rows in a step."""

    config: dict[str, Any]
    length: int
    rows: int


def gpt2(hidden: int, layers: int, length: int, vocabulary: int) -> dict[str, Any]:
    """GPT-2 without dropout."""
    return dict(
        architectures=["GPT2LMHeadModel"], model_type="gpt2", n_embd=hidden, n_layer=layers, n_head=max(1, hidden // 64),
        n_positions=length, vocab_size=vocabulary, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip


def llama(hidden: int, ffn: int, layers: int, length: int, vocabulary: int, kv: int | None = None) -> dict[str, Any]:
    """Heads of 64."""
    heads = max(1, hidden // 64)
    return dict(
        architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=hidden, intermediate_size=ffn,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv or heads, max_position_embeddings=length,
        vocab_size=vocabulary, tie_word_embeddings=True, hidden_act="silu", rms_norm_eps=1e-5, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip


def bert(hidden: int, layers: int, length: int, vocabulary: int) -> dict[str, Any]:
    """BERT without dropout, filling in masked words."""
    return dict(
        architectures=["BertForMaskedLM"], model_type="bert", hidden_size=hidden, intermediate_size=4 * hidden,
        num_hidden_layers=layers, num_attention_heads=max(1, hidden // 64), max_position_embeddings=length,
        vocab_size=vocabulary, attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0,
    )  # fmt: skip


SHAPES = {
    "gpt2-124m": Shape(gpt2(768, 12, 1024, 50257), 1024, 64),
    "llama-350m": Shape(llama(1024, 2816, 24, 1024, 32000), 1024, 48),
    "llama-1.1b": Shape(llama(2048, 5632, 22, 2048, 32000, kv=4), 2048, 16),
    "bert-base": Shape(bert(768, 12, 512, 30522), 512, 128),
}
SMALL = {
    "gpt2-124m": Shape(gpt2(64, 2, 32, 600), 32, 4),
    "llama-350m": Shape(llama(128, 256, 4, 32, 600), 32, 4),
    "llama-1.1b": Shape(llama(128, 384, 2, 64, 600, kv=1), 64, 2),
    "bert-base": Shape(bert(64, 2, 32, 600), 32, 4),
}


def shapes(bed: Bed) -> dict[str, Shape]:
    """Of this machine."""
    return SMALL if bed.small else SHAPES


def settings(bed: Bed, shape: Shape) -> dict[str, Any]:
    """Of growkit's runs, as the Trainer has them: the rate is constant from the first step on."""
    precision = "bfloat16" if bed.device == "cuda" else "float32"
    return dict(seq_len=shape.length, batch_size=shape.rows, precision=precision, warmup=0, decay="constant", lr=3e-4)
