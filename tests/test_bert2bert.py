"""bert2BERT's operators on plain tensors (arXiv 2110.07143): the papers' examples, their laws, and that they are the
one rule of growkit in other words.

The worked example is AquilaMoE's of bert2BERT's two operators (arXiv 2408.06567, equation 1 and figure 1): a block y =
U^T W^T x of 2 inputs, 3 hidden units and 2 outputs becomes one of 3, 4 and 3. FPI: w'[1, *] = w'[3, *] = w[1, *] / 2
and w'[*, 4] = w'[*, 1]; AKI: W(1) becomes [w'1(1); w'2(1); w'3(1); w'1(2)].
"""

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import growkit
from growkit.maps import copies, identity
from growkit.operators.seeds import generator

# old size, then where each new index comes from: any mapping in which every old index occurs
mappings = st.integers(1, 6).flatmap(
    lambda old: st.lists(st.integers(0, old - 1), max_size=8).flatmap(
        lambda more: st.permutations([*range(old), *more]).map(lambda g: (old, torch.tensor(g)))
    )
)
seeds = st.integers(0, 2**32)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator(seed, "w"))


def test_the_worked_example_of_fpi():
    w = torch.tensor([[2.0, 3.0], [4.0, 5.0], [6.0, 7.0]])  # (hidden, in), as nn.Linear has it
    u = torch.tensor([[8.0, 10.0, 12.0], [14.0, 16.0, 18.0]])  # (out, hidden)
    g_in, g_hidden, g_out = growkit.mapping(2, 3), growkit.mapping(3, 4), growkit.mapping(2, 3)
    wide_w, wide_u = growkit.fpi(w, g_in, g_hidden), growkit.fpi(u, g_hidden, g_out)
    assert wide_w.tolist() == [[1.0, 3.0, 1.0], [2.0, 5.0, 2.0], [3.0, 7.0, 3.0], [1.0, 3.0, 1.0]]
    assert wide_u.tolist() == [[4.0, 10.0, 12.0, 4.0], [7.0, 16.0, 18.0, 7.0], [4.0, 10.0, 12.0, 4.0]]
    x = torch.tensor([1.0, -2.0])
    assert torch.equal(wide_u @ (wide_w @ x[g_in]), (u @ (w @ x))[g_out])


def test_the_worked_example_of_aki():
    w, upper = torch.tensor([[2.0, 3.0], [4.0, 5.0], [6.0, 7.0]]), torch.tensor([[8.0, 9.0], [1.0, 1.0], [1.0, 1.0]])
    wide = growkit.aki(w, upper, growkit.mapping(2, 3), growkit.mapping(3, 4))
    assert wide.tolist() == [[1.0, 3.0, 1.0], [2.0, 5.0, 2.0], [3.0, 7.0, 3.0], [4.0, 9.0, 4.0]]


def test_the_worked_examples_of_depth():
    """bert2BERT's algorithm 1, its layers counted from 1."""
    assert [n + 1 for n in growkit.stack_order(6, 16)] == [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6, 3, 4, 5, 6]
    assert [n + 1 for n in growkit.stack_order(12, 18)] == [*range(1, 13), *range(7, 13)]


@given(st.integers(1, 30), st.integers(0, 60), st.sampled_from(["cyclic", "random"]), seeds)
def test_a_mapping_begins_with_the_old_indices_and_stays_among_them(old, more, how, seed):
    g = growkit.mapping(old, old + more, how, seed)
    assert g.dtype == torch.int64 and g[:old].tolist() == list(range(old)) and g.max() < old
    assert torch.equal(g, growkit.mapping(old, old + more, how, seed))
    if how == "cyclic":
        assert np.ptp(np.bincount(g)) <= 1


def test_random_mappings_are_uniform_and_differ_by_seed():
    g = growkit.mapping(4, 40_004, "random", seed=1)
    share = torch.bincount(g[4:]) / 40_000
    assert (share - 0.25).abs().max() < 0.01
    assert not torch.equal(g, growkit.mapping(4, 40_004, "random", seed=2))


