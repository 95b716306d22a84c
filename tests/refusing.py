"""Commands in this process and the one sentence they refuse with; tables as test cases."""

import hashlib
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from growkit.cli import app


def tree(folder="."):
    """Everything below a folder: paths, and hashes of what is in files."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(Path(folder).rglob("*"))
    }


def run(*args):
    """A command in this process, with its result."""
    return CliRunner().invoke(app, [str(arg) for arg in args])


def refused(*args, says, plan_shown=False):
    """The one sentence a command refuses with, having changed nothing below the current folder."""
    before = tree()
    result = run(*args)
    assert result.exit_code == 2, (result.exit_code, result.output, result.exception)
    if "--json" in args:
        assert not result.stderr and says in json.loads(result.stdout)["error"] and tree() == before
        return json.loads(result.stdout)["error"]
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("growkit: "), result.stderr
    assert says in lines[0]
    assert plan_shown or not result.stdout
    assert tree() == before
    return lines[0]


def do_what_it_says(sentence):
    """Carry out the `python -c CODE WORDS` that a sentence ends with, in this process."""
    code, *words = shlex.split(re.search(r"python -c (.*)", sentence)[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["-c", *words])
        exec(compile(code, "-c", "exec"), {"__name__": "__main__"})


def cases(table):
    """Lines of a table as test cases, each named by the sentence it expects."""
    return [pytest.param(*line, id=re.sub(r"\W+", "-", line[-1])[:50]) for line in table]
