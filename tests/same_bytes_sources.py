"""The models, states and texts that same_bytes.py gives to every tree. Knows tiny.py, so it runs once, in one tree."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from same_bytes_texts import STAGES, byte_pairs, made_up_run, vocabulary, word_pieces

EXCERPT = Path(__file__).parents[1] / "examples" / "text" / "excerpt.txt"
WORDS = dict(vocab_size=400)


def make(folder: Path) -> None:
    """Everything, in a new folder."""
    import tiny

    torch.set_num_threads(1)
    folder.mkdir(parents=True)
    for number, family in enumerate(tiny.CONFIGS):
        plain = dict(attention_bias=False, mlp_bias=False) if family == "llama" else {}
        _branches(folder, family, number)
        _save(folder / f"{family}-2", family, seed=1)
        larger = tiny.make(family, dtype=torch.float32, **_larger(family))
        (folder / f"{family}-larger").mkdir()
        larger.config.architectures = [type(larger).__name__]
        larger.config.save_pretrained(folder / f"{family}-larger")
        for name in (family, f"{family}-2"):
            _adam(folder, name, number)
        if family == "llama":
            for name, seed in (("plain", 0), ("plain-2", 1)):
                _save(folder / f"{family}-{name}", family, seed=seed, **plain)
    _variants(folder)
    _texts(folder)
    _training(folder)
    _wrong(folder)


def _save(
    path: Path, family: str, architecture: str | None = None, seed: int = 0, shard: str = "5GB", **changes: Any
) -> Path:
    import tiny

    dtype = changes.pop("dtype", torch.float32)
    model = tiny.make(family, architecture, seed=seed, dtype=dtype, **changes)
    model.save_pretrained(path, max_shard_size=shard)
    return path


def _branches(folder: Path, family: str, number: int) -> None:
    """A model, and two that lie a little way off, as if they were fine-tuned from it."""
    import tiny

    model = tiny.make(family, dtype=torch.float32)
    model.save_pretrained(folder / family)
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for member in "ab":
        generator = torch.Generator().manual_seed(100 * number + ord(member))
        for name, parameter in model.named_parameters():
            parameter.data = start[name] + 0.02 * torch.randn(parameter.shape, generator=generator)
        model.save_pretrained(folder / f"{family}-{member}")


def _larger(family: str) -> dict[str, int]:
    """Sizes to grow to that are no multiples of the tiny ones."""
    if family == "distilbert":
        return dict(dim=36, n_layers=5, n_heads=6, hidden_dim=60)
    if family == "gpt2":
        return dict(n_embd=36, n_layer=5, n_head=6)
    ffn = "ffn_dim" if family == "opt" else "intermediate_size"
    sizes = {"hidden_size": 36, "num_hidden_layers": 5, "num_attention_heads": 6, ffn: 60}
    if family == "opt":
        sizes["word_embed_proj_dim"] = 36
    if family not in ("bert", "roberta", "gpt_neox", "opt"):
        sizes["num_key_value_heads"] = 3
    if family.endswith("_moe"):
        sizes |= {"moe_intermediate_size": 30}
    if family == "qwen2_moe":
        sizes |= {"shared_expert_intermediate_size": 18}
    return sizes


def _adam(folder: Path, name: str, seed: int) -> None:
    """AdamW's moments of a model, as NAME.adam.safetensors."""
    generator, state = torch.Generator().manual_seed(seed), {}
    for key, tensor in load_file(folder / name / "model.safetensors").items():
        state[f"{key}.exp_avg"] = 0.1 * torch.randn(tensor.shape, generator=generator)
        state[f"{key}.exp_avg_sq"] = 0.01 * torch.rand(tensor.shape, generator=generator)
    save_file(state, folder / f"{name}.adam.safetensors")


