"""A skill that is learned: nothing at first, what learns when, and that what is left does what was trained."""

import json
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import tiny
import torch
import transformers
from panels import plain_panel
from processes import pair
from refusing import cases, refused, run
from safetensors.torch import load_file
from skills import make_skill
from tiny_runs import Stopped, conversations, curve, losses_of, stops_at, tagged_dataset

import growkit
from growkit.data.tokens import open_tokens
from growkit.skills import learn
from growkit.skills.gates.gate_texts import dataset_texts
from growkit.skills.gates.learn_gate import gate_of_texts
from growkit.skills.gates.own_file import has_gate, read_gate
from growkit.skills.gates.own_texts import MOST_TEXTS
from growkit.skills.own_sketch import uncompiled
from growkit.skills.panel_control import ADAPTER, panel_controls
from growkit.skills.panel_file import open_panel
from growkit.skills.skill_file import read_skill
from growkit.training import checkpoints as state
from growkit.training import loop
from growkit.training.learning.control import controls

USUAL = dict(size=4, steps=12, seq_len=16, batch_size=4, lr=3e-2, eval_every=2, eval_tokens=160, save_every=3, keep=9)
USUAL |= dict(sketch_tokens=128, warmup=0)


@pytest.fixture(scope="module")
def bench(world, tmp_path_factory):
    """A model's panel, conversations, and a skill that was learned of text, with an adapter."""
    folder = tmp_path_factory.mktemp("bench")
    tiny.make("llama", dtype=torch.float32, num_hidden_layers=1).save_pretrained(folder / "llama")
    plain_panel(folder / "llama", folder / "panel")
    conversations(folder / "talks")
    learned(world, folder, str(folder / "run"), adapter=2)
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def learned(world, bench, out, data=None, **more):
    return growkit.skill_learn(bench / "llama", bench / "panel", data or world / "data", out, **{**USUAL, **more})


def begun(world, bench, monkeypatch, **more):
    """A run that has not made a step."""
    held = []
    monkeypatch.setattr(
        learn, "carry_through", lambda run, _: held.append(run) or learn.Finished(folder=None, step=0, loss=None)
    )
    learned(world, bench, "begun", **more)
    monkeypatch.undo()
    held[0].begin()
    held[0].release()
    return held[0]


def stock(bench):
    return transformers.LlamaForCausalLM.from_pretrained(bench / "llama").eval()


def logits_of(model):
    with torch.no_grad():
        return model.eval()(tiny.tokens()).logits


def learns(model, word):
    return {name: p.detach().clone() for name, p in model.named_parameters() if name.endswith(word)}


@pytest.mark.parametrize("data", ["text", "talks"])
def test_a_new_skill_changes_no_bit_and_its_directions_are_the_datas(world, bench, monkeypatch, data):
    """Sketches are the covariances of what each group reads of the rows of the first two steps, computed anew in
    float64, where what fills up is none; outputs are along the gradient of the loss in plain transformers."""
    run = begun(world, bench, monkeypatch, data=None if data == "text" else bench / "talks", adapter=2)
    model, plain, panel = run.student.model, stock(bench), open_panel(bench / "panel")
    assert torch.equal(logits_of(model), logits_of(plain))
    inputs, batches = {}, [run.train.rows(step, 0, 4) for step in range(2)]
    real = torch.cat([batch.places.flatten() >= 0 for batch in batches])
    assert bool(real.all()) == (data == "text")
    named = {f"{name}.weight": module for name, module in plain.named_modules()}
    for name, weight in panel.header.weights.items():
        named[name].register_forward_pre_hook(
            lambda _, given, group=weight.input, seen=name: inputs.setdefault((group, seen), []).append(
                given[0].flatten(0, 1)
            )
        )
    for batch in batches:
        logits = plain(batch.inputs, position_ids=batch.positions, use_cache=False).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten()).backward()
    assert int(model.skill_tokens) == real.sum()
    for control in panel_controls(model):
        x = torch.cat(inputs[control.group, control.weight])[real].detach().double()
        v = panel.input_basis(control.group).double()
        own = v.T @ (x.T @ x / len(x)) @ v
        if hasattr(control, "skill_sketch"):
            assert torch.allclose(control.skill_sketch.double(), own, rtol=1e-5, atol=1e-6 * float(own.trace()))
        top = torch.linalg.eigh(own).eigenvectors[:, -4:]
        chosen = control.right.T.double()
        assert torch.allclose(chosen @ chosen.T, v @ top @ top.T @ v.T, atol=1e-4)
        u, gradient = panel.output_basis(control.weight), named[control.weight].weight.grad
        assert torch.allclose(control.left, u @ control.output_coordinates, atol=1e-6)
        most = torch.linalg.svdvals(u.T @ gradient @ control.right.T)[: control.left.shape[1]]
        assert float((control.left.T @ gradient @ control.right.T).norm()) == pytest.approx(
            float(most.norm()), rel=1e-3
        )


