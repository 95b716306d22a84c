"""Runs in which a part of the model learns: who exactly, that nothing else moves, and what tune does by itself."""

import json
import re
from pathlib import Path

import pytest
import tiny
import torch
from processes import pair
from refusing import cases, refused, run
from safetensors.torch import load_file
from tiny_runs import Stopped, ask, curve, losses_of, same, stops_at, weights

import growkit
from growkit.errors import RequestError
from growkit.training import checkpoints as state
from growkit.training import pretrain
from growkit.training.flops import forward_flops, step_flops
from growkit.training.learning.parts import MIXTURE_PARTS
from growkit.training.learning.train_words import WORDS, trained
from growkit.training.state_files import read_plan

MIXTURES = ("mixtral", "qwen2_moe", "qwen3_moe")
SMALL = dict(seq_len=16, batch_size=4, eval_tokens=160)


@pytest.fixture(scope="module")
def models(world, tmp_path_factory):
    """The shared models and data, mixtures, and models with layers that growths inserted."""
    folder = tmp_path_factory.mktemp("models")
    for path in world.iterdir():
        if path.name != "llama":
            (folder / path.name).symlink_to(path)
    tiny.make("llama", dtype=torch.float32).save_pretrained(folder / "llama")
    for family in MIXTURES:
        tiny.make(family, dtype=torch.float32).save_pretrained(folder / family)
    growkit.stack(folder / "llama", folder / "deep", method="identity", after="1,3", verify=False)
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


LEARN = [  # model, what is trained, the names of all that learns
    ("llama", "top:1", r"model\.layers\.2\."),
    ("gpt2", "top:2", r"transformer\.h\.[12]\."),
    ("tied", "top:3", r"model\.layers\."),
    ("roberta", "top:1", r"roberta\.encoder\.layer\.2\."),
    ("deep", "inserted", r"model\.layers\.[14]\."),
    ("mixtral", "experts", r".*block_sparse_moe\.experts\."),
    ("mixtral", "router", r".*block_sparse_moe\.gate\."),
    ("mixtral", "dense-part", r"(?!.*block_sparse_moe)"),
    ("qwen2_moe", "experts", r".*mlp\.experts\."),
    ("qwen2_moe", "router", r".*mlp\.gate\."),
    ("qwen2_moe", "dense-part", r"(?!.*mlp\.(experts|gate)\.)"),
    ("qwen3_moe", "all", r""),
]


@pytest.mark.parametrize(("model", "word", "names"), LEARN)
def test_exactly_what_is_named_learns(models, model, word, names):
    """It moves, and has AdamW's state and a place in checkpoints; all else stays bit for bit and has neither."""
    done = pretrain.pretrain(ask(models, "run", model=model, steps=2, warmup=0, train=word, balance=0.0))
    before, after = weights(models / model), weights("run/final")
    learns = {name for name in before if re.match(names, name)}
    assert before.keys() == after.keys() and len(learns) > 0
    assert {name for name in before if not torch.equal(before[name], after[name])} == learns
    live = {name for name, p in done.run.student.model.named_parameters() if p.requires_grad}
    kept = load_file("run/final/optimizer/optimizer.safetensors")
    assert {name.rpartition(".")[0] for name in kept} == live
    plan = read_plan(state.checkpoints_in(Path("run/checkpoints"))[-1])
    assert {key.removeprefix("optim.").rpartition(".")[0] for key in plan if key.startswith("optim.")} == live
    assert {name for name, _ in done.run.student.model.named_parameters()} & {
        key.removeprefix("model.") for key in plan if key.startswith("model.")
    } == live
    (said, *_) = map(json.loads, Path("run/metrics.jsonl").read_text().splitlines())
    assert said["trained"] == len({layer for name in learns for layer in re.findall(r"\.(\d+)\.", name)[:1]})


@pytest.mark.parametrize("family", MIXTURES)
def test_the_parts_of_a_mixture_are_disjoint_and_all_of_it(models, family):
    going = pretrain.open_run(ask(models, "run", model=family))
    model = going.open_model(models / family).model
    learning = []
    for part in MIXTURE_PARTS:
        trained(part, going.saved.origin).learners.choose(model)
        learning += [name for name, p in model.named_parameters() if p.requires_grad]
    assert sorted(learning) == sorted(name for name, _ in model.named_parameters())
    going.release()


@pytest.mark.parametrize(("model", "word"), [("deep", "inserted"), ("mixtral", "experts")])
def test_a_part_goes_on_bit_for_bit_and_in_two_processes(models, model, word):
    usual = dict(model=model, steps=6, train=word, expert_dropout=0.1 if model == "mixtral" else 0.0)
    pretrain.pretrain(ask(models, "whole", **usual))

    with pytest.raises(Stopped):
        pretrain.pretrain(ask(models, "part", **usual), watch=stops_at(5))
    pretrain.pretrain(ask(models, "part", **usual), True)
    assert curve("part") == curve("whole") and same(weights("part/final"), weights("whole/final"))
    still = {**usual, "expert_dropout": 0.0, "shard": "all"}  # each process draws its own
    assert pair(lambda: pretrain.pretrain(ask(models, "two", **still)) and 0) == [0, 0]
    pretrain.pretrain(ask(models, "one", **still))
    assert losses_of("two") == pytest.approx(losses_of("one"), abs=1e-5)


