"""Regimes of tuning: one task, many tasks, many and then one; dense against its upcycled mixture, and small modules.

    python examples/benchmarks/regimes.py BOOKS --work DIR [--docs PAGES] [--seeds 0 1 2]

BOOKS: a folder of .txt files, on the beginnings of which a small Llama shape (4 x 128, a BPE vocabulary of 2048) is
trained once. For each seed the tasks of examples/rule_tasks.py are made (PAGES: the C++ documentation, for one more), the
model is upcycled to 8 experts of which a token takes 2, and each arm is `growkit tune` with the stages of its regime:

- one task: its own conversations alone, for --one-steps
- many tasks: all that are not held out, each as often, for --steps
- many, then one: a file of two stages, --steps and then --one-steps

Measured on every task's validation part: nats per answer token, and how often the greedy answer is the right one to its
end (an answer is right where each of its tokens is the likeliest one behind those before it, so one pass tells). Every row
is appended to DIR/rows.jsonl; a stopped benchmark goes on where it was. One thread.
"""

import argparse
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import transformers
from kept_rows import KeptRows, alone_and_quiet
from small_base import TEMPLATE, base_model

import growkit
from growkit.data.tokens import open_tokens
from growkit.models.adapters import adapted

sys.path.append(str(Path(__file__).parents[1]))
from rule_tasks import HEADER, HELD_OUT, write_tasks

TUNE: dict[str, Any] = dict(
    seq_len=96, batch_size=8, eval_every=10**6, eval_tokens=960, save_every=10**6, warmup=10, mix=1e9
)
RATES = {
    "dense": 3e-3,
    "mixture": 4e-3,
    "lora": 5e-3,
    "mov": 2e-1,
    "molora": 5e-3,
}  # the better of two tries each
BALANCE = 0.01
ONE, MANY, BOTH = "one task", "many tasks", "many, then one"
TARGETS = ("sort", HEADER)  # what is tuned alone: of 1,500 conversations, and of a few hundred


@dataclass(frozen=True)
class Arm:
    """What is tuned and how. model: whether of the dense one or of the mixture; learner: as in --train."""

    name: str
    regime: str
    target: str | None = None
    mixture: bool = False
    learner: str = "all"
    balance: float = 0.0

    def stages(self, steps: int, one_steps: int) -> str:
        """The regime as a file of stages."""
        many = f'[[stage]]\nname = "{MANY}"\nsteps = {steps}\n'
        one = f'[[stage]]\nname = "{ONE}"\nsteps = {one_steps}\ntasks = ["{self.target}"]\n'
        second = f"{one}lr = 0.5\nwarmup = 5\n"
        return {MANY: many, ONE: one, BOTH: f"{many}\n{second}"}[self.regime]

    def rate(self) -> float:
        """Peak learning rate."""
        return RATES[self.learner.split(":")[0] if self.learner != "all" else "mixture" if self.mixture else "dense"]


def arms(targets: tuple[str, ...]) -> Iterator[Arm]:
    """All arms; the balancing loss alone, where there is a small task, on that one alone."""
    models: dict[str, dict[str, Any]] = {
        "dense": {},
        "mixture": {"mixture": True},
        "mixture, balanced": {"mixture": True, "balance": BALANCE},
    }
    for name, model in models.items():
        yield Arm(name, MANY, **model)
    for learner in ("lora:8", "mov:10", "molora:10:4"):
        yield Arm(learner, MANY, learner=learner)
    for target in reversed(targets):
        for name, model in models.items():
            if "balance" not in model or target == targets[-1]:
                yield Arm(name, ONE, target, **model)
                yield Arm(name, BOTH, target, **model)


