"""The tests' own house: what several files need lies in a module of its own, and everything is Python 3.10's."""

import ast
from pathlib import Path

HERE = Path(__file__).parent
FILES = sorted(
    [*HERE.glob("*.py"), *(HERE.parent / "growkit").rglob("*.py"), *(HERE.parent / "examples").rglob("*.py")]
)


def imported(path: Path) -> set[str]:
    """The modules that a file imports, by the first part of their names."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.split(".")[0] for name in plain | {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}}


def test_no_test_file_is_imported():
    tests = {path.stem for path in HERE.glob("test_*.py")}
    assert {path.name: both for path in HERE.glob("*.py") if (both := imported(path) & tests)} == {}


def test_syntax_is_that_of_the_oldest_python():
    programs = (ast.parse(path.read_text("utf-8"), str(path), feature_version=(3, 10)).body for path in FILES)
    assert sum(map(bool, programs)) > 400
