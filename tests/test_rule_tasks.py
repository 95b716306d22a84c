"""The small tasks that examples/rule_tasks.py makes: the same each time, right, apart, and read by tokenize --chat."""

import importlib.util
import json
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "examples" / "rule_tasks.py"
RIGHT = {  # task -> what its words must come to
    "first": lambda words: words[0],
    "second": lambda words: words[1],
    "last": lambda words: words[-1],
    "backwards": lambda words: " ".join(words[::-1]),
    "sort": lambda words: " ".join(sorted(words)),
    "letters": lambda words: str(len(words[0])),
    "sum": lambda words: str(int(words[0]) + int(words[2])),
    "difference": lambda words: str(int(words[0]) - int(words[2])),
}
PAGES = [
    {"id": "standard-library/one.md", "text": "# `<list>` functions\n\n```cpp\nvoid one(int count);\n```\n"},
    {"id": "c-runtime-library/two.md", "text": "# `two`\n\n```C\nint two(\n  char *text\n);\nint _two( char *text );\n```\n"
     "\n|Routine|Required header|\n|---|---|\n| `two` | `<stdio.h>` |\n"},
    {"id": "mfc/three.md", "text": "# `<list>`\n\n```cpp\nvoid three(int count);\n```\n"},
]  # fmt: skip


@pytest.fixture(scope="module")
def tasks():
    spec = importlib.util.spec_from_file_location("rule_tasks", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(tasks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    (folder / "pages.jsonl").write_text("".join(json.dumps(page) + "\n" for page in PAGES))
    counts = tasks.write_tasks(folder / "tasks", docs=folder / "pages.jsonl", train=60, val=20, seed=3)
    return folder / "tasks", counts


def read(folder, part):
    return {
        path.stem: [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for path in (folder / part).iterdir()
    }


def test_answers_are_right_and_no_prompt_is_in_both_parts(tasks, made):
    folder, counts = made
    train, val = read(folder, "train"), read(folder, "val")
    assert set(train) == {*tasks.RULES, "header"} and set(tasks.RULES | tasks.HELD_OUT) <= set(val)
    for name in tasks.RULES | tasks.HELD_OUT:
        assert counts[name] == (60 * (name in tasks.RULES), 20)
        lines = train.get(name, []) + val[name]
        assert (len(train.get(name, [])), len(val[name])) == counts[name]
        assert len({line["prompt"] for line in lines}) == len(lines)
        for line in lines:
            if name == "fact":
                facts, asked = line["prompt"].removesuffix("?").split(". How many has ")
                assert f"{asked} has {line['completion']}" in facts.split(", ")
            else:
                assert line["completion"] == RIGHT[name](line["prompt"].split(": ")[1].split())


def test_headers_are_of_pages_that_tell_them(tasks, tmp_path):
    (tmp_path / "pages.jsonl").write_text("".join(json.dumps(page) + "\n" for page in PAGES))
    train, val = tasks.headers(tmp_path / "pages.jsonl", 20)
    assert sorted(train + val) == [
        ("header: int _two( char *text )", "stdio.h"),
        ("header: int two( char *text )", "stdio.h"),
        ("header: void one(int count)", "list"),
    ]


def test_a_seed_is_a_set_and_without_pages_a_task_is_left_out(tasks, made, tmp_path):
    folder, _ = made
    for name, seed in (("again", 3), ("other", 4)):
        counts = tasks.write_tasks(tmp_path / name, train=60, val=20, seed=seed)
        assert set(counts) == set(tasks.RULES | tasks.HELD_OUT)
    for part in ("train", "val"):
        first, again, other = (read(place, part) for place in (folder, tmp_path / "again", tmp_path / "other"))
        assert again == {name: lines for name, lines in first.items() if name != "header"}
        assert all(other[name] != again[name] for name in again)
