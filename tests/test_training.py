"""The parts of training, each against what it should be written out by hand: prefixes, losses, stages, rates, state."""

import copy
import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
import tiny
import torch
from covering import cover, features
from processes import child, ended

from growkit.data.batches import IGNORED, Ahead, Batches, batch_of, masked_window
from growkit.errors import CheckpointError, RequestError
from growkit.families import FAMILIES
from growkit.models.live_layers import layers_of
from growkit.training import checkpoints as state
from growkit.training import objective
from growkit.training.machine import BYTES, Machine, shard_size, this_machine
from growkit.training.objective import Predicted, WholeWord, is_masked, learn, mixed, nats, total_loss
from growkit.training.optim import adamw, load_state, moments, rate, set_rate
from growkit.training.prefix import submodel
from growkit.training.run_request import chosen_decay
from growkit.training.stages import SCHEDULES, Stage, read_stages
from growkit.training.teachers.teaching import ALPHAS, Teaching

# ---------------------------------------------------------------- prefixes

PARTS = {  # embeddings, norms and head of each family, in words of torch
    "llama": ("model.embed_tokens", "model.layers", ("model.norm", "lm_head")),
    "gpt2": ("transformer.wte", "transformer.h", ("transformer.ln_f", "lm_head")),
    "bert": ("bert.embeddings", "bert.encoder.layer", ("cls",)),
}


def by_hand(model, family: str, ids: torch.Tensor, depth: int, trained: int) -> torch.Tensor:
    """Logits of a prefix: what lies below the layers that learn runs without a graph, written without growkit."""
    place = torch.arange(ids.shape[1])[None]
    learns = trained == 3  # of three layers: the model as it is
    extra = {}
    with torch.set_grad_enabled(learns):
        hidden = model.get_submodule(PARTS[family][0])(ids)
        if family == "gpt2":
            hidden = hidden + model.transformer.wpe(place)
        if family == "llama":
            extra["position_embeddings"] = model.model.rotary_emb(hidden, place)
    for number, layer in enumerate(model.get_submodule(PARTS[family][1])[:depth]):
        with torch.set_grad_enabled(number >= depth - trained):
            hidden = layer(hidden, attention_mask=None, **extra)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    for name in PARTS[family][2]:
        hidden = model.get_submodule(name)(hidden)
    return hidden


@pytest.mark.parametrize(("depth", "trained"), [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3)])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", PARTS)
def test_a_prefix_step_is_the_one_written_by_hand(family, tied, depth, trained):
    model = tiny.make(family, tie_word_embeddings=tied)
    model.requires_grad_(True)
    reference = copy.deepcopy(model)
    ids, labels = tiny.tokens(1), tiny.tokens(2).flatten()
    expected = torch.nn.functional.cross_entropy(by_hand(reference, family, ids, depth, trained).flatten(0, 1), labels)
    expected.backward()
    with submodel(model, depth, trained):
        loss = torch.nn.functional.cross_entropy(model(input_ids=ids).logits.flatten(0, 1), labels)
        loss.backward()
    assert torch.allclose(loss, expected, rtol=1e-12)
    theirs = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        wanted = theirs[name].grad
        assert (parameter.grad is None) == (wanted is None), name
        assert wanted is None or torch.allclose(parameter.grad, wanted, rtol=1e-10, atol=1e-12), name
    # and in words: the top layers of the prefix, what follows, and a tied embedding as head
    moved = {name for name, p in model.named_parameters() if p.grad is not None}
    path = PARTS[family][1]
    kept = {str(n) for n in range(3)} - {str(n) for n in range(depth - trained, depth)}
    assert not [name for name in moved if name.startswith(path) and name[len(path) + 1 :].split(".")[0] in kept]
    embedding = next(n for n, _ in model.named_parameters() if n.startswith(PARTS[family][0]))
    assert (embedding in moved) == (tied or trained == 3)


