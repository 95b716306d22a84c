"""What inheriting from a teacher is worth: scratch, grown, live and stored teachers, weak and strong, several seeds.

    python examples/benchmarks/inherit.py CORPUS --other OTHER --work DIR [--seeds 0 1 2] [--steps 160]

CORPUS: a folder with train/ and val/ of .txt files, or one whose documents are divided, of which the first 100,000
characters each are used; OTHER: text of another kind (.txt,
.jsonl), for the losses out of domain. A small Llama shape (2 x 64, a BPE vocabulary of 2048 of the corpus) is trained for
--teacher-steps (strong) and for a tenth of that (weak); students of 4 x 128 learn from scratch, or grown exactly from the
strong one, alone or taught for the first half of their steps, by it as it runs or by what it wrote down. Every row is
appended to DIR/rows.jsonl; a stopped benchmark goes on where it was. One thread a run; three seeds take about an hour.

Columns: nats per token on the corpus' validation text and on OTHER; calibration error: the mean difference of confidence
and accuracy of the likeliest token in 15 bins, weighted by size (ECE, arXiv 1706.04599).
"""

import argparse
import shutil
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
import transformers
from kept_rows import KeptRows, alone_and_quiet

import growkit

SMALL = dict(
    vocab_size=2048, hidden_size=64, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
)  # fmt: skip
LARGE = dict(hidden=128, layers=4)
RUN = dict(seq_len=128, batch_size=8, eval_tokens=20_000, lr=2e-3, save_every=10**9)
ESTIMATES, ENTRIES = ("head+sampled", "bucket", "sampled", "top-k"), (4, 16, 64)
DEFAULT: dict[str, Any] = {"teacher_until": None, "teacher_weight": None, "teacher_steps": None}
CHARACTERS = 100_000  # of each file that are used
BINS, MEASURED = 15, 200  # windows of validation text that calibration is measured on


def arms() -> dict[str, dict[str, Any]]:
    """Name of each arm -> where its student begins, and what teaches it."""
    found: dict[str, dict[str, Any]] = {"scratch": {}}
    found["scratch, live"] = {"teacher": "strong"}
    for entries in ENTRIES:
        for estimate in ESTIMATES:
            found[f"scratch, stored {entries}+{entries}, {estimate}"] = {
                "teacher": f"store-{entries}", "teacher_estimate": estimate,
            }  # fmt: skip
    found["scratch, live, temperature 2"] = {"teacher": "strong", "temperature": 2.0}
    found["scratch, live until it is overtaken"] = {"teacher": "strong", "teacher_until": "overtaken"}
    found["scratch, live, as by default"] = {"teacher": "strong", **DEFAULT}
    found["scratch, weak live"] = {"teacher": "weak"}
    found["scratch, weak live until it is overtaken"] = {"teacher": "weak", "teacher_until": "overtaken"}
    found["scratch, weak live, as by default"] = {"teacher": "weak", **DEFAULT}
    found["grown"] = {"start": "grown"}
    found["grown, live"] = {"start": "grown", "teacher": "strong", "teacher_weight": 0.5}
    found["grown, stored 16+16, head+sampled"] = {
        "start": "grown", "teacher": "store-16", "teacher_estimate": "head+sampled", "teacher_weight": 0.5,
    }  # fmt: skip
    return found


def beginnings(text: Path, work: Path) -> Path:
    """A folder with the first characters of each file below another."""
    folder = work / "text" / text.name
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(text.rglob("*.txt")):
        (folder / file.name).write_text(file.read_text("utf-8")[:CHARACTERS], "utf-8")
    return folder


