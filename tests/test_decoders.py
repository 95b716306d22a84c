"""Decoders that are nearly Llama: grown as the plan says, whichever way their config sets them; what cannot be is
refused, and nothing else.
"""

import pytest
import tiny
import torch
from comparing import ALGEBRA, check_exact, check_refused, logits
from safetensors.torch import load_file

import growkit
from growkit import grow_state_dict

SLIDING = "sliding_attention"
ALL_AXES = dict(hidden=36, heads=6, kv_heads=6, head_dim=16, ffn=50, layers=5, depth="identity")
WITH_HEADS = dict(hidden=60, kv_heads=10, ffn=50, layers=5, depth="identity")  # where heads fill hidden
# a family, what its config says beside the small one's, whether its head is tied, and how it grows
EXACT = [
    ("granite", dict(), True, ALL_AXES),
    ("hyperclovax", dict(use_post_norm=False), False, ALL_AXES),
    ("smollm3", dict(use_sliding_window=True, sliding_window=4), True, ALL_AXES),
    ("arcee", dict(), False, ALL_AXES),
    ("helium", dict(), False, dict(hidden=40, head_dim=10, layers=5, depth="identity")),
    ("seed_oss", dict(), True, ALL_AXES),
    ("hunyuan_v1_dense", dict(), True, ALL_AXES),
    ("ernie4_5", dict(), True, dict(hidden=36, head_dim=12, layers=5, depth="identity")),
    ("ministral", dict(), False, ALL_AXES),
    ("starcoder2", dict(sliding_window=4), True, ALL_AXES),
    ("stablelm", dict(use_qkv_bias=True), True, WITH_HEADS),
    ("stablelm", dict(qk_layernorm=True), False, dict(ffn=50, layers=5, depth="identity")),
    ("nemotron", dict(), True, ALL_AXES),
    ("olmo", dict(attention_bias=True), False, ALL_AXES),
    ("olmo", dict(clip_qkv=0.5), False, dict(hidden=36, heads=8, kv_heads=4)),
    ("olmo", dict(clip_qkv=0.5), True, dict(heads=8, kv_heads=4, ffn=50)),
    ("olmo3", dict(head_dim=8), True, ALL_AXES),
    ("gemma3_text", dict(), True, ALL_AXES),
    ("exaone4", dict(head_dim=8), False, ALL_AXES),
    ("cohere", dict(head_dim=8), True, ALL_AXES),
    ("cohere", dict(use_qk_norm=False), False, dict(head_dim=10)),
    ("cohere2", dict(), True, ALL_AXES),
    ("gpt_neo", dict(), True, dict(hidden=60, heads=10, ffn=50, layers=5, depth="identity")),
    ("gpt_neo", dict(), False, dict(head_dim=9)),
]
REFUSED = [
    ("stablelm", dict(qk_layernorm=True), dict(heads=8), "head cannot grow with qk_layernorm True"),
    ("stablelm", dict(qk_layernorm=True), dict(hidden=48), "head_dim cannot grow with qk_layernorm True"),
    ("olmo", dict(clip_qkv=0.5), dict(head_dim=12), "head_dim cannot grow with clip_qkv 0.5"),
    ("olmo", dict(tie_word_embeddings=True), dict(hidden=48), "hidden of olmo cannot grow while its head is"),
]


@pytest.mark.parametrize(("family", "changes", "tied", "growth"), EXACT)
def test_exact(family, changes, tied, growth):
    check_exact(family, growth, tie_word_embeddings=tied, **changes)


@pytest.mark.parametrize(("family", "changes", "growth", "why"), REFUSED)
def test_refused(family, changes, growth, why):
    check_refused(family, changes, growth, why)


def test_layers_that_move_keep_what_they_are():
    """Layers without rotary positions and those with a sliding window are told by number; deeper models list them."""
    model = tiny.make("olmo3")
    _, config = grow_state_dict(model.state_dict(), model.config, layers=5, depth="identity", after=(1, 2))
    assert config["layer_types"] == [SLIDING] * 5
    model = tiny.make("smollm3")
    _, config = grow_state_dict(model.state_dict(), model.config, layers=5, depth="interleave")
    assert config["no_rope_layers"] == [1, 1, 0, 0, 1]
    model = tiny.make("gpt_neo")
    _, config = grow_state_dict(model.state_dict(), model.config, layers=5, depth="interleave")
    kinds = ["local", "local", "global", "global", "local"]
    assert config["attention_types"] == [[kinds, 1]] and config["attention_layers"] == kinds


def test_settings_that_a_config_leaves_open_stay_open():
    """What the class fills in, such as rotary bases by layer type and a softmax scale by head_dim, follows the sizes."""
    with tiny.float32_parts_in_double():
        for family, keys, growth in (
            ("hyperclovax", ("attention_multiplier", "head_dim"), dict(head_dim=12)),
            ("helium", ("rope_parameters",), dict(head_dim=8)),
            ("gemma3_text", ("rope_parameters", "layer_types"), dict(head_dim=16, layers=5, depth="identity")),
            ("gpt_neo", ("attention_layers",), dict(layers=5, depth="identity")),
        ):
            model = tiny.make(family)
            config = {key: value for key, value in model.config.to_dict().items() if key not in keys}
            wide = tiny.rebuild(model, *grow_state_dict(model.state_dict(), config, **growth))
            ids = tiny.tokens()
            assert tiny.relative(logits(model, ids), logits(wide, ids)) <= ALGEBRA, family


def test_single_numbers_are_carried_by_everything(tmp_path, monkeypatch):
    """Apertus stores two of each layer's activation as tensors without dimensions, beside two of one that it learns."""
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        tiny.make("apertus", seed=seed).save_pretrained(str(seed))
    growkit.grow("0", "grown", hidden=48, layers=4, depth="identity", verify=False)
    growkit.fuse(["0", "1"], "fused", verify=False)
    growkit.merge(["0", "1"], "merged", method="average")
    growkit.delta("0", "1", "delta")
    growkit.apply("0", ["delta"], "applied")
    one, other, *made = (
        load_file(f"{name}/model.safetensors") for name in ("0", "1", "grown", "fused", "merged", "applied")
    )
    learned, fixed = (f"model.layers.2.mlp.act_fn.{name}" for name in ("alpha_p", "beta"))
    assert all(torch.equal(state[fixed], one[fixed]) and not state[fixed].shape for state in made)
    mean = (one[learned] + other[learned]) / 2
    for state, expected in zip(made, (one[learned], mean, mean, other[learned])):
        torch.testing.assert_close(state[learned], expected)
    assert growkit.inspect("0").parameters["output heads"] == one["lm_head.weight"].numel()
