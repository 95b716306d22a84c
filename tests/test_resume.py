"""Runs that are stopped, that go on, that many processes share: nothing of it changes what is computed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from test_refusals import refused, run
from tiny_runs import ask, curve, line, losses_of, same, weights

from growkit.training import loop, pretrain, ready, runs, state, student
from growkit.training.settings import Settings

KILL = signal.SIGKILL


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# ---------------------------------------------------------------- stopped and gone on


def killing(owner, name: str, call: int = 1, after: bool = False):
    """A saboteur: kill -9 at the given call of a function, before or after it."""

    def arm():
        original, calls = getattr(owner, name), []

        def deadly(*args, **keywords):
            calls.append(name)
            if len(calls) == call and not after:
                os.kill(os.getpid(), KILL)
            result = original(*args, **keywords)
            if len(calls) == call:
                os.kill(os.getpid(), KILL)
            return result

        setattr(owner, name, deadly)

    return arm


def child(settings: Settings, resume: bool, arm=lambda: None, signals=(None, 0), **environment: str) -> int:
    """The process id of a run in a process of its own. signals: (number, step): it sends one to itself after that step."""
    process = os.fork()
    if process:
        return process
    try:
        os.environ.update(environment)
        arm()
        kind, step = signals
        watch = lambda line: os.kill(os.getpid(), kind) if kind and line.get("step") == step else None  # noqa: E731
        pretrain.pretrain(settings, resume, watch)
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.__stderr__, flush=True)
        os._exit(9)


def ended(process: int, seconds: float = 60) -> int:
    """How a process ended: its exit code, or minus its signal; -99 where it hung."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(process, KILL)
    os.waitpid(process, 0)
    return -99


MOMENTS = {
    "in the first steps": dict(arm=killing(loop, "learn", 3)),
    "in a save": dict(arm=killing(state.dcp, "async_save", after=True)),
    "at its end": dict(arm=killing(os, "rename", 2)),
    "in stage 1": dict(signals=(KILL, 4)),
    "in an export": dict(arm=killing(student, "save_file")),
    "after a growth": dict(arm=killing(pretrain, "stack", after=True)),
    "politely": dict(signals=(signal.SIGTERM, 8)),
    "in the last export": dict(arm=killing(pretrain, "record_of")),
}


@pytest.mark.parametrize(("schedule", "moments"), {"two-stage": "01236", "stackbert": "4567", "mslt": "453"}.items())
def test_killed_at_any_moment(world, schedule, moments):
    """Started again and again with the same line, the same run comes out, bitwise."""
    pretrain.pretrain(ask(world, "whole", schedule))
    s, chosen = ask(world, "run", schedule), [list(MOMENTS.values())[int(number)] for number in moments]
    codes = [ended(child(s, True, **moment)) for moment in chosen]
    assert codes == [0 if moment is MOMENTS["politely"] else -KILL for moment in chosen]
    pretrain.pretrain(s, True)
    assert curve("run") == curve("whole") and len(curve("run")) == 12
    assert same(weights("run/final"), weights("whole/final"))
    assert same(load_file("run/final/optimizer.safetensors"), load_file("whole/final/optimizer.safetensors"))


