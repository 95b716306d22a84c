"""Whole runs on tiny models: what they compute, that stopping them changes nothing, what they leave, what they refuse."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import transformers
from safetensors.torch import load_file
from test_refusals import refused, run

from growkit import api
from growkit.training import loop, pretrain, ready, runs, state, student
from growkit.training.batches import Batches
from growkit.training.optim import rate
from growkit.training.settings import Settings
from growkit.training.stages import SCHEDULES

KILL, SAYS = signal.SIGKILL, ("loss", "lr", "grad_norm", "depth", "trained", "stage", "tokens", "flops")


def dataset(folder: Path, tokens: int, **meta) -> Path:
    """Tokens that can be learned: a random walk."""
    folder.mkdir()
    walk = np.cumsum(np.random.default_rng(0).integers(0, 3, tokens)) % 50 + 5
    splits = {"train": walk, "val": walk[: tokens // 8]}
    for split, ids in splits.items():
        ids.astype("<u2").tofile(folder / f"{split}.bin")
        np.save(folder / f"{split}.idx.npy", np.array([0, len(ids)]))
    counts = {split: {"tokens": len(ids), "documents": 1, "text_bytes": len(ids)} for split, ids in splits.items()}
    said = {"format": 1, "growkit": "0", "dtype": "uint16", "vocab_size": 61, "splits": counts, **meta}
    (folder / "meta.json").write_text(json.dumps(said))
    return folder


def tokenizer(mask: bool = True):
    from tokenizers import Tokenizer, models

    words = {"[UNK]": 0, "[PAD]": 1, "w": 2, "[MASK]": 3, **{f"w{n}": n for n in range(4, 61)}}
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **({"mask_token": "[MASK]"} if mask else {}))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    dataset(folder / "data", 4000)
    for family in ("llama", "gpt2", "bert", "roberta"):  # gpt2 and bert have dropout
        tiny.make(family, dtype=torch.float32).save_pretrained(folder / family)
    for family in ("bert", "roberta"):
        tokenizer().save_pretrained(folder / family)
    tiny.make("llama", dtype=torch.float32, tie_word_embeddings=True).save_pretrained(folder / "tied")
    tiny.make("gpt2", dtype=torch.float32, seed=4, n_layer=1).save_pretrained(folder / "teacher")
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def ask(world, out, schedule="plain", steps=12, model="gpt2", to_layers=6, **more) -> Settings:
    stages = SCHEDULES[schedule](steps, 3, sub_layers=more.pop("sub_layers", 1), sub_steps=6, to_layers=to_layers)
    usual = dict(seq_len=16, batch_size=4, lr=1e-3, warmup=2, eval_every=6, eval_tokens=160, save_every=3, keep=9)
    return Settings(str(world / model), str(world / "data"), out, steps, stages, **{**usual, **more})


def curve(out) -> dict[int, tuple]:
    """What metrics.jsonl says of every step; where a step was done twice, that it said the same."""
    found: dict[int, tuple] = {}
    for line in map(json.loads, Path(out, "metrics.jsonl").read_text().splitlines()):
        if line["kind"] == "train":
            said = tuple(line[key] for key in SAYS)
            assert found.setdefault(line["step"], said) == said, f"step {line['step']} came out differently"
    return found


def losses_of(out) -> list[float]:
    return [said[0] for _, said in sorted(curve(out).items())]


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(Path(folder, "model.safetensors"))


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# ---------------------------------------------------------------- what a run computes


def test_the_loop_is_a_plain_one(world):
    """50 steps of 20 lines of torch; in four parts too."""
    usual = dict(model="llama", steps=50, batch_size=8, clip=0.7, warmup=5, lr=3e-3, eval_every=99, save_every=99)
    pretrain.pretrain(ask(world, "run", **usual))
    pretrain.pretrain(ask(world, "parts", grad_accum=4, **usual))
    model = transformers.AutoModelForCausalLM.from_pretrained(world / "llama", dtype=torch.float32)
    groups = [[p for p in model.parameters() if (p.dim() > 1) == matrix] for matrix in (True, False)]
    optimizer = torch.optim.AdamW(
        [{"params": groups[0], "weight_decay": 0.1}, {"params": groups[1], "weight_decay": 0.0}], betas=(0.9, 0.95)
    )
    data = Batches(np.fromfile(world / "data" / "train.bin", "<u2"), 16, 8)
    expected, norms = [], []
    for step in range(50):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * rate(step, 50, 5, "cosine")
        inputs, labels = data.rows(step, 0, 8)
        loss = torch.nn.functional.cross_entropy(model(inputs).logits.flatten(0, 1), labels.flatten())
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.7).item())
        optimizer.step()
        optimizer.zero_grad()
        expected.append(loss.item())
    assert min(norms) < max(norms) and max(norms) > 0.7 and expected[-1] < expected[0]
    assert losses_of("run") == pytest.approx(expected, abs=1e-4)
    assert [said[2] for said in curve("run").values()] == pytest.approx(norms, rel=1e-3)
    assert losses_of("parts") == pytest.approx(losses_of("run"), abs=1e-5)


def test_two_stages_of_all_layers_are_the_plain_run(world):
    for schedule in ("plain", "two-stage"):
        pretrain.pretrain(ask(world, schedule, schedule, sub_layers=3))
    assert losses_of("plain") == losses_of("two-stage")
    assert same(weights("plain/final"), weights("two-stage/final"))


def test_teachers(world, monkeypatch):
    """At alpha 0 as if there were none, and then it is gone; one that knows what the student knows teaches nothing."""
    held, lines = [], []
    monkeypatch.setattr(loop.Run, "go", lambda self, resume, go=loop.Run.go: held.append(self) or go(self, resume))
    pretrain.pretrain(ask(world, "none", steps=4))
    pretrain.pretrain(ask(world, "zero", steps=4, teacher=str(world / "teacher"), teacher_steps=0))
    assert losses_of("none") == losses_of("zero") and same(weights("none/final"), weights("zero/final"))

    def watch(line):
        lines.append((line.get("step"), line.get("alpha"), "kd_loss" in line, held[-1].teacher is not None))

    taught = ask(world, "taught", steps=4, teacher=str(world / "teacher"), teacher_steps=2, eval_every=9, save_every=9)
    pretrain.pretrain(taught, watch=watch)
    assert lines[:4] == [(1, 1.0, True, True), (2, 0.5, True, True), (3, 0.0, False, False), (4, 0.0, False, False)]
    assert losses_of("taught")[0] == losses_of("none")[0] != losses_of("taught")[1]
    itself = dict(teacher=str(world / "llama"), teacher_steps=9, alpha_schedule="heaviside", weight_decay=0.0)
    pretrain.pretrain(ask(world, "itself", model="llama", steps=1, **itself))
    said = json.loads(Path("itself/metrics.jsonl").read_text().splitlines()[0])
    assert said["kd_loss"] < 1e-5 and said["grad_norm"] < 1e-4 and said["loss"] > 1


@pytest.mark.parametrize(("schedule", "depths"), [("stackbert", [3, 6, 12]), ("mslt", [3, 6, 9, 12])])
def test_stages_that_grow(world, schedule, depths):
    pretrain.pretrain(ask(world, "run", schedule, steps=20, to_layers=12, model="llama", save_every=99))
    said = [said[3:5] for _, said in sorted(curve("run").items())]
    assert sorted({depth for depth, _ in said}) == depths
    assert {trained for _, trained in said} == ({3, 12} if schedule == "mslt" else set(depths))
    assert json.loads(Path("run/final/config.json").read_text())["num_hidden_layers"] == 12
    counted = {
        key: value.item() for key, value in load_file("run/final/optimizer.safetensors").items() if "step" in key
    }
    assert counted["model.norm.weight.step"] == 20  # the state grew along


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


def line(world, *more, model="llama", out="run") -> list[str]:
    usual = (
        f"pretrain {world / model} --out {out} --seq-len 16 --batch-size 4 --lr 0.001 --save-every 4 --eval-tokens 160"
    )
    data = [] if "--data" in more else ["--data", str(world / "data")]
    length = [] if {"--tokens", "--epochs", "--stages"} & set(more) else ["--steps", "12"]
    return [*usual.split(), *data, *length, *map(str, more)]


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


# ---------------------------------------------------------------- what a run leaves


def test_what_is_left_can_be_loaded_and_grown_and_trained_on(world, monkeypatch):
    held, ids = [], tiny.tokens()
    monkeypatch.setattr(loop.Run, "go", lambda self, r, go=loop.Run.go: held.append(self) or go(self, r))
    pretrain.pretrain(ask(world, "first"))
    final = transformers.AutoModelForCausalLM.from_pretrained("first/final").eval()
    assert torch.equal(final(ids).logits, held[0].student.model.eval()(ids).logits)
    state_of = "first/final/optimizer.safetensors"
    for name, make in {
        "widened": lambda: api.widen("first/final", "widened", hidden=48, optimizer=state_of, verify=False),
        "stacked": lambda: api.stack("first/final", "stacked", layers=6, optimizer=state_of, verify=False),
        "rewidened": lambda: api.widen(
            "more-widened/final",
            "rewidened",
            ffn=200,
            optimizer="more-widened/final/optimizer.safetensors",
            verify=False,
        ),
    }.items():
        make()
        grown, begun = load_file(f"{name}/optimizer.safetensors"), {}
        rates = json.loads(Path(name, "lr_multipliers.json").read_text())["multipliers"]
        assert {v.item() for key, v in grown.items() if key.endswith(".step")} == {12 if "re" not in name else 15}

        def spy(self, number, begin=loop.Run._begin, begun=begun):
            begin(self, number)
            begun |= student.stored_state(self.student.optimizer, self.student.model)
            groups = self.student.optimizer.param_groups
            begun["scales"] = {id(p): group["scale"] for group in groups for p in group["params"]}

        with monkeypatch.context() as patch:
            patch.setattr(loop.Run, "_begin", spy)
            settings = ask(world.parent, f"more-{name}", steps=3, model=Path(name).resolve())
            pretrain.pretrain(Settings(**{**vars(settings), "data": str(world / "data")}))
        scales = begun.pop("scales")
        assert begun.keys() <= grown.keys() and all(torch.equal(begun[key], grown[key]) for key in begun)
        for parameter, tensor in held[-1].student.model.named_parameters():
            assert scales[id(tensor)] == rates.get(parameter, {"lr": 1.0})["lr"], parameter
        after = load_file(f"more-{name}/final/optimizer.safetensors")
        assert {v.item() for key, v in after.items() if key.endswith(".step")} == {15 if "re" not in name else 18}
        assert json.loads(Path(f"more-{name}/final/lr_multipliers.json").read_text())["multipliers"] == rates
    assert {
        value["lr"] for value in json.loads(Path("widened/lr_multipliers.json").read_text())["multipliers"].values()
    } > {1.0}


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


# ---------------------------------------------------------------- refusals


def test_a_loss_that_is_nan(world):
    """Exit code 1; the step as metrics.jsonl counts, and the last checkpoint, which stays."""
    result = run(*line(world, "--lr", "1e38", "--save-every", "1", "--clip", "0"))
    assert result.exit_code == 1 and len(result.stderr.strip().splitlines()) < 5, result.output
    last = state.found(Path("run/checkpoints"))[-1]
    assert last.name == f"step-{len(curve('run')):08d}" and last.name in result.stderr
    assert f"at step {len(curve('run')) + 1}" in result.stderr
    assert state.trainer_of(last)["step"] == len(curve("run"))


def test_a_gradient_that_is_not_finite_is_not_taken_for_a_step(world, monkeypatch):
    def poisoned(folder, load=pretrain._load):
        model, home = load(folder)
        next(model.parameters()).register_hook(lambda gradient: gradient * float("inf"))
        return model, home

    monkeypatch.setattr(pretrain, "_load", poisoned)
    with pytest.raises(loop.NotFiniteError):
        pretrain.pretrain(ask(world, "run", steps=2, save_every=1))
    assert not state.found(Path("run/checkpoints"))


REFUSED = {
    "schedule": (["--schedule", "sideways"], "plain, two-stage, stackbert, mslt"),
    "decay": (["--decay", "slow"], "cosine, linear, wsd, constant"),
    "precision": (["--precision", "int4"], "auto, float32, bfloat16"),
    "alpha": (["--alpha-schedule", "up"], "linear, constant, heaviside"),
    "device": (["--device", "tpu"], "auto, cpu, cuda"),
    "resume": (["--resume", "maybe"], "auto, never"),
    "no such checkpoint": (["--teacher", "nowhere"], "nowhere"),
    "two lengths": (["--tokens", "64", "--epochs", "1"], "--steps, --tokens, --epochs"),
    "batch": (["--batch-size", "5", "--grad-accum", "2"], "4 or 6"),
    "option of another schedule": (["--sub-layers", "2"], "two-stage"),
    "nobody teaches": (["--teacher-steps", "2"], "--teacher"),
    "no depth": (["--schedule", "stackbert"], "--to-layers"),
    "too long": (["--seq-len", "65"], "64 positions"),
    "too long for roberta": (["--seq-len", "65", "ROBERTA"], "64 positions"),
    "no mask token": (["BARE"], "mask token"),
    "too little data": (["--data", "little.bin"], "--seq-len"),
    "too little validation": (["--data", "short"], "--seq-len"),
    "another vocabulary": (["--data", "large"], "100"),
    "another tokenizer": (["--data", "foreign", "BERT"], "another tokenizer"),
    "a teacher with another vocabulary": (["--teacher", "stranger"], "61"),
    "a teacher of another kind": (["--teacher", "BERT"], "masked"),
    "a teacher with fewer positions": (["--teacher", "brief"], "positions"),
    "a stage that shrinks": (["--stages", "shrink.toml"], "layers"),
    "stages and a schedule": (["--stages", "fine.toml", "--schedule", "two-stage"], "--schedule"),
    "a file": (["--out", "little.bin"], "no folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(world, case):
    """Each in one sentence with exit code 2, and nothing is written: the same line with the mistake mended runs."""
    more, says = REFUSED[case]
    np.arange(10, dtype="<u2").tofile("little.bin")
    Path("shrink.toml").write_text("[[stage]]\nsteps=4\n[[stage]]\nsteps=4\nlayers=2\n")
    Path("fine.toml").write_text("[[stage]]\nsteps=4\n")
    if "--data" in more:
        dataset(Path("large"), 400, vocab_size=100)
        dataset(Path("foreign"), 400, tokenizer="0" * 64)
        dataset(Path("short"), 80)
    if "--teacher" in more:
        tiny.make("gpt2", dtype=torch.float32, vocab_size=67).save_pretrained("stranger")
        tiny.make("gpt2", dtype=torch.float32, n_positions=8).save_pretrained("brief")
    model = (
        {"ROBERTA": "roberta", "BARE": "bert", "BERT": "bert"}.get(more[-1], "llama")
        if "teacher" not in case
        else "gpt2"
    )
    if more[-1] == "BARE":
        shutil.copytree(world / "bert", "bare")
        tokenizer(mask=False).save_pretrained("bare")
        model = Path("bare").resolve()
    options = [
        str(world / "bert") if "--teacher" in more and m == "BERT" else m for m in more if m not in ("ROBERTA", "BARE")
    ]
    options = [m for m in options if m != "BERT"]
    assert says in refused(*line(world, *options, model=model), says=says)
    assert not Path("run").exists()
