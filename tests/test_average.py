"""A layer between two is their mean, once the heads and units of one are where those of the other are.

To move heads in whole groups, and units, with all that writes and reads them leaves a layer's function as it is. So the
mean of a layer and of itself in another order is that layer, to the last bit, and so are its moments in AdamW.
"""

from pathlib import Path

import pytest
import tiny
import torch
from comparing import headers

import growkit
from growkit.checkpoint.headers import StoredTensor
from growkit.checkpoint.stream import StateSource
from growkit.errors import RequestError
from growkit.growth.depth.matching import assigned, matched
from growkit.growth.execute import grow_tensor
from growkit.growth.grow_plan import grow_plan
from growkit.growth.optimizer import learning_rates, optimizer_tensors
from growkit.growth.request import grow_recipe

# tensor of a layer -> (dimension, rows of what it holds), written from each model's own code
LLAMA = {
    "q_proj": (0, "query"), "k_proj": (0, "key"), "v_proj": (0, "key"), "o_proj": (1, "query"),
    "gate_proj": (0, "unit"), "up_proj": (0, "unit"), "down_proj": (1, "unit"),
}  # fmt: skip
GPT2 = {"c_attn": (-1, "fused"), "attn.c_proj": (0, "query"), "c_fc": (-1, "unit"), "mlp.c_proj": (0, "unit")}


def reordered(family: str):
    """A model whose second layer is its first with groups, heads in them and units in another order."""
    model = tiny.make(family)
    config, generator = model.config, torch.Generator().manual_seed(5)
    groups = getattr(config, "num_key_value_heads", config.num_attention_heads)
    size, heads = config.num_attention_heads // groups, config.num_attention_heads
    slots = config.hidden_size // heads if family == "gpt2" else config.head_dim
    whole = torch.randperm(groups, generator=generator)
    query = torch.cat([group * size + torch.randperm(size, generator=generator) for group in whole])

    def spread(numbers):
        return (numbers[:, None] * slots + torch.arange(slots)).flatten()

    wide = 4 * config.hidden_size if family == "gpt2" else config.intermediate_size
    order = {"query": spread(query), "key": spread(whole), "unit": torch.randperm(wide, generator=generator)}
    order["fused"] = torch.cat([order["query"] + block * heads * slots for block in range(3)])
    state, table = tiny.stored(model), {"llama": LLAMA, "gpt2": GPT2}[family]
    for name in [name for name in state if ".0." in name]:
        upper = state[name].clone()
        for part, (dimension, kind) in table.items():
            reads = dimension == (0 if family == "gpt2" else 1)
            if f".{part}." in name and not (name.endswith("bias") and reads):
                upper = upper.index_select(0 if upper.dim() == 1 else dimension, order[kind])
        state[name.replace(".0.", ".1.")] = upper
    assert not torch.equal(order["query"], torch.arange(len(order["query"])))
    return model, state


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_mean_of_a_layer_and_itself_in_another_order_is_that_layer(family):
    model, state = reordered(family)
    for growth in ({}, {"hidden": 48, "noise": 0}):
        grown, _ = growkit.grow_state_dict(state, model.config, depth="average", after=(1,), **growth)
        assert all(torch.equal(grown[n], grown[n.replace(".0.", ".1.")]) for n in grown if ".0." in n)


def test_moments_and_rates_of_a_mean_are_those_of_the_layer():
    model, state = reordered("llama")
    plan = grow_plan([headers(state, model.config.to_dict())], grow_recipe(depth="average", after=(1,), hidden=48))
    rates = learning_rates(plan)["multipliers"]
    assert all(rates[n] == pytest.approx(rates[n.replace(".0.", ".1.")]) for n in rates if ".0." in n)
    plan = grow_plan([headers(state, model.config.to_dict())], grow_recipe(depth="average", after=(1,)))
    moments = {f"{name}.{kind}": tensor**2 for name, tensor in state.items() for kind in ("exp_avg", "exp_avg_sq")}
    stored = {
        name: StoredTensor(name=name, path=Path(), dtype=one.dtype, shape=tuple(one.shape), offset=0)
        for name, one in moments.items()
    }
    plans = optimizer_tensors(matched(plan, [StateSource(state)]), [stored])
    grown = {tensor.name: grow_tensor(tensor, [StateSource(moments)], 0) for tensor in plans}
    assert all(torch.equal(grown[n], grown[n.replace(".0.", ".1.")]) for n in grown if ".0." in n)


def test_heads_with_slopes_stay_and_shares_add_up():
    """BLOOM's positions are slopes of its heads; two layers between the same neighbours have thirds of either."""
    model = tiny.make("bloom")
    state = tiny.stored(model)
    grown, _ = growkit.grow_state_dict(state, model.config, depth="average", after=(1, 1))
    name = "transformer.h.{}.self_attention.query_key_value.weight"
    lower, upper = state[name.format(0)], state[name.format(1)]
    torch.testing.assert_close(grown[name.format(1)], lower * 2 / 3 + upper / 3)
    torch.testing.assert_close(grown[name.format(2)], lower / 3 + upper * 2 / 3)


def test_rows_meet_their_like():
    generator = torch.Generator().manual_seed(0)
    rows, order = torch.randn(40, 8, generator=generator), torch.randperm(40, generator=generator)
    likeness = torch.nn.functional.cosine_similarity(rows[:, None], rows[order][None], dim=2)
    assert assigned(likeness).tolist() == order.argsort().tolist()
    assert sorted(assigned(torch.rand(40, 40, generator=generator))) == list(range(40))
    assert assigned(torch.ones(4, 4)).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("family", "request_", "said"),
    [
        ("llama", dict(depth="average", after=(3,)), "above the source's last, 3, there is none"),
        (
            "llama",
            dict(depth="stack", layers=4, where="top"),
            "--where is for --depth identity or interleave or average",
        ),
        (
            "llama",
            dict(depth="average", layers=4, after=(1,), where="top"),
            "say where new layers go; give one of them",
        ),
        ("llama", dict(depth="average", layers=4, where="front"), "--where 'front' is not one of spread, middle, top"),
        ("mixtral", dict(depth="average", layers=4), "average is for dense models"),
    ],
)
def test_what_has_no_mean_is_said(family, request_, said):
    model = tiny.make(family)
    with pytest.raises(RequestError, match=said):
        growkit.grow_state_dict(model.state_dict(), model.config, **request_)
