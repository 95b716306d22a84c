"""Whole runs on tiny models: what they compute, what they leave, what they refuse."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import transformers
from on_disk import edit_config, edit_weights
from refusing import refused, run, tree
from safetensors.torch import load_file
from tiny_runs import ask, curve, dataset, kept_moments, line, losses_of, same, tokenizer, weights

import growkit
from growkit import api
from growkit.data.batches import Batches
from growkit.errors import RequestError
from growkit.training import checkpoints as state
from growkit.training import loop, pretrain
from growkit.training.optim import rate
from growkit.training.teachers import teacher


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
    data = Batches(tokens=np.fromfile(world / "data" / "train.bin", "<u2"), length=16, size=8)
    expected, norms = [], []
    for step in range(50):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * rate(step, 50, 5, "cosine")
        batch = data.rows(step, 0, 8)
        loss = torch.nn.functional.cross_entropy(model(batch.inputs).logits.flatten(0, 1), batch.labels.flatten())
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


def test_teachers(world):
    """At alpha 0 as if there were none, and then it is gone; one that knows what the student knows teaches nothing."""
    lines = []
    pretrain.pretrain(ask(world, "none", steps=4))
    pretrain.pretrain(ask(world, "zero", steps=4, teacher=str(world / "teacher"), teacher_steps=0))
    assert losses_of("none") == losses_of("zero") and same(weights("none/final"), weights("zero/final"))

    def watch(line):
        if line["kind"] == "train":
            lines.append(
                (line.get("step"), line.get("alpha"), "kd_loss" in line, taught_run.lessons.teacher is not None)
            )

    usual = dict(teacher=str(world / "teacher"), teacher_steps=2, teacher_until="steps")
    taught = ask(world, "taught", steps=4, eval_every=9, save_every=9, **usual)
    taught_run = pretrain.open_run(taught, watch=watch)
    assert pretrain.carry_through(taught_run).run is taught_run
    assert lines[:4] == [(1, 1.0, True, True), (2, 0.5, True, True), (3, 0.0, False, False), (4, 0.0, False, False)]
    assert losses_of("taught")[0] == losses_of("none")[0] != losses_of("taught")[1]
    itself = dict(
        teacher=str(world / "llama"),
        teacher_steps=9,
        teacher_schedule="heaviside",
        teacher_weight=1.0,
        weight_decay=0.0,
    )
    pretrain.pretrain(ask(world, "itself", model="llama", steps=1, **itself))
    said = next(
        line for line in map(json.loads, Path("itself/metrics.jsonl").read_text().splitlines()) if "alpha" in line
    )
    assert said["kd_loss"] < 1e-5 and said["grad_norm"] < 1e-4 and said["loss"] > 1


@pytest.mark.parametrize(("schedule", "depths"), [("stackbert", [3, 6, 12]), ("mslt", [3, 6, 9, 12])])
def test_stages_that_grow(world, schedule, depths):
    pretrain.pretrain(ask(world, "run", schedule, steps=20, to_layers=12, model="tied", save_every=99))
    said = [said[3:5] for _, said in sorted(curve("run").items())]
    assert sorted({depth for depth, _ in said}) == depths
    assert {trained for _, trained in said} == ({3, 12} if schedule == "mslt" else set(depths))
    assert json.loads(Path("run/final/config.json").read_text())["num_hidden_layers"] == 12
    counted = {
        key: value.item()
        for key, value in load_file("run/final/optimizer/optimizer.safetensors").items()
        if "step" in key
    }
    assert counted["model.norm.weight.step"] == 20  # the state grew along


def alphas(out) -> dict[int, float]:
    lines = map(json.loads, Path(out, "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["alpha"] for line in lines if line["kind"] == "train"}


def test_a_teacher_that_is_overtaken(world, monkeypatch):
    """It ends when validation passes its own and never begins again; stopped before or after that, the same run comes
    out."""
    val = {0: 9.0, 2: 5.0, 4: 4.0, 6: 3.5, 8: 9.0, 10: 9.0, 12: 9.0}  # of the model; its teacher's is 3.8
    asked, runs = [], []

    def validate(model, *_):
        asked.append(is_teacher := model is not runs[-1].student.model)
        return 3.8 if is_teacher else val[runs[-1].step], {}

    def go(settings, resume=False, watch=lambda _: None):
        runs.append(pretrain.open_run(settings, resume, watch))
        return pretrain.carry_through(runs[-1], resume)

    monkeypatch.setattr(loop, "validate", validate)
    monkeypatch.setattr(teacher, "validate", validate)
    taught = dict(teacher=str(world / "teacher"), teacher_steps=10, teacher_until="overtaken", eval_every=2)
    taught["teacher_weight"] = 1.0
    go(ask(world, "whole", **taught))
    weight = {step: 1 - (step - 1) / 10 if step <= 6 else 0.0 for step in range(1, 13)}
    assert alphas("whole") == pytest.approx(weight) and asked.count(True) == 1 and asked.count(False) == 7
    notes = [line for line in map(json.loads, Path("whole/metrics.jsonl").read_text().splitlines()) if "text" in line]
    assert [note["text"].split(";")[0] for note in notes[1:]] == [
        "at step 6 the model's validation loss 3.5000 passes its teacher's, 3.8000"
    ]
    s = ask(world, "run", **taught)
    for stop in (5, 7, 10):  # goes on from 3, from 6, where it was overtaken, and from 9

        def stopped(line, stop=stop):
            if line.get("step") == stop and line["kind"] == "train":
                raise ArithmeticError

        with pytest.raises(ArithmeticError):
            go(s, stop > 5, stopped)
    go(s, True)
    assert curve("run") == curve("whole") and alphas("run") == alphas("whole")
    assert same(weights("run/final"), weights("whole/final"))
    with pytest.raises(RequestError, match=r"eval_every 3 \(was 2\)"):
        pretrain.pretrain(ask(world, "run", **{**taught, "eval_every": 3}), True)


@pytest.mark.parametrize(("lr", "ends"), [(0.0, False), (1e-3, True)])
def test_what_a_teacher_is_overtaken_by(world, lr, ends):
    """A teacher that is the model itself: as good as it while nothing is learned, passed after the first steps."""
    taught = dict(teacher=str(world / "llama"), teacher_steps=4, teacher_until="overtaken", teacher_schedule="constant")
    pretrain.pretrain(ask(world, "run", model="llama", steps=4, warmup=0, lr=lr, eval_every=2, **taught))
    assert list(alphas("run").values()) == ([0.5, 0.5, 0.0, 0.0] if ends else [0.5] * 4)


@pytest.mark.parametrize(
    ("schedule", "options"),
    {
        "plain": "--grad-accum 2 --teacher TEACHER --teacher-steps 4 --teacher-until steps",
        "two-stage": "--sub-layers 2 --sub-steps 5",
        "stackbert": "--to-layers 7",
        "stackbert ": "--to-layers 6 --steps 1",  # no step for the first stage
        "mslt": "--to-layers 7",
    }.items(),
)
def test_what_a_run_will_be(world, schedule, options):
    """Said before it is; nothing is written; operations are those that metrics.jsonl counts."""
    options = options.replace("TEACHER", str(world / "teacher")).split()
    length = [] if "--steps" in options else ["--steps", "7"]
    asked = [text for text in line(world, "--tokens", "T", model="gpt2") if text not in ("--tokens", "T")]
    asked += ["--schedule", schedule.strip(), *options, *length]
    before = tree()
    told, shown = run(*asked, "--dry-run", "--json"), run(*asked, "--dry-run")
    assert told.exit_code == shown.exit_code == 0 and tree() == before, told.output + shown.output
    assert "nothing was written" in shown.stdout and not shown.stderr
    found = json.loads(told.stdout)
    assert run(*asked).exit_code == 0
    lines = [json.loads(text) for text in Path("run/metrics.jsonl").read_text().splitlines()]
    steps = [said for said in lines if said["kind"] == "train"]
    assert found["flops"] + found["teacher_flops"] == pytest.approx(steps[-1]["flops"], rel=1e-12)
    assert bool(found["teacher_flops"]) == ("--teacher" in options)
    assert found["tokens"] == steps[-1]["tokens"] and sum(stage["steps"] for stage in found["stages"]) == len(steps)
    for stage in found["stages"]:
        own = [said for said in steps if said["stage"] == stage["name"]]
        assert len(own) == stage["steps"]
        for mean in ("depth", "trained") if own else ():
            assert stage[mean] == pytest.approx(sum(said[mean] for said in own) / len(own))
    left = transformers.AutoModelForCausalLM.from_pretrained("run/final")
    assert found["stages"][-1]["layers"] == left.config.n_layer
    assert found["state"] == 16 * left.num_parameters()  # weights, gradient, two moments
    assert found["parameters"] == transformers.AutoModelForCausalLM.from_pretrained(world / "gpt2").num_parameters()
    assert found["warmup"] == len(steps) // 4  # there is no state of AdamW
    refused(*asked, "--dry-run", says="--resume auto")


def test_warm_up_by_default(world):
    """None where AdamW's state comes along; else as many steps as second moments remember, at most a quarter of the
    run."""

    def asked(model, steps, **more):
        return growkit.pretrain(model, world / "data", "run", steps=steps, dry_run=True, **more).outlook.warmup

    fresh = world / "llama"
    assert [asked(fresh, steps) for steps in (3, 40, 80, 10_000)] == [0, 10, 20, 20]
    assert (
        asked(fresh, 10_000, beta2=0.98) == 50 and asked(fresh, 100, warmup=0) == 0 and asked(fresh, 100, warmup=7) == 7
    )
    shutil.copytree(fresh, "with")
    for place in ("with", "with/optimizer"):  # where growkit 0.2 laid it, and where it lies
        Path(place).mkdir(exist_ok=True)
        Path(place, "optimizer.safetensors").touch()
        assert asked("with", 10_000) == 0 and asked("with", 100, warmup=7) == 7
        Path(place, "optimizer.safetensors").unlink()


# ---------------------------------------------------------------- what a run leaves


def test_tensorboard(world, monkeypatch):
    """The scalars of metrics.jsonl, at their steps."""
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install 'growkit[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    pretrain.pretrain(ask(world, "run", steps=4, eval_every=2, tensorboard=True))
    board = EventAccumulator("run/tensorboard")
    board.Reload()
    lines = [json.loads(text) for text in Path("run/metrics.jsonl").read_text().splitlines()]
    for kind, steps in (("train", [1, 2, 3, 4]), ("val", [2, 4])):
        for name in ("loss", "tokens", "flops"):
            points = board.Scalars(f"{kind}/{name}")
            assert [point.step for point in points] == steps
            assert [p.value for p in points] == pytest.approx([said[name] for said in lines if said["kind"] == kind])
    assert "train/step" not in board.Tags()["scalars"] and "train/stage" not in board.Tags()["scalars"]


def test_tensorboard_that_is_missing(world, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    for more in ([], ["--dry-run"]):
        refused(*line(world, "--tensorboard", *more), says="pip install 'growkit[tensorboard]'")


def test_what_is_left_can_be_loaded_and_grown_and_trained_on(world):
    ids = tiny.tokens()
    trained = pretrain.pretrain(ask(world, "first")).run.student.model.eval()
    final = transformers.AutoModelForCausalLM.from_pretrained("first/final").eval()
    assert torch.equal(final(ids).logits, trained(ids).logits)
    state_of = "first/final/optimizer/optimizer.safetensors"
    for name, make in {
        "widened": lambda: api.widen("first/final", "widened", hidden=48, optimizer=state_of, verify=False),
        "stacked": lambda: api.stack("first/final", "stacked", layers=6, optimizer=state_of, verify=False),
        "rewidened": lambda: api.widen(
            "more-widened/final",
            "rewidened",
            ffn=200,
            optimizer="more-widened/final/optimizer/optimizer.safetensors",
            verify=False,
        ),
    }.items():
        make()
        grown = load_file(f"{name}/optimizer/optimizer.safetensors")
        rates = json.loads(Path(name, "lr_multipliers.json").read_text())["multipliers"]
        assert {v.item() for key, v in grown.items() if key.endswith(".step")} == {12 if "re" not in name else 15}

        settings = ask(world.parent, f"more-{name}", steps=3, model=Path(name).resolve())
        going = pretrain.open_run(replace(settings, data=str(world / "data")))
        going.begin()
        begun = kept_moments(going.student)
        pretrain.carry_through(going)
        scales = {id(p): group["scale"] for group in going.student.optimizer.param_groups for p in group["params"]}
        assert begun.keys() <= grown.keys() and all(torch.equal(begun[key], grown[key]) for key in begun)
        for parameter, tensor in going.student.model.named_parameters():
            assert scales[id(tensor)] == rates.get(parameter, {"lr": 1.0})["lr"], parameter
        after = load_file(f"more-{name}/final/optimizer/optimizer.safetensors")
        assert {v.item() for key, v in after.items() if key.endswith(".step")} == {15 if "re" not in name else 18}
        assert json.loads(Path(f"more-{name}/final/lr_multipliers.json").read_text())["multipliers"] == rates
    assert {
        value["lr"] for value in json.loads(Path("widened/lr_multipliers.json").read_text())["multipliers"].values()
    } > {1.0}


def test_a_state_beside_the_weights_is_taken_over(world):
    """Where growkit 0.2 laid it."""
    pretrain.pretrain(ask(world, "first", steps=2))
    kept = load_file("first/final/optimizer/optimizer.safetensors")
    Path("first/final/optimizer/optimizer.safetensors").rename("first/final/optimizer.safetensors")
    going = pretrain.open_run(ask(world, "more", model=Path("first/final").resolve()))
    going.begin()
    assert same(kept_moments(going.student), kept) and max(value.abs().max() for value in kept.values()) > 0


# ---------------------------------------------------------------- refusals


def test_a_loss_that_is_nan(world):
    """Exit code 1; the step as metrics.jsonl counts, and the last checkpoint, which stays."""
    result = run(*line(world, "--lr", "1e38", "--save-every", "1", "--clip", "0"))
    assert result.exit_code == 1 and len(result.stderr.strip().splitlines()) < 5, result.output
    last = state.checkpoints_in(Path("run/checkpoints"))[-1]
    assert last.name == f"step-{len(curve('run')):08d}" and last.name in result.stderr
    assert f"at step {len(curve('run')) + 1}" in result.stderr
    assert state.trainer_of(last)["step"] == len(curve("run"))


def test_a_gradient_that_is_not_finite_is_not_taken_for_a_step(world):
    going = pretrain.open_run(ask(world, "run", steps=2, save_every=1))
    going.begin()
    next(going.student.model.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(loop.NotFiniteError):
        pretrain.carry_through(going)
    assert not state.checkpoints_in(Path("run/checkpoints"))


REFUSED = {
    "schedule": (["--schedule", "sideways"], "plain, two-stage, stackbert, mslt"),
    "decay": (["--decay", "slow"], "cosine, linear, wsd, constant"),
    "precision": (["--precision", "int4"], "auto, float32, bfloat16"),
    "alpha": (["--teacher-schedule", "up"], "linear, constant, heaviside, wsd"),
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
    "another vocabulary": (["--data", "large"], "val.bin' holds token 61, and the embedding of"),
    "another tokenizer": (["--data", "foreign", "BERT"], "another tokenizer"),
    "a teacher with another vocabulary": (["--teacher", "stranger"], "61"),
    "a teacher of another kind": (["--teacher", "BERT"], "masked"),
    "a teacher with fewer positions": (["--teacher", "brief"], "positions"),
    "a stage that shrinks": (["--stages", "shrink.toml"], "layers"),
    "stages and a schedule": (["--stages", "fine.toml", "--schedule", "two-stage"], "--schedule"),
    "a file": (["--out", "little.bin"], "no folder"),
    "shards": (["--shard", "most"], "auto, none, node, all"),
    "nobody is overtaken": (["--teacher-until", "overtaken"], "--teacher CKPT"),
    "a teacher until what": (["--teacher", "fine", "--teacher-until", "noon"], "overtaken, steps"),
    "a teacher nobody can overtake": (
        ["--teacher", "fine", "--teacher-until", "overtaken", "--data", "whole.bin"],
        "no validation split",
    ),
    "JSON": (["--json"], "--dry-run"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(world, case):
    """Each in one sentence with exit code 2, and nothing is written: the same line with the mistake mended runs."""
    more, says = REFUSED[case]
    np.arange(10, dtype="<u2").tofile("little.bin")
    (np.arange(400, dtype="<u2") % 61).tofile("whole.bin")
    Path("shrink.toml").write_text("[[stage]]\nsteps=4\n[[stage]]\nsteps=4\nlayers=3\n[[stage]]\nsteps=4\nlayers=2\n")
    Path("fine.toml").write_text("[[stage]]\nsteps=4\n")
    if "--data" in more:
        np.memmap(dataset(Path("large"), 400) / "val.bin", "<u2", "r+")[7] = 61
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
    options = [str(world / "teacher") if m == "fine" else m for m in options]
    sentence = refused(*line(world, *options, model=model), says=says)
    if "--json" not in options:
        assert refused(*line(world, *options, "--dry-run", model=model), says=says) == sentence
    assert not Path("run").exists()


@pytest.mark.parametrize("kind", ["int8", "uint8", "float8_e4m3fn", "said"])
def test_quantised_weights_neither_learn_nor_teach(world, kind):
    """Named before anything is written; integers that are no weights, as BERT's positions, are none."""
    coded = Path(shutil.copytree(world / "gpt2", "coded")).resolve()
    if kind == "said":
        edit_config(coded, quantization_config={"quant_method": "gptq", "bits": 4})
    else:
        dtype, name = getattr(torch, kind), "transformer.h.1.mlp.c_fc.weight"
        edit_weights(coded, lambda tensors: tensors.update({name: tensors[name].mul(100).to(dtype)}))
    says = "quantization_config" if kind == "said" else f"'transformer.h.1.mlp.c_fc.weight' has dtype {kind}"
    for more in ([], ["--dry-run"]):
        assert "full-precision" in refused(*line(world, *more, model=coded), says=says)
        refused(*line(world, "--teacher", "coded", *more, model="gpt2"), says=says)
    old = Path(shutil.copytree(world / "bert", "old")).resolve()
    edit_weights(old, lambda tensors: tensors.update({"bert.embeddings.position_ids": torch.arange(64)[None]}))
    assert run(*line(world, "--tokens", "64", model=old)).exit_code == 0


