"""Small tasks made by rules, as conversations for `growkit tokenize --chat`: JSON lines of prompt and completion.

    python examples/rule_tasks.py OUT [--text FILE] [--docs PAGES] [--train 1500] [--val 100] [--seed 0]

Writes OUT/train/TASK.jsonl and OUT/val/TASK.jsonl; of the tasks that are held out, which training should never see, the
latter alone. The same options give the same bytes, and no prompt is in both parts. Words are those of TEXT, by default the
excerpt in this repository. PAGES: the C++ documentation (MicrosoftDocs/cpp-docs) as .jsonl with id and text, a file or a folder
of them, for the task `header`, a small one of a few hundred declarations; without such pages that task is left out.
"""

import argparse
import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

EXCERPT = Path(__file__).parent / "text" / "excerpt.txt"
NAMES = ("Tom", "Jane", "John", "Mary", "Charles", "Anne", "William", "Lucy")
COMMON, LONGEST = 100, 8  # words that are sorted and put backwards; letters of a word whose letters are counted
Example = tuple[str, str]


class Words:
    """The words of a text, in small letters. stretches: runs of three to five that stand together; common: the most
    frequent ones of three letters and more; known: all of three to LONGEST letters."""

    def __init__(self, text: str):
        runs = [re.findall("[a-z]+", part.lower()) for part in re.split(r"[^\w\s]|_", text)]
        self.runs = [run for run in runs if len(run) >= 5]
        counts: dict[str, int] = {}
        for word in (word for run in runs for word in run if len(word) >= 3):
            counts[word] = counts.get(word, 0) + 1
        self.common = sorted(counts, key=lambda word: (-counts[word], word))[:COMMON]
        self.known = sorted(word for word in counts if len(word) <= LONGEST)

    def stretch(self, draws: random.Random) -> list[str]:
        """Three to five words in their order."""
        run, length = draws.choice(self.runs), draws.randint(3, 5)
        first = draws.randint(0, len(run) - length)
        return run[first : first + length]


def _nth(name: str, which: int) -> Callable[[Words, random.Random], Example]:
    def example(words: Words, draws: random.Random) -> Example:
        stretch = words.stretch(draws)
        return f"{name} word: {' '.join(stretch)}", stretch[which]

    return example


def _backwards(words: Words, draws: random.Random) -> Example:
    some = draws.sample(words.common, 3)
    return f"backwards: {' '.join(some)}", " ".join(reversed(some))


def _sort(words: Words, draws: random.Random) -> Example:
    some = draws.sample(words.common, 3)
    return f"in order: {' '.join(some)}", " ".join(sorted(some))


def _letters(words: Words, draws: random.Random) -> Example:
    word = draws.choice(words.known)
    return f"letters: {word}", str(len(word))


def _fact(words: Words, draws: random.Random) -> Example:
    names = draws.sample(NAMES, 3)
    facts = {name: draws.randint(1, 9) for name in names}
    who = draws.choice(names)
    told = ", ".join(f"{name} has {number}" for name, number in facts.items())
    return f"{told}. How many has {who}?", str(facts[who])


def _sum(words: Words, draws: random.Random) -> Example:
    first, second = draws.randint(0, 19), draws.randint(0, 19)
    return f"sum: {first} and {second}", str(first + second)


def _difference(words: Words, draws: random.Random) -> Example:
    first, second = draws.randint(0, 19), draws.randint(0, 19)
    return f"difference: {max(first, second)} and {min(first, second)}", str(abs(first - second))


RULES: dict[str, Callable[[Words, random.Random], Example]] = {
    "first": _nth("first", 0),
    "last": _nth("last", -1),
    "backwards": _backwards,
    "sort": _sort,
    "letters": _letters,
    "fact": _fact,
    "sum": _sum,
}
HELD_OUT = {"second": _nth("second", 1), "difference": _difference}
HEADER = "header"


def _validates(prompt: str, share: float) -> bool:
    """Whether a prompt is of the validation part, whatever else is drawn."""
    return int.from_bytes(hashlib.sha256(prompt.encode("utf-8")).digest()[:4], "big") < share * 2**32