def _variants(folder: Path) -> None:
    """Models that are stored, headed, tied or accompanied in another way."""
    for family in ("llama", "gpt2"):
        _save(folder / f"{family}-tied", family, tie_word_embeddings=True)
    _save(folder / "gpt2-untied", "gpt2", tie_word_embeddings=False)
    _save(folder / "bert-untied", "bert", tie_word_embeddings=False)
    for family, architecture in (("llama", "LlamaModel"), ("bert", "BertModel"), ("gpt2", "GPT2Model")):
        _save(folder / f"{family}-body", family, architecture)
    for family, architecture in (("llama", "LlamaForSequenceClassification"), ("bert", "BertForTokenClassification")):
        _save(folder / f"{family}-classes", family, architecture, pad_token_id=1)
    _save(folder / "llama-half", "llama", dtype=torch.bfloat16)
    _save(folder / "llama-double", "llama", dtype=torch.float64)
    _save(folder / "llama-shards", "llama", shard="20KB")
    _save(
        folder / "llama-wide",
        "llama",
        hidden_size=36,
        num_attention_heads=6,
        num_key_value_heads=3,
        intermediate_size=60,
    )
    _save(folder / "qwen2-windows", "qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=1)
    _save(folder / "llama-wordy", "llama", vocab_size=63, seed=3)
    for name, model in (("llama", "llama"), ("bert", "bert"), ("plain", "llama-plain")):
        shutil.copyfile(folder / model / "model.safetensors", folder / f"{name}-bare.safetensors")
    words = [f"w{number}" for number in range(63)]
    vocabulary(shutil.copytree(folder / "llama", folder / "worded"), words[:61])
    vocabulary(shutil.copytree(folder / "llama-wordy", folder / "worded-more"), [words[62], *words[1:62], words[0]])
    for name in ("llama-plain", "bert"):
        (folder / name / "tokenizer_config.json").write_text('{"model_max_length": 64}')
        (folder / name / "LICENSE").write_bytes(b"as it is\r\n")
    for name, seed in (("sentences", 0), ("sentences-2", 1)):
        _sentences(_save(folder / name, "bert", "BertModel", seed=seed), seed)


def _sentences(folder: Path, seed: int) -> None:
    """Make a sentence-embedding model of a body: mean pooling and a Dense layer."""
    kinds = ["Transformer", "Pooling", "Dense"]
    places = ["", "1_Pooling", "2_Dense"]
    modules = [
        {"idx": n, "name": str(n), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for n, (kind, place) in enumerate(zip(kinds, places))
    ]
    (folder / "modules.json").write_text(json.dumps(modules, indent=2))
    for place in places[1:]:
        (folder / place).mkdir()
    pooling = {"word_embedding_dimension": 24, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling))
    dense = {
        "in_features": 24,
        "out_features": 7,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
    (folder / "2_Dense/config.json").write_text(json.dumps(dense))
    generator = torch.Generator().manual_seed(seed)
    weights = {
        "linear.weight": torch.randn(7, 24, generator=generator),
        "linear.bias": torch.randn(7, generator=generator),
    }
    save_file(weights, folder / "2_Dense/model.safetensors")


def _texts(folder: Path) -> None:
    """Books, lines of JSON, and tokenizers that were made of them, alone and beside models."""
    text = EXCERPT.read_text("utf-8")
    (folder / "books").mkdir()
    for number in range(6):
        (folder / f"books/{number}.txt").write_text(text[number * 4000 : (number + 1) * 4000] + "é 中", "utf-8")
    (folder / "short.txt").write_text(text[:3000], "utf-8")
    lines = "\n".join(json.dumps({"id": n, "body": text[n * 700 : (n + 1) * 700]}) for n in range(20))
    (folder / "lines.jsonl").write_text(lines)
    (folder / "lines.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    (folder / "empty.txt").write_text(" \n")
    (folder / "latin.txt").write_bytes(b"abc\xff")
    fast, masked = byte_pairs(text[:30_000]), word_pieces(text[:30_000])
    fast.save_pretrained(folder / "tok")
    masked.save_pretrained(folder / "tok-pieces")
    for family in ("llama", "gpt2", "mistral"):
        sizes = dict(WORDS, attention_bias=False, mlp_bias=False) if family == "llama" else dict(WORDS)
        fast.save_pretrained(_save(folder / f"{family}-words", family, **sizes))
    for family in ("bert", "distilbert"):
        masked.save_pretrained(_save(folder / f"{family}-words", family, **WORDS))


def _training(folder: Path) -> None:
    """Tokens, a teacher, stages, models whose tokenizer has a mask; and made-up runs to report on."""
    import tiny_runs

    tiny_runs.dataset(folder / "data", 4000)
    np.memmap(tiny_runs.dataset(folder / "data-large", 400, vocab_size=100) / "train.bin", "<u2", "r+")[7] = 61
    tiny_runs.dataset(folder / "data-short", 80)
    (np.arange(600, dtype="<u2") * 7 % 61).tofile(folder / "bare.bin")
    np.arange(10, dtype="<u2").tofile(folder / "little.bin")
    for family in ("bert", "roberta", "distilbert"):
        tiny_runs.tokenizer().save_pretrained(shutil.copytree(folder / family, folder / f"{family}-masks"))
    tiny_runs.tokenizer(mask=False).save_pretrained(shutil.copytree(folder / "bert", folder / "maskless"))
    _save(folder / "teacher", "gpt2", seed=4, n_layer=1)
    _save(folder / "teacher-masks", "bert", seed=4, num_hidden_layers=1)
    _save(folder / "stranger", "gpt2", vocab_size=67)
    (folder / "stages.toml").write_text(STAGES)
    (folder / "shrink.toml").write_text("[[stage]]\nsteps=4\n[[stage]]\nsteps=4\nlayers=2\n")
    adam = load_file(folder / "llama.adam.safetensors")
    save_file(adam, shutil.copytree(folder / "llama", folder / "llama-warm") / "optimizer.safetensors")
    curves = {"scratch": [5.0, 4.0, 3.0], "grown": [4.0, 2.5], "small": [4.5], "worse": [5.0, 3.5, 3.25]}
    for number, (name, losses) in enumerate(curves.items()):
        made_up_run(folder / f"run-{name}", losses, 10.0 / (number + 1), 0.5 / (number + 1), experts=name == "worse")


def _wrong(folder: Path) -> None:
    """Checkpoints that no command should take."""
    _save(folder / "vocabulary-of-40", "llama", vocab_size=40)
    _save(folder / "shallow", "llama", num_hidden_layers=1)
    _save(folder / "other-act", "llama", hidden_act="gelu", seed=2)
    changes: dict[str, dict[str, Any]] = {
        "mamba": {"model_type": "mamba"},
        "quantised": {"quantization_config": {"quant_method": "gptq"}},
        "four-layers": {"num_hidden_layers": 4},
        "odd-ffn": {"intermediate_size": 44},
        "wordless": {"hidden_size": "24"},
        "yeti": {"architectures": ["Yeti"]},
    }
    for name, change in changes.items():
        path = shutil.copytree(folder / "llama", folder / name) / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    for name, key, value in (("nan", "model.norm.weight", torch.nan), ("strange", "model.surprise", 1.0)):
        path = shutil.copytree(folder / "llama", folder / name) / "model.safetensors"
        state = load_file(path)
        state[key] = torch.full((24,), value)
        save_file(state, path, {"format": "pt"})
    (shutil.copytree(folder / "llama", folder / "tokenized-1") / "tokenizer.json").write_text("1")
    (shutil.copytree(folder / "llama", folder / "tokenized-2") / "tokenizer.json").write_text("2")
