"""What people and machines are shown: text from files is shown and never obeyed, and what went wrong is one sentence, or
one JSON object where JSON was asked for.
"""

import ast
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import tiny_runs
import torch
import typer
from hypothesis import given
from hypothesis import strategies as st
from refusing import run
from rich.cells import cell_len
from rich.progress import Progress
from rich.table import Table

import growkit
from growkit.cli import app
from growkit.cli.terminal import Terminal, Words, styled
from growkit.units import size
from growkit.visible import visible

COMMANDS = sorted(typer.main.get_command(app).commands)
HOSTILE = "[red]x[/] [/]\x1b[2J\x1b]0;t\x07\u202e\u2066\r\n\x7f\x9b\u2028 :smile: \\[b]"
STYLE = re.compile(r"\x1b\[[0-9;]*m")


def shown(show, colours=False):
    """What a terminal is sent when something is shown."""
    terminal = Terminal()
    terminal.file, terminal.width = io.StringIO(), 10_000
    terminal._force_terminal = colours
    show(terminal)
    return terminal.file.getvalue()


def in_a_table(text):
    table = Table(text, box=None)
    table.add_row(text)
    table.add_row(styled((text, "bold")))
    return table


def in_a_bar(terminal, text):
    with Progress(Words("{task.description} {task.fields[state]}", "bold"), console=terminal) as bar:
        bar.add_task(text, state=text)


WAYS = {
    "print": lambda terminal, text: terminal.print(text),
    "styled": lambda terminal, text: terminal.print(styled("name ", (text, "bold"), text)),
    "line": lambda terminal, text: terminal.say(("wrote", "bold"), text),
    "note": lambda terminal, text: terminal.note(text),
    "warning": lambda terminal, text: terminal.note("warning: " + text),
    "table": lambda terminal, text: terminal.print(in_a_table(text)),
    "bar": in_a_bar,
}


@given(st.text())
def test_visible_text_is_printable_and_says_all(text):
    assert visible(text).isprintable() and (visible(text) == text) == text.isprintable()


@pytest.mark.parametrize("way", WAYS)
@given(text=st.text() | st.just(HOSTILE))
def test_whatever_way_text_takes_it_is_shown_and_not_obeyed(way, text):
    plain = shown(lambda terminal: WAYS[way](terminal, text))
    assert plain.replace("\n", "").isprintable()
    if all(cell_len(character) == 1 for character in visible(text)):  # rich leaves out what has no width by itself
        assert visible(text).strip() in plain


@pytest.mark.parametrize("way", sorted(set(WAYS) - {"bar"}))
def test_colours_are_ours_alone(way):
    coloured = shown(lambda terminal: WAYS[way](terminal, HOSTILE), colours=True)
    assert STYLE.sub("", coloured).replace("\n", "").isprintable() and "\x1b[31m" not in coloured


def test_there_is_no_other_way_to_a_terminal():
    """Law: nothing but cli/terminal.py makes consoles, texts or markup, and nothing else prints."""
    root = Path(growkit.__file__).parent
    for path in set(root.rglob("*.py")) - {root / "cli" / "terminal.py"}:
        tree = ast.parse(path.read_text("utf-8"))
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        modules |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
        names = {name.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names}
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not modules & {"rich", "rich.console", "rich.text", "rich.markup", "rich.panel", "rich.live"}, path
        assert "TextColumn" not in names, path
        if path != root / "cli" / "app.py":  # whose only word is the version
            assert "print" not in calls, path
        assert not {call for call in calls if call in ("sys.stdout.write", "typer.echo", "click.echo")}, path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny.make("llama", dtype=torch.float32).save_pretrained(folder / "src")
    tiny.make("llama", dtype=torch.float32, seed=1).save_pretrained(folder / "tuned")
    tiny_runs.dataset(folder / "data", 600)
    return folder


NAME = "[red]x[/] \x1b[31m\u202e"
TRAINING = ["--data", "data", "--steps", "2", "--seq-len", "16", "--batch-size", "2", "--eval-tokens", "64"]
LINES = {
    "widen": [NAME, "--hidden", "48", "-o", NAME + "o"],
    "stack": [NAME, "--layers", "6", "--dry-run"],
    "fuse": [NAME, "tuned", "-o", NAME + "o"],
    "merge": [NAME, "tuned", "--base", "src", "-o", NAME + "o"],
    "delta": ["src", NAME],
    "inspect": [NAME],
    "init": [NAME, "-o", NAME + "o"],
    "eval": [NAME, "--data", "data"],
    "pretrain": [NAME, "--out", NAME + "o", *TRAINING],
}


