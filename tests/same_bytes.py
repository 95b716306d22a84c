"""Whether two trees of this project give the same results, byte for byte: every command on tiny models, on record.

    python tests/same_bytes.py --make SOURCES                        # once: models and texts that both trees are given
    python tests/same_bytes.py --sources SOURCES --out before.json   # in the tree before a change
    python tests/same_bytes.py --sources SOURCES --out after.json    # in the tree after it
    python tests/same_bytes.py --compare before.json after.json      # what differs; exit code 1 if anything does

To record another tree with this file, put that tree first in PYTHONPATH. --only REGEX records, or compares, the cases
that have it in their name. --renew writes digests.json anew, the part that the suite holds (see digests.py).

Only the command line is used, so this works whatever becomes of the modules; --make alone needs the rest, by tiny.py.
Recordings can be compared if one machine made both: sums and random numbers may depend on the processor.
"""

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from same_bytes_files import CLOCKED, calm, differences, files, parsed
from typer.testing import CliRunner

from growkit.cli import app

# No network, one thread in processes of their own too, and a width for what is printed.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "100", "TRANSFORMERS_VERBOSITY": "error"}

PROGRESS = re.compile(r"^.*(?:it/s|s/it|\?it).*$\n?", re.MULTILINE)  # a bar of transformers, drawn by the clock
NOISE = re.compile(r"-?\d+\.\d+(?:e[+-]?\d+)?|-?\d+e[+-]?\d+")


class Case(NamedTuple):
    """Commands that are run one after another in a new folder, where the sources that they name lie under their names.

    A line that begins with `rm` takes a folder away. rounded: digits that printed numbers keep; None: all.
    """

    name: str
    lines: tuple[str, ...]
    rounded: int | None = None


def record(cases: Sequence[Case], sources: Path, without: str = "") -> dict[str, Any]:
    """What came of each case, and whether the sources, which are copied first, were left as they are.

    without: a pattern of tensors whose values do not count.
    """
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning comes once in a process, so it would depend on the order of cases
        world = Path(folder, "sources")
        shutil.copytree(sources, world)
        before = files(world)
        assert len({case.name for case in cases}) == len(cases), "two cases have one name"
        for case in cases:
            found[case.name] = _record(case, world, Path(folder, "here"), without)
        found["sources"] = {"files": before, "unchanged": files(world) == before}
    return found


def _record(case: Case, world: Path, here: Path, without: str) -> dict[str, Any]:
    here.mkdir()
    for word in {part for line in case.lines for part in re.split(r"[\s:/=]+", line)}:
        if (world / word).exists() and word not in ("", ".", ".."):
            (here / word).symlink_to(world / word)
    with chdir(here):
        done = [_do(line, case.rounded, world, here) for line in case.lines]
        found = {"commands": [said for said in done if said], "files": files(Path(), without)}
    shutil.rmtree(here)
    return found


@contextmanager
def chdir(folder: Path) -> Iterator[None]:
    """contextlib's, which is there from Python 3.11 on."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _do(line: str, rounded: int | None, world: Path, here: Path) -> dict[str, Any]:
    """Run a command in this process; what it returned and printed."""
    words = line.split()
    if words[0] == "rm":
        shutil.rmtree(words[1], ignore_errors=True)
        return {}
    result = CliRunner().invoke(app, words)
    found: dict[str, Any] = {"line": line, "exit": result.exit_code}
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        found["exception"] = "".join(traceback.format_exception_only(result.exception))
    for name, text in (("stdout", result.stdout), ("stderr", PROGRESS.sub("", result.stderr))):
        text = calm(text, CLOCKED[-1] if words[0] == "pretrain" else "")
        for path, word in ((here, "HERE"), (here.resolve(), "HERE"), (world, "SOURCES"), (world.resolve(), "SOURCES")):
            text = text.replace(str(path), word)
        if rounded is not None:
            text = NOISE.sub(lambda number: f"{float(number[0]):.{rounded}g}", text)
        if text.strip():
            found[name] = parsed(text)
    return found


def _compare(before: Path, after: Path, only: str) -> int:
    recordings = [json.loads(path.read_text("utf-8")) for path in (before, after)]
    one, other = ({name: case for name, case in said.items() if re.search(only, name)} for said in recordings)
    found = list(differences(one, other))
    print(*found, sep="\n" if found else "")
    print(f"{len(one)} and {len(other)} cases, {len(found)} differences")
    return 1 if found else 0


def main() -> int:
    """The command at the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make", type=Path, metavar="SOURCES", help="make the models and texts, and nothing else")
    parser.add_argument("--sources", type=Path, help="what --make made; default: made for this recording alone")
    parser.add_argument("--out", type=Path, metavar="FILE", help="record into this file")
    parser.add_argument("--only", default="", metavar="REGEX", help="the cases that have this in their name")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("BEFORE", "AFTER"), help="say what differs")
    parser.add_argument("--renew", action="store_true", help="write digests.json anew")
    asked = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    if asked.compare:
        return _compare(*asked.compare, asked.only)
    if asked.make:
        from same_bytes_sources import make

        make(asked.make)
    if asked.renew:
        from digests import renew

        renew()
    if asked.out:
        from same_bytes_cases import all_cases

        cases = [case for case in all_cases() if re.search(asked.only, case.name)]
        print(f"{len(cases)} cases of {sys.modules['growkit'].__file__}", file=sys.stderr)
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            if asked.sources is None:
                from same_bytes_sources import make

                make(Path(folder, "sources"))
            found = record(cases, asked.sources or Path(folder, "sources"))
        asked.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        print(f"recorded in {time.monotonic() - began:.0f} seconds", file=sys.stderr)
    if not (asked.make or asked.renew or asked.out):
        parser.error("say what to do: --make, --out, --compare or --renew")
    return 0


if __name__ == "__main__":
    sys.exit(main())