def test_a_model_is_as_it_was_after_a_prefix_and_after_an_exception():
    model = tiny.make("bert")
    before, ids = layers_of(model), tiny.tokens()
    expected = model(input_ids=ids).logits
    for fail in (False, True):
        try:
            with submodel(model, 2, 1):
                assert len(layers_of(model)) == 2
                model(input_ids=ids)
                if fail:
                    torch.set_grad_enabled(False)  # as when a layer fails below those that learn
                    raise ArithmeticError
        except ArithmeticError:
            assert fail
        assert layers_of(model) is before and len(before) == 3 and torch.is_grad_enabled()
        assert not model.base_model._forward_pre_hooks and not any(m._forward_pre_hooks for m in before)
        assert torch.equal(model(input_ids=ids).logits, expected)
    for depth, trained in ((0, 0), (4, 1), (2, 3), (2, 0)):
        with pytest.raises(ValueError, match="prefix"), submodel(model, depth, trained):
            pass


def test_prefixes_of_a_stage():
    """Uniform over l, 2 l, ..., L; by seed and step alone; the last block is shorter where l does not divide L."""
    tables = {
        (12, 3): {3: 3, 6: 3, 9: 3, 12: 3},
        (12, 5): {5: 5, 10: 5, 12: 2},
        (7, 2): {2: 2, 4: 2, 6: 2, 7: 1},
        (3, 3): {3: 3},
        (3, 9): {3: 3},
        (4, 1): {1: 1, 2: 1, 3: 1, 4: 1},
    }
    for (layers, size), table in tables.items():
        stage = Stage(name="prefixes", steps=1, sub_layers=size)
        drawn = [stage.prefix(layers, 7, step) for step in range(1600)]
        counts = Counter(drawn)
        assert set(counts) == set(table.items())
        assert all(abs(count / 1600 - 1 / len(table)) < 0.05 for count in counts.values()), counts
        assert drawn[1000] == Stage(name="other", steps=9, sub_layers=size).prefix(layers, 7, 1000)
    assert [stage.prefix(4, 8, step) for step in range(1600)] != drawn
    assert Stage(name="all", steps=1).prefix(5, 0, 3) == (5, 5)
    assert Stage(name="top", steps=1, train_top=2).prefix(5, 0, 3) == (5, 2)


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize(
    ("family", "alpha", "answers"),
    cover(
        product(tiny.CONFIGS, (0.0, 0.3, 1.0), (False, True)),
        lambda row: {*features(row[0]), (FAMILIES[row[0]].causal, *row[1:])},
    ),
)
def test_a_step_in_pieces_is_the_whole_one(family, alpha, answers, monkeypatch):
    """Loss and every gradient, of the model's own logits, caps and scales included; masked positions gathered before
    the head."""
    model, other = tiny.make(family), tiny.make(family, seed=5)
    model.requires_grad_(True)
    inputs, labels = tiny.tokens(length=20), tiny.tokens(2, length=20)
    if is_masked(model.config):
        windows = [masked_window(piece.numpy(), 4, 61, seed) for seed, piece in enumerate(inputs)]
        inputs, labels = (torch.from_numpy(np.stack(part)) for part in zip(*windows))
    if answers:  # each row predicts another number of tokens, one none at all
        for row, kept in enumerate((12, 0, 15)):
            labels[row, : 20 - kept] = IGNORED
    batch = batch_of(inputs, labels)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # logits are float32 but for this
    logits, theirs = (m(input_ids=inputs).logits.flatten(0, 1) for m in (model, other))
    kept = labels.flatten() != IGNORED
    own = torch.nn.functional.cross_entropy(logits[kept], labels.flatten()[kept], reduction="sum")
    p, q = (torch.log_softmax(x[kept] / 2, -1) for x in (logits, theirs.detach()))
    taught = 4 * (q.exp() * (q - p)).sum()
    (0.5 * ((1 - alpha) * own + alpha * taught)).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    monkeypatch.setitem(objective.LOGITS, "cpu", 7 * 61)  # seven rows at a time, the last piece smaller
    predicted = Predicted(model, batch)
    assert len(predicted.labels) == batch.predicted == kept.sum()
    assert len(predicted.pieces) == -(-int(kept.sum()) // 7) > (0 if answers else 1)
    with torch.no_grad():
        taught_by = Predicted(other, batch)
    says = lambda piece: WholeWord(taught_by.logits(taught_by.hidden[piece]).detach(), 2.0)  # noqa: E731
    gradient, sums = learn(predicted, 0.5, says if alpha else None, alpha)
    predicted.hidden.backward(gradient)
    assert sums[0].item() == pytest.approx(own.item(), rel=1e-12)
    assert sums[1].item() == pytest.approx(taught.item() if alpha else 0.0, rel=1e-10)
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.allclose(value, expected[name], rtol=1e-9, atol=1e-12), name
    with torch.no_grad():
        assert total_loss(Predicted(model, batch))[0].item() == pytest.approx(own.item(), rel=1e-12)
    assert model.base_model is getattr(model, model.base_model_prefix) is not None
    assert not [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]


@pytest.mark.parametrize("tau", [1.0, 2.0, 4.0])
def test_losses_by_hand(tau):
    """CE = -log p[y]; KL = tau^2 sum p_t (log p_t - log p_s), whose gradient is tau (p_s - p_t): it keeps its scale."""
    draws = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(7, 13, generator=draws) for _ in range(2))
    labels = torch.randint(13, (7,), generator=draws)
    student.requires_grad_()
    own, taught = nats(student, labels), WholeWord(teacher, tau).nats(student)
    p, q = (torch.softmax(x.detach().double() / tau, -1) for x in (student, teacher))
    plain = torch.softmax(student.detach().double(), -1)
    assert own.item() == pytest.approx(-plain[torch.arange(7), labels].log().sum().item(), rel=1e-6)
    assert taught.item() == pytest.approx(tau**2 * (q * (q.log() - p.log())).sum().item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(taught, student)
    assert torch.allclose(gradient.double(), tau * (p - q), atol=1e-5)
    assert WholeWord(student.detach(), tau).nats(student.detach()).abs() < 1e-5


class OfSome:
    """The word of a teacher that speaks of some rows alone."""

    def __init__(self, theirs: torch.Tensor, rows: torch.Tensor):
        self.theirs, self.rows = theirs, rows

    def nats(self, logits: torch.Tensor) -> torch.Tensor:
        return WholeWord(self.theirs[self.rows], 2.0).nats(logits)


@pytest.mark.parametrize("rows", [[], [0, 2, 5], [*range(7)]], ids=["none", "some", "all"])
def test_a_teacher_that_speaks_of_some_rows(rows):
    """Row by row: (1 - alpha) CE + alpha tau^2 KL where it speaks, CE where not."""
    draws = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(7, 13, generator=draws, dtype=torch.float64) for _ in range(2))
    labels = torch.randint(13, (7,), generator=draws)
    student.requires_grad_()
    wanted = student.new_zeros(())
    for row in range(7):
        ce = nats(student[row : row + 1], labels[row : row + 1])
        kl = WholeWord(teacher[row : row + 1], 2.0).nats(student[row : row + 1])
        wanted = wanted + (0.7 * ce + 0.3 * kl if row in rows else ce)
    loss, own, kept = mixed(student, labels, OfSome(teacher, torch.tensor(rows, dtype=torch.int64)), 0.3)
    for value, other in ((loss, wanted), (own, nats(student, labels))):
        assert value.item() == pytest.approx(other.item(), rel=1e-6)
    assert bool(kept) == bool(rows)
    gradients = [torch.autograd.grad(value, student, retain_graph=True)[0] for value in (loss, wanted)]
    assert torch.allclose(*gradients, atol=1e-6)
    if len(rows) == 7:
        assert loss.item() == pytest.approx(mixed(student, labels, WholeWord(teacher, 2.0), 0.3)[0].item(), rel=1e-12)


