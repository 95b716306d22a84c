"""A hundred inputs with something wrong in them, each of which ends with 0, 1 or 2, one sentence where it is refused,
sources as they were, and nothing half made (`make fuzz` runs thousands).
"""

import os
import signal
from pathlib import Path

import fuzz
import fuzz_world
import pytest
import torch

EACH = 3  # cases of a kind


@pytest.fixture(scope="module")
def fuzzing(tmp_path_factory):
    before, kept = Path.cwd(), os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    yield fuzz.Fuzz(tmp_path_factory.mktemp("fuzz"))
    os.chdir(before)
    os.environ.pop("TOKENIZERS_PARALLELISM") if kept is None else os.environ.update(TOKENIZERS_PARALLELISM=kept)


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_whatever_is_wrong_is_said(fuzzing, kind):
    found = [fuzzing.run(name) for name in fuzz.names(0, EACH * (4 if kind == "options" else 1), kind)]
    assert [case for case in found if case["wrong"]] == []


def test_what_fuzzing_begins_with_is_sound(fuzzing, monkeypatch):
    """So a refusal is of what was spoiled. Of the files here a few; `make fuzz` looks at all."""
    monkeypatch.setattr(fuzz, "READ", {kind: fuzz_world.READ[kind][-1:] for kind in ("delta", "recipe")})
    assert fuzzing.unsound() == []


def test_every_command_is_fuzzed():
    # check-family reads no file, and every line of it that is sound takes its time
    assert fuzz_world.LINES.keys() == fuzz.COMMANDS.keys() - {"check-family"}


FAULTS = {  # what goes wrong -> what is said of it
    "a bug": (lambda *_: {}["a bug"], "KeyError: 'a bug'"),
    "too much memory": (lambda *_: bytearray(fuzz.MEMORY + (1 << 30)), ""),
    "a crash": (lambda *_: os.kill(os.getpid(), signal.SIGKILL), "the process ended by SIGKILL"),
    "a source lost": (lambda *_: os.unlink("text.txt"), "a source changed: text.txt"),
    "half a result": (lambda *_: os.mkdir("out.partial"), "something half made was left: out.partial"),
    "a word too much": (lambda *_: print("\x1b[31m"), "something that a terminal would obey"),
    "another exit code": (lambda *_: fuzz.typer.Exit(3), "exit code 3"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_breaks_a_law_is_found(fuzzing, fault, monkeypatch):
    """inspect with a fault of ours in it; memory alone is a sentence."""
    os.chdir(fuzzing.here)
    fail, says = FAULTS[fault]

    def faulty(*_):
        if (code := fail()) and isinstance(code, Exception):
            raise code
        return real(*_)

    import growkit.growth.inspect as looking

    real = looking.inspect
    monkeypatch.setattr(looking, "inspect", faulty)
    monkeypatch.setattr(fuzzing, "case", lambda name: (["inspect", "src"], ""))
    found = fuzzing.run("inspect")
    assert found["wrong"] == says and fuzz.tree() == fuzzing.pristine
    assert says or found["code"] == 2


def test_cases_are_drawn_from_their_names_alone(fuzzing):
    os.chdir(fuzzing.here)
    again = []
    for _ in range(2):
        again.append([fuzzing.case("config-0-1"), Path("src/config.json").read_bytes()])
        fuzzing.restore(fuzz.tree())
    assert again[0] == again[1]
    assert torch.get_num_threads() == 1  # threads do not survive the fork
