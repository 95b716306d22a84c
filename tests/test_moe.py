"""Mixtures of experts as sources: the live layout and the hub's are one state, layers with experts stay with their
layers, a token's share of the experts is counted; and what cannot be upcycled, or grown as if it were dense, is refused
by name.
"""

import json
import shutil
from math import prod
from pathlib import Path

import pytest
import tiny
import torch
from comparing import logits, source
from refusing import refused, run
from safetensors.torch import load_file, save_file

import growkit
from growkit.families import FAMILIES
from growkit.families.stacked import join_experts, split_experts
from growkit.growth.depth.by_layer import deepen_config
from growkit.growth.depth.layers import layer_map
from growkit.growth.plan import active, forward_flops
from growkit.growth.request import Depth


@pytest.mark.parametrize("architecture", ["ForCausalLM", "Model"])
@pytest.mark.parametrize("family", tiny.MIXTURES)
def test_live_and_stored_layouts_are_one_state(family, architecture):
    """Against transformers' own conversion, both ways; gradients and anything else of the same shapes go along."""
    model = tiny.make(family, tiny.STEMS[family] + architecture)
    live, stored = model.state_dict(), tiny.stored(model)
    split = split_experts(FAMILIES[family], live)
    assert split.keys() == stored.keys() and all(torch.equal(split[name], stored[name]) for name in stored)
    joined = join_experts(FAMILIES[family], split)
    assert joined.keys() == live.keys() and all(torch.equal(joined[name], live[name]) for name in live)
    assert split_experts(FAMILIES[family], split).keys() == split.keys(), "what is split already stays"


@pytest.mark.parametrize("family", tiny.MIXTURES)
def test_a_state_grows_in_the_layout_it_comes_in(family):
    model = tiny.make(family)
    live, config = growkit.grow_state_dict(model.state_dict(), model.config, hidden=36)
    stored, _ = growkit.grow_state_dict(tiny.stored(model), model.config, hidden=36)
    assert any(tensor.dim() == 3 for tensor in live.values()) and not any(
        tensor.dim() == 3 for tensor in stored.values()
    )
    joined = join_experts(FAMILIES[family], stored)
    assert live.keys() == joined.keys() and all(torch.equal(live[name], joined[name]) for name in live)
    assert config["hidden_size"] == 36


@pytest.mark.parametrize(
    ("family", "widths"), [("mixtral", (40,)), ("qwen2_moe", (20, 12, 40)), ("qwen3_moe", (20, 40))]
)
def test_other_widths_keep_their_ratio_to_the_experts(family, widths):
    """--ffn is the experts' width, in whatever key a config has it."""
    keys = ("moe_intermediate_size", "shared_expert_intermediate_size", "intermediate_size")
    model = source(family, False, 0)
    for growth, factor in ((dict(ffn=3 * widths[0]), 3), (dict(hidden=48), 2), (dict(hidden=48, ffn=widths[0]), 1)):
        _, config = growkit.grow_state_dict(model.state_dict(), model.config, **growth)
        assert tuple(config[key] for key in keys if config.get(key)) == tuple(factor * width for width in widths)


def trained(family: str, folder: Path):
    """A tiny mixture on disk, with AdamW state under a live model's names; the state too."""
    model = tiny.make(family, dtype=torch.float32)
    model.save_pretrained(folder)
    draws, state = torch.Generator().manual_seed(1), {}
    for name, parameter in model.named_parameters():
        for moment in ("exp_avg", "exp_avg_sq"):
            state[f"{name}.{moment}"] = torch.rand(parameter.shape, generator=draws)
        state[f"{name}.step"] = torch.tensor(1000.0)
    save_file(state, folder / "live.safetensors")
    return model, state