@given(mappings, mappings, mappings, st.sampled_from([0.0, 0.5]), seeds)
@settings(deadline=None)
def test_fpi_keeps_what_two_layers_compute(into, hidden, out, noise, seed):
    """W2 gelu(W1 x + b1) + b2, with all three axes grown by mappings of any kind."""
    (d, g_in), (m, g_hidden), (o, g_out) = into, hidden, out
    w1, b1, w2, b2, x = drawn(seed, m, d), drawn(seed, m), drawn(seed, o, m), drawn(seed, o), drawn(seed, 5, d)
    gelu, linear = torch.nn.functional.gelu, torch.nn.functional.linear
    grown = [
        (growkit.fpi(w, g, h, noise=noise, seed=seed), growkit.fpi(b, None, h))
        for w, b, g, h in ((w1, b1, g_in, g_hidden), (w2, b2, g_hidden, g_out))
    ]
    before = linear(gelu(linear(x, w1, b1)), w2, b2)
    after = linear(gelu(linear(x[:, g_in], *grown[0])), *grown[1])
    torch.testing.assert_close(after, before[:, g_out], rtol=1e-12, atol=1e-12)


@given(mappings, mappings, seeds, st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
@settings(deadline=None)
def test_fpi_is_the_one_rule_with_maps_of_copies(into, out, seed, dtype):
    (d, g_in), (o, g_out) = into, out
    weight = drawn(seed, o, d).to(dtype)
    maps = copies(o, g_out.numpy()), copies(d, g_in.numpy())
    for noise in (0.0, 0.5):
        same = growkit.expand(weight, [(maps[0], "write"), (maps[1], "read")], noise, seed)
        assert torch.equal(growkit.fpi(weight, g_in, g_out, noise=noise, seed=seed), same)
    kept = growkit.expand(weight, [(maps[0], "write"), (identity(d), "read")])
    assert torch.equal(growkit.fpi(weight, None, g_out.tolist()), kept)
    assert torch.equal(growkit.fpi(weight[:, 0], None, g_out), weight[:, 0][g_out])
    assert torch.equal(growkit.fpi(weight[0], g_in, None), growkit.fpi(weight[:1], g_in, None)[0])
    embedding = growkit.fpi(weight.T, None, g_in).T
    assert torch.equal(embedding, weight[:, g_in])


@given(mappings, mappings, seeds)
@settings(deadline=None)
def test_aki_has_first_copies_of_its_layer_and_later_ones_of_the_layer_above(into, out, seed):
    (d, g_in), (o, g_out) = into, out
    own, upper = drawn(seed, o, d), drawn(seed + 1, o, d)
    wide, wide_bias = growkit.aki(own, upper, g_in, g_out), growkit.aki(own[:, 0], upper[:, 0], None, g_out)
    layers = [growkit.fpi(layer, g_in, g_out) for layer in (own, upper)]
    for row, source in enumerate(g_out.tolist()):
        later = source in g_out[:row].tolist()
        assert torch.equal(wide[row], layers[later][row])
        assert wide_bias[row] == (upper if later else own)[source, 0]
    assert torch.equal(growkit.aki(own, None, g_in, g_out), layers[0])  # the last layer


@pytest.mark.parametrize("how", ["stack", "interleave", "top", "middle"])
@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2", "llama", "mixtral", "qwen2_moe"])
def test_stacked_layers_are_those_of_growkit_stack(family, how, tmp_path):
    """Name for name, in the order of the file too, with experts' numbers left alone."""
    source, out = tmp_path / "src", tmp_path / "out"
    tiny.make(family, dtype=torch.float32).save_pretrained(source)
    growkit.stack(source, out, layers=7, method=how)
    state, written = load_file(source / "model.safetensors"), load_file(out / "model.safetensors")
    grown = growkit.stack_layers(state, growkit.stack_order(3, 7, how))
    assert grown.keys() == written.keys() and all(torch.equal(grown[name], written[name]) for name in written)
    save_file(grown, tmp_path / "plain.safetensors")  # refuses tensors that share memory
    assert list(state) == list(load_file(source / "model.safetensors"))  # the state given is as it was


def test_only_the_chosen_list_of_layers_moves():
    state = {f"{side}.block.{n}.layer.{m}.w": torch.tensor([n, m]) for side in "ab" for n in (0, 1) for m in (0, 1)}
    with pytest.raises(ValueError, match=r"'a.block', 'b.block'; pick one"):
        growkit.stack_layers(state, [0, 1, 1])
    grown = growkit.stack_layers(state, torch.tensor([1, 0, 1]), layers="b.block")
    assert {name: tuple(value.tolist()) for name, value in grown.items() if name[0] == "a"} == {
        f"a.block.{n}.layer.{m}.w": (n, m) for n in (0, 1) for m in (0, 1)
    }
    assert [grown[f"b.block.{n}.layer.1.w"].tolist() for n in range(3)] == [[1, 1], [0, 1], [1, 1]]
    sequential = growkit.stack_layers({"0.w": torch.ones(1), "1.w": torch.zeros(1)}, [0, 0, 1])
    assert list(sequential) == ["0.w", "1.w", "2.w"] and sequential["2.w"].item() == 0


def test_parameters_of_a_live_model_grow_without_its_graph():
    layer = torch.nn.Linear(4, 4)
    for g in (None, growkit.mapping(4, 6)):
        assert not growkit.fpi(layer.weight, g, None).requires_grad
    before = layer.weight.detach().clone()
    growkit.fpi(layer.weight, None, None).zero_()
    assert torch.equal(layer.weight, before)


W, LAYERS = torch.ones(2, 3), {"layers.0.w": torch.ones(1), "layers.1.w": torch.ones(1)}


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: growkit.mapping(4, 3), "from 4 to 3 is no growth"),
        (lambda: growkit.mapping(0, 3), "from 0 to 3 is no growth"),
        (lambda: growkit.mapping(4, 8, "even"), "'even' is not one of cyclic, random"),
        (lambda: growkit.fpi(W, [0, 1, 2, 3], None), "g_in names index 3, but the dimension has 3"),
        (lambda: growkit.fpi(W, None, [0, 1, -1]), "g_out names index -1, but the dimension has 2"),
        (lambda: growkit.fpi(W, [0, 1, 1], None), "g_in leaves out index 2, and what it carries would be lost"),
        (lambda: growkit.fpi(W, [0.0, 1.0, 2.0], None), "g_in should be a vector of whole numbers"),
        (lambda: growkit.fpi(W, None, [[0, 1]]), "g_out should be a vector of whole numbers"),
        (lambda: growkit.fpi(W[0], [0, 1, 2], [0, 1, 2]), "a vector has one dimension"),
        (lambda: growkit.fpi(W[None], None, None), "not a tensor of 3 dimensions, float32"),
        (lambda: growkit.fpi(W.long(), None, None), "not a tensor of 2 dimensions, int64"),
        (lambda: growkit.fpi(W, None, None, noise=1.0), "noise from 0 to below 1"),
        (lambda: growkit.aki(W, W.T, None, None), r"the layer above has shape \[3, 2\], this one \[2, 3\]"),
        (lambda: growkit.stack_order(4, 3), "from 4 to 3 layers is no growth"),
        (lambda: growkit.stack_order(4, 6, "identity"), "'identity' is not one of stack, interleave, top, middle,"),
        (lambda: growkit.stack_order(4, 7, "solar"), "an even number from 4 to 8, not 7"),
        (lambda: growkit.stack_layers(LAYERS, [0, 2]), "names layer 2; the layers of 'layers' are 0 to 1"),
        (lambda: growkit.stack_layers(LAYERS, []), "the order is empty"),
        (lambda: growkit.stack_layers({"w": W}, [0]), "no name has a number between dots"),
        (lambda: growkit.stack_layers(LAYERS, [0], layers="h"), r"the layers of 'h' should count from 0 .* are \[\]"),
        (lambda: growkit.stack_layers({"h.1.w": W}, [1]), r"should count from 0 without a gap, but are \[1\]"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence) as refusal:
        call()
    assert "\n" not in str(refusal.value)