def test_a_new_skill_that_changes_something_is_not_trained(world, bench, monkeypatch):
    zeros = torch.Tensor.zero_
    monkeypatch.setattr(
        torch.Tensor, "zero_", lambda tensor: tensor.fill_(1e-3) if tensor.dim() == 2 else zeros(tensor)
    )
    with pytest.raises(AssertionError, match="a new skill changes what the model makes of its data"):
        learned(world, bench, "run", steps=1)


def test_what_is_to_be_compiled_runs_as_it_is_while_hooks_are_on_it():
    layer = torch.nn.Linear(2, 2)
    layer.compile(backend="eager")
    compiled = layer._compiled_call_impl
    with uncompiled(torch.nn.Sequential(layer)):
        assert layer._compiled_call_impl is None and compiled is not None
    assert layer._compiled_call_impl is compiled


def test_gradients_reach_the_transform_then_the_adapter_and_nothing_else(world, bench, monkeypatch):
    run = begun(world, bench, monkeypatch, adapter=2)
    model, batch = run.student.model, run.train.rows(0, 0, 4)
    for stage, word in (("transform", "middle"), (ADAPTER, ADAPTER)):
        plan = loop.PlannedStep(stage=stage, lr=1.0, depth=1, trained=1, alpha=0.0)
        with run.learners.in_step(model, plan):
            model(batch.inputs, labels=batch.inputs).loss.backward()
        reached = {name for name, p in model.named_parameters() if p.grad is not None}
        assert reached == {f"{name}.{word}" for name, _ in controls(model)}
        assert all(p.grad.any() for p in model.parameters() if p.grad is not None)
        model.zero_grad(set_to_none=True)


def test_the_transform_is_done_when_the_adapter_begins(world, bench):
    """At the end of its stage it is what it is at the end; the adapter was nothing until then."""
    half, end = (state.checkpoints_in(bench / "run/checkpoints")[place] for place in (1, 3))
    one, two = (load_file(folder / "part-00001-of-00001.safetensors") for folder in (half, end))
    middles = [name for name in one if name.startswith("model.") and name.endswith("middle")]
    assert len(middles) == 7 and all(torch.equal(one[name], two[name]) and one[name].any() for name in middles)
    adapters = [name for name in one if name.startswith("model.") and name.endswith(ADAPTER)]
    assert len(adapters) == 7 and not any(one[name].any() for name in adapters)
    assert all(two[name].any() for name in adapters)