def prepare(base: Path, folder: Path, docs: Path | None, seed: int) -> dict[str, Path]:
    """The conversations and the mixture of a seed; what is there already stays."""
    places = {"dense": base, "mixture": folder / "mixture", "data": folder / "data"}
    if not places["data"].exists():
        folder.mkdir(parents=True, exist_ok=True)
        template = folder / "template.jinja"
        template.write_text(TEMPLATE, "utf-8")
        write_tasks(folder / "tasks", docs=docs, seed=seed)
        train, val = (
            [f"{path.stem}={path}" for path in sorted((folder / "tasks" / part).glob("*.jsonl"))]
            for part in ("train", "val")
        )
        growkit.tokenize(train, places["data"], base, chat=True, template=template, val=val)
    if not places["mixture"].exists():
        growkit.upcycle(base, places["mixture"], experts=8, top_k=2, seed=seed)
    return places


def answers(model: Any, data: Path) -> dict[str, dict[str, float]]:
    """Of each task of the validation split: nats per answer token, and the share of greedy answers that are right."""
    tokens = open_tokens(data, "val")
    starts, marks, domains = tokens.learned.starts, tokens.learned.marks, tokens.domains
    assert domains is not None
    of_task: dict[str, list[tuple[float, int, bool]]] = defaultdict(list)
    order = sorted(range(len(starts) - 1), key=lambda n: starts[n + 1] - starts[n])
    for first in range(0, len(order), 64):
        numbers = order[first : first + 64]
        spans = [slice(int(starts[n]), int(starts[n + 1])) for n in numbers]
        width = max(span.stop - span.start for span in spans)
        ids, learned = torch.zeros(len(spans), width, dtype=torch.long), torch.zeros(len(spans), width)
        for row, span in enumerate(spans):
            ids[row, : span.stop - span.start] = torch.from_numpy(tokens.ids[span].astype("i8"))
            learned[row, : span.stop - span.start] = torch.from_numpy(marks[span].astype("f4"))
        with torch.no_grad():
            scores = torch.log_softmax(model(input_ids=ids[:, :-1]).logits.float(), dim=-1)
        nats = -scores.gather(2, ids[:, 1:, None]).squeeze(2)
        wrong = (scores.argmax(-1) != ids[:, 1:]) * learned[:, 1:]
        tasks = domains.of(starts[numbers])
        for row, task in enumerate(tasks.tolist()):
            own = learned[row, 1:]
            of_task[domains.names[task]].append((float((nats[row] * own).sum()), int(own.sum()), not wrong[row].any()))
    return {
        task: {
            "loss": sum(nats for nats, _, _ in told) / sum(count for _, count, _ in told),
            "exact": mean(float(right) for _, _, right in told),
        }
        for task, told in of_task.items()
    }


def measure(arm: Arm, places: dict[str, Path], folder: Path, seed: int, steps: int, one_steps: int) -> dict[str, Any]:
    """Tune one arm; its row."""
    model = places["mixture" if arm.mixture else "dense"]
    run, stages = folder / "run", folder / "stages.toml"
    shutil.rmtree(run, ignore_errors=True)
    stages.write_text(arm.stages(steps, one_steps), "utf-8")
    last: dict[str, Any] = {}
    begun = time.process_time()
    growkit.tune(
        model, places["data"], run, train=arm.learner, stages=stages, lr=arm.rate(), balance=arm.balance or None,
        seed=seed, device="cpu", watch=lambda line: last.update({line["kind"]: line}), **TUNE,
    )  # fmt: skip
    seconds = time.process_time() - begun
    whole = arm.learner == "all"
    loaded = transformers.AutoModelForCausalLM.from_pretrained(run / "final" if whole else model, dtype=torch.float32)
    loaded = loaded.eval() if whole else adapted(loaded.eval(), run / "final")
    return {
        "arm": arm.name, "regime": arm.regime, "target": arm.target, "seed": seed, "seconds": seconds,
        "flops": last["train"]["flops"], "dead": last["val"].get("dead_experts"), "tasks": answers(loaded, places["data"]),
    }  # fmt: skip