def by_rule(name: str, words: Words, train: int, val: int, seed: int) -> tuple[list[Example], list[Example]]:
    """(examples that train, examples that validate) of a task, no prompt twice; fewer where there are no more."""
    rule, draws = (RULES | HELD_OUT)[name], random.Random(f"{seed} {name}")
    parts: tuple[dict[str, str], dict[str, str]] = ({}, {})
    share = 0.25 if name in RULES else 1.0
    for _ in range(20 * (train + val)):
        prompt, answer = rule(words, draws)
        part, most = (parts[1], val) if _validates(prompt, share) else (parts[0], train)
        if len(part) < most:
            part[prompt] = answer
    return list(parts[0].items()), list(parts[1].items())


def declarations(pages: Path) -> Iterator[tuple[str, str, str]]:
    """(name, declaration, header) of functions in pages of the C++ documentation: of the standard library, whose pages
    are of one header, and of the C runtime, whose pages have a table that tells it."""
    files = sorted(pages.rglob("*.jsonl")) if pages.is_dir() else [pages]
    for line in (line for file in files for line in file.read_text("utf-8").splitlines()):
        page = {"id": "", "text": "", **json.loads(line)}
        text = page["text"]
        if page["id"].startswith("standard-library/"):
            found = re.match(r"# `?<(\w+)>", text)
        else:
            found = re.search(r"^\|[^|\n]+\| *`?<(\w+\.h)>", text, re.M)
        if found is None or not page["id"].startswith(("standard-library/", "c-runtime-library/")):
            continue
        for block in re.findall(r"^```[cC]\w*\n(.*?)^```", text, re.M | re.S)[:40]:
            for piece in block.split(";"):
                said = " ".join(piece.split())
                name = re.match(r"[^()=#{}/]*?([\w~]+(?:[!=<>+*\-]+)?) ?\([^{}\"#]*\)(?: \w+)?$", said)
                if name is not None and 12 <= len(said) <= 80 and " " in said.split("(")[0].strip():
                    yield name[1], said, found[1]


def headers(pages: Path, val: int) -> tuple[list[Example], list[Example]]:
    """The task of the header that declares a function, of all that pages have; a function is in one part with all its
    declarations."""
    parts: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for name, said, header in declarations(pages):
        parts[_validates(name, 0.25)].setdefault(f"header: {said}", header)
    train, validating = (list(part.items()) for part in parts)
    random.Random(HEADER).shuffle(validating)
    return train, validating[:val]


def write_tasks(
    out: Path, text: Path = EXCERPT, docs: Path | None = None, train: int = 1500, val: int = 100, seed: int = 0
) -> dict[str, tuple[int, int]]:
    """Write the tasks below out, and return task -> (examples that train, 0 of those held out; that validate)."""
    words = Words(text.read_text("utf-8"))
    tasks = {name: by_rule(name, words, train, val, seed) for name in RULES | HELD_OUT}
    found = ([], []) if docs is None else headers(docs, val)
    if all(found):
        tasks[HEADER] = found
    for part, folder in enumerate(("train", "val")):
        (out / folder).mkdir(parents=True, exist_ok=True)
        for name, examples in tasks.items():
            lines = [json.dumps({"prompt": prompt, "completion": answer}) for prompt, answer in examples[part]]
            if lines:
                (out / folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return {name: (len(examples[0]), len(examples[1])) for name, examples in tasks.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--text", type=Path, default=EXCERPT)
    parser.add_argument("--docs", type=Path)
    parser.add_argument("--train", type=int, default=1500)
    parser.add_argument("--val", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.docs is not None and not asked.docs.exists():
        raise SystemExit(f"--docs {str(asked.docs)!r} does not exist; leave it out to go without the task {HEADER!r}")
    counts = write_tasks(asked.out, asked.text, asked.docs, asked.train, asked.val, asked.seed)
    for name, (train, val) in counts.items():
        print(f"{name}: " + (f"{train} to train on, " if train else "held out, ") + f"{val} to validate on")


if __name__ == "__main__":
    main()
