"""Five skills on one small model, each way of learning them, alone and all plugged: what is gained, what is forgotten.

    python examples/benchmarks/skills.py BOOKS --docs PAGES --work DIR [--steps 80] [--seeds 0] [--arms panel gated]

BOOKS: a folder of .txt files, on the beginnings of which the base is trained as in regimes.py (4 x 128, a BPE vocabulary of
2048); paragraphs further back are the general text: two thirds for the panel, for --protect general and for the gate,
one third to measure on. PAGES: the C++ documentation. Four skills are tasks of examples/rule_tasks.py, conversations of
which the answers are learned, and one is the documentation itself, as text. Each is learned --steps steps

- full, lora:8, lora-mlp:14 (on feed-forward layers alone, as large): by `growkit tune`
- panel: by `growkit skill learn`, of a panel of rank 128 by general text, 32 directions of each weight
- protected: likewise, kept away from general text and from the skills before it; slow: at a tenth of the rate
- gated: the skills of `panel`, in a bundle of `growkit skill plug --gated` (alpha 1 %)

All five plugged: the sum of what they learned, by `growkit merge` and `growkit skill plug`; and DARE, TIES and average of
the five full fine-tunings. Every row is appended to DIR/rows.jsonl; a stopped benchmark goes on where it was. One thread.
A seed draws texts and learns anew, on the same base; a table each.

Gain: nats per answer token below the base's. Kept: the share of its own gain that a skill still has with all plugged.
rho(s -> t): over the linear weights that t changes the mean of |dW_s x| / |dW_t x| on t's data; KL: of base + t against base + s + t.
"""

import argparse
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from kept_rows import KeptRows, alone_and_quiet
from safetensors.torch import load_file
from skills_data import GATED, MERGES, SKILLS, Row, loaded, measure, prepare, rows_of, strangers, told
from skills_table import show
from small_base import base_model

import growkit
from growkit.skills.layer_inputs import LayerInputs

ROWS = 80  # of a skill that are measured
RUN: dict[str, Any] = dict(
    seq_len=96, batch_size=8, eval_every=10**6, eval_tokens=960, save_every=10**6, warmup=10, device="cpu"
)
RATES = {"full": 1e-3, "lora:8": 3e-3, "lora-mlp:14": 3e-3}  # as in regimes.py, some ten times what large models take
# three times the default, better here: header, 60 steps, ends at 1.45 nats with 4e-3, 1.02 with 1.2e-2, 1.40 with 4e-2
TRANSFORM_RATES = {"panel": 1.2e-2, "protected": 1.2e-2, "protected, slow": 1.2e-3}
SIZE, SKETCH = 32, 8192
ALONE = (*RATES, *TRANSFORM_RATES)  # what learns one skill at a time
ARMS = (*ALONE, GATED, *MERGES)  # gated is of panel's skills, merges are of those of full
State = Mapping[str, torch.Tensor]


def learn(
    arm: str, skill: str, places: Mapping[str, Path], folder: Path, steps: int, seed: int
) -> tuple[Path, int, float]:
    """(the model with the skill in it, numbers that the skill has, seconds) of one skill learned one way."""
    run = folder / skill
    shutil.rmtree(run, ignore_errors=True)
    begun = time.process_time()
    if arm in RATES:
        growkit.tune(places["base"], places[skill], run, train="all" if arm == "full" else arm, lr=RATES[arm],
                     steps=steps, seed=seed, **RUN)  # fmt: skip
    else:
        before = [folder / name / "final" for name in SKILLS[: SKILLS.index(skill)]]
        growkit.skill_learn(places["base"], places["panel"], places[skill], run, size=SIZE, lr=TRANSFORM_RATES[arm],
                            sketch_tokens=SKETCH, protect=None if arm == "panel" else ["general", *before],
                            steps=steps, seed=seed, **RUN)  # fmt: skip
    seconds = time.process_time() - begun
    if arm == "full":
        return (
            run / "final",
            sum(one.numel() for one in load_file(run / "final" / "model.safetensors").values()),
            seconds,
        )
    stored = load_file(run / "final" / ("adapter_model.safetensors" if arm in RATES else "skill.safetensors"))
    numbers = sum(one.numel() for name, one in stored.items() if arm in RATES or name.endswith(".R"))
    growkit.apply(places["base"], [run / "final"], out=run / "applied")
    return run / "applied", numbers, seconds


def place(arm: str, skill: str, work: Path) -> Path:
    """The model with a skill that was learned."""
    return work / "learned" / arm / skill / ("final" if arm == "full" else "applied")


