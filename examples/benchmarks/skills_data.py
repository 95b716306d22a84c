"""What skills.py learns from and measures on: conversations, pages and general text, and the figures of a model."""

import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
import transformers
from small_base import TEMPLATE

import growkit
from growkit.data.tokens import open_tokens

sys.path.append(str(Path(__file__).parents[1]))
from rule_tasks import write_tasks

DOCS = "docs"
GATED = "gated"
SKILLS = ("header", "letters", "first", "fact", DOCS)  # in the order they are learned in
BEYOND = 200_000  # characters of each book that the base was trained on
PARAGRAPHS, LONGEST = 80, 64  # general ones of each book; tokens that are measured of each
MERGES: dict[str, dict[str, Any]] = {
    "average": dict(method="average"),
    "sum, a third": dict(method="task-arithmetic", scale=1 / 3),
    "DARE": dict(method="dare", drop=0.5),
    "DARE, a third": dict(method="dare", drop=0.5, scale=1 / 3),
    "TIES": dict(method="ties"),
}
PANEL: dict[str, Any] = dict(rank=128, basis="data", tokens=16_384)


@dataclass(frozen=True)
class Row:
    """A sequence. learned: which of its tokens are predicted and measured; asked: how many stand before the first."""

    ids: torch.Tensor
    learned: torch.Tensor
    asked: int


def write_texts(books: Path, docs: Path, folder: Path, seed: int = 0) -> None:
    """General paragraphs and pages, as JSON lines of text: a part to learn from, a part to measure on."""
    draws = random.Random(seed)
    general = []
    for book in sorted(books.rglob("*.txt")):
        parts = [part.strip() for part in book.read_text("utf-8")[BEYOND:].split("\n\n")]
        long = [part for part in parts if len(part) >= 200]
        general += draws.sample(long, min(PARAGRAPHS, len(long)))
    draws.shuffle(general)
    pages = [json.loads(line)["text"][:3000] for line in (docs / "train.jsonl").read_text("utf-8").splitlines()]
    pages = draws.sample(pages, 400)
    cuts = {"general": (general, 2 * len(general) // 3), DOCS: (pages, 320)}
    for name, (texts, cut) in cuts.items():
        for part, own in (("train", texts[:cut]), ("val", texts[cut:])):
            (folder / part).mkdir(parents=True, exist_ok=True)
            lines = [json.dumps({"text": text}) for text in own]
            (folder / part / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


def prepare(books: Path, docs: Path, work: Path, base: Path, seed: int = 0) -> dict[str, Path]:
    """Datasets of the skills and of general text, and the panel; what is there already stays."""
    places = {name: work / "data" / name for name in (*SKILLS, "general")} | {"base": base, "panel": work / "panel"}
    texts = work / "texts"
    if not texts.exists():
        write_tasks(texts, docs=docs / "train.jsonl", seed=seed)
        write_texts(books, docs, texts, seed)
        (texts / "template.jinja").write_text(TEMPLATE, "utf-8")
    for name in (*SKILLS, "general"):
        if not places[name].exists():
            train, val = (str(texts / part / f"{name}.jsonl") for part in ("train", "val"))
            chat = {} if name in (DOCS, "general") else {"chat": True, "template": texts / "template.jinja"}
            growkit.tokenize([train], places[name], base, val=[val], **chat)
    if not places["panel"].exists():
        growkit.panel(base, places["panel"], text=places["general"], seed=seed, **PANEL)
    return places


def rows_of(data: Path, most: int) -> list[Row]:
    """Of the validation split: conversations, or the beginning of each document."""
    tokens = open_tokens(data, "val")
    chat = tokens.is_chat
    index = tokens.learned.starts if chat else np.load(data / "val.idx.npy")
    rows = []
    for first, last in list(zip(index[:-1].tolist(), index[1:].tolist()))[:most]:
        last = last if chat else min(last, first + LONGEST)
        ids = torch.from_numpy(tokens.ids[first:last].astype("i8"))
        learned = torch.ones(len(ids), dtype=torch.bool)
        if chat:
            learned = torch.from_numpy(tokens.learned.marks[first:last].astype("bool"))
        asked = int(learned.int().argmax()) if chat else len(ids)
        rows.append(Row(ids, learned, asked))
    return rows


def batches(rows: Sequence[Row]) -> Iterator[tuple[list[Row], torch.Tensor, torch.Tensor]]:
    """(rows, ids (rows, longest), which are learned) of rows alike in length."""
    order = sorted(rows, key=lambda row: len(row.ids))
    for first in range(0, len(order), 64):
        some = order[first : first + 64]
        yield (
            some,
            torch.nn.utils.rnn.pad_sequence([row.ids for row in some], batch_first=True),
            torch.nn.utils.rnn.pad_sequence([row.learned for row in some], batch_first=True),
        )


@torch.no_grad()
def measure(model: Any, rows: Sequence[Row], keep: bool = False) -> dict[str, Any]:
    """Nats per learned token; the share of rows whose greedy answer is right to its end; with keep what was said,
    (tokens, vocabulary); of a bundle which skills opened, one decision for each row, by what is asked."""
    nats, right, said, opened = 0.0, [], [], []
    count = 0
    for some, ids, learned in batches(rows):
        if hasattr(model, "skills"):
            decided = [model.skills.decide(row.ids[None, : row.asked])[0] for row in some]
            opened += [model.skills.named(each) for each in decided]
            with model.skills.decided(decided):
                logits = model(input_ids=ids[:, :-1]).logits
        else:
            logits = model(input_ids=ids[:, :-1]).logits
        scores, mask = torch.log_softmax(logits.float(), -1), learned[:, 1:]
        nats -= float(scores.gather(2, ids[:, 1:, None]).squeeze(2)[mask].double().sum())
        count += int(mask.sum())
        right += (~((scores.argmax(-1) != ids[:, 1:]) & mask).any(1)).tolist()
        if keep:
            said.append(scores[mask])
    return {"loss": nats / count, "exact": mean(map(float, right)), "said": said, "opened": opened}


def told(model: Any, rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Loss and exact match of every skill's data, and the loss of general text."""
    of_skill = {name: measure(model, rows[name]) for name in SKILLS}
    general = measure(model, rows["general"])
    found = {name: {"loss": one["loss"], "exact": one["exact"]} for name, one in of_skill.items()}
    row: dict[str, Any] = {"tasks": found, "general": general["loss"]}
    if general["opened"]:
        row["opened"] = {name: mean(name in names for names in of_skill[name]["opened"]) for name in SKILLS}
        row["opened"]["general"] = mean(bool(names) for names in general["opened"])
    return row


def strangers(model: Any, texts: Path, base: Path) -> dict[str, float]:
    """The share of prompts of each task that nobody learned for which a bundle opens a skill."""
    words, found = transformers.AutoTokenizer.from_pretrained(base), {}
    for path in sorted((texts / "val").glob("*.jsonl")):
        if path.stem not in (*SKILLS, "general"):
            prompts = [json.loads(line)["prompt"] + "\n=" for line in path.read_text("utf-8").splitlines()]
            rows = [torch.tensor([words(prompt)["input_ids"]]) for prompt in prompts]
            found[path.stem] = mean(bool(model.skills.decide(ids)[0]) for ids in rows)
    return found


def loaded(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
