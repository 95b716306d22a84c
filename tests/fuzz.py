"""Fuzzing: sound inputs with something wrong in them, and commands that must say so. `make fuzz` runs thousands of
cases; tests/test_fuzz.py a hundred.

    python tests/fuzz.py --cases 5000 --seed 1        all kinds in turn
    python tests/fuzz.py --only lora --cases 500      one kind
    python tests/fuzz.py --case lora-1-17             one case again, with what it printed

A case is drawn from its name alone. It runs in a process of its own with bounded memory and computing time, and this
holds: it ends with 0, 1 or 2; it never shows a traceback; what it refuses it says in one sentence; sources stay as they
were; nothing half made is left, and after 2 nothing at all.
"""

import argparse
import gc
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path
from random import Random

import torch
import typer
from fuzz_mutations import spoil, with_options
from fuzz_world import LINES, READ, make_world
from refusing import run, tree

from growkit.cli import app

COMMANDS = typer.main.get_command(app).commands
NOT_DRAWN = {"--help", "--compile", "--no-compile", "--tensorboard", "--wandb"}  # slow, or written by another library
SECONDS, MEMORY = 100, 3 << 30  # of computing, and bytes beyond what the process has
OUTPUTS = {"out", "stopped", "half", "src/new"}
KINDS = (*READ, "options")


class Fuzz:
    """Cases in a folder: `pristine` is copied for each process, and a case leaves it as it was."""

    def __init__(self, folder: Path):
        self.here = folder / "deep" / "here"
        self.here.mkdir(parents=True)
        os.chdir(self.here)
        make_world(self.here)
        self.pristine = tree()
        gc.freeze()  # what a process shares with its parent stays shared where the collector does not touch it
        self.copy = Path(shutil.copytree(self.here, folder / "pristine"))

    def case(self, name: str) -> tuple[list[str], str]:
        """Spoil what the case is about. Returns (the line, the file that is spoiled or '')."""
        draw = Random(name)
        kind = name.split("-")[0]
        if kind == "options":
            command = draw.choice(sorted(LINES))
            line = LINES[command].split()
            return with_options(line, options_of(command), draw), ""
        file, lines = draw.choice(READ[kind])
        folder = file.split("/")[0]
        spoil(Path(file), draw)
        return [word.replace("{}", folder) for word in draw.choice(lines).split()], file

    def run(self, name: str) -> dict:
        """Run a case in a process of its own: what it was, what is wrong ('' where nothing), where, and what it said."""
        os.chdir(self.here)
        line, file = self.case(name)
        before = tree()
        result = apart(line)
        after = tree()
        wrong = result.pop("wrong") or broken(line, result, before, after)
        self.restore(after)
        return {"name": name, "line": " ".join(line), "file": file, "wrong": wrong, **result}

    def unsound(self) -> list[tuple[str, str]]:
        """The lines that read files which do not work where nothing is spoiled, and what they say; there should be none."""
        os.chdir(self.here)
        read = [(file, line) for cases in READ.values() for file, lines in cases for line in lines]
        refusals = []
        for file, line in [*read, *(("", line) for line in LINES.values())]:
            result = apart(line.replace("{}", file.split("/")[0]).split())
            self.restore(tree())
            refusals += [(line, result["wrong"] or result["stderr"])] * (result["code"] != 0)
        return refusals

    def restore(self, now: dict) -> None:
        """Put everything back as it was."""
        for path in sorted(now.keys() | self.pristine.keys(), reverse=True):
            if now.get(path) != self.pristine.get(path):
                place = Path(path)
                if place.is_symlink() or (place.exists() and not place.is_dir()):
                    place.unlink()
                elif place.is_dir() and self.pristine.get(path) != "folder":
                    shutil.rmtree(place)
                if path in self.pristine and self.pristine[path] != "folder":
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(self.copy / path, place)
                elif path in self.pristine:
                    place.mkdir(exist_ok=True, parents=True)