def test_alpha_tables():
    tables = {
        "linear": [1.0, 0.75, 0.5, 0.25, 0.0, 0.0],
        "constant": [1.0, 1.0, 1.0, 1.0, 0.0, 0.0],
        "heaviside": [1.0, 1.0, 1.0, 1.0, 0.0, 0.0],
        "wsd": [1.0, 1.0, 1.0, 1.0, 0.0, 0.0],
    }
    assert tables.keys() == ALPHAS.keys()
    for schedule, table in tables.items():
        for weight in (1.0, 0.5):
            teaching = Teaching(4, schedule, weight)
            assert [teaching.alpha(step) for step in range(6)] == [weight * alpha for alpha in table]
        assert Teaching(0, schedule).alpha(0) == 0.0
    wsd = [Teaching(20, "wsd").alpha(step) for step in range(21)]
    assert wsd == pytest.approx([1.0] * 17 + [0.75, 0.5, 0.25, 0.0])


# ---------------------------------------------------------------- batches and machines


@pytest.mark.parametrize("masked", [None, (4, 61)], ids=["causal", "masked"])
def test_batches_read_ahead_are_the_batches(masked):
    """Whatever the order of the steps: as they come, again, back and forth, over the end of an epoch."""
    batches = Batches(tokens=np.arange(400) % 61, length=16, size=6, seed=3, masked=masked)
    assert batches.windows < 30
    for first, count in ((0, 6), (2, 3)):
        ahead = Ahead(Batches(tokens=np.arange(400) % 61, length=16, size=6, seed=3, masked=masked), first, count)
        for step in (0, 1, 2, 2, 7, 3, 4, 5, 0, 90, 1):
            expected, found = batches.rows(step, first, count), ahead.rows(step)
            assert found.inputs.shape == (count, 16) and found.predicted == expected.predicted
            for side in ("inputs", "labels", "places"):
                assert torch.equal(getattr(expected, side), getattr(found, side)), step
        ahead.close()
    with pytest.raises(RuntimeError):
        ahead.rows(0)  # nobody reads any more


