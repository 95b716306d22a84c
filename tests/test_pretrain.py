"""Whole runs on tiny models: what they compute, what they leave, what they refuse."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import transformers
from safetensors.torch import load_file
from test_refusals import refused, run
from tiny_runs import ask, curve, dataset, line, losses_of, same, tokenizer, weights

from growkit import api
from growkit.training import loop, pretrain, state, student
from growkit.training.batches import Batches
from growkit.training.optim import rate
from growkit.training.settings import Settings


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


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
