"""AKI is bert2BERT's formula (arXiv 2110.07143, section 3.3), checked against one written here from the paper alone.

A grown matrix of layer l reads as FPI does: columns gathered, divided by how often their source occurs. Its old rows
are layer l's; its new rows are what FPI would make of the same rows of layer l + 1. The last layer, norms, embeddings,
pooler and heads are plain FPI. In every family the result is layer for layer that mixture of FPI's, and it is not
claimed to compute what its source did.
"""

import json
import re

import numpy as np
import pytest
import tiny
import torch
from covering import sample
from safetensors.torch import load_file, save_file

import growkit

torch.set_num_threads(1)  # on tensors this small, threads only wait for one another

LAYERS, WIDTH = 3, 24
# matrix of a layer: (rows it writes, columns it reads); sizes of the axes are those of tiny models
MATRICES = {
    "bert": {
        **{f"bert.encoder.layer.{{}}.attention.self.{name}": "head hidden" for name in ("query", "key", "value")},
        "bert.encoder.layer.{}.attention.output.dense": "hidden head",
        "bert.encoder.layer.{}.intermediate.dense": "ffn hidden",
        "bert.encoder.layer.{}.output.dense": "hidden ffn",
    },
    "gpt2": {
        "transformer.h.{}.attn.c_attn": "qkv hidden",
        "transformer.h.{}.attn.c_proj": "hidden head",
        "transformer.h.{}.mlp.c_fc": "ffn hidden",
        "transformer.h.{}.mlp.c_proj": "hidden ffn",
    },
    "llama": {
        "model.layers.{}.self_attn.q_proj": "head hidden",
        **{f"model.layers.{{}}.self_attn.{name}_proj": "kv_head hidden" for name in "kv"},
        "model.layers.{}.self_attn.o_proj": "hidden head",
        **{f"model.layers.{{}}.mlp.{name}_proj": "ffn hidden" for name in ("gate", "up")},
        "model.layers.{}.mlp.down_proj": "hidden ffn",
    },
}
# what is outside the layers' matrices, plain FPI: its dimensions, of which None stays, and / is divided by copies
OTHERS = {
    "bert": {
        **{
            f"bert.embeddings.{name}_embeddings.weight": (None, "hidden") for name in ("word", "position", "token_type")
        },
        "bert.embeddings.LayerNorm.weight": ("hidden",),
        "bert.encoder.layer.1.output.LayerNorm.bias": ("hidden",),
        "cls.predictions.transform.dense.weight": ("hidden", "/hidden"),
        "cls.predictions.transform.dense.bias": ("hidden",),
        "cls.predictions.transform.LayerNorm.weight": ("/hidden",),  # the tied head reads as it is: its norm divides
        "cls.predictions.transform.LayerNorm.bias": ("/hidden",),
        "cls.predictions.bias": (None,),
        "bert.pooler.dense.weight": ("hidden", "/hidden"),
        "cls.seq_relationship.weight": (None, "/hidden"),
    },
    "gpt2": {
        "transformer.wte.weight": (None, "hidden"),
        "transformer.wpe.weight": (None, "hidden"),
        "transformer.h.1.ln_2.weight": ("hidden",),
        "transformer.ln_f.bias": ("/hidden",),
    },
    "llama": {
        "model.embed_tokens.weight": (None, "hidden"),
        "model.layers.0.input_layernorm.weight": ("hidden",),
        "model.norm.weight": ("hidden",),
        "lm_head.weight": (None, "/hidden"),
    },
}


def counted(index: np.ndarray) -> np.ndarray:
    return np.bincount(index)[index]


