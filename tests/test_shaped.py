"""Decoders whose tensors hold more than one thing: grown as the plan says, whichever way their config shapes them."""

import pytest
import tiny
from comparing import check_exact, check_refused, headers

from growkit import CheckpointError, RequestError, grow_state_dict
from growkit.families import FAMILIES
from growkit.growth.grow_plan import grow_plan
from growkit.growth.infer import infer_config
from growkit.growth.request import recipe

# a family, what its config says beside the tiny one's, whether its head is tied, and how it grows
EXACT = [
    ("phi3", dict(), True, dict(hidden=36, ffn=50)),
    ("phi3", dict(), False, dict(heads=8, kv_heads=4, head_dim=10)),
    ("gpt_bigcode", dict(), True, dict(hidden=36, ffn=50)),
    ("gpt_bigcode", dict(multi_query=False), False, dict(hidden=48, heads=4, layers=4, depth="identity")),
    ("falcon", dict(), True, dict(hidden=48, heads=8, kv_heads=4, ffn=50)),
    (
        "falcon",
        dict(multi_query=False, new_decoder_architecture=False, num_kv_heads=4),
        False,
        dict(hidden=60, layers=4, depth="identity"),
    ),
    ("falcon", dict(new_decoder_architecture=False, parallel_attn=False), True, dict(head_dim=8)),
    ("falcon", dict(num_ln_in_parallel_attn=1), False, dict(kv_heads=4)),
    ("bloom", dict(), True, dict(hidden=48)),
    ("bloom", dict(), False, dict(hidden=72, layers=4, depth="identity")),
    ("mpt", dict(attn_config=dict(softmax_scale=0.3)), True, dict(hidden=36)),
    ("falcon", dict(alibi=True), True, dict(ffn=50, layers=4, depth="identity")),
    ("gptj", dict(), False, dict(hidden=48, heads=4, ffn=100, layers=4, depth="identity")),
    ("gptj", dict(rotary_dim=6), True, dict(head_dim=10)),
    ("codegen", dict(), False, dict(hidden=48, ffn=100)),
    ("codegen", dict(), True, dict(head_dim=10)),
    ("glm", dict(), False, dict(heads=8, head_dim=10)),
    ("glm", dict(partial_rotary_factor=1.0), False, dict(head_dim=16)),
    ("glm4", dict(partial_rotary_factor=1.0, attention_bias=False), True, dict(head_dim=10, hidden=36)),
    ("glm4", dict(), False, dict(ffn=50, layers=4, depth="identity")),
]


@pytest.mark.parametrize(("family", "changes", "tied", "growth"), EXACT)
def test_exact(family, changes, tied, growth):
    check_exact(family, growth, tie_word_embeddings=tied, **changes)


@pytest.mark.parametrize(
    ("family", "changes", "growth", "why"),
    [
        ("gpt_bigcode", dict(), dict(kv_heads=4), "one for all heads"),
        ("bloom", dict(), dict(hidden=48, heads=8), r"head cannot grow: the slopes of its positions \(ALiBi\)"),
        ("bloom", dict(), dict(ffn=100), "it is 4 x hidden"),
        (
            "mpt",
            dict(attn_config=dict(clip_qkv=0.5)),
            dict(hidden=48),
            r"head_dim cannot grow with attn_config\.clip_qkv",
        ),
        ("falcon", dict(alibi=True), dict(hidden=48), "head_dim cannot grow with alibi True"),
        (
            "codegen",
            dict(),
            dict(hidden=36),
            "6 heads are no multiple of the 4 parts .* nearest that work: --hidden 24 or 48",
        ),
        ("falcon", dict(new_decoder_architecture=False), dict(kv_heads=4), "one for all heads"),
        (
            "falcon",
            dict(new_decoder_architecture=False, multi_query=False, num_kv_heads=4),
            dict(kv_heads=8),
            "one for each head",
        ),
    ],
)
def test_refused(family, changes, growth, why):
    check_refused(family, changes, growth, why)


@pytest.mark.parametrize("family", ["bloom", "gpt_bigcode"])
def test_what_cannot_have_more_heads_does_not_stand_side_by_side(family):
    model = tiny.make(family)
    sources = [headers(model.state_dict(), model.config.to_dict(), label) for label in "ab"]
    with pytest.raises(RequestError, match="'a' cannot stand side by side with others"):
        grow_plan(sources, recipe(mode="side-by-side"))


@pytest.mark.parametrize("family", ["phi3", "gpt_neox"])
def test_sizes_show_in_fused_shapes(family):
    config = tiny.make(family).config
    shapes = {name: tuple(tensor.shape) for name, tensor in tiny.make(family).state_dict().items()}
    found = infer_config(shapes, FAMILIES[family], heads=4)
    sized = {key: value for key, value in found.items() if key.startswith(("num_", "hidden_", "intermediate_"))}
    assert sized == {key: getattr(config, key) for key in sized} and "num_attention_heads" in sized


def test_a_dropped_block_is_told_by_the_shape():
    model = tiny.make("phi3")
    state = model.state_dict()
    name = "model.layers.1.mlp.gate_up_proj.weight"
    state[name] = state[name][:-1].clone()
    with pytest.raises(CheckpointError, match=r"says \[80, 24\] \(ffn \+ ffn x hidden\)"):
        grow_state_dict(state, model.config, hidden=48)
