"""An application over two skills, beside other ways to have both: how well each does what needs the two at once.

    python examples/benchmarks/applications.py [--examples 64] [--seeds 2]

A row of tokens is a task's mark, six symbols, and six more by the task's rule. A small Llama (hidden 64, 3 layers) is
trained to copy; on its panel (rank 32, after copies) it learns two skills of size 16, `shift` (the next symbol of each)
and `rotate` (the first goes last), the second protected from the first. The application, `both`, does the two at once,
under a mark of its own, of which there are few rows. The LoRA beside it learns as many numbers as the skills and the
application together, from the rows of `both` alone or from all that those learned from, in as many steps. A new skill
of the panel's whole size learns from the rows of `both` what the application's matrix could without skills below it.

A cell: the share of 512 fresh answers that are right to the last symbol, and their loss, nats a symbol; a value a seed.
One thread, some two minutes of it a seed.
"""

import argparse
import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from rich.console import Console
from rich.table import Table

import growkit

SYMBOLS, WORD = 16, 6
EQUALS, MARKS = SYMBOLS, {"copy": SYMBOLS + 1, "shift": SYMBOLS + 2, "rotate": SYMBOLS + 3, "both": SYMBOLS + 4}
RULES = {
    "copy": lambda x: x,
    "shift": lambda x: (x + 1) % SYMBOLS,
    "rotate": lambda x: np.roll(x, -1, 1),
    "both": lambda x: (np.roll(x, -1, 1) + 1) % SYMBOLS,
}
ROW = 2 * WORD + 2
ASKED = ("shift", "rotate", "both")
RANK, SIZE, LORA, SHOWN = 32, 16, 10, 512  # LORA: 10,880 numbers a layer, and 10,766 of skills and application
RUN: dict[str, Any] = dict(seq_len=ROW, batch_size=32, eval_every=10**9, save_every=10**9, warmup=10, eval_tokens=ROW)
SHAPE = dict(
    vocab_size=32, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=4, max_position_embeddings=32, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
)  # fmt: skip


def rows(task: str, count: int, seed: int) -> np.ndarray:
    """(count, ROW) tokens of a task."""
    x = np.random.default_rng(seed).integers(0, SYMBOLS, (count, WORD))
    marks, equals = (np.full((count, 1), token) for token in (MARKS[task], EQUALS))
    return np.concatenate([marks, x, equals, RULES[task](x)], 1)


def dataset(folder: Path, train: np.ndarray) -> Path:
    """A folder as `growkit tokenize` makes it, of rows."""
    folder.mkdir()
    counts = {}
    for split, each in (("train", train), ("val", train[:2])):
        ids = each.reshape(-1)
        ids.astype("<u2").tofile(folder / f"{split}.bin")
        np.save(folder / f"{split}.idx.npy", np.array([0, len(ids)]))
        counts[split] = {"tokens": len(ids), "documents": 1, "text_bytes": len(ids)}
    said = {"format": 1, "growkit": "0", "dtype": "uint16", "vocab_size": SHAPE["vocab_size"], "splits": counts}
    (folder / "meta.json").write_text(json.dumps(said))
    return folder


def answers(base: Path, *adapters: tuple[Path, float]) -> list[tuple[float, float]]:
    """(share right, loss of a symbol) of each task's answers, of a model or of one with skills in it."""
    with tempfile.TemporaryDirectory() as folder:
        if adapters:
            growkit.apply(base, list(adapters), Path(folder) / "with")
        model = transformers.LlamaForCausalLM.from_pretrained(Path(folder) / "with" if adapters else base)
        found = []
        for task in ASKED:
            asked = torch.from_numpy(rows(task, SHOWN, 10**6))
            with torch.no_grad():
                logits, true = model(asked).logits[:, WORD + 1 : -1], asked[:, WORD + 2 :]
            loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), true)
            found.append((float((logits.argmax(-1) == true).all(1).double().mean()), float(loss)))
    return found


def measure(seed: int, examples: int) -> dict[str, list[tuple[float, float]]]:
    """way -> what `answers` says."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        work = Path(folder)
        data = {task: rows(task, examples if task == "both" else 8192, seed) for task in MARKS}
        for task, each in data.items():
            dataset(work / task, each)
        joined = np.concatenate([data["shift"], data["rotate"], *[data["both"]] * (8192 // examples)])
        dataset(work / "joined", np.random.default_rng(seed).permutation(joined))
        torch.manual_seed(seed)
        transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE)).save_pretrained(work / "init")
        growkit.pretrain(work / "init", work / "copy", work / "base", steps=1200, lr=3e-3, seed=seed, **RUN)
        base = work / "base" / "final"
        growkit.panel(base, work / "panel", rank=RANK, basis="data", text=work / "copy", seq_len=ROW, tokens=8192)
        usual = dict(size=SIZE, steps=500, lr=1e-2, seed=seed, **RUN)
        growkit.skill_learn(base, work / "panel", work / "shift", work / "one", **usual)
        shift = work / "one" / "final"
        growkit.skill_learn(base, work / "panel", work / "rotate", work / "two", protect=shift, **usual)
        skills = [(shift, 1.0), (work / "two" / "final", 1.0)]
        ways = {
            "base": answers(base),
            "shift alone": answers(base, skills[0]),
            "rotate alone": answers(base, skills[1]),
            "plain sum": answers(base, *skills),
        }
        more = dict(steps=300, seed=seed, **RUN)
        for way, only in (("strengths alone (LoRA Soups)", True), ("application", False)):
            growkit.skill_apply_layer(base, skills, work / "both", work / way, strengths_only=only, lr=1e-2, **more)
            ways[way] = answers(base, (work / way / "final", 1.0))
        new = dict(size=RANK, lr=1e-2, **more)
        growkit.skill_learn(base, work / "panel", work / "both", work / "new", **new)
        ways["a new skill, both alone"] = answers(base, (work / "new" / "final", 1.0))
        lora = dict(train=f"lora:{LORA}", **more)
        tried = []  # the better of two rates, by what is measured: in the LoRA's favour
        for rate in (3e-3, 1e-2):
            growkit.tune(base, work / "both", work / f"few-{rate}", lr=rate, **lora)
            tried.append(answers(base, (work / f"few-{rate}" / "final", 1.0)))
        ways[f"LoRA of rank {LORA}, both alone"] = min(tried, key=lambda each: each[-1][1])
        growkit.tune(base, work / "joined", work / "many", **{**lora, "lr": 3e-3, "steps": 1300})
        ways[f"LoRA of rank {LORA}, all data"] = answers(base, (work / "many" / "final", 1.0))
    return ways


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=64, help="rows of the application to learn from")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    seen: list[dict[str, list[tuple[float, float]]]] = []
    for seed in range(options.seeds):
        seen.append(measure(seed, options.examples))
        table = Table("way", *ASKED, title=f"right, and nats a symbol; seeds 0 to {seed}")
        for way in seen[0]:
            cells = [[one[way][i] for one in seen] for i in range(len(ASKED))]
            shown = [(" / ".join(f"{r:.1%}" for r, _ in c), " / ".join(f"{n:.3f}" for _, n in c)) for c in cells]
            table.add_row(way, *(f"{right}, {loss}" for right, loss in shown))
        Console(width=140).print(table)


if __name__ == "__main__":
    main()