def test_a_skill_is_what_was_trained(world, bench):
    """Its change of the weights, the LoRA in PEFT, and apply: each computes what the run's model computed last."""
    skill, said = read_skill(bench / "run/final"), json.loads((bench / "run/metrics.jsonl").read_text().splitlines()[0])
    assert skill.facts.losses["before"] == said["loss"] > skill.facts.losses["after"] + 0.05
    assert (skill.facts.size, skill.facts.adapter, skill.facts.steps) == (4, 2, 12) and skill.facts.sketch[
        "tokens"
    ] == 128
    plain, panel = stock(bench), open_panel(bench / "panel")
    assert skill.facts.panel == panel.sha256 and skill.facts.base["files"] == panel.header.files
    state = plain.state_dict()
    for weight in skill.facts.weights:
        assert not skill.tensor(f"{weight}.B")[:, 2:].any()
        state[weight] += skill.delta(weight)
    ours = logits_of(plain)
    assert (ours - logits_of(stock(bench))).abs().max() > 1e-2
    loaded = peft.PeftModel.from_pretrained(stock(bench), bench / "run/final")
    assert (logits_of(loaded) - ours).abs().max() < 1e-5
    growkit.apply(bench / "llama", [bench / "run/final"], "applied")
    applied = transformers.LlamaForCausalLM.from_pretrained("applied")
    assert (logits_of(applied) - ours).abs().max() < 1e-5
    usual = dict(context=16, limit=160)
    on = growkit.evaluate(bench / "llama", world / "data", adapter=bench / "run/final", **usual).loss
    assert on == pytest.approx(growkit.evaluate("applied", world / "data", **usual).loss, abs=1e-5)
    (last,) = [
        line
        for line in map(json.loads, (bench / "run/metrics.jsonl").read_text().splitlines())
        if line["kind"] == "val"
    ][-1:]
    assert last["loss"] == skill.facts.losses["after"]


def test_its_gate_is_that_of_its_data_through_the_base(world, bench):
    gate, texts = read_gate(bench / "run/final"), dataset_texts(open_tokens(world / "data"), MOST_TEXTS)
    fresh = gate_of_texts(stock(bench), texts)
    assert all(torch.equal(getattr(gate, name), getattr(fresh, name)) for name in ("mean", "spread", "held"))
    notes = []
    tagged_dataset(Path("few"), lengths=(50, 50))
    learned(world, bench, "run", data="few", steps=1, watch=notes.append)
    assert "the skill gets no gate: 'few' has 2 texts, and a gate needs 4" in [line.get("text") for line in notes]
    assert not has_gate("run/final")


def test_the_models_own_run_is_the_skill_it_leaves(world, bench):
    done = learned(world, bench, "run", steps=4)
    plain, skill = stock(bench), read_skill("run/final")
    for weight in skill.facts.weights:
        plain.state_dict()[weight] += skill.delta(weight)
    assert (logits_of(plain) - logits_of(done.run.student.model)).abs().max() < 1e-5
    assert skill.facts.adapter == 0 and not [name for name in skill.stored.tensors if name.endswith(".B")]
    assert done.loss == skill.facts.losses["after"]


def test_a_run_goes_on_bit_for_bit(world, bench):
    for step in (5, 11):
        with pytest.raises(Stopped):
            learned(world, bench, f"run{step}", adapter=2, watch=stops_at(step))
        learned(world, bench, f"run{step}", adapter=2, resume="auto")
        assert curve(f"run{step}") == curve(bench / "run")
        for name in ("skill", "gate"):
            one, two = (Path(folder, f"final/{name}.safetensors") for folder in (f"run{step}", bench / "run"))
            assert one.read_bytes() == two.read_bytes()
    with pytest.raises(growkit.RequestError, match=r"begun with other settings: .*protect"):
        learned(world, bench, "run5", adapter=2, resume="auto", protect="general")


def test_products_in_bfloat16_learn_the_same_directions_nearly(world, bench):
    for precision in ("float32", "bfloat16"):
        learned(world, bench, precision, steps=2, precision=precision)
    one, two = (read_skill(f"{precision}/final") for precision in ("float32", "bfloat16"))
    for weight, group in one.facts.weights.items():
        for name in (f"{group}.V_s", f"{weight}.U_s"):
            assert torch.linalg.svdvals(one.tensor(name).T @ two.tensor(name)).mean() > 0.9, name
    assert one.facts.losses["before"] == pytest.approx(two.facts.losses["before"], abs=0.1)