def prepare(corpus: Path, other: Path, work: Path, seed: int, teacher_steps: int) -> dict[str, Path]:
    """Data, teachers, their stores and the models that students begin with; what is there already stays."""
    places = {name: work / name for name in ("data", "other", "small", "strong", "weak", "grown", "scratch")}
    if not places["data"].exists():
        split = {"val": beginnings(corpus / "val", work)} if (corpus / "val").is_dir() else {"val_fraction": 0.05}
        text = beginnings(corpus / "train" if (corpus / "train").is_dir() else corpus, work)
        growkit.tokenize([text], out=places["data"], train_tokenizer=SMALL["vocab_size"], **split)
    if not places["other"].exists():
        growkit.tokenize([other], out=places["other"], tokenizer=places["data"])
    places |= {name: work / f"seed-{seed}" / name for name in ("small", "strong", "weak", "grown", "scratch")}
    if not places["small"].exists():
        torch.manual_seed(seed)
        transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL)).save_pretrained(places["small"])
        for file in (places["data"] / "tokenizer").iterdir():
            shutil.copy(file, places["small"] / file.name)
    for name, steps in (("strong", teacher_steps), ("weak", teacher_steps // 10)):
        run = places[name].with_name(f"{name}-run")
        if not (run / "final").exists():
            growkit.pretrain(places["small"], places["data"], run, steps=steps, seed=seed, resume="auto",
                             eval_every=teacher_steps, **RUN)  # fmt: skip
        places[name] = run / "final"
    if not places["grown"].exists():
        growkit.grow(places["strong"], places["grown"], optimizer="none", **LARGE)
    if not places["scratch"].exists():
        growkit.init(places["grown"], places["scratch"], seed=seed)
    for entries in ENTRIES:
        places[f"store-{entries}"] = store = work / f"seed-{seed}" / f"store-{entries}"
        if not store.exists():
            growkit.teach(places["strong"], places["data"], store, head=entries, tail=entries, temperature=1.0,
                          seq_len=RUN["seq_len"])  # fmt: skip
    return places


def calibration(model: Any, data: Path) -> tuple[float, float]:
    """(mean nats per token, calibration error) on the first windows of a dataset."""
    split = "val" if (data / "val.bin").exists() else "train"
    length = RUN["seq_len"]
    ids = np.fromfile(data / f"{split}.bin", "<u2")[: MEASURED * length + 1].astype(np.int64)
    sure, right, nats = [], [], []
    for start in range(0, len(ids) - length, length):
        window = torch.from_numpy(ids[start : start + length + 1])
        with torch.no_grad():
            said = torch.log_softmax(model(window[None, :-1]).logits[0].float(), dim=-1)
        top, token = said.max(dim=-1)
        nats.append(-said.gather(1, window[1:, None]).squeeze(1))
        sure.append(top.exp())
        right.append((token == window[1:]).float())
    confidence, correct = torch.cat(sure), torch.cat(right)
    which = (confidence * BINS).long().clamp(max=BINS - 1)
    gaps = [
        (which == n).float().mean() * (confidence[which == n].mean() - correct[which == n].mean()).abs()
        for n in range(BINS)
        if bool((which == n).any())
    ]
    return float(torch.cat(nats).mean()), float(sum(gaps))


def measure(
    name: str, arm: dict[str, Any], places: dict[str, Path], work: Path, seed: int, steps: int
) -> dict[str, Any]:
    """Train one student; its row."""
    arm = dict(arm)
    start, teacher = arm.pop("start", "scratch"), arm.pop("teacher", None)
    more: dict[str, Any] = {}
    if teacher is not None:
        usual = {"teacher_steps": steps // 2, "teacher_until": "steps", "temperature": 1.0, "teacher_weight": 1.0}
        more = {"teacher": places[teacher], **usual, **arm}
    run = work / f"seed-{seed}" / "run"
    shutil.rmtree(run, ignore_errors=True)
    losses: dict[int, float] = {}

    def watch(line: dict[str, Any]) -> None:
        if line["kind"] == "val":
            losses[line["step"]] = line["loss"]

    growkit.pretrain(places[start], places["data"], run, steps=steps, seed=seed + 100, eval_every=max(1, steps // 8),
                     watch=watch, **RUN, **more)  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_pretrained(run / "final", dtype=torch.float32).eval()
    ours, others = calibration(model, places["data"]), calibration(model, places["other"])
    store = places.get(teacher or "")
    tokens = (places["data"] / "train.bin").stat().st_size // 2
    stored = sum(path.stat().st_size for path in store.iterdir()) / tokens if "store" in str(store) else None
    return {"arm": name, "seed": seed, "val": losses, "loss": losses[steps], "other": others[0],
            "ece": ours[1], "bytes": stored}  # fmt: skip


def show(rows: list[dict[str, Any]], steps: int) -> None:
    """The table, as Markdown: means over seeds, and how far seeds lie apart."""
    by_arm = defaultdict(list)
    for row in rows:
        by_arm[row["arm"]].append(row)
    alone = {row["seed"]: row["loss"] for row in by_arm["scratch"]}
    halfway = lambda row: {int(k): v for k, v in row["val"].items()}[steps // 2]  # noqa: E731
    print(
        "| | seeds | halfway | at the end | lowest to highest | against scratch | other text | calibration | bytes a token |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, of_arm in by_arm.items():
        ends = [row["loss"] for row in of_arm]
        gains = [row["loss"] - alone[row["seed"]] for row in of_arm if row["seed"] in alone]
        stored = "" if of_arm[0]["bytes"] is None else f"{of_arm[0]['bytes']:.0f}"
        print(
            f"| {name} | {len(of_arm)} | {mean(map(halfway, of_arm)):.4f} | {mean(ends):.4f} | {min(ends):.4f} to"
            f" {max(ends):.4f} | {mean(gains):+.4f} | {mean(row['other'] for row in of_arm):.4f} |"
            f" {mean(row['ece'] for row in of_arm):.4f} | {stored} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--other", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--teacher-steps", type=int, default=400)
    asked = parser.parse_args()
    alone_and_quiet()
    kept = KeptRows(asked.work, vars(asked))
    for seed in asked.seeds:
        places = prepare(asked.corpus, asked.other, asked.work, seed, asked.teacher_steps)
        for name, arm in arms().items():
            if not kept.has(arm=name, seed=seed):
                row = kept.keep(measure(name, arm, places, asked.work, seed, asked.steps))
                print(f"{name}, seed {seed}: {row['loss']:.4f}", flush=True)
    show(kept.rows, asked.steps)


if __name__ == "__main__":
    main()