@pytest.mark.parametrize("family", tiny.MIXTURES)
def test_moments_of_stacked_experts_grow_as_those_of_single_ones(family, tmp_path):
    """Split where the file is read, without reading it; joined again they are a live model's."""
    model, state = trained(family, tmp_path / "src")
    row = FAMILIES[family]
    single = split_experts(row, state)
    save_file({name: tensor.clone() for name, tensor in single.items()}, tmp_path / "src/single.safetensors")
    joined = join_experts(row, single)
    assert joined.keys() == state.keys() and all(torch.equal(joined[name], state[name]) for name in state)
    for kind in ("live", "single"):
        file = tmp_path / "src" / f"{kind}.safetensors"
        growkit.grow(tmp_path / "src", tmp_path / kind, hidden=48, layers=4, depth="identity", optimizer=file)
    one, two = (load_file(tmp_path / kind / "optimizer" / "optimizer.safetensors") for kind in ("live", "single"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    grown = type(model).from_pretrained(tmp_path / "live")
    names = {name for name, _ in grown.named_parameters()}
    assert {name.rpartition(".")[0] for name in join_experts(row, one)} == names
    rates = json.loads((tmp_path / "live/lr_multipliers.json").read_text())["multipliers"]
    assert (
        names <= rates.keys()
        and rates["model.layers.2.mlp.gate.weight" if family != "qwen3_moe" else "lm_head.weight"]["lr"] == 0.5
    )


@pytest.mark.parametrize("family", tiny.MIXTURES)
def test_a_file_with_stacked_experts_is_read_as_one_with_single_ones(family, tmp_path):
    """Some tools write what live models hold; the result has the hub's layout all the same."""
    model = tiny.make(family, dtype=torch.float32)
    model.save_pretrained(tmp_path / "single")
    shutil.copytree(tmp_path / "single", tmp_path / "stacked")
    live = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(live, tmp_path / "stacked/model.safetensors", {"format": "pt"})
    for kind in ("single", "stacked"):
        made = growkit.widen(tmp_path / kind, tmp_path / f"{kind}-wide", hidden=36, verify=True)
        assert made.report.ok and made.report.relative < 1e-5
    one, two = (load_file(tmp_path / f"{kind}-wide/model.safetensors") for kind in ("single", "stacked"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


SPARSE = [  # settings of 4 layers, depth, layers with experts afterwards, whether they had to be listed
    (dict(), dict(layers=8), "1 2 3 4 5 6 7 8", False),
    (dict(decoder_sparse_step=2), dict(layers=8), "2 4 6 8", False),
    (dict(decoder_sparse_step=2), dict(slices="2,4,2,1"), "1 2 3", True),
    (dict(decoder_sparse_step=2), dict(layers=8, method="interleave"), "3 4 7 8", True),
    (dict(mlp_only_layers=[0]), dict(layers=8), "2 3 4 6 7 8", False),
    (dict(mlp_only_layers=[1], decoder_sparse_step=2), dict(layers=6), "4 6", False),
    (dict(mlp_only_layers=[1], decoder_sparse_step=2), dict(layers=8, method="interleave"), "7 8", True),
]


@pytest.mark.parametrize(("settings", "depth", "expected", "listed"), SPARSE)
def test_layers_keep_their_experts_wherever_they_go(settings, depth, expected, listed):
    family = FAMILIES["qwen3_moe"]
    before = {"decoder_sparse_step": 1, "mlp_only_layers": [], "num_hidden_layers": 4, **settings}
    layers, config = layer_map([4], Depth(**depth)), dict(before)
    notes = deepen_config(family, config, [before], [4], {"": layers})
    assert [str(n + 1) for n in range(layers.new) if family.is_sparse(config, n)] == expected.split()
    assert bool(notes) == listed and (config["decoder_sparse_step"] == before["decoder_sparse_step"] or listed)


@pytest.mark.parametrize("family", tiny.MIXTURES)
def test_two_mixtures_are_stacked_and_load(family, tmp_path):
    for seed, name in enumerate("ab"):
        tiny.make(family, dtype=torch.float32, seed=seed).save_pretrained(tmp_path / name)
    made = growkit.stack([tmp_path / "a", tmp_path / "b"], tmp_path / "out", verify=True)
    assert not made.report.keys and str(made.plan.exactness) == "approximate"
    b, out = (load_file(tmp_path / name / "model.safetensors") for name in ("b", "out"))
    last = [name for name in b if ".layers.2." in name]
    assert last and all(torch.equal(b[name], out[name.replace("layers.2", "layers.5")]) for name in last)


@pytest.mark.parametrize("family", tiny.MIXTURES)
def test_a_token_passes_its_share_of_the_experts(family, tmp_path):
    """Counted in the stock model: weights of all modules but experts, and of the two of four experts that are taken."""
    model = tiny.make(family, dtype=torch.float32, tie_word_embeddings=False)
    model.save_pretrained(tmp_path / "src")
    shapes = {name: tuple(tensor.shape) for name, tensor in load_file(tmp_path / "src/model.safetensors").items()}
    routed = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    total = sum(p.numel() for p in model.parameters())
    config, row = model.config.to_dict(), FAMILIES[family]
    assert active(row, shapes, config) == total - routed // 2 == growkit.inspect(tmp_path / "src").active_parameters
    matrices = sum(prod(shape) for name, shape in shapes.items() if len(shape) == 2 and "embed_tokens" not in name)
    assert forward_flops(row, shapes, False, config) == 2 * (matrices - routed // 2)
    shown = run("inspect", tmp_path / "src").stdout
    assert f"{total - routed // 2:,} parameters active for one token" in shown and "routers" in shown


def test_copies_of_a_router_stay_equal_when_widened():
    """Slices of one copy tie by design: an uneven split of what they read would tell them apart by a rounding."""
    model = tiny.make("mixtral", num_experts_per_tok=2)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.gate.weight[1::2] = layer.mlp.gate.weight[0::2]
    state, _ = growkit.grow_state_dict(model.state_dict(), model.config, hidden=48)
    for name, tensor in state.items():
        if name.endswith("mlp.gate.weight"):
            assert torch.equal(tensor[1::2], tensor[0::2])


def test_an_uneven_width_is_announced_and_verified_all_the_same(tmp_path):
    """Rows that torch's grouped product refuses: stock transformers runs such experts one after another."""
    tiny.make("mixtral", dtype=torch.float32).save_pretrained(tmp_path / "src")
    made = growkit.widen(tmp_path / "src", tmp_path / "out", ffn=41, verify=True)
    assert made.report.ok and any("41 numbers are no multiple of 16 bytes" in note for note in made.plan.notes)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def save(name: str, family: str, *architecture, **changes):
    tiny.make(family, *architecture, dtype=torch.float32, **changes).save_pretrained(name)


PLAIN = dict(attention_bias=False, mlp_bias=False)
REFUSED = [  # family of a, its settings, options, part of the sentence
    ("gemma", {}, "", "'a' is a gemma, for which transformers has no mixture of experts that computes the same"),
    ("bert", {}, "", "growkit upcycles llama -> mixtral, mistral -> mixtral, qwen2 -> qwen2_moe, qwen3 -> qwen3_moe"),
    ("mixtral", {}, "", "'a' is a mixture of experts already (mixtral); upcycle takes dense models, and growkit grow"),
    ("llama", dict(attention_bias=True), "", "tensor 'model.layers.0.self_attn.k_proj.bias' of 'a' has no place in a mixtral"),
    ("llama", dict(mlp_bias=True), "", "has no place in a mixtral, which knows no such bias"),
    ("mistral", {}, "--experts 1", "--experts 1 is a dense model with a router"),
    ("mistral", {}, "--experts 0", "--experts 0 should be from 1 to 4096"),
    ("mistral", {}, "--experts 4 --top-k 5", "--top-k 5 is more than --experts 4"),
    ("mistral", {}, "--experts 6 --granularity 4", "--experts 6 is no multiple of --granularity 4"),
    ("mistral", {}, "--granularity 4", "--top-k 2 is no multiple of --granularity 4: a token takes all slices"),
    ("mistral", {}, "--experts 9 --top-k 3 --granularity 3", "--granularity 3 does not divide the 40 units"),
    ("qwen2", {}, "--experts 64 --top-k 32 --granularity 32", "--granularity 32 is more than the 20 units that are not shared"),
    ("mistral", {}, "--shared", "a mixtral, which a mistral becomes, has no shared expert; leave --shared out"),
    ("qwen3", {}, "--shared", "a qwen3_moe, which a qwen3 becomes, has no shared expert"),
    ("mistral", {}, "--layers 2nd", "a mixtral has experts in every layer, so a mistral cannot have them in 1 of 3"),
    ("qwen3", {}, "--layers 4th", "--layers '4th' should name layers of the source, which has 3"),
    ("qwen3", {}, "--layers 0,1", "--layers '0,1' should name layers of the source, which has 3, counted from 1"),
    ("qwen3", {}, "--layers some", "--layers 'some' should be every, 2nd or layer numbers such as 2,4,6"),
    ("mistral", {}, "--diversity more", "--diversity 'more' is not one of none, noise, noise:SHARE, drop, drop:SHARE"),
    ("mistral", {}, "--diversity none:1", "--diversity 'none:1' is not one of"),
    ("mistral", {}, "--diversity drop:1.5", "the share should be a number from 0 to 1"),
    ("mistral", {}, "--diversity drop:nan", "the share should be a number from 0 to 1"),
    ("mistral", {}, "--diversity noise:x", "the share should be a number from 0 to 1"),
    ("mistral", {}, "--diversity drop:0.02", "--diversity drop:0.02 draws none of the 40 units of an expert anew"),
    ("mistral", {}, "--router best", "--router 'best' is not one of normal, clusters"),
    ("mistral", {}, "--router clusters", "--router clusters needs a text whose hidden states it finds the clusters of: give --text FILE"),
    ("mistral", {}, "--text a/config.json", "--text is for --router clusters, not for --router normal"),
    ("mistral", {}, "--router clusters --text nosuch.txt", "cannot read text from 'nosuch.txt': no such file"),
    ("mistral", {}, "--dtype int8", "--dtype 'int8' is not one of float64, float32, bfloat16, float16"),
    ("qwen3", dict(use_sliding_window=True, sliding_window=4, max_window_layers=1), "", "has a sliding window in some layers only"),
]  # fmt: skip


@pytest.mark.parametrize(("family", "settings", "options", "says"), REFUSED)
def test_what_cannot_be_upcycled(here, family, settings, options, says):
    save("a", family, **({**PLAIN, **settings} if family == "llama" else settings))
    refused("upcycle", "a", *options.split(), "--dry-run" if "--text" in options else "--json", says=says)


SEVERAL = [  # family of b, its settings, options, part of the sentence
    ("llama", PLAIN, "", "'a' is a mistral and 'b' a llama; only models of one family become the experts of one"),
    ("mistral", dict(intermediate_size=44), "", "'a' and 'b' have ffn 40 and 44, which must be the same"),
    ("mistral", dict(vocab_size=67), "", "have vocab 61 and 67"),
    ("mistral", dict(num_hidden_layers=2), "", "have layer 3 and 2"),
    ("mistral", dict(rms_norm_eps=1e-5), "", "have rms_norm_eps 1e-06 and 1e-05"),
    ("mistral", {}, "--experts 7", "7 copies of a feed-forward layer cannot be dealt out evenly to 2 models; let --experts be a multiple of 2"),
    ("mistral", {}, "--router clusters --text a/config.json", "--router clusters takes one source"),
]  # fmt: skip


@pytest.mark.parametrize(("family", "settings", "options", "says"), SEVERAL)
def test_models_that_cannot_be_the_experts_of_one(here, family, settings, options, says):
    save("a", "mistral")
    save("b", family, seed=1, **settings)
    refused("upcycle", "a", "b", *options.split(), says=says)


def test_models_of_different_tokenizers(here):
    save("a", "mistral")
    shutil.copytree("a", "b")
    for name in "ab":
        (Path(name) / "tokenizer.json").write_text(json.dumps({"model": name}))
    refused("upcycle", "a", "b", says="'a' and 'b' have different tokenizer.json")


def test_what_mixtures_are_refused_for(here):
    save("a", "mixtral")
    refused("fuse", "a", "a", says="'a' is a mixture of experts (mixtral), whose members would need one router for all")
    shutil.copyfile("a/model.safetensors", "bare.safetensors")
    bare = ["widen", "bare.safetensors", "--hidden", "48", "--source-heads", "4"]
    refused(*bare, says="how many experts a token of a mixtral takes cannot be seen in shapes")
    save("dense", "qwen3")
    shutil.copyfile("dense/model.safetensors", "plain.safetensors")
    assert run("inspect", "plain.safetensors", "--source-heads", "4").exit_code == 0, "a dense model is no mixture"


def test_an_optimizer_state_does_not_become_that_of_a_mixture(here):
    save("a", "mistral")
    with pytest.raises(TypeError, match="unexpected keyword argument 'optimizer'"):
        growkit.upcycle("a", "out", optimizer="a/model.safetensors")


BROKEN = [
    (dict(num_local_experts=5), "lacks tensor 'model.layers.0.block_sparse_moe.experts.4.w1.weight' and 8 more"),
    (dict(num_local_experts=0), "should give 'num_local_experts' as a positive whole number, not 0"),
    (dict(num_experts_per_tok="two"), "should have num_experts_per_tok as a whole number"),
    (dict(num_experts_per_tok=5), "has num_experts_per_tok 5, more than its 4 experts"),
    (dict(intermediate_size=44), "has shape [40, 24] but config.json says [44, 24]"),
]


@pytest.mark.parametrize(("settings", "says"), BROKEN)
def test_a_mixture_whose_config_is_not_its_own(here, settings, says):
    save("a", "mixtral")
    config = Path("a/config.json")
    config.write_text(json.dumps({**json.loads(config.read_text()), **settings}))
    refused("widen", "a", "--hidden", "48", "--no-verify", says=says)


LISTS = [
    (dict(decoder_sparse_step=0), "should give 'decoder_sparse_step' as a positive whole number, not 0"),
    (dict(mlp_only_layers=3), "should have mlp_only_layers as a list"),
    (dict(mlp_only_layers=[0]), "lacks tensor 'model.layers.0.mlp.gate_proj.weight'"),
    (dict(num_experts=None, num_local_experts=None), "should give 'num_experts' as a positive whole number, not None"),
]


@pytest.mark.parametrize(("settings", "says"), LISTS)
def test_layers_with_experts_that_are_not_there(here, settings, says):
    save("a", "qwen3_moe", decoder_sparse_step=1)
    config = Path("a/config.json")
    config.write_text(json.dumps({**json.loads(config.read_text()), **settings}))
    refused("widen", "a", "--hidden", "48", "--no-verify", says=says)


@pytest.mark.parametrize("key", ["num_experts", "num_local_experts"])
def test_either_key_says_how_many_experts_there_are(here, key):
    """Releases of transformers differ in which of them they write; a widened config keeps its own."""
    save("a", "qwen3_moe")
    config = Path("a/config.json")
    said = {k: v for k, v in json.loads(config.read_text()).items() if k not in ("num_experts", "num_local_experts")}
    config.write_text(json.dumps({**said, key: 4}))
    assert growkit.widen("a", "out", hidden=48, verify=True).report.ok
    assert growkit.inspect("out").sizes["expert"] == 4


def test_the_tiny_mixtures_use_all_their_experts():
    """A control: what is exact above is exact with every expert at work."""
    for family in tiny.MIXTURES:
        model = tiny.make(family)
        chosen = []
        for name, module in model.named_modules():
            if name.endswith("mlp.gate"):
                module.register_forward_hook(lambda m, i, o, kept=chosen: kept.append(o[2].flatten()))
        logits(model, tiny.tokens())
        assert chosen and all(len(experts.unique()) == 4 for experts in chosen)