def test_two_processes_learn_the_same_skill(world, bench):
    usual = dict(steps=4, adapter=2, shard="all", eval_every=1)
    assert pair(lambda: learned(world, bench, "two", **usual) and 0) == [0, 0]
    learned(world, bench, "one", **usual)
    assert losses_of("two") == pytest.approx(losses_of("one"), abs=1e-5)
    one, two = read_skill("one/final"), read_skill("two/final")
    assert replace(one.facts, losses={}) == replace(two.facts, losses={})
    assert all(torch.allclose(one.delta(weight), two.delta(weight), atol=1e-4) for weight in one.facts.weights)


# ---------------------------------------------------------------- the adapter


def test_an_adapter_that_helps_no_more_is_put_back_and_ends_the_run(world, bench, monkeypatch):
    """Validation is made up: it falls once while the adapter learns, and then it does not."""
    said = iter([9.0, 8.0, 8.5, 7.0, 6.0, 6.0, 0.0])
    monkeypatch.setattr(loop, "validate", lambda *_: (next(said), {}))
    done = learned(world, bench, "run", adapter=2)
    kept = state.checkpoints_in(Path("run/checkpoints"))
    assert done.step == 10 and done.loss == 6.0 and kept[-1].name == "step-00000009"
    skill = read_skill("run/final")
    assert skill.facts.losses == {"before": 9.0, "after": 6.0} and skill.facts.steps == 8 and skill.facts.adapter == 2
    note = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])["text"]
    assert note.startswith("the adapter ends: validation at step 10 is 6.0000, not below the 6.0000 of step 8")
    said = iter([9.0, 8.0, 8.5, 7.0, 6.0])
    learned(world, bench, "short", adapter=2, steps=12, watch=stopping_after(8))
    held = load_file("short/checkpoints/step-00000008/part-00001-of-00001.safetensors")
    for weight in skill.facts.weights:
        name = f"model.{weight.removesuffix('.weight')}.{ADAPTER}"
        assert torch.equal(skill.tensor(f"{weight}.B")[:, :2], held[name])


def stopping_after(step):
    """A watcher that asks the run to stop after a step."""

    def watch(line):
        if line["kind"] == "train" and line["step"] == step - 1:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)

    return watch


def test_an_adapter_that_never_helps_is_not_kept(world, bench, monkeypatch):
    said = iter([9.0, 8.0, 8.5, 7.0, 7.5])
    monkeypatch.setattr(loop, "validate", lambda *_: (next(said), {}))
    done = learned(world, bench, "run", adapter=2)
    skill = read_skill("run/final")
    assert (done.step, skill.facts.steps, skill.facts.adapter, skill.facts.losses["after"]) == (8, 6, 0, 7.0)
    alone = load_file("run/checkpoints/step-00000006/part-00001-of-00001.safetensors")
    for weight in skill.facts.weights:
        assert torch.equal(skill.tensor(f"{weight}.R"), alone[f"model.{weight.removesuffix('.weight')}.middle"])


# ---------------------------------------------------------------- what it is protected against


def test_a_protected_skill_is_hardly_seen(world, bench):
    """Of what the earlier skill's data have in the new one's input directions, most is gone."""

    def seen(folder, earlier):
        new, shares = read_skill(folder), []
        for group in set(new.facts.weights.values()):
            chosen, sketch = new.tensor(f"{group}.P"), earlier.tensor(f"{group}.K")
            shares.append(float((chosen.T @ sketch @ chosen).trace() / sketch.trace()))
        return sum(shares) / len(shares)

    learned(world, bench, "free", data=bench / "talks", steps=1)
    learned(world, bench, "kept", data=bench / "talks", steps=1, protect=[bench / "run/final", "general"])
    earlier = read_skill(bench / "run/final")
    assert seen("kept/final", earlier) < 0.7 * seen("free/final", earlier)
    assert read_skill("kept/final").facts.protect == [earlier.hash, "general"]


