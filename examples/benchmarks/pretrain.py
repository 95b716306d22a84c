"""What a step of `growkit pretrain` costs: beside transformers' Trainer, in bert2BERT's first stage, and with a
teacher, live or stored; and what writing it down costs.

    python examples/benchmarks/pretrain.py                 # CPU, a 17 M Llama shape
    python examples/benchmarks/pretrain.py --device cuda --hidden 1024 --layers 24 --length 1024 --precision bfloat16

Same model, data, batch, precision and optimizer settings; each way is run `--repeat` times in turn, in one process, and
the median time of a step (the first few left out) counts; `teach` and `eval` too. The teacher has two thirds of the width and five eighths of
the layers, about a third of the parameters. The Trainer needs accelerate (`pip install accelerate`); without it its row
is left out.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import transformers

import growkit
from growkit.data.batches import batch_of
from growkit.training.objective import Predicted
from growkit.training.prefix import submodel

SKIPPED = 3  # first steps, which warm caches up


def checkpoint(folder: Path, hidden: int, layers: int, length: int) -> Path:
    """A random Llama shape with a vocabulary of 8192."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=8192, hidden_size=hidden, intermediate_size=hidden * 8 // 3, num_hidden_layers=layers,
        num_attention_heads=hidden // 64, max_position_embeddings=length, tie_word_embeddings=True,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


WAITED: list[float] = []  # share of each step that data was waited for


def ours(source: Path, data: Path, work: Path, options: dict[str, Any], **more: Any) -> float:
    """Median seconds of a step of growkit's loop."""
    seconds: list[float] = []

    def watch(line: dict[str, Any]) -> None:
        if line["kind"] == "train":
            seconds.append(line["seconds"])
            WAITED.append(line["data_fraction"])

    growkit.pretrain(source, data, work / "run", save_every=10**9, eval_every=10**9, watch=watch, **options, **more)
    shutil.rmtree(work / "run")
    return median(seconds[SKIPPED:])


def kept(source: Path, length: int, rows: int, sub_layers: int | None) -> float:
    """Bytes that a step's forward pass keeps for its backward pass, weights left out; the mean over prefixes."""
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    layers = model.config.num_hidden_layers
    prefixes = (
        [(layers, layers)]
        if sub_layers is None
        else [(n, sub_layers) for n in range(sub_layers, layers + 1, sub_layers)]
    )
    ids, totals = torch.randint(8192, (rows, length)), []
    for depth, trained in prefixes:
        found: dict[int, int] = {}

        def pack(tensor: torch.Tensor, found: dict[int, int] = found) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                found[storage.data_ptr()] = storage.nbytes()
            return tensor

        with submodel(model, depth, trained), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            Predicted(model, batch_of(ids, ids))
        totals.append(sum(found.values()))
    return sum(totals) / len(totals)


class _Clock(transformers.TrainerCallback):
    """Times of steps, from the end of one to the end of the next, the batch in between; growkit's hold its batch
    too."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.start = time.monotonic()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        now = time.monotonic()
        self.times.append(now - self.start)
        self.start = now


def trainers(source: Path, data: Path, work: Path, options: dict[str, Any]) -> float:
    """Median seconds of a step of transformers' Trainer."""
    tokens, length = np.fromfile(data, "<u2").astype(np.int64), options["seq_len"]
    rows = [torch.from_numpy(tokens[i : i + length]) for i in range(0, len(tokens) - length, length)]
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    arguments = transformers.TrainingArguments(
        output_dir=str(work / "trainer"), max_steps=options["steps"], per_device_train_batch_size=options["batch_size"],
        learning_rate=3e-4, weight_decay=0.1, adam_beta2=0.95, optim="adamw_torch_fused", lr_scheduler_type="cosine",
        save_strategy="no", report_to=[], disable_tqdm=True, logging_strategy="no", seed=0,
        bf16=options["precision"] == "bfloat16", use_cpu=options["device"] == "cpu",
    )  # fmt: skip
    clock = _Clock()
    examples = [{"input_ids": row, "labels": row} for row in rows]
    transformers.Trainer(model, arguments, train_dataset=examples, callbacks=[clock]).train()
    return median(clock.times[SKIPPED:])


def beside_eval(teacher: Path, data: Path, work: Path, length: int, device: str, repeat: int) -> list[float]:
    """Speeds of `growkit teach` as shares of `growkit eval`'s over the same tokens, run in turn; everything is warm."""
    shares = []
    for number in range(repeat + 1):
        began = time.monotonic()
        growkit.teach(teacher, data, work / f"pass{number}", seq_len=length, device=device)
        written = time.monotonic()
        growkit.evaluate(teacher, data, context=length, device=device)
        shares.append((time.monotonic() - written) / (written - began))
    return shares[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    a = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        source = checkpoint(work / "model", a.hidden, a.layers, a.length)
        teacher = checkpoint(work / "teacher", max(1, a.hidden // 96) * 64, max(1, a.layers * 5 // 8), a.length)
        data = work / "tokens.bin"
        np.random.default_rng(0).integers(0, 8192, 400 * a.length).astype("<u2").tofile(data)
        options = dict(steps=a.steps, seq_len=a.length, batch_size=a.batch, device=a.device, precision=a.precision)
        quarter = dict(schedule="two-stage", sub_layers=max(1, a.layers // 4), sub_steps=a.steps)
        store = work / "store"
        growkit.teach(teacher, data, store, seq_len=a.length, device=a.device)
        ways = {
            "growkit": lambda: ours(source, data, work, options),
            "growkit, first stage, a quarter of the layers": lambda: ours(source, data, work, options, **quarter),
            "growkit, with a teacher of a third of its size": lambda: ours(
                source, data, work, options, teacher=teacher, teacher_steps=10 * a.steps, teacher_weight=1.0
            ),
            "growkit, from what that teacher wrote down": lambda: ours(
                source, data, work, options, teacher=store, teacher_steps=10 * a.steps, teacher_weight=1.0
            ),
        }
        try:
            import accelerate  # noqa: F401

            ways["transformers' Trainer"] = lambda: trainers(source, data, work, options)
        except ImportError:
            print("without accelerate, transformers' Trainer is left out")
        passes = beside_eval(teacher, data, work, a.length, a.device, a.repeat)
        measured: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(a.repeat):
            for name, way in ways.items():
                measured[name].append(way())
        full, part = (kept(source, a.length, a.batch, sub) for sub in (None, quarter["sub_layers"]))
    base = median(measured["growkit"])
    print(f"\n{a.layers} layers x {a.hidden}, {a.batch} x {a.length} tokens, {a.precision}, {a.device}\n")
    print("| | seconds a step, median | lowest to highest | of growkit's | tokens/s |\n|---|---|---|---|---|")
    for name, times in measured.items():
        one = median(times)
        speed = a.batch * a.length / one
        print(f"| {name} | {one:.3f} | {min(times):.3f} to {max(times):.3f} | {one / base:.2f} | {speed:,.0f} |")
    print(
        f"\nkept for the backward pass: {full / 1e6:.0f} MB, in the first stage {part / 1e6:.0f} MB ({part / full:.2f})"
    )
    print(f"teach: {median(passes):.2f} of eval's speed over the same tokens ({min(passes):.2f} to {max(passes):.2f})")
    print(f"waiting for data: {median(WAITED):.2%} of a step")


if __name__ == "__main__":
    main()
