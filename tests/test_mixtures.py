"""OLMoE, Granite-MoE, GLM-4-MoE, GPT-OSS and DeepSeek grown as their plans say: stacked experts, sinks, latents, layers
without experts, and what a setting keeps from growing.
"""

import pytest
import tiny
import torch
from comparing import check_exact, check_refused
from safetensors.torch import load_file, save_file

import growkit
from growkit.families import FAMILIES
from growkit.families.stacked import join_experts, split_experts

# a family, what its config says beside the tiny one's, whether its head is tied, and how it grows
EXACT = [
    ("olmoe", dict(clip_qkv=0.4), True, dict(hidden=36, ffn=50)),
    ("olmoe", dict(), False, dict(head_dim=12, kv_heads=4)),
    ("granitemoe", dict(attention_bias=True), True, dict(hidden=36, ffn=53, heads=8, kv_heads=4)),
    ("granitemoe", dict(), False, dict(head_dim=10, layers=4, depth="identity")),
    ("glm4_moe", dict(), True, dict(head_dim=16, hidden=36)),
    ("glm4_moe", dict(use_qk_norm=False), False, dict(head_dim=10, ffn=33, layers=4, depth="identity")),
    ("gpt_oss", dict(), True, dict(hidden=36, ffn=53, heads=8)),
    ("gpt_oss", dict(attention_bias=False), False, dict(head_dim=12, layers=5, depth="identity")),
    ("deepseek_v2", dict(), True, dict(hidden=36, ffn=33)),
    ("deepseek_v2", dict(q_lora_rank=None, mlp_bias=False), False, dict(hidden=48, heads=6, head_dim=10)),
    ("deepseek_v3", dict(), True, dict(hidden=36, heads=7, ffn=33)),
    ("deepseek_v3", dict(q_lora_rank=None), False, dict(head_dim=10, layers=5, depth="identity")),
]


@pytest.mark.parametrize(("family", "changes", "tied", "growth"), EXACT)
def test_exact(family, changes, tied, growth):
    check_exact(family, growth, tie_word_embeddings=tied, **changes)


@pytest.mark.parametrize(
    ("family", "changes", "growth", "why"),
    [
        ("olmoe", dict(clip_qkv=0.4), dict(head_dim=12), "with clip_qkv 0.4"),
        ("glm4_moe", dict(), dict(head_dim=10), "only whole copies keep"),
        ("glm4_moe", dict(), dict(layers=6, depth="stack"), "layer 4 of the result would have no experts"),
        ("deepseek_v3", dict(), dict(kv_heads=8), "one for each head"),
        ("deepseek_v2", dict(), dict(heads=5), "multiple of its 5 heads"),
    ],
)
def test_refused(family, changes, growth, why):
    check_refused(family, changes, growth, why)


@pytest.mark.parametrize("family", tiny.SPARSE)
def test_live_and_stored_layouts_are_one_state(family):
    """Against transformers' own conversion, both ways."""
    model = tiny.make(family)
    live, stored = model.state_dict(), tiny.stored(model)
    split = split_experts(FAMILIES[family], live)
    assert split.keys() == stored.keys() and all(torch.equal(split[name], stored[name]) for name in stored)
    joined = join_experts(FAMILIES[family], split)
    assert joined.keys() == live.keys() and all(torch.equal(joined[name], live[name]) for name in live)


@pytest.mark.parametrize("family", ["granitemoe", "gpt_oss", "deepseek_v3"])
def test_folders_grow_stack_and_merge(family, tmp_path):
    """Streamed from file to file: stacks of experts row by row, layers without experts kept below the others."""
    for seed in (0, 1):
        tiny.make(family, dtype=torch.float32, seed=seed, hidden_size=32).save_pretrained(tmp_path / str(seed))
    one, other = (str(tmp_path / str(seed)) for seed in (0, 1))
    growkit.grow(one, tmp_path / "wide", hidden=48, ffn=56, layers=4, depth="identity", verify=True)
    growkit.stack([one, other], tmp_path / "deep", slices="A:1-3,B:2-3", verify=True)
    growkit.merge([one, other], tmp_path / "merged", method="average")
    found = growkit.inspect(tmp_path / "wide")
    assert found.parameters["experts"] > found.parameters["routers"] > 0 and found.sizes["hidden"] == 48


@pytest.mark.parametrize("family", ["glm4_moe", "ernie4_5_moe"])
def test_a_layer_that_predicts_further_tokens_is_left_out(family, tmp_path):
    """As the hub's files have it: one layer more than the config says, with a head and norms of its own, or another
    name."""
    tiny.make(family, dtype=torch.float32).save_pretrained(tmp_path / "src")
    path = tmp_path / "src/model.safetensors"
    state = load_file(path)
    place = "layers.3." if family == "glm4_moe" else "mtp_block.0."
    further = {n.replace("layers.2.", place): tensor.clone() for n, tensor in state.items() if "layers.2." in n}
    own = {
        "eh_proj.weight": torch.ones(24, 48),
        "enorm.weight": torch.ones(24),
        "shared_head.head.weight": torch.ones(61, 24),
    }
    further |= {f"model.{place}{name}": tensor for name, tensor in own.items()}
    save_file({**state, **further}, path, {"format": "pt"})
    assert growkit.inspect(tmp_path / "src").sizes["layer"] == 3
    grown = growkit.grow(tmp_path / "src", tmp_path / "grown", hidden=48, layers=4, depth="identity", verify=False)
    assert grown.plan.notes[0].startswith(f"left out: {len(further)} tensors of the file")
    assert grown.plan.config.get("num_nextn_predict_layers", 0) == 0
    names = {tensor.name for tensor in grown.plan.tensors}
    assert names == {*state, *(n.replace("layers.2.", "layers.3.") for n in state if "layers.2." in n)}