def figure(rows: list[dict[str, Any]], tasks: list[str], what: str, spread: bool = True) -> str:
    """A cell: the mean over tasks and seeds; spread: with the lowest and the highest seed's, where there are several."""
    by_seed = [mean(row["tasks"][task][what] for task in tasks) for row in rows]
    scale, digits = (100, 0) if what == "exact" else (1, 2)
    ends = (
        f" ({scale * min(by_seed):.{digits}f} to {scale * max(by_seed):.{digits}f})" if spread and len(rows) > 1 else ""
    )
    return f"{scale * mean(by_seed):.{digits}f}{ends}"


def show(rows: list[dict[str, Any]]) -> None:
    """The tables, as Markdown."""
    tasks = sorted(rows[0]["tasks"], key=lambda task: (task in HELD_OUT, task))
    seen = [task for task in tasks if task not in HELD_OUT]
    groups: dict[tuple[str, str, str | None], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["arm"], row["regime"], row["target"]].append(row)
    names = list(dict.fromkeys(row["arm"] for row in rows))
    for target in dict.fromkeys(row["target"] for row in rows if row["target"]):
        others = [task for task in seen if task != target]
        print(f"\n| `{target}` | regime | its loss | its exact match, % | the others' loss | held-out tasks' loss |")
        print("|---|---|---|---|---|---|")
        for name in names:
            for regime in (ONE, MANY, BOTH):
                of_arm = groups.get((name, regime, None if regime == MANY else target), [])
                if of_arm and (name, ONE, target) in groups:
                    cells = (([target], "loss"), ([target], "exact"), (others, "loss"), (list(HELD_OUT), "loss"))
                    print(f"| {name} | {regime} | " + " | ".join(figure(of_arm, *cell) for cell in cells) + " |")
    for what, title in (("exact", "exact match, %"), ("loss", "loss")):
        print(f"\n| many tasks: {title} | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
        for label, some in (*((task, [task]) for task in tasks), ("all seen", seen), ("held out", list(HELD_OUT))):
            cells = [groups.get((name, MANY, None)) or groups[name, "as it is", None] for name in names]
            note = " (held out)" if label in HELD_OUT else ""
            figures = [figure(cell, some, what, spread=len(some) > 1) for cell in cells]
            print(f"| {label}{note} | " + " | ".join(figures) + " |")
    print("\n| | seeds | FLOPs of many tasks | seconds | dead experts |\n|---|---|---|---|---|")
    for name in names:
        of_arm = groups.get((name, MANY, None), [])
        if of_arm:
            flops, seconds = (mean(row[key] for row in of_arm) for key in ("flops", "seconds"))
            dead = "" if of_arm[0]["dead"] is None else f"{mean(len(row['dead']) for row in of_arm):.1f}"
            print(f"| {name} | {len(of_arm)} | {flops:.2e} | {seconds:.0f} | {dead} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("books", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--docs", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--one-steps", type=int, default=40)
    parser.add_argument("--base-steps", type=int, default=600)
    asked = parser.parse_args()
    alone_and_quiet()
    kept = KeptRows(asked.work, vars(asked))
    base = base_model(asked.books, asked.work, asked.base_steps)
    for seed in asked.seeds:
        folder = asked.work / f"seed-{seed}"
        places = prepare(base, folder, asked.docs, seed)
        targets = tuple(target for target in TARGETS if (folder / "tasks" / "train" / f"{target}.jsonl").exists())
        for arm in (None, *arms(targets)):
            name, regime, target = ("untuned", "as it is", None) if arm is None else (arm.name, arm.regime, arm.target)
            key = {"arm": name, "regime": regime, "target": target, "seed": seed}
            if kept.has(**key):
                continue
            if arm is None:
                untuned = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
                row = {**key, "tasks": answers(untuned, places["data"])}
            else:
                row = measure(arm, places, folder, seed, asked.steps, asked.one_steps)
            kept.keep(row)
            told = mean(of["loss"] for task, of in row["tasks"].items() if task not in HELD_OUT)
            print(
                f"seed {seed}, {', '.join(filter(None, (name, regime, target)))}: {told:.3f} over the seen tasks",
                flush=True,
            )
    show(kept.rows)


if __name__ == "__main__":
    main()