def options_of(command: str) -> dict[str, tuple[str, ...]]:
    """The options of a command by flag: their choices, ("",) for those that take no value."""
    options = {}
    for parameter in COMMANDS[command].params:
        for flag in parameter.opts if parameter.param_type_name == "option" else ():
            if flag.startswith("--") and flag not in NOT_DRAWN:
                options[flag] = ("",) if parameter.is_flag else ()
    return options


def broken(line: list[str], result: dict, before: dict, after: dict) -> str:
    """Which law a case broke; '' for none."""
    code, said = result["code"], result["stderr"]
    if code not in (0, 1, 2):
        return f"exit code {code}"
    if "Traceback" in said + result["stdout"]:
        return "a traceback"
    if not (said + result["stdout"]).replace("\n", "").isprintable():
        return "something that a terminal would obey"
    if "--json" in line and (code != 1 or result["stdout"]):
        content = json.loads(result["stdout"])
        if code == 2 and (content.keys() != {"error", "exit"} or content["exit"] != 2 or said):
            return "no error in JSON"
    elif code == 2 and sum(sentence.startswith("growkit: ") for sentence in said.splitlines()) != 1:
        return "not one sentence"
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    touched = {path for path in changed if path in before and path.split("/")[0] not in ("stopped", "half")}
    if touched:
        return f"a source changed: {sorted(touched)[0]}"
    if any(".partial" in path or path.endswith("UNFINISHED") for path in changed):
        return f"something half made was left: {sorted(changed)[0]}"
    if code == 2 and changed:
        return f"something was left after exit code 2: {sorted(changed)[0]}"
    return ""


def apart(line: list[str]) -> dict:
    """Run a line in a process of its own, with bounded memory and time."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="backslashreplace") as report:
        child = os.fork()
        if child == 0:
            try:
                json.dump(inside(line), report)
                report.flush()
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        report.seek(0)
        text = report.read()
    if text:
        return json.loads(text)
    how = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
    return {"code": -1, "stderr": "", "stdout": "", "wrong": f"the process ended by {how}", "where": how}


def inside(line: list[str]) -> dict:
    """Within that process: what the line did."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    signal.alarm(10 * SECONDS)  # whatever waits for ever
    statm = Path("/proc/self/statm")
    if statm.exists():
        size = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    warnings.simplefilter("ignore")
    result = run(*line)
    wrong = where = ""
    error = result.exception
    if error is not None and not isinstance(error, SystemExit):
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "/growkit/" in frame.filename] or frames
        where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno} {type(error).__name__}"
        wrong = f"{type(error).__name__}: {error}"[:300]
    return {"code": result.exit_code, "stderr": result.stderr, "stdout": result.stdout, "wrong": wrong, "where": where}


def names(seed: int, count: int, only: str = "") -> list[str]:
    """The names of so many cases, the kinds in turn."""
    kinds = [only] if only else list(KINDS)
    return [f"{kinds[number % len(kinds)]}-{seed}-{number // len(kinds)}" for number in range(count)]


def main() -> None:
    """Run cases, say which broke a law, and exit 1 if any did."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", choices=("", *KINDS))
    parser.add_argument("--case", default="")
    asked = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    torch.set_num_threads(1)  # threads do not survive a fork
    with tempfile.TemporaryDirectory() as folder:
        fuzz, codes, faults = Fuzz(Path(folder)), Counter(), []
        assert asked.case or not (unsound := fuzz.unsound()), unsound
        for name in [asked.case] if asked.case else names(asked.seed, asked.cases, asked.only):
            found = fuzz.run(name)
            codes[found["code"]] += 1
            if found["wrong"] or asked.case:
                faults.append(found)
                sys.stdout.write(
                    f"{found['name']}: {found['wrong']} [{found['where']}]\n  {found['line']} ({found['file']})\n"
                )
                sys.stdout.write(f"  {found['stderr'][-600:].strip()}\n" + (found["stdout"] if asked.case else ""))
                sys.stdout.flush()
        os.chdir("/")
    sys.stdout.write(
        f"{sum(codes.values())} cases; exit codes {dict(codes)}; {len([f for f in faults if f['wrong']])} broke a law\n"
    )
    sys.exit(1 if any(found["wrong"] for found in faults) else 0)


if __name__ == "__main__":
    main()
