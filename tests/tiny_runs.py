"""Runs on tiny models, for the tests of training: their data, their settings, and what they left."""

import json
import shutil
from dataclasses import fields
from inspect import signature
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

import growkit
from growkit.data.tokens import META, TokenWriter
from growkit.training.optim import moments
from growkit.training.settings import Settings
from growkit.training.stages import SCHEDULES

NAMES = ("ask", "copy", "sum")
SIZES = (60, 30, 10)
SAYS = ("loss", "lr", "grad_norm", "depth", "trained", "stage", "tokens", "flops")


def dataset(folder: Path, tokens: int, **meta) -> Path:
    """Tokens that can be learned: a random walk."""
    folder.mkdir()
    walk = np.cumsum(np.random.default_rng(0).integers(0, 3, tokens)) % 50 + 5
    splits = {"train": walk, "val": walk[: tokens // 8]}
    for split, ids in splits.items():
        ids.astype("<u2").tofile(folder / f"{split}.bin")
        np.save(folder / f"{split}.idx.npy", np.array([0, len(ids)]))
    counts = {split: {"tokens": len(ids), "documents": 1, "text_bytes": len(ids)} for split, ids in splits.items()}
    said = {"format": 1, "growkit": "0", "dtype": "uint16", "vocab_size": 61, "splits": counts, **meta}
    (folder / "meta.json").write_text(json.dumps(said))
    return folder


def tagged_tokens(folder, lengths, split="train", names="ab"):
    """Documents of a random walk, their domains in turn."""
    folder.mkdir(exist_ok=True)
    writer, walk = TokenWriter(folder, split, np.dtype("<u2"), names), np.random.default_rng(0)
    for number, length in enumerate(lengths):
        step = 1 + 2 * (number % len(names))
        writer.add(np.cumsum(walk.integers(0, 2, length) * step) % 50 + 5, length, number % len(names))
    return writer.close()


def tagged_dataset(folder, lengths=(90, 130, 70, 45) * 10, names=("a", "b"), **more):
    """A dataset of two domains: random walks of steps of 1 and of 3."""
    splits = {split: tagged_tokens(folder, lengths, split, names) for split in ("train", "val")}
    said = {
        "format": 1,
        "growkit": "0",
        "dtype": "uint16",
        "vocab_size": 61,
        "domains": list(names),
        "splits": splits,
    } | more
    (folder / "meta.json").write_text(json.dumps(said))
    return folder


def conversations(folder: Path, names=NAMES, longest: int = 20) -> Path:
    """A chat dataset of tasks that can be learned: each goes on in steps of its own; of a conversation all behind the
    first three tokens is answer."""
    folder.mkdir()
    draws, splits = np.random.default_rng(0), {}
    for split, share in (("train", 1.0), ("val", 0.3)):
        writer = TokenWriter(folder, split, np.dtype("<u2"), names, chat=True)
        for task, size in enumerate(SIZES):
            for _ in range(round(size * share)):
                length = int(draws.integers(6, longest))
                ids = (draws.integers(0, 50) + np.arange(length) * (task + 1)) % 50 + 5
                learned = (np.arange(length) > 2).astype(np.uint8)
                writer.add_stored(ids.astype("<u2").tobytes(), 0, task if names else 0, learned.tobytes())
        splits[split] = writer.close()
    meta = {"format": 1, "dtype": "uint16", "chat": {"template": "0" * 64}, "splits": splits}
    (folder / META).write_text(json.dumps(meta | ({"domains": list(names)} if names else {})))
    return folder


def without_tags(data, to):
    """The same dataset as one that nobody tagged."""
    shutil.copytree(data, to)
    for path in to.glob("*.domains"):
        path.unlink()
    meta = json.loads((to / "meta.json").read_text())
    (to / "meta.json").write_text(json.dumps({k: v for k, v in meta.items() if k != "domains"}))
    return to


def numbers_of(data="data", split="train"):
    """The domain of each token, by the two files alone."""
    starts = np.load(Path(data, f"{split}.idx.npy"))
    return np.repeat(np.fromfile(Path(data, f"{split}.domains"), "u1"), np.diff(starts))


def tokenizer(mask: bool = True):
    from tokenizers import Tokenizer, models

    words = {"[UNK]": 0, "[PAD]": 1, "w": 2, "[MASK]": 3, **{f"w{n}": n for n in range(4, 61)}}
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **({"mask_token": "[MASK]"} if mask else {}))


def settings(**asked) -> Settings:
    """Settings of a run: those asked for, the others as `growkit.pretrain` has them by default."""
    defaults = {name: p.default for name, p in signature(growkit.pretrain).parameters.items()}
    made_whole = dict(
        command="pretrain",
        train="all",
        mix=None,
        decay="cosine",
        capacity=0.0,
        teacher_steps=0,
        balance=0.0,
        router_z=0.0,
        temperature=2.0,
    )  # where the default is what the model needs
    names = {field.name for field in fields(Settings)} & defaults.keys()
    return Settings(**{**{name: defaults[name] for name in names}, **made_whole, **asked})


def ask(world, out, schedule="plain", steps=12, model="gpt2", to_layers=6, **more) -> Settings:
    stages = SCHEDULES[schedule](
        steps, 3, sub_layers=more.pop("sub_layers", 1), sub_steps=6, to_layers=to_layers, jump_at=None
    )
    usual = dict(
        multipliers="exact",
        seq_len=16,
        batch_size=4,
        lr=1e-3,
        warmup=2,
        eval_every=6,
        eval_tokens=160,
        save_every=3,
        keep=9,
    )
    named = dict(checkpoint=str(world / model), data=str(world / "data"), out=out, steps=steps, stages=stages)
    return settings(**{**named, **usual, **more})


class Stopped(Exception):
    """What a test ends a run with."""


def stops_at(step: int):
    """A watcher that ends a run after a step, before its checkpoint is written."""

    def watch(line) -> None:
        if line["kind"] == "train" and line["step"] == step:
            raise Stopped

    return watch


def curve(out) -> dict[int, tuple]:
    """What metrics.jsonl says of every step; where a step was done twice, that it said the same."""
    found: dict[int, tuple] = {}
    for line in map(json.loads, Path(out, "metrics.jsonl").read_text().splitlines()):
        if line["kind"] == "train":
            said = tuple(line[key] for key in SAYS)
            assert found.setdefault(line["step"], said) == said, f"step {line['step']} came out differently"
    return found


def losses_of(out) -> list[float]:
    return [said[0] for _, said in sorted(curve(out).items())]


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(Path(folder, "model.safetensors"))


def kept_moments(student) -> dict[str, torch.Tensor]:
    """A copy of AdamW's state by parameter name, whole where processes share it."""
    state = moments(student.optimizer, student.model)
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone()
        for name, value in state.items()
    }


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def line(world, *more, model="llama", out="run") -> list[str]:
    usual = (
        f"pretrain {world / model} --out {out} --seq-len 16 --batch-size 4 --lr 0.001 --save-every 4 --eval-tokens 160"
    )
    data = [] if "--data" in more else ["--data", str(world / "data")]
    length = [] if {"--tokens", "--epochs", "--stages"} & set(more) else ["--steps", "12"]
    return [*usual.split(), *data, *length, *map(str, more)]