def read_as_fpi(matrix: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return matrix[:, columns] / counted(columns)


def aki(rows: np.ndarray, own: np.ndarray, above: np.ndarray | None = None) -> np.ndarray:
    """Old rows from this layer, new ones from the layer above; rows that are first to have their source are old."""
    old = np.array([source not in rows[:place] for place, source in enumerate(rows)])
    grown = own[rows]
    if above is not None:
        grown[~old] = above[rows[~old]]
    return grown


def reference(state: dict, family: str, axes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The matrices and biases of all layers by the formula, and the others by FPI."""
    grown = {}
    for template, (rows, columns) in ((name, axes_of.split()) for name, axes_of in MATRICES[family].items()):
        for layer in range(LAYERS):
            pair = [template.format(n) for n in (layer, layer + 1) if n < LAYERS]
            weights = [state[f"{name}.weight"] for name in pair]
            weights = [weight.T if family == "gpt2" else weight for weight in weights]  # Conv1D stores (read, written)
            weight = aki(axes[rows], *[read_as_fpi(weight, axes[columns]) for weight in weights])
            grown[f"{pair[0]}.weight"] = weight.T if family == "gpt2" else weight
            if f"{pair[0]}.bias" in state:
                grown[f"{pair[0]}.bias"] = aki(axes[rows], *[state[f"{name}.bias"] for name in pair])
    for name, dimensions in OTHERS[family].items():
        value = state[name]
        for dimension, axis in enumerate(dimensions):
            if axis is not None:
                index = axes[axis.strip("/")]
                value = np.take(value, index, axis=dimension) / (counted(index) if axis[0] == "/" else 1)
        grown[name] = value
    return grown


def whole_heads(heads: np.ndarray, head_dim: int = 6) -> np.ndarray:
    return (heads[:, None] * head_dim + np.arange(head_dim)).ravel()


def compare(family: str, folder, axes: dict[str, np.ndarray], **request) -> None:
    """Grow a checkpoint on disk and hold every reference tensor against the result."""
    changes = {"bert": {"architecture": "BertForPreTraining"}, "gpt2": {"n_inner": 40}}
    changes["llama"] = {"tie_word_embeddings": False}
    tiny.make(family, **changes[family]).save_pretrained(folder / "src")
    growkit.widen(folder / "src", folder / "out", method="aki", **request)
    stored = json.loads((folder / "out" / "growkit.json").read_text())["maps"]
    for axis in ("hidden", "head", "ffn"):
        if axis not in axes:  # a random mapping: as it was stored
            runs = [np.arange(first, first + length) for first, length, *_ in stored[axis]["runs"]]
            axes[axis] = whole_heads(np.concatenate(runs)) if axis == "head" else np.concatenate(runs)
    axes["qkv"] = np.concatenate([block * WIDTH + axes["head"] for block in range(3)])
    state, grown = (
        {name: tensor.numpy() for name, tensor in load_file(place / "model.safetensors").items()}
        for place in (folder / "src", folder / "out")
    )
    expected = reference(state, family, axes)
    matrices = [name for name in state if any(t.split(".{}.")[1] in name for t in MATRICES[family])]
    assert expected.keys() <= grown.keys() and set(matrices) <= expected.keys()
    for name, value in expected.items():
        assert grown[name].shape == value.shape and np.allclose(grown[name], value, rtol=1e-14, atol=1e-16), name


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_doubling_is_the_papers_formula(family, tmp_path):
    """Llama's key-value heads grow by whole groups, so that all heads repeat in turn."""
    axes = {axis: np.arange(2 * size) % size for axis, size in dict(hidden=24, head=24, kv_head=12, ffn=40).items()}
    compare(family, tmp_path, axes, hidden=48)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("hidden", [36, 60])
def test_the_papers_random_mapping(family, hidden, tmp_path):
    compare(family, tmp_path, {}, hidden=hidden, mapping="random", seed=4)


def test_query_heads_grow_inside_their_groups(tmp_path):
    """Number of groups kept, as AquilaMoE does (arXiv 2408.06567): old heads stay first in their group."""
    heads = whole_heads(np.array([0, 1, 0, 1, 2, 3, 2, 3]))
    axes = {"hidden": np.arange(24), "head": heads, "kv_head": np.arange(12), "ffn": np.arange(40)}
    compare("llama", tmp_path, axes, heads=8, kv_heads=2)


def layer_above(name: str) -> str:
    """The same tensor one layer up; itself in the last layer and outside layers."""
    return re.sub(r"(?<=\.)\d+(?=\.)", lambda number: str(min(int(number[0]) + 1, LAYERS - 1)), name, count=1)


@pytest.mark.parametrize("growth", [dict(hidden=48), dict(hidden=36, mapping="random")], ids=["x2", "x1.5 random"])
@pytest.mark.parametrize("family", sample(tiny.CONFIGS))
def test_every_row_is_fpis_of_its_layer_or_of_the_next(family, growth):
    """FPI of a source whose layers have moved down by one holds what the donors give: same maps, next layer's
    values."""
    model = tiny.make(family)
    state = tiny.stored(model)
    # a layer with experts below one without has no donor, and a router has as many rows as before
    above_of = {name: layer_above(name) if layer_above(name) in state else name for name in state}
    moved = {name: state[above_of[name]] for name in state}
    results = [growkit.grow_state_dict(s, model.config, noise=0.0, **growth)[0] for s in (state, moved)]
    mixed = set()
    for name, tensor in growkit.grow_state_dict(state, model.config, method="aki", **growth)[0].items():
        is_conv1d = family == "gpt2" and ".h." in name and tensor.dim() == 2
        aki_rows, own, above = (t.T if is_conv1d else t for t in (tensor, *(result[name] for result in results)))
        is_own, is_above = ((aki_rows == rows).reshape(len(rows), -1).all(1) for rows in (own, above))
        assert (is_own | is_above).all() and is_own.any(), name
        if above_of[name] == name or re.search("norm|ln_", name.lower()):
            assert is_own.all(), name
        if not is_own.all():
            mixed.add(name)
    in_layers = {n for n in state if above_of[n] != n and not re.search("norm|ln_|gate\\.weight", n.lower())}
    in_layers -= {n for n in state if "shared_expert_gate" in n}
    assert mixed == in_layers


@pytest.mark.parametrize("family", sample(tiny.CONFIGS))
def test_aki_is_a_starting_point_and_says_so(family):
    model = tiny.make(family)
    state, config = growkit.grow_state_dict(model.state_dict(), model.config, hidden=48, method="aki")
    with torch.no_grad():
        difference = tiny.relative(
            model(tiny.tokens()).logits, tiny.rebuild(model, state, config)(tiny.tokens()).logits
        )
    assert difference > 1e-2


def test_a_single_layer_has_no_layer_above_and_grows_exactly(tmp_path):
    source = tmp_path / "src"
    tiny.make("bert", num_hidden_layers=1).save_pretrained(source)
    plans = [growkit.widen(source, tmp_path / m, hidden=48, method=m, noise=0.0).plan for m in ("aki", "fpi")]
    results = [load_file(tmp_path / method / "model.safetensors") for method in ("aki", "fpi")]
    assert all(torch.equal(*(result[name] for result in results)) for name in results[0])
    assert [str(plan.exactness) for plan in plans] == ["exact", "exact"]


def test_moments_come_from_the_donors_rows(tmp_path):
    """Where a row's weights come from, its history comes from; both are halved: read by two copies, reading two."""
    model = tiny.make("bert", dtype=torch.float32)
    model.save_pretrained(tmp_path / "src")
    name = "bert.encoder.layer.{}.intermediate.dense.weight.exp_avg"
    moments = {name.format(layer): torch.randn(40, 24) for layer in range(LAYERS)}
    save_file(moments, tmp_path / "state.safetensors")
    plan = growkit.widen(
        tmp_path / "src", tmp_path / "out", hidden=48, method="aki", optimizer=tmp_path / "state.safetensors"
    ).plan
    assert str(plan.exactness) == "approximate"
    grown = load_file(tmp_path / "out" / "optimizer" / "optimizer.safetensors")
    for layer in range(LAYERS):
        own, above = moments[name.format(layer)], moments[name.format(min(layer + 1, LAYERS - 1))]
        assert torch.equal(grown[name.format(layer)], torch.cat([own, above]).repeat(1, 2) / 2)