GIB = 1 << 30
SHARDED = {  # (shard, processes, of this node, parameters, memory of a device): over how many a copy is divided
    ("none", 16, 8, 10**12, GIB): 1,
    ("node", 16, 8, 1, GIB): 8,
    ("node", 3, 1, 1, None): 1,
    ("all", 16, 8, 1, GIB): 16,
    ("auto", 16, 8, 10**12, None): 1,  # a CPU
    ("auto", 16, 8, int(0.6 * GIB / BYTES), GIB): 1,
    ("auto", 16, 8, int(0.6 * GIB / BYTES) + 1, GIB): 8,
    ("auto", 16, 1, int(0.6 * GIB / BYTES) + 1, GIB): 16,
    ("all", 5, 4, 1, GIB): 5,
    ("none", 5, 4, 1, GIB): 1,
}


@pytest.mark.parametrize("case", SHARDED, ids=str)
def test_over_how_many_processes_a_model_is_divided(case):
    assert shard_size(*case) == SHARDED[case]
    _, world, local, _, memory = case
    machine = Machine(device=torch.device("cpu"), rank=0, world=world, precision=torch.float32)
    if memory is None and local == 1:
        assert machine.copies(case[0], case[3]) == world // SHARDED[case]


@pytest.mark.parametrize("shard", ["node", "auto"])
def test_nodes_of_unequal_size_are_refused(shard):
    with pytest.raises(RequestError, match=r"5 processes.* 4; use --shard all"):
        shard_size(shard, 5, 4, 10**12, GIB)


# ---------------------------------------------------------------- stages