@pytest.mark.parametrize("command", LINES)
def test_the_names_of_folders_are_shown_whole(command, models, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(models, tmp_path / "here"))
    shutil.copytree("tuned", NAME)
    result = run(command, *LINES[command])
    assert result.exit_code == 0, result.output
    text = result.stdout + result.stderr
    assert text.replace("\n", "").isprintable()
    assert visible(NAME) in text.replace("\n", " ")
    for card in Path().glob("*o/**/README.md"):
        assert card.read_text("utf-8").replace("\n", "").isprintable() and visible(NAME) in card.read_text("utf-8")


def test_a_run_in_a_folder_named_like_markup_ends_well(models, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(models, tmp_path / "here"))
    Path("stages.toml").write_text('[[stage]]\nname = "[/] \\u001b[31m"\nsteps = 2\n')
    training = [*TRAINING[:2], "--stages", "stages.toml", *TRAINING[4:], "--log-every", "1"]
    result = run("pretrain", "src", "--out", "./[/]-r", *training)
    assert result.exit_code == 0, result.output
    assert "[/]-r/final" in result.stderr and "[/] \\x1b[31m" in result.stderr and "\x1b" not in result.stderr


def without(command):
    """A line of a command that names what is not there."""
    more = {"pretrain": [*TRAINING, "--out", "r", "--dry-run"], "init": ["-o", "o"], "eval": ["--data", "d"]}
    more |= {"report": ["-o", "o"], "tokenize": ["--tokenizer", "absent", "-o", "o"]}
    more |= {"merge": ["--base", "absent"], "fuse": ["absent"], "delta": ["absent"], "verify": ["absent"]}
    return [command, "absent", *more.get(command, ["absent"] if command == "apply" else [])]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_refused_is_one_sentence_or_one_object(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for line in (without(command), [command, "--never"], [*without(command), "--never", "\x1b[31m[red]"]):
        said, machine = run(*line), run(*line, "--json")
        assert said.exit_code == machine.exit_code == 2, (line, said.output, machine.output)
        sentence = said.stderr.removesuffix("\n")
        assert sentence.startswith("growkit: ") and sentence.isprintable() and not said.stdout
        assert json.loads(machine.stdout).keys() == {"error", "exit"} and not machine.stderr
        told = json.loads(machine.stdout)
        assert told["exit"] == 2 and visible(told["error"]) == sentence.removeprefix("growkit: ")


def test_help_is_no_error():
    assert run().exit_code in (0, 2) and "growkit: " not in run().output
    assert "Usage" in run().output


# what runs in the background hears no Ctrl-C, and neither do its children, until they say that they do
INTERRUPTING = (
    "import os, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nos.kill(os.getpid(), signal.SIGINT)\n"
)


@pytest.mark.parametrize("module", ["typer", "torch"])
@pytest.mark.parametrize("program", [["-m", "growkit"], ["-c", "from growkit.__main__ import main; main()"]])
def test_an_interrupted_import_is_no_traceback(module, program, tmp_path):
    """Ctrl-C while a module is imported: before any command runs, or within one."""
    (tmp_path / f"{module}.py").write_text(INTERRUPTING)
    path = f"{tmp_path}:{Path(growkit.__file__).parents[1]}"
    done = subprocess.run(
        [sys.executable, *program, "inspect", "absent"], capture_output=True, text=True, env={"PYTHONPATH": path}
    )
    assert done.returncode == 130 and done.stderr == "growkit: interrupted\n" and not done.stdout, done.stderr


@pytest.mark.parametrize(
    "number, text",
    [(0, "0 B"), (999, "999 B"), (999.6, "1 kB"), (1_000, "1 kB"), (12_345_678, "12.3 MB"), (999_950_000, "1 GB")]
    + [(747e9, "747 GB"), (2.5e12, "2.5 TB"), (10**30, "1000000000000 EB")],
)
def test_sizes_have_the_unit_that_shows_them(number, text):
    """However little is free, it is said: no 0.0 GB."""
    assert size(number) == text


def test_nobody_else_makes_units():
    for path in Path(growkit.__file__).parent.rglob("*.py"):
        assert path.name == "units.py" or not re.search(r"/ ?1e9|/ ?10\*\*9|/ ?2\*\*30", path.read_text("utf-8")), path


def test_too_little_memory_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def greedy(*_):
        return torch.empty(1 << 55)

    def mistaken(*_):
        raise RuntimeError("a mistake of ours")

    for name, work, code in (("init", greedy, 2), ("init", mistaken, 1)):
        monkeypatch.setattr(f"growkit.models.{name}._config_and_folder", work)
        result = run(name, "absent", "-o", "out")
        assert result.exit_code == code
    assert isinstance(result.exception, RuntimeError)  # ours to mend, so it is not hidden
    monkeypatch.setattr("growkit.models.init._config_and_folder", greedy)
    assert run("init", "absent", "-o", "out").stderr.startswith("growkit: not enough memory (can't allocate")
