"""What a step of `growkit tune` on conversations costs beside TRL's SFTTrainer: everything learns, or a LoRA.

    pip install trl peft                 # TRL in an environment of its own, if you like
    python examples/benchmarks/sft.py    # CPU, a 4 x 256 Llama shape with a vocabulary of 8,192

Same random weights, conversations, tokens that are learned, tokens in a step and optimizer settings, float32, nothing
recomputed (by default SFTTrainer recomputes activations and computes in bfloat16). Long conversations fill a row; short
ones growkit packs; TRL pads them, or packs them too, which it does by making one row of a batch. Each way runs
--repeat times in turn, in one process; what counts is seconds, and seconds of the processor, for a token of conversation
(the first steps left out).
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import transformers

import growkit
from growkit.data.packed_batches import PackedBatches
from growkit.data.tokens import open_tokens

SKIPPED = 2  # first steps, which warm caches up
RATE, RANK = 1e-4, 16
SPECIAL = ["<|im_start|>", "<|im_end|>", "[UNK]", "user", "assistant"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }} {% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>"
    "{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)
AROUND = 6  # tokens of a conversation of two turns that are no words
Seconds = tuple[float, float]  # for a token: by the clock, of the processor


def checkpoint(folder: Path, hidden: int, layers: int, length: int) -> Path:
    """A random Llama shape with a vocabulary of 8,192 words and a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=8192, hidden_size=hidden, intermediate_size=hidden * 8 // 3, num_hidden_layers=layers,
        num_attention_heads=hidden // 64, max_position_embeddings=length, tie_word_embeddings=True, eos_token_id=1,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    words = {word: number for number, word in enumerate([*SPECIAL, *(f"w{n}" for n in range(len(SPECIAL), 8192))])}
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = dict(eos_token="<|im_end|>", unk_token="[UNK]", additional_special_tokens=["<|im_start|>"])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def conversations(file: Path, lengths: tuple[int, int], tokens: int) -> list[dict[str, Any]]:
    """Questions and answers of random words, half of the words each. lengths: fewest and most tokens of one."""
    draws, rows, total = np.random.default_rng(0), [], 0
    while total < tokens:
        length = int(draws.integers(lengths[0], lengths[1] + 1))
        words = [f"w{n}" for n in draws.integers(len(SPECIAL), 8192, length - AROUND)]
        half = len(words) // 2
        said = (("user", words[:half]), ("assistant", words[half:]))
        rows.append({"messages": [{"role": role, "content": " ".join(part)} for role, part in said]})
        total += length
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


class Clock(transformers.TrainerCallback):
    """When steps end, by the clock and by the processor."""

    def __init__(self) -> None:
        self.ends: list[Seconds] = []

    def tick(self) -> None:
        """A step has ended."""
        self.ends.append((time.monotonic(), time.process_time()))

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """The Trainer says so."""
        self.tick()

    def seconds(self, tokens: float) -> Seconds:
        """Seconds for a token, where a step has so many."""
        (began, worked), (ended, done) = self.ends[SKIPPED - 1], self.ends[-1]
        count = tokens * (len(self.ends) - SKIPPED)
        return (ended - began) / count, (done - worked) / count


def growkits(source: Path, data: Path, work: Path, train: str, asked: argparse.Namespace) -> Seconds:
    """A run of growkit tune."""
    clock = Clock()
    counts = PackedBatches(tokens=open_tokens(data), length=asked.length, size=asked.batch).counts
    growkit.tune(
        source, data, work / "run", train=train, steps=asked.steps, seq_len=asked.length, batch_size=asked.batch, lr=RATE,
        warmup=0, device="cpu", precision="float32", save_every=10**9, eval_every=10**9,
        watch=lambda line: clock.tick() if line["kind"] == "train" else None,
    )  # fmt: skip
    shutil.rmtree(work / "run")
    return clock.seconds(asked.batch * counts.tokens / counts.rows)