TABLES = {  # (schedule, steps, layers, options): (name, steps, sub_layers, train_top, layers)
    ("plain", 10, 12): [("all", 10, None, None, None)],
    ("two-stage", 40, 12): [("prefixes", 5, 3, None, None), ("all", 35, None, None, None)],
    ("two-stage", 40, 12, "sub_steps", 0): [("all", 40, None, None, None)],
    ("two-stage", 40, 12, "sub_steps", 40): [("prefixes", 40, 3, None, None)],
    ("stackbert", 400, 3, "to_layers", 12): [
        ("3 layers", 50, None, None, None),
        ("6 layers", 70, None, None, 6),
        ("12 layers", 280, None, None, 12),
    ],
    ("stackbert", 100, 3, "to_layers", 4): [("3 layers", 30, None, None, None), ("4 layers", 70, None, None, 4)],
    ("mslt", 100, 3, "to_layers", 12): [
        ("3 layers", 20, None, None, None),
        ("6 layers", 20, None, 3, 6),
        ("9 layers", 20, None, 3, 9),
        ("12 layers", 20, None, 3, 12),
        ("all", 20, None, None, None),
    ],
    ("mslt", 9, 3, "to_layers", 4): [("3 layers", 3, None, None, None), ("4 layers", 3, None, 1, 4), ("all", 3, *[None] * 3)],
    ("late", 100, 3, "to_layers", 12): [("3 layers", 60, None, None, None), ("12 layers", 40, None, None, 12)],
}  # fmt: skip


def stages_of(schedule, steps, layers, **options):
    return SCHEDULES[schedule](
        steps, layers, **{"sub_layers": None, "sub_steps": None, "to_layers": None, "jump_at": None, **options}
    )


@pytest.mark.parametrize("case", TABLES, ids=str)
def test_stage_tables(case):
    schedule, steps, layers, *option = case
    stages = stages_of(schedule, steps, layers, **(dict([option]) if option else {}))
    assert [(s.name, s.steps, s.sub_layers, s.train_top, s.layers) for s in stages] == TABLES[case]


def test_stages_add_up_for_every_size():
    for steps in [*range(1, 40), 997, 10_000]:
        for layers in (1, 2, 3, 5, 12):
            for deeper in (1, 2, layers, 3 * layers + 1):
                for schedule in ("plain", "two-stage", "stackbert", "mslt"):
                    to = {"to_layers": layers + deeper} if schedule in ("stackbert", "mslt") else {}
                    stages = stages_of(schedule, steps, layers, **to)
                    assert sum(s.steps for s in stages) == steps and all(s.steps >= 0 for s in stages)
                    assert stages[-1].steps > 0 or schedule == "mslt"
                    grown = [s.layers for s in stages if s.layers]
                    assert grown == sorted(set(grown)) and (not to or grown[-1] == to["to_layers"])


def test_schedules_that_cannot_be():
    for schedule, options in {
        "two-stage": {"sub_steps": 11}, "stackbert": {"to_layers": 3}, "mslt": {"to_layers": 2}, "late": {"to_layers": 3}
    }.items():  # fmt: skip
        with pytest.raises(RequestError):
            stages_of(schedule, 10, 3, **options)
    for schedule, options in (("two-stage", {"sub_layers": 4}), ("stackbert", {}), ("mslt", {}), ("late", {})):
        with pytest.raises(RequestError):
            stages_of(schedule, 10, 3, **options)


def test_a_late_jump_is_made_at_the_full_rate(tmp_path):
    """The rate has reached its peak before the jump, and falls only after it, wherever the jump may be."""
    for share in (0.1, 0.6, 0.8):
        before, after = stages_of("late", 1000, 2, to_layers=6, jump_at=share)
        assert (before.steps, after.layers, before.steps + after.steps) == (round(1000 * share), 6, 1000)
        assert rate(before.steps, 1000, 20, chosen_decay("late", None)) == 1.0
        assert rate(999, 1000, 20, chosen_decay("late", None)) < 0.2
    assert chosen_decay("plain", None) == chosen_decay("stackbert", None) == "cosine"
    assert [chosen_decay("late", steady) for steady in ("constant", "wsd")] == ["constant", "wsd"]
    for falling in ("cosine", "linear"):
        with pytest.raises(RequestError, match=f"never is with --decay {falling}; use --decay wsd or constant"):
            chosen_decay("late", falling)
    with pytest.raises(RequestError, match="0 steps before the jump and 1 after"):
        stages_of("late", 1, 2, to_layers=3, jump_at=0.3)