def test_a_mixture_has_skills_on_its_attention(world):
    """PEFT takes dense layers of one for its experts."""
    tiny.make("qwen3_moe", dtype=torch.float32).save_pretrained("moe")
    growkit.panel("moe", "whole", rank=4)
    growkit.panel("moe", "attention", rank=4, modules="attention")
    usual = {**USUAL, "steps": 2}
    with pytest.raises(growkit.RequestError, match=r"mlp\.down_proj\.weight' of a mixture.*--modules attention"):
        growkit.skill_learn("moe", "whole", world / "data", "no", **usual)
    assert not Path("no").exists()
    model = growkit.skill_learn("moe", "attention", world / "data", "run", **usual).run.student.model
    plain = transformers.Qwen3MoeForCausalLM.from_pretrained("moe")
    on = peft.PeftModel.from_pretrained(tiny.one_by_one(plain), "run/final")
    assert (logits_of(on) - logits_of(tiny.one_by_one(model))).abs().max() < 1e-4


NO = [
    (["--size", "9"], "--size 9 is more than the rank of"),
    (["--adapter", "5", "--size", "4"], "--adapter 5 is more than the skill's 4 input directions"),
    (["--protect", "absent"], "'absent' is no skill: it has no skill.json"),
    (["--protect", "other"], "was learned on panel bbbbbbbbbbbb..., and"),
    (["--steps", "1", "--adapter", "1"], "--adapter needs 2 steps at least"),
    (["--size", "0"], "--size 0 should be from 1"),
]


@pytest.mark.parametrize(("words", "says"), cases(NO))
def test_what_cannot_be_learned(world, bench, words, says):
    make_skill("other")
    usual = [] if "--steps" in words else ["--steps", "2"]
    line = ["skill", "learn", bench / "llama", bench / "panel", "--data", world / "data", "--out", "run", "--size", "4"]
    refused(*line, "--seq-len", "16", "--batch-size", "4", *usual, *words, says=says)


def test_what_does_not_belong_together(world, bench):
    plain_panel(bench / "llama", Path("silent"), text=False)
    tiny.make("llama", dtype=torch.float32, seed=5).save_pretrained("other")
    tail = ["--data", world / "data", "--out", "run", "--steps", "2", "--seq-len", "16", "--size", "4"]
    line = ["skill", "learn", bench / "llama", "silent", *tail]
    refused(*line, "--protect", "general", says="has no sketch of general texts; make it with growkit panel --text")
    text = refused("skill", "learn", "other", bench / "panel", *tail, says="was made for 'llama', weights of SHA-256")
    assert "(panel.json), and 'other' has" in text
    refused("skill", "learn", bench / "llama", "other", *tail, says="'other' holds no panel.json, so it is no panel")
    within = ["--data", world / "data", "--out", "silent/run", *tail[4:]]
    refused("skill", "learn", bench / "llama", "silent", *within, says="is inside the panel, 'silent'")
    refused("generate", "other", "x", "--adapter", bench / "run/final", says="was made for 'llama'")
    refused("apply", "other", bench / "run/final", "-o", "no", says="was made for 'llama'")
    no_val = Path(world / "data"), Path("alone")
    no_val[1].mkdir()
    for name in ("train.bin", "train.idx.npy"):
        (no_val[1] / name).write_bytes((no_val[0] / name).read_bytes())
    meta = json.loads((no_val[0] / "meta.json").read_text())
    del meta["splits"]["val"]
    (no_val[1] / "meta.json").write_text(json.dumps(meta))
    tail[1] = "alone"
    line = ["skill", "learn", bench / "llama", bench / "panel", *tail, "--batch-size", "4"]
    refused(
        *line, "--adapter", "1", says="--adapter learns while validation falls, and 'alone' has no validation split"
    )
    assert run(*line).exit_code == 0
    assert read_skill("run/final").facts.losses == {"before": None, "after": None}
    assert read_skill("run/final").facts.steps == 2
