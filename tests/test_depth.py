"""Growth in depth: which layer of the source each layer of the result is, and that it is that layer and nothing else.

Tables of every method, written out from the papers. Content: a copied layer holds its source's tensors bit for bit; an
inserted one holds them too, but what it adds to the stream is zero. Function: with inserted layers every pre-norm
family computes what it did, whole sequences and token by token, and everything else the plan calls approximate and it
differs. Gradients reach an inserted layer within two steps.
"""

import json
import sys
from itertools import groupby, product

import pytest
import tiny
import torch
from comparing import ALGEBRA, DIFFERS, PURE_FLOAT64, STOCK, headers, logits, source, stepwise
from covering import cover, kind, sample
from refusing import tree
from safetensors.torch import load_file

import growkit
from growkit.checkpoint.stream import StateSource
from growkit.families import FAMILIES
from growkit.growth.depth.layers import METHODS, between, layer_map, spelled
from growkit.growth.execute import grow_tensor
from growkit.growth.grow_plan import grow_plan
from growkit.growth.plan import STOCK_BYTES, TENSOR_BYTES
from growkit.growth.request import Depth, grow_recipe
from growkit.maps.axis import axis_map
from growkit.maps.notation import WRITE

# what a layer adds to the stream passes through these last, from each model's own code
WRITERS = {
    "bert": "attention.output.dense output.dense",
    "roberta": "attention.output.dense output.dense",
    "distilbert": "attention.out_lin ffn.lin2",
    "gpt2": "attn.c_proj mlp.c_proj",
    "gpt_neox": "attention.dense mlp.dense_4h_to_h",
    "opt": "self_attn.out_proj fc2",
    "phi": "self_attn.dense mlp.fc2",
    "gemma2": "post_attention_layernorm post_feedforward_layernorm",
    "olmo2": "post_attention_layernorm post_feedforward_layernorm",
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma"), "self_attn.o_proj mlp.down_proj"),
    "mixtral": "self_attn.o_proj w2",
    "qwen2_moe": "self_attn.o_proj down_proj",
    "qwen3_moe": "self_attn.o_proj down_proj",
}
EVERY = sample(WRITERS)
FULL = cover(EVERY, lambda family: {kind(family), FAMILIES[family].is_moe})
PRE_NORM = tuple(f for f in EVERY if not FAMILIES[f].norms.after)

TABLE = [  # layers of the sources, request, layers of the result (several sources: A1 is the first of the first)
    ("6", dict(layers=16), "1 2 3 4 5 6 1 2 3 4 5 6 3 4 5 6"),  # bert2BERT, algorithm 1
    ("12", dict(layers=18), "1 2 3 4 5 6 7 8 9 10 11 12 7 8 9 10 11 12"),
    ("3", dict(layers=3), "1 2 3"),
    ("1", dict(layers=3), "1 1 1"),
    ("3", dict(layers=6, method="interleave"), "1 1 2 2 3 3"),
    ("3", dict(layers=4, method="interleave"), "1 1 2 3"),
    ("6", dict(layers=8, method="interleave"), "1 1 2 3 4 4 5 6"),
    ("6", dict(layers=8, method="top"), "1 2 3 4 5 6 5 6"),
    ("6", dict(layers=12, method="top"), "1 2 3 4 5 6 4 5 6 4 5 6"),
    ("6", dict(layers=9, method="top", block=2), "1 2 3 4 5 6 5 6 6"),
    ("6", dict(layers=12, method="top", block=6), "1 2 3 4 5 6 1 2 3 4 5 6"),
    ("6", dict(layers=8, method="middle"), "1 2 3 4 3 4 5 6"),
    ("3", dict(layers=4, method="middle"), "1 2 2 3"),
    ("6", dict(layers=10, method="middle", block=2), "1 2 3 4 3 4 3 4 5 6"),
    ("6", dict(layers=10, method="solar"), "1 2 3 4 5 2 3 4 5 6"),
    ("6", dict(overlap=2, method="solar"), "1 2 3 4 3 4 5 6"),
    ("3", dict(overlap=0, method="solar"), "1 2 3 1 2 3"),
    ("6", dict(layers=8, method="identity"), "1 2 3 (3) 4 5 6 (6)"),
    ("2", dict(layers=6, method="identity"), "1 (1) (1) 2 (2) (2)"),
    ("5", dict(every=2, method="identity"), "1 2 (2) 3 4 (4) 5"),
    ("4", dict(every=2, layers=6, method="identity"), "1 2 (2) 3 4 (4)"),
    ("4", dict(after=(4, 1, 1), method="identity"), "1 (1) (1) 2 3 4 (4)"),
    ("6", dict(layers=8, method="identity", where="top"), "1 2 3 4 5 (5) 6 (6)"),
    ("6", dict(layers=8, method="interleave", where="middle"), "1 2 3 3 4 4 5 6"),
    ("6", dict(layers=9, method="interleave", where="middle"), "1 2 3 3 4 4 5 5 6"),
    ("3", dict(layers=7, method="interleave", where="top"), "1 1 2 2 3 3 3"),
    ("6", dict(method="interleave", after=(5, 6)), "1 2 3 4 5 5 6 6"),
    ("6", dict(layers=8, method="average"), "1 2 3 3+4 4 5 5+6 6"),
    ("4", dict(layers=6, method="average", where="top"), "1 2 2+3 3 3+4 4"),
    ("3", dict(layers=6, method="average"), "1 1+2 2 0.67x2+0.33x3 0.33x2+0.67x3 3"),
    ("6", dict(slices="1-4,3-6"), "1 2 3 4 3 4 5 6"),
    ("6", dict(slices="1, 6, 2-3", layers=4), "1 6 2 3"),
    ("2 3", dict(), "A1 A2 B1 B2 B3"),
    ("2 3", dict(layers=8), "A1 A2 B1 B2 B3 B1 B2 B3"),
    ("3 3", dict(method="interleave"), "A1 B1 A2 B2 A3 B3"),
    ("2 4", dict(method="interleave"), "B1 A1 B2 B3 A2 B4"),
    ("1 1 1", dict(layers=6, method="interleave"), "A1 A1 B1 B1 C1 C1"),
    ("3 3", dict(slices="A:1-2,B:2-3,A:1"), "A1 A2 B2 B3 A1"),
]