def trls(
    source: Path, rows: list[dict[str, Any]], work: Path, train: str, packing: bool, learned: int, asked: Any
) -> Seconds:
    """A run of TRL's SFTTrainer. packing: else conversations are padded. learned: tokens that growkit learns, checked."""
    import trl
    from datasets import Dataset
    from peft import LoraConfig

    clock = Clock()
    tokens = sum(len(m["content"].split()) for row in rows for m in row["messages"]) + AROUND * len(rows)
    # as many tokens in a step as growkit packs into its rows
    size = asked.batch if packing else max(1, round(asked.batch * asked.length * len(rows) / tokens))
    config = trl.SFTConfig(
        output_dir=str(work / "trl"), max_steps=asked.steps, per_device_train_batch_size=size, max_length=asked.length,
        packing=packing, assistant_only_loss=True, learning_rate=RATE, adam_beta2=0.95, optim="adamw_torch_fused",
        lr_scheduler_type="cosine", bf16=False, gradient_checkpointing=False, use_cpu=True, dataloader_pin_memory=False,
        save_strategy="no", report_to=[], disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear") if train != "all" else None
    trainer = trl.SFTTrainer(
        transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32), args=config, callbacks=[clock],
        processing_class=transformers.AutoTokenizer.from_pretrained(source), train_dataset=Dataset.from_list(rows),
        peft_config=lora,
    )  # fmt: skip
    theirs = sum(label != -100 for row in trainer.train_dataset["labels"] for label in row)
    assert theirs == learned, f"TRL learns {theirs} tokens, growkit {learned}"
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return clock.seconds(size * tokens / len(trainer.train_dataset))


def measure(ways: dict[str, Callable[[], Seconds]], repeat: int) -> dict[str, list[Seconds]]:
    """Each way so many times, in turn."""
    measured: dict[str, list[Seconds]] = {name: [] for name in ways}
    for _ in range(repeat):
        for name, way in ways.items():
            measured[name].append(way())
    return measured


def ratios(theirs: list[Seconds], ours: list[Seconds]) -> str:
    """How many times as fast growkit is, turn by turn: by the clock, of the processor, and how far the latter spread."""
    if theirs is ours:
        return " | | "
    clock, processor = ([one[kind] / other[kind] for one, other in zip(theirs, ours)] for kind in (0, 1))
    return f"{median(clock):.2f} | {median(processor):.2f} | {min(processor):.2f} to {max(processor):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repeat", type=int, default=3)
    asked = parser.parse_args()
    try:
        import datasets
        import peft  # noqa: F401
        import trl  # noqa: F401
    except ImportError as error:
        raise SystemExit(f"{error.name} is not installed, and this compares with TRL: pip install trl peft") from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    print("| conversations | what learns | | tokens/s | growkit's speed of it | of the processor | lowest to highest |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        source = checkpoint(work / "model", asked.hidden, asked.layers, asked.length)
        for what, shares in {"long": (1.0, 1.0), "short": (0.15, 0.6)}.items():
            fewest, most = (round(share * asked.length) for share in shares)
            rows = conversations(work / f"{what}.jsonl", (fewest, most), asked.steps * asked.batch * asked.length)
            growkit.tokenize([work / f"{what}.jsonl"], work / what, source, chat=True, workers=1)
            learned = int(np.fromfile(work / what / "train.learned", "u1").sum())
            for train in ("all", f"lora:{RANK}"):
                ways = {"growkit": partial(growkits, source, work / what, work, train, asked)}
                for how in ("padded", "packed")[: 2 if what == "short" else 1]:
                    packing = how == "packed"
                    ways[f"TRL, {how}"] = partial(trls, source, rows, work, train, packing, learned, asked)
                measured = measure(ways, asked.repeat)
                for way, times in measured.items():
                    speed = 1 / median(seconds for seconds, _ in times)
                    print(
                        f"| {what} | {train} | {way} | {speed:,.0f} | {ratios(times, measured['growkit'])} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
