"""What the pages say that is made, not written: the commands, from their declarations, and the tree, from the first
sentence of every file.

    python docs/make_pages.py      # rewrites both; tests/test_docs.py fails where they are stale
"""

import ast
import re
import textwrap
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import typer
from rich.text import Text

from growkit.cli import app

ROOT = Path(__file__).resolve().parents[1]
COMMANDS, TREE = "the commands", "the tree"
WIDTH, MARGIN = 108, 24  # of the tree, and where its sentences begin


def replaced(page: str, what: str, content: str, maker: str = "docs/make_pages.py") -> str:
    """A page with what stands between its two marks replaced. Raises ValueError where it has no such marks."""
    begin, end = f"<!-- {what}: made by {maker} -->", f"<!-- end of {what} -->"
    before, mark, rest = page.partition(begin)
    _, closing, after = rest.partition(end)
    if not mark or not closing:
        raise ValueError(f"the page has no {begin} or no {end}")
    return f"{before}{begin}\n\n{content.strip()}\n\n{end}{after}"


def commands() -> str:
    """Every command with its arguments and options, as Markdown."""
    root: Any = typer.main.get_command(app)
    named = {name: command for name, command in root.commands.items() if not command.hidden}
    parts = [f"`growkit --version` prints the version, `growkit COMMAND --help` what stands here.\n\n{_index(named)}"]
    return "\n\n".join([*parts, *(_command(name, command) for name, command in named.items())])


def _index(named: dict[str, Any]) -> str:
    rows = (f"| [`{name}`](#{name.replace(' ', '-')}) | {_plain(command.help)} |" for name, command in named.items())
    return "\n".join(["| command | what it does |", "|---|---|", *rows])


def _command(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden and p.name != "help"]
    usage = " ".join(["growkit", name, *(_metavar(p) for p in arguments), "[OPTION...]" if options else ""])
    lines = [f"## {name}", "", _plain(command.help), "", "```text", usage.strip(), "```", ""]
    lines += [_item(_metavar(p), p) for p in arguments]
    for panel, group in groupby(sorted(options, key=lambda p: _order(p, options)), key=_panel):
        lines += ["", f"**{panel}**", "", *(_item(_spelled(p), p) for p in group)]
    return "\n".join(lines)


def _item(name: str, parameter: Any) -> str:
    text = f"- `{name}`: {_said(parameter)}"
    return textwrap.fill(text, 118, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _panel(parameter: Any) -> str:
    return getattr(parameter, "rich_help_panel", None) or "Options"


def _order(parameter: Any, options: list[Any]) -> int:
    """Panels in the order in which their first option was declared."""
    return [_panel(option) for option in options].index(_panel(parameter))


def _metavar(parameter: Any) -> str:
    """The word for a value; of an argument also whether there may be several, or none."""
    word = _plain(parameter.metavar or parameter.name.upper(), escape=False)
    if parameter.param_type_name == "option" or word.startswith("["):
        return word
    word += "..." if parameter.nargs == -1 and "..." not in word else ""
    return word if parameter.required else f"[{word}]"


def _spelled(parameter: Any) -> str:
    """How an option is written: its names, its opposite, and the word for its value."""
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    return names if parameter.is_flag else f"{names} {_metavar(parameter)}"


def _said(parameter: Any) -> str:
    """An option's help, and its default where the help does not say it."""
    text = _plain(parameter.help)
    default = parameter.default
    if parameter.required and parameter.param_type_name == "option":
        return f"{text} Required."
    if parameter.is_flag if parameter.param_type_name == "option" else True:
        return f"{text} On by default." if default is True else text
    if not isinstance(default, str | int | float) or "efault" in text:
        return text
    return f"{text} Default `{default}`."


def _plain(text: str | None, escape: bool = True) -> str:
    """Help without the terminal's markup, safe in Markdown."""
    plain = " ".join(Text.from_markup(text or "").plain.split()) if text else ""
    return re.sub(r"([\\*_\[\]])", r"\\\1", plain).replace("<", "&lt;") if escape else plain


def tree() -> str:
    """The package, floor by floor from the top, with the first sentence of every file."""
    floors = _floors()
    lines = []
    for number, rooms in reversed(list(enumerate(floors))):
        found = [line for room in sorted(rooms) for line in _room(ROOT / "growkit" / room)]
        lines += [*found, ""] if number else found
    return "\n".join(["```text", "growkit/", *(line.rstrip() for line in lines), "```"])


def _floors() -> list[set[str]]:
    """The floors as tests/test_layers.py holds them, lowest first."""
    body = ast.parse((ROOT / "tests" / "test_layers.py").read_text("utf-8")).body
    for node in body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLOORS":
            return [set(rooms) for rooms in ast.literal_eval(node.value)]
    raise ValueError("tests/test_layers.py has no FLOORS")


def _room(path: Path, depth: int = 1) -> Iterator[str]:
    """The lines of a file, or of a folder with all in it."""
    if not path.is_dir():
        file = path.with_suffix(".py")
        yield from _line(file.name, file, depth)
        return
    yield from _line(f"{path.name}/", path / "__init__.py", depth)
    for inner in sorted(path.iterdir()):
        if inner.suffix == ".py" and inner.name != "__init__.py":
            yield from _line(inner.name, inner, depth + 1)
    for inner in sorted(path.iterdir()):
        if (inner / "__init__.py").is_file():
            yield from _room(inner, depth + 1)


def _line(name: str, file: Path, depth: int) -> Iterator[str]:
    docstring = " ".join((ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.?!])\s", docstring)[0].removesuffix(".")
    first, *rest = textwrap.wrap(sentence, WIDTH - MARGIN) or [""]
    yield f"{'  ' * depth}{name}".ljust(MARGIN - 1) + f" {first}"
    yield from (" " * MARGIN + line for line in rest)


PAGES = {"command-line.md": (COMMANDS, commands), "architecture.md": (TREE, tree)}


def main() -> None:
    """Rewrite both pages."""
    for name, (what, make) in PAGES.items():
        path = ROOT / "docs" / name
        path.write_text(replaced(path.read_text("utf-8"), what, make()), "utf-8")


if __name__ == "__main__":
    main()