def test_damaged_checkpoints_and_a_torn_line(world):
    """Each falls back to the one before, with a note, and growkit's own reader understands what metrics.jsonl says."""
    s, lines = ask(world, "run", "two-stage"), []
    pretrain.pretrain(s)
    whole, last = curve("run"), sorted(Path("run/checkpoints").iterdir())
    (last[3] / "trainer.json").write_text("{")
    shard = next(last[2].glob("*.distcp"))
    os.truncate(shard, shard.stat().st_size // 2)
    (last[1] / ".metadata").unlink()
    pretrain.pretrain(s, True, lines.append)
    notes = [line["text"] for line in lines if line["kind"] == "note"]
    assert [note.split()[0] for note in notes[:3]] == [path.name for path in reversed(last[1:])]
    assert notes[3] == "resumed at step 3" and curve("run") == whole
    shutil.rmtree("run/checkpoints/step-00000012")
    os.truncate("run/metrics.jsonl", os.path.getsize("run/metrics.jsonl") - 30)
    pretrain.pretrain(s, True)
    assert [point.loss for point in runs.read_run("run").train] == [said[0] for said in whole.values()]


def test_stopped_by_a_signal_and_gone_on_with_the_same_line(world):
    """The command saves and exits with 0; what is computed may not change, what is said and kept may."""
    started = line(world, "--steps", "300", model="bert")
    process = os.fork()
    if not process:
        result = run(*started)
        Path("said").write_text(result.stderr)
        os._exit(result.exit_code)
    while not (Path("run/metrics.jsonl").exists() and len(curve("run")) >= 3):
        time.sleep(0.02)
    os.kill(process, signal.SIGTERM)
    assert ended(process) == 0 and "--resume auto goes on" in Path("said").read_text()
    done = len(curve("run"))
    assert done < 300 and state.found(Path("run/checkpoints"))[-1].name == f"step-{done:08d}"
    refused(*started, says="--resume auto")
    says = "batch_size 8 (was 4); lr 0.5 (was 0.001)"
    more = ("--save-every", "9", "--resume", "auto")
    assert "save_every" not in refused(*started, "--batch-size", "8", "--lr", "0.5", *more, says=says)
    shorter = refused(*started, "--steps", "301", *more, says="steps 301 (was 300)")
    assert "other stages" in shorter


# ---------------------------------------------------------------- many processes


def test_two_processes_are_one_and_a_run_of_two_goes_on_with_one(world):
    more = ("--schedule", "two-stage", "--sub-layers", "1", "--sub-steps", "6", "--device", "cpu")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port(), "-m"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    two = subprocess.run(
        [*torchrun, "growkit", *line(world, *more, model="tied")], capture_output=True, text=True, env=environment
    )
    assert two.returncode == 0, two.stderr
    assert run(*line(world, *more, model="tied", out="one")).exit_code == 0
    assert losses_of("run") == pytest.approx(losses_of("one"), abs=1e-5)
    val = [[p.loss for p in runs.read_run(name).val] for name in ("run", "one")]
    assert val[0] == pytest.approx(val[1], abs=1e-5)
    shutil.rmtree("run/checkpoints/step-00000012")
    os.rename("run/metrics.jsonl", "two.jsonl")
    again = run(*line(world, *more, "--resume", "auto", model="tied"))
    assert again.exit_code == 0 and "resumed at step 8" in again.stderr, again.stderr
    assert sorted(curve("run")) == [9, 10, 11, 12]
    assert losses_of("run") == pytest.approx(losses_of("one")[8:], abs=1e-5)


def port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def pair(settings: Settings, arms, **first) -> list[int]:
    """How two processes of one run end; `first`: what the first one does to itself."""
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port()}
    processes = [
        child(settings, False, arm, RANK=str(n), LOCAL_RANK=str(n), **place, **({} if n else first))
        for n, arm in enumerate(arms)
    ]
    return [ended(process, 15) for process in processes]


def test_processes_need_not_be_equally_fast(world):
    """One that comes late finds a folder that the first has begun: its own run's, not another's."""

    def slow(opened=ready.open_tokens):
        ready.open_tokens = lambda *a: time.sleep(0.5) or opened(*a)

    assert pair(ask(world, "run", model="llama", steps=2), (lambda: None, slow)) == [0, 0]


def test_processes_stop_together(world):
    """Whichever was told to."""
    s = ask(world, "run", model="llama")
    assert pair(s, (lambda: None, lambda: None), signals=(signal.SIGTERM, 4)) == [0, 0]
    assert [path.name for path in state.found(Path("run/checkpoints"))][-1] in ("step-00000004", "step-00000005")