def test_a_stage_that_cannot_be_made_is_refused_before_the_first_one_trains(world):
    """Each is planned from what the one before it will leave; its name is in the sentence."""
    last = "[[stage]]\nname = 'last'\nsteps = 2\nlayers = 9\ndepth = 'solar'\n"
    Path("stages.toml").write_text(f"[[stage]]\nsteps = 2\n[[stage]]\nsteps = 2\nlayers = 5\n{last}")
    for family in ("llama", "gpt2", "bert"):
        for more in ([], ["--dry-run"]):
            asked = line(world, "--stages", "stages.toml", *more, model=family)
            assert "stage 'last' cannot be made" in refused(*asked, says="5 layers into 2 x (5 - overlap)")
    Path("stages.toml").write_text(Path("stages.toml").read_text().replace("layers = 9", "layers = 8"))
    assert run(*line(world, "--stages", "stages.toml")).exit_code == 0


def test_what_is_no_language_model(world):
    """Neither learns nor teaches, and --dry-run says so too."""
    for name, architecture in (("headless", "LlamaModel"), ("nameless", "LlamaForCausalLM")):
        tiny.make("llama", architecture, dtype=torch.float32).save_pretrained(name)
    config = json.loads(Path("nameless/config.json").read_text())
    Path("nameless/config.json").write_text(json.dumps({**config, "architectures": None}))
    tiny.make("bert", "BertForSequenceClassification", dtype=torch.float32).save_pretrained("judge")
    for name in ("headless", "nameless", "judge"):
        for more in ([], ["--dry-run"]):
            model = Path(name).resolve()
            assert name in refused(*line(world, *more, model=model), says="has no language-model head")
            refused(*line(world, "--teacher", name, *more), says=f"'{name}'")


def test_the_longest_run_is_foretold_at_once(world, tmp_path, monkeypatch):
    """A billion steps, of which an eighth have prefixes that chance chooses: told of the first ones."""
    monkeypatch.chdir(tmp_path)
    told = {}
    for steps in (10_000, 10**9):
        result = run(*line(world, "--schedule", "two-stage", "--steps", steps, "--dry-run", "--json"))
        assert result.exit_code == 0, result.output
        told[steps] = json.loads(result.stdout)
    short, long = told.values()
    assert (
        long["tokens"] == 10**5 * short["tokens"] and long["stages"][1]["flops"] == 10**5 * short["stages"][1]["flops"]
    )
    assert long["stages"][0]["flops"] == pytest.approx(10**5 * short["stages"][0]["flops"], rel=0.05)
    refused(
        *line(world, "--steps", 10**15, "--dry-run"), says="--steps 1000000000000000 should be from 1 to 1000000000"
    )