def written(layers, old) -> str:
    """A layer map with every layer written out."""
    letters = [
        f"{chr(65 + n) if len(old) > 1 else ''}{layer}" for n, size in enumerate(old) for layer in range(1, size + 1)
    ]
    inserted, above = layers.sides[WRITE].amplitude == 0, between(layers)
    return " ".join(
        f"({letters[i]})" if new else spelled(only(layers, n), old) if above[n] else letters[i]
        for n, (i, new) in enumerate(zip(layers.index, inserted))
    )


def only(layers, number: int):
    """One layer of a map."""
    return axis_map("average", layers.old, layers.index[[number]], layers.sides[WRITE].amplitude[[number]], 1.0)


@pytest.mark.parametrize(("old", "request_", "expected"), TABLE, ids=[f"{n} {list(r.values())}" for n, r, _ in TABLE])
def test_which_layer_is_which(old, request_, expected):
    sizes = [int(size) for size in old.split()]
    assert written(layer_map(sizes, Depth(**request_)), sizes) == expected


def test_solar_of_32_layers_is_the_papers_48():
    layers = layer_map([32], Depth(overlap=8, method="solar"))
    assert spelled(layers, [32]) == "1..24 9..32" and layers.new == 48
    assert list(layers.index) == list(layer_map([32], Depth(layers=48, method="solar")).index)


def test_tables_are_spelled_for_people():
    for old, request, expected in [
        ([6], dict(layers=16), "1..6 1..6 3..6"),
        ([6], dict(layers=8, method="identity"), "1..3 (3) 4..6 (6)"),
        ([3], dict(layers=6, method="interleave"), "1 1 2 2 3 3"),
        ([2, 3], dict(layers=8), "A1 A2 B1..B3 B1..B3"),
    ]:
        assert spelled(layer_map(old, Depth(**request)), old) == expected