def inputs_of(model: Any, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """E[x x^T] of what each linear weight of the base reads of some rows, by the weight's name."""
    ids = torch.nn.utils.rnn.pad_sequence([row.ids for row in rows], batch_first=True)
    real = torch.nn.utils.rnn.pad_sequence(
        [torch.ones_like(row.ids, dtype=torch.bool) for row in rows], batch_first=True
    )
    inputs, found = LayerInputs(model, ids, real=real), {}
    for number, layer in enumerate(model.model.layers):
        names = [
            f"model.layers.{number}.{name}" for name, one in layer.named_modules() if isinstance(one, torch.nn.Linear)
        ]
        found |= {f"{name}.weight": moment for name, moment in inputs.moments(number, {n: n for n in names}).items()}
    return found


def interference(arm: str, base: Path, work: Path, rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """rho and KL of each ordered pair of an arm's skills, "s -> t"."""
    model = loaded(base)
    states = {name: load_file(place(arm, name, work) / "model.safetensors") for name in SKILLS}
    plain = load_file(base / "model.safetensors")
    changes = {name: {key: own[key].float() - value for key, value in plain.items()} for name, own in states.items()}
    rho, kl = {}, {}
    moments = {name: inputs_of(model, rows[name]) for name in SKILLS}
    for t in SKILLS:
        size = {
            s: {key: float(((changes[s][key].double() @ c) * changes[s][key]).sum().clamp(min=0)) ** 0.5
                for key, c in moments[t].items()}
            for s in SKILLS
        }  # fmt: skip
        told_alone = measure(plugged(model, plain, [changes[t]]), rows[t], keep=True)["said"]
        for s in (name for name in SKILLS if name != t):
            rho[f"{s} -> {t}"] = mean(size[s][key] / size[t][key] for key in moments[t] if size[t][key])
            both = measure(plugged(model, plain, [changes[t], changes[s]]), rows[t], keep=True)["said"]
            pairs = [(one.exp() * (one - other)).sum(-1) for one, other in zip(told_alone, both)]
            kl[f"{s} -> {t}"] = float(torch.cat(pairs).mean())
    return {"rho": rho, "kl": kl}


def plugged(model: Any, plain: State, changes: Sequence[State]) -> Any:
    """The model with the base's weights and these changes."""
    model.load_state_dict({key: value + sum(one[key] for one in changes) for key, value in plain.items()}, strict=False)
    return model


def together(
    arm: str, places: Mapping[str, Path], work: Path, rows: Mapping[str, Sequence[Row]], seed: int
) -> dict[str, Any]:
    """The row of all five plugged."""
    out, base = work / "together" / arm.replace(" ", "-").replace(",", ""), places["base"]
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(exist_ok=True)
    folders = {name: work / "learned" / arm / name / "final" for name in SKILLS}
    if arm == GATED:
        named = [f"{name}={work / 'learned' / 'panel' / name / 'final'}" for name in SKILLS]
        made = growkit.skill_plug(base, named, out, gated=True, text=places["general"], texts=1400, alpha=0.01,
                                  seed=seed)  # fmt: skip
        model = growkit.load_skills(out)
        return told(model, rows) | {
            "certificate": dict(made.said["promise"]),
            "strangers": strangers(model, work / "texts", base),
        }
    if arm in MERGES:
        growkit.merge([place("full", name, work) for name in SKILLS], out, base=base, **MERGES[arm])
        return told(loaded(out), rows)
    found = interference(arm, base, work, rows)
    if arm in TRANSFORM_RATES:
        growkit.skill_plug(base, [f"{name}={folder}" for name, folder in folders.items()], out, force=True)
        checked = growkit.skill_check(places["panel"], [f"{name}={folder}" for name, folder in folders.items()])
        found["checked"] = {f"{pair.source} -> {pair.target}": pair.mean for pair in checked.pairs}
    else:
        growkit.merge([place(arm, name, work) for name in SKILLS], out, base=base, method="task-arithmetic")
    return told(loaded(out), rows) | found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("books", type=Path)
    parser.add_argument("--docs", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--base-steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    asked = parser.parse_args()
    alone_and_quiet()
    kept = KeptRows(asked.work, vars(asked))
    base = base_model(asked.books, asked.work, asked.base_steps)
    for seed in asked.seeds:
        work = asked.work / f"seed-{seed}"
        places = prepare(asked.books, asked.docs, work, base, seed)
        measured = {name: rows_of(places[name], ROWS if name != "general" else 10**6) for name in (*SKILLS, "general")}
        todo = [("base", "none")]
        for arm in (arm for arm in ARMS if arm in asked.arms):
            todo += [(arm, skill) for skill in SKILLS if arm in ALONE] + [(arm, "all")]
        for arm, skill in todo:
            if kept.has(arm=arm, skill=skill, seed=seed):
                continue
            row: dict[str, Any] = {"arm": arm, "skill": skill, "seed": seed}
            if arm == "base":
                row |= told(loaded(base), measured)
            elif skill == "all":
                row |= together(arm, places, work, measured, seed)
            else:
                folder = work / "learned" / arm
                model, row["numbers"], row["seconds"] = learn(arm, skill, places, folder, asked.steps, seed)
                row |= told(loaded(model), measured)
            kept.keep(row)
            print(f"seed {seed}, {arm}, {skill}: general {row['general']:.3f}, " + ", ".join(
                f"{name} {one['loss']:.2f}" for name, one in row["tasks"].items()), flush=True)  # fmt: skip
        print(f"\nseed {seed}")
        rows = [row for row in kept.rows if row["seed"] == seed and (row["arm"], row["skill"]) in todo]
        show(sorted(rows, key=lambda row: todo.index((row["arm"], row["skill"]))))


if __name__ == "__main__":
    main()