def test_stages_from_toml(tmp_path):
    file = tmp_path / "stages.toml"
    file.write_text(
        '[[stage]]\nname="low"\nsteps=3\nsub_layers=1\nlr=0.5\n[[stage]]\nsteps=4\nlayers=6\ndepth="top"\ntrain_top=3\nwarmup=2\n'
    )
    assert read_stages(file) == (
        Stage(name="low", steps=3, sub_layers=1, lr=0.5),
        Stage(name="stage 2", steps=4, layers=6, depth="top", train_top=3, warmup=2),
    )


STRANGE = [
    "steps=0",
    "steps=1.5",
    "steps=true",
    'name="x"',
    "steps=2\nrate=1",
    "stage=1",
    "[[",
    "steps=1\nsub_layers=0",
]
STRANGE += [
    'steps=1\nlr="fast"',
    'steps=1\ndepth="sideways"\nlayers=6',
    "steps=1\ntrain_top=0",
    'steps=1\nlayers="six"',
]
STRANGE += ["steps=1\nwarmup=-1", "steps=1\nlr=-1.0", "steps=1\nname=5"]


@pytest.mark.parametrize("text", STRANGE)
def test_stages_that_are_none(text, tmp_path):
    (tmp_path / "s.toml").write_text(text if text in ("stage=1", "[[") else f"[[stage]]\n{text}\n")
    with pytest.raises(CheckpointError, match=r"s\.toml"):
        read_stages(tmp_path / "s.toml")


# ---------------------------------------------------------------- optimizer and state


def test_rates_at_known_points():
    for decay in ("cosine", "linear", "wsd", "constant"):
        assert [rate(step, 100, 4, decay) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    points = {"cosine": (0.55, 0.1 + 0.45 * (1 + math.cos(0.9 * math.pi))), "linear": (0.55, 0.19), "wsd": (1.0, 0.55)}
    for decay, (half, late) in (points | {"constant": (1.0, 1.0)}).items():
        assert rate(50, 100, 0, decay) == pytest.approx(half) and rate(60, 110, 10, decay) == pytest.approx(half)
        assert rate(90, 100, 0, decay) == pytest.approx(late)
        curve = [rate(step, 100, 10, decay, 0.0) for step in range(10, 101)]
        assert curve == sorted(curve, reverse=True) and (decay == "constant" or curve[-1] == pytest.approx(0.0))
    assert rate(80, 100, 0, "wsd") == pytest.approx(1.0) and rate(3, 4, 9, "cosine") == pytest.approx(4 / 9)


def test_groups_of_parameters():
    """No decay on vectors; multipliers scale rate, decay and eps of their parameter alone; weights stay as they
    were."""
    model = tiny.make("gpt2", dtype=torch.float32)
    before, wide = copy.deepcopy(model.state_dict()), "transformer.h.0.mlp.c_fc.weight"
    optimizer = adamw(model, 0.1, (0.9, 0.95), 1e-8, {wide: {"lr": 0.5, "weight_decay": 2.0, "eps": 4.0}})
    set_rate(optimizer, 1e-2)
    of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        group = of[id(parameter)]
        expected = (5e-3, 0.2, 4e-8) if name == wide else (1e-2, 0.1 if parameter.dim() > 1 else 0.0, 1e-8)
        assert (group["lr"], group["weight_decay"], group["eps"]) == pytest.approx(expected), name
        assert optimizer.state[parameter]["step"] == 0 and not optimizer.state[parameter]["exp_avg"].any()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_layer_never_sampled_survives_save_and_load(tmp_path):
    def step(model, optimizer, depth):
        with submodel(model, depth, 1):
            model(input_ids=tiny.tokens(), labels=tiny.tokens()).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    first = tiny.make("llama", dtype=torch.float32)
    optimizer = adamw(first, 0.1, (0.9, 0.95), 1e-8)
    set_rate(optimizer, 1e-2)
    step(first, optimizer, 1)
    saver = state.Saver(tmp_path, keep=2)
    trainer = {"stage": 0, "tokens": 64, "weight": None, "teachers": {}, "flops": 1e9, "elapsed_s": 0.5}
    saver.begin(1, first, optimizer, trainer)
    saver.settle(wait=True)
    second = tiny.make("llama", dtype=torch.float32, seed=5)
    other = adamw(second, 0.1, (0.9, 0.95), 1e-8)
    set_rate(other, 1e-2)  # of a step, not of a state
    (checkpoint,) = state.checkpoints_in(tmp_path)
    state.load(checkpoint, second, other)
    assert state.trainer_of(checkpoint) == {**trainer, "step": 1}
    for depth in (3, 2, 1):
        mine, theirs = (moments(o, m) for o, m in ((optimizer, first), (other, second)))
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))
        counted = [mine[f"model.layers.{n}.mlp.up_proj.weight.step"].item() for n in range(3)]
        assert counted == {3: [1, 0, 0], 2: [1, 0, 1], 1: [1, 1, 1]}[depth]
        step(first, optimizer, depth)
        step(second, other, depth)