@pytest.mark.parametrize("method", METHODS)
def test_laws_of_every_size(method):
    """As many layers as asked; every layer of the source is there; without what is inserted, identity is the source."""
    for old in range(1, 9):
        for new in range(old, 2 * old + 1, 2 if method == "solar" else 1):
            new += old % 2 if method == "solar" and new < 2 * old and old % 2 else 0
            if method == "average" and old == 1 < new:
                continue
            layers = layer_map([old], Depth(layers=new, method=method))
            index, kept = list(layers.index), layers.sides[WRITE].amplitude == 1
            assert len(index) == new and set(index) == set(range(old))
            if method == "stack":
                assert index == [*(list(range(old)) * (new // old)), *range(old - new % old, old)]
            if method == "interleave":
                assert index == [number * old // new for number in range(new)]
            if method == "identity":
                assert list(layers.index[kept]) == list(range(old)) and kept[0]
                runs = [len(list(run)) for inserted, run in groupby(~kept) if inserted]
                assert new > 2 * old or max(runs, default=0) <= 1, "placed evenly"
            elif method == "average":
                assert list(layers.index[kept]) == list(range(old)) and not between(layers)[kept].any()
            else:
                assert kept.all()


def deepen(model, **request):
    """(plan, state dict, config) of a live model made deeper."""
    state, settings = tiny.stored(model), model.config.to_dict()
    plan = grow_plan([headers(state, settings)], grow_recipe(**request))
    return plan, {tensor.name: grow_tensor(tensor, [StateSource(state)], 0) for tensor in plan.tensors}, plan.config


def is_silenced(family: str, name: str) -> bool:
    return any(f".{writer}." in name for writer in WRITERS[family].split())


def check_content(family: str, before: dict, after: dict, table: str) -> None:
    """Every tensor of the result is the one of the source that the table says; inserted layers add nothing."""
    names = FAMILIES[family]
    layers = table.split()
    expected = {name: tensor for name, tensor in before.items() if names.layer_of(name) is None}
    for number, entry in enumerate(layers):
        donor = int(entry.strip("()")) - 1
        for name in (name for name in before if names.layer_of(name) == donor):
            tensor = before[name]
            if entry[0] == "(" and is_silenced(family, name):
                tensor = torch.full_like(tensor, -1.0 if family == "gemma2" else 0.0)  # Gemma stores a gain less 1
            expected[names.in_layer(name, number)] = tensor
    assert after.keys() == expected.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in expected.items())


CONTENT = [  # of 3 layers
    (dict(layers=7), "1 2 3 1 2 3 3"),
    (dict(layers=5, depth="interleave"), "1 1 2 2 3"),
    (dict(layers=5, depth="top"), "1 2 3 2 3"),
    (dict(layers=5, depth="middle"), "1 2 3 2 3"),
    (dict(layers=4, depth="solar"), "1 2 2 3"),
    (dict(slices="2,1-2"), "2 1 2"),
    (dict(after=(1, 3), depth="identity"), "1 (1) 2 3 (3)"),
]


@pytest.mark.parametrize("family", EVERY)
def test_layers_are_the_sources_bit_for_bit(family):
    model = source(family, False, 0)
    ids = tiny.tokens()
    with torch.no_grad():
        ours = model(ids).logits
    for request, table in CONTENT if family in FULL else CONTENT[-2:]:
        plan, state, config = deepen(model, **request)
        check_content(family, tiny.stored(model), state, table)
        assert all(config[key] == len(table.split()) for key in FAMILIES[family].keys("layer"))
        exact = "(" in table and family in PRE_NORM
        assert str(plan.exactness) == ("exact" if exact else "approximate")
        if not exact:
            with torch.no_grad():
                assert tiny.relative(ours, tiny.rebuild(model, state, config)(ids).logits) > DIFFERS


@pytest.mark.parametrize(
    ("family", "tied"),
    cover(product(PRE_NORM, (True, False)), lambda row: {row[0], (kind(row[0]), FAMILIES[row[0]].is_moe, row[1])}),
)
def test_inserted_layers_keep_the_function(family, tied):
    model = source(family, tied, 0)
    request = dict(layers=6) if tied else dict(after=(1, 1, 3))
    with tiny.float32_parts_in_double():
        _, state, config = deepen(model, depth="identity", **request)
        grown, ids = tiny.rebuild(model, state, config), tiny.tokens()
        ours = logits(model, ids)
        assert tiny.relative(ours, logits(grown, ids)) <= ALGEBRA
        assert tiny.relative(ours, stepwise(grown, ids)) <= ALGEBRA
    stock = [logits(m, ids) for m in (model, grown)]
    assert tiny.relative(*stock) <= (ALGEBRA if family in PURE_FLOAT64 else STOCK)


@pytest.mark.parametrize("family", tuple(f for f in EVERY if f not in PRE_NORM))
def test_after_a_post_layer_norm_no_layer_is_the_identity_and_the_plan_says_so(family):
    plan, _, _ = deepen(source(family, True, 0), layers=4, depth="identity")
    (line,) = (axis for axis in plan.axes if axis.axis == "layer")
    assert str(line.exactness) == "approximate" and "norm the stream again" in line.why


@pytest.mark.parametrize("family", EVERY)
def test_gradients_flow_into_inserted_layers_within_two_steps(family):
    """The first step moves what was zero, the second whatever stands before it; judged by the layer that was copied."""
    model = source(family, False, 0)
    _, state, config = deepen(model, after=(2,), depth="identity")  # layer 2, counted from 0, copies layer 1
    grown = tiny.rebuild(model, state, config).train(False)
    optimizer, ids = torch.optim.AdamW(grown.parameters(), lr=1e-2, weight_decay=0.0), tiny.tokens()
    gradients = []
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(grown(ids).logits.flatten(0, 1), ids.flatten()).backward()
        found = {name: p.grad.clone() for name, p in grown.named_parameters() if p.grad is not None}
        gradients.append(tiny.stored(grown, found))
        optimizer.step()
    names = [name for name in gradients[1] if FAMILIES[family].layer_of(name) == 2]
    assert len(names) == sum(FAMILIES[family].layer_of(name) == 2 for name in state)
    for name in names:
        donor = gradients[1][FAMILIES[family].in_layer(name, 1)].abs().max()
        inert = donor < 1e-9  # a key's bias shifts all scores alike
        assert inert or gradients[1][name].abs().max() > 1e-3 * donor, name
        if is_silenced(family, name):
            assert gradients[0][name].abs().max() > 0, name


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_several_are_widened_to_the_largest_and_then_stacked(family, tmp_path):
    """The layers of each; what stands before them is the first's, what follows is the last's."""
    small, large = dict(num_hidden_layers=1), dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=8)
    if family != "gpt2":
        large |= dict(num_key_value_heads=4, intermediate_size=80)
    if family == "gemma2":
        large["query_pre_attn_scalar"] = 12
    for name, sizes, seed in (("a", small, 1), ("b", large, 2)):
        tiny.make(family, dtype=torch.float32, seed=seed, tie_word_embeddings=False, **sizes).save_pretrained(
            tmp_path / name
        )
    before = tree(tmp_path)
    grown = growkit.stack([tmp_path / "a", tmp_path / "b"], tmp_path / "out", layers=5, verify=True)
    assert {path: entry for path, entry in tree(tmp_path).items() if path in before} == before
    assert not grown.report.keys and str(grown.plan.exactness) == "approximate"
    kv_heads = {} if family == "gpt2" else {"kv_heads": 4}
    growkit.widen(tmp_path / "a", tmp_path / "wide", hidden=48, heads=8, **kv_heads)
    wide, b, out = (load_file(tmp_path / name / "model.safetensors") for name in ("wide", "b", "out"))
    names = FAMILIES[family]
    for number, (state, layer) in enumerate([(wide, 0), (b, 0), (b, 1), (b, 0), (b, 1)]):
        for name in (name for name in state if names.layer_of(name) == layer):
            assert torch.equal(out[names.in_layer(name, number)], state[name]), name
    outside = [name for name in out if names.layer_of(name) is None]
    assert len(outside) == (5 if family == "gpt2" else 3)
    for name in outside:
        origin = wide if any(word in name for word in ("embed", "wte", "wpe")) else b
        assert torch.equal(out[name], origin[name]), name
    assert json.loads((tmp_path / "out" / "config.json").read_text())[names.keys("layer")[0]] == 5


@pytest.mark.parametrize("method", ["stack", "interleave"])
def test_two_sources_stacked_are_no_longer_either(method, tmp_path):
    """As many layers as both have together, all as they were, and still another function."""
    for seed, name in enumerate("ab"):
        tiny.make("llama", seed=seed).save_pretrained(tmp_path / name)
    plan = growkit.stack([tmp_path / "a", tmp_path / "b"], tmp_path / "out", layers=6, method=method, dry_run=True).plan
    assert [(line.axis, str(line.exactness)) for line in plan.axes if line.how != "kept"] == [("layer", "approximate")]


def test_the_expected_memory_is_of_the_plan_too(tmp_path, monkeypatch):
    """A deeper result has the same blocks and more tensors; what is computed takes more memory than what is kept; and
    transformers' config class where it was asked.
    """
    tiny.make("llama").save_pretrained(tmp_path / "a")
    low, high = (growkit.stack(tmp_path / "a", layers=layers, dry_run=True).plan for layers in (4, 100))
    assert high.peak_bytes - low.peak_bytes == TENSOR_BYTES * (len(high.tensors) - len(low.tensors)) > 700_000
    cast = growkit.stack(tmp_path / "a", layers=4, dtype="float32", dry_run=True).plan
    assert cast.peak_bytes > low.peak_bytes
    for module in STOCK_BYTES:
        monkeypatch.delitem(sys.modules, module, raising=False)
    before = low.peak_bytes
    for module in STOCK_BYTES:
        monkeypatch.setitem(sys.modules, module, sys)
    assert low.peak_bytes - before == sum(STOCK_BYTES.values()) > 100_000_000