def test_inserted_layers_are_remembered_through_runs_and_growths(models):
    """By the list in growkit.json, which follows layers wherever a growth puts them."""
    growkit.tune(models / "deep", models / "data", "run", train="inserted", steps=1, **SMALL)
    assert json.loads(Path("run/final/growkit.json").read_text())["inserted_layers"] == [2, 5]
    growkit.stack("run/final", "deeper", method="identity", after="2", verify=False)
    assert json.loads(Path("deeper/growkit.json").read_text())["inserted_layers"] == [2, 6]
    growkit.widen("deeper", "wide", hidden=48, verify=False)
    assert json.loads(Path("wide/growkit.json").read_text())["inserted_layers"] == [2, 3, 6]
    growkit.tune("wide", models / "data", "again", train="inserted", steps=1, lr=1e-3, **SMALL)
    before, after = weights("wide"), weights("again/final")
    moved = {name.split(".")[2] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"1", "2", "5"}
    edited = json.loads(Path("wide/growkit.json").read_text()) | {"inserted_layers": [99]}
    Path("wide/growkit.json").write_text(json.dumps(edited))
    refused("tune", "wide", "--data", models / "data", "--out", "no", "--train", "inserted", "--steps", "1",
            says="speaks of layer 99, and the model has 6")  # fmt: skip


def test_tune_has_defaults_of_its_own(models):
    class Told(Exception):
        pass

    def tell(settings):
        raise Told(settings)

    def of(model, **more):
        with pytest.raises(Told) as told:
            growkit.tune(models / model, models / "data", "run", announce=tell, **SMALL, **more)
        return told.value.args[0]

    dense, mixture = of("llama"), of("mixtral", steps=1000)
    assert (dense.lr, mixture.lr) == (2e-5, 5e-5) and (mixture.balance, mixture.router_z) == (0.0, 0.0)
    assert dense.steps == 2 * 4000 // 64 and dense.train == "all" and dense.command == "tune"
    assert (dense.warmup, mixture.warmup, of("llama", steps=8).warmup) == (20, 30, 2)
    assert of("mixtral", balance=0.02).balance == 0.02 and of("llama", lr=1e-3, warmup=0).warmup == 0


def test_a_run_of_one_command_is_not_gone_on_with_by_the_other(models):
    line = ["--data", models / "data", "--out", "run", "--steps", "2", "--seq-len", "16", "--batch-size", "4"]
    assert run("tune", models / "llama", *line).exit_code == 0
    assert json.loads(Path("run/final/growkit.json").read_text())["command"] == "tune"
    assert run("tune", models / "llama", *line, "--resume", "auto").exit_code == 0  # is done
    refused("pretrain", models / "llama", *line, "--resume", "auto", says="command 'pretrain' (was 'tune')")


def test_operations_of_a_part_leave_out_what_is_frozen(models):
    """By hand: backward half for what reaches the layer below, half for a weight that learns; none below the lowest."""
    going = pretrain.open_run(ask(models, "run", model="deep"))
    model = going.open_model(models / "deep").model
    going.release()
    layer = sum(p.numel() for p in model.model.layers[0].parameters() if p.dim() > 1)
    head, scores = 61 * 24, 4 * 6 * 16
    forward = 5 * (2 * layer + 4 * scores) + 2 * head
    assert forward_flops(model, 7, 16) == 7 * forward
    assert step_flops(model, 7, 16, 5, 5) == 3 * 7 * forward
    trained("inserted", going.saved.origin).learners.choose(model)  # layers 2 and 5 of 5
    assert step_flops(model, 7, 16, 5, 5) == 7 * (forward + 4 * (2 * layer + 8 * scores) + 2 * 2 * layer + 2 * head)
    trained("top:1", going.saved.origin).learners.choose(model)
    assert step_flops(model, 7, 16, 5, 5) == 7 * (forward + 4 * layer + 8 * scores + 2 * head)


REFUSED = [  # options after a sound line, and what is said
    (
        "llama",
        "--train loar",
        "--train 'loar' is not one of all, top:N, inserted, lora[:r], lora-mlp[:r], ia3, control[:r], mov[:n]",
    ),
    ("llama", "--train lora:0", "should name a rank from 1 to the model's 24 hidden"),
    ("llama", "--train control:25", "should name a rank from 1 to the model's 24 hidden"),
    ("llama", "--train ia3:4", "should be written as ia3"),
    ("llama", "--train mov:9999", "should name from 1 to 4096 experts"),
    ("llama", "--train molora:2:99", "should name a rank from 1 to the model's 24 hidden"),
    ("mixtral", "--train mov", "the experts of a mixtral in one tensor; lora goes on these too"),
    ("llama", "--train lora --schedule stackbert --to-layers 6", "and so does stage '6 layers' with its layers"),
    ("llama", "--train top", "--train 'top' should be written as top:N"),
    ("llama", "--train top:two", "should be written as top:N"),
    ("llama", "--train top:0", "should name from 1 to the model's 3 layers"),
    ("llama", "--train top:4", "should name from 1 to the model's 3 layers"),
    ("llama", "--train all:1", "should be written as all"),
    ("llama", "--train inserted", "says of no layer that a growth inserted it"),
    ("llama", "--train experts", "--train experts is a part of mixtures of experts"),
    ("llama", "--train top:1 --schedule two-stage", "and so does stage 'prefixes' with its sub_layers"),
    ("deep", "--train inserted --schedule stackbert --to-layers 6", "and so does stage '6 layers' with its layers"),
    ("llama", "--balance 0.1", "--balance is for mixtures of experts"),
]


@pytest.mark.parametrize(("model", "options", "says"), cases(REFUSED))
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry"])
def test_refusals(models, model, options, says, dry):
    line = ["tune", models / model, "--data", models / "data", "--out", "run", "--seq-len", "16", "--steps", "16"]
    refused(*line, *options.split(), *dry, says=says)


def test_every_word_is_in_the_help(models):
    shown = run("tune", "--help").stdout
    assert all(row.form in shown for row in WORDS.values())
    with pytest.raises(RequestError, match="'3' is not one of"):
        growkit.tune(models / "llama", models / "data", "run", train=3)