def test_states_of_another_model_are_refused(tmp_path):
    from safetensors.torch import save_file

    model = tiny.make("gpt2", dtype=torch.float32)
    optimizer = adamw(model, 0.1, (0.9, 0.95), 1e-8)
    before = {name: value.clone() for name, value in moments(optimizer, model).items()}
    fused, norm = "transformer.h.0.attn.c_attn.weight", "transformer.ln_f.weight"
    for name, value, says in (
        ("transformer.h.7.ln_1.weight.exp_avg", torch.ones(24), "no state"),
        (f"{norm}.exp_avg", torch.ones(25), r"shape \[25\], the model \[24\]"),
        (f"{norm}.exp_avg", torch.ones(4, 6), r"shape \[4, 6\], the model \[24\]"),  # as many numbers
        (f"{fused}.exp_avg_sq", torch.ones(72, 24), r"shape \[72, 24\], the model \[24, 72\]"),
        (f"{fused}.exp_avg", torch.ones(24, 72, dtype=torch.int8), "int8"),
        (f"{norm}.step", torch.ones(2), r"shape \[2\], the model \[\]"),
    ):
        save_file({name: value}, tmp_path / "state.safetensors")
        with pytest.raises(CheckpointError, match=f"{name}.*{says}"):
            load_state(optimizer, model, tmp_path / "state.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in moments(optimizer, model).items())
    save_file({f"{norm}.step": torch.tensor([7.0])}, tmp_path / "state.safetensors")
    load_state(optimizer, model, tmp_path / "state.safetensors")
    assert moments(optimizer, model)[f"{norm}.step"] == 7  # some write it with shape [1]


@pytest.mark.parametrize("name", ["WORLD_SIZE", "RANK"])
@pytest.mark.parametrize("value", ["x", "", "-1", "1.5", "10000000000", "\u0661", "2 "])
def test_an_environment_that_torchrun_did_not_set(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(RequestError, match=f"the environment has {name} .* where a whole number from . to "):
        this_machine("cpu", "float32")


def test_processes_that_do_not_find_each_other(monkeypatch):
    """In a process of its own: torch counts the groups it began, and two that count differently wait for ever."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)

    def work():
        with pytest.raises(RequestError, match="start them with torchrun, or unset WORLD_SIZE"):
            this_machine("cpu", "float32")
        return 0

    assert ended(child(work)) == 0
