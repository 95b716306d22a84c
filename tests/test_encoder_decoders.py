"""Encoder-decoders: each stack has layers of its own, grown in width as the plan says."""

import json

import pytest
import tiny
import torch
import transformers
from comparing import ALGEBRA, headers

import growkit
from growkit import CheckpointError, RequestError, grow_state_dict
from growkit.families import FAMILIES
from growkit.growth.grow_plan import grow_plan
from growkit.growth.request import grow_recipe
from growkit.models.running import objective

GATED = dict(feed_forward_proj="gated-gelu")
EXACT = [
    (dict(), dict(hidden=36, ffn=60)),
    (dict(tie_word_embeddings=False), dict(hidden=48)),  # a tied head whose stream is not scaled
    (dict(num_layers=3, num_decoder_layers=1, **GATED), dict(heads=6, head_dim=9)),
    (GATED, dict(ffn=41)),
]


def stepwise(model, ids, mask):
    """Logits token by token through the decoder's cache."""
    encoded, cache, steps = model.get_encoder()(input_ids=ids, attention_mask=mask), None, []
    for token in ids.flip(1).T:
        output = model(
            encoder_outputs=encoded, attention_mask=mask, decoder_input_ids=token[:, None], past_key_values=cache,
            use_cache=True,
        )  # fmt: skip
        cache = output.past_key_values
        steps.append(output.logits)
    return torch.cat(steps, dim=1)


def grown(model, growth: dict, **config):
    """(what the plan says of the function, the grown model)."""
    state, config = model.state_dict(), {**model.config.to_dict(), **config}
    plan = grow_plan([headers(state, config)], grow_recipe(**growth))
    return str(plan.exactness), tiny.rebuild(model, *grow_state_dict(state, config, **growth))


@pytest.mark.parametrize(("changes", "growth"), EXACT)
def test_exact(changes, growth):
    with tiny.float32_parts_in_double(), torch.no_grad():
        model = tiny.make("t5", **changes)
        exactness, wide = grown(model, growth)
        ids = tiny.tokens()
        mask = torch.ones_like(ids).index_fill(1, torch.tensor([9, 10]), 0)
        ours, theirs = (m(input_ids=ids, attention_mask=mask, decoder_input_ids=ids.flip(1)) for m in (model, wide))
        assert exactness == "exact" and tiny.relative(ours.logits, theirs.logits) <= ALGEBRA
        assert tiny.relative(ours.logits, stepwise(wide, ids, mask)) <= ALGEBRA


@pytest.mark.parametrize("scaled", [True, False])
def test_a_head_of_its_own_keeps_the_scale_of_what_it_reads(scaled, tmp_path):
    model = tiny.make("t5", scale_decoder_outputs=scaled)
    model.lm_head.weight = torch.nn.Parameter(torch.randn(61, 24, dtype=torch.float64))
    model.save_pretrained(tmp_path / "src")
    result = growkit.widen(tmp_path / "src", tmp_path / "out", hidden=48, verify=True)
    assert result.report.ok and result.report.relative < 1e-5 and result.report.loss_source is None
    loaded = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert loaded.config.scale_decoder_outputs is scaled and not loaded.lm_head.weight.equal(loaded.shared.weight)


def test_an_encoder_alone_grows():
    with tiny.float32_parts_in_double(), torch.no_grad():
        model = tiny.make("t5", "T5EncoderModel")
        exactness, wide = grown(model, dict(ffn=60, heads=8), architectures=["T5EncoderModel"])
        ids = tiny.tokens()
        ours, theirs = (m(input_ids=ids).last_hidden_state for m in (model, wide))
        assert exactness == "exact" and tiny.relative(ours, theirs) <= ALGEBRA


def test_a_tied_head_behind_the_norm_of_the_last_layer(tmp_path):
    """Which carries what such a head cannot, and no other does; names that a config has for one size stay one."""
    model = tiny.make("bart", decoder_layers=2, scale_embedding=True)
    model.save_pretrained(tmp_path / "src")
    stated = json.loads((tmp_path / "src/config.json").read_text())
    (tmp_path / "src/config.json").write_text(json.dumps(stated | {"num_hidden_layers": 3, "hidden_size": 24}))
    result = growkit.widen(tmp_path / "src", tmp_path / "out", hidden=48, verify=True)
    assert result.report.ok and result.report.relative < 1e-5
    loaded = transformers.BartForConditionalGeneration.from_pretrained(tmp_path / "out", dtype=torch.float64)
    gains = [[layer.final_layer_norm.weight[:24] for layer in one.model.decoder.layers] for one in (model, loaded)]
    assert loaded.config.hidden_size == 48 and torch.equal(gains[0][0], gains[1][0])
    assert torch.allclose(gains[0][1] / 2**0.5, gains[1][1], rtol=1e-12)
    (tmp_path / "src/config.json").write_text(json.dumps(stated | {"hidden_size": 32}))
    with pytest.raises(CheckpointError, match="d_model as 24 but 'hidden_size' as 32"):
        growkit.widen(tmp_path / "src", tmp_path / "other", hidden=48)


def test_an_encoder_of_sounds(tmp_path):
    model = tiny.make("whisper", dtype=torch.float32)
    model.save_pretrained(tmp_path / "src")
    settings = tmp_path / "src/generation_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"alignment_heads": [[1, 2], [2, 0]]}))
    deep = dict(hidden=48, layers=5, depth="identity", after=[1, 2])
    for exactness, growth in (("exact", deep), ("near", dict(hidden=36, heads=4))):
        result = growkit.grow(tmp_path / "src", tmp_path / exactness, verify=True, **growth)
        assert result.report.ok and (result.report.compared, result.report.exactness) == ("logits", exactness)
    carried = json.loads((tmp_path / "exact/generation_config.json").read_text())
    assert carried["alignment_heads"] == [[2, 2], [4, 0]]  # which tell when a word is said
    tiny.make("whisper", num_mel_bins=6, dtype=torch.float32).save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match="does not hear sounds as the source does"):
        growkit.verify(tmp_path / "src", tmp_path / "other")


def test_stacks_grow_as_many_times_over():
    """An inserted layer adds nothing to either stack; what the first layer alone has stays with the first."""
    with tiny.float32_parts_in_double(), torch.no_grad():
        model = tiny.make("t5", num_layers=3, num_decoder_layers=1)
        exactness, deep = grown(model, dict(layers=6, depth="identity", hidden=48))
        ids = tiny.tokens()
        ours, theirs = (m(input_ids=ids, decoder_input_ids=ids.flip(1)).logits for m in (model, deep))
        assert exactness == "exact" and tiny.relative(ours, theirs) <= ALGEBRA
        assert (deep.config.num_layers, deep.config.num_decoder_layers) == (6, 2)
    model = tiny.make("t5")
    _, other = grown(model, dict(slices="3,1-2,1"))
    name = "SelfAttention.relative_attention_bias.weight"
    kept = [found for found in other.state_dict() if found.endswith(name)]
    assert kept == [f"{stack}.block.0.layer.0.{name}" for stack in ("encoder", "decoder")]
    assert all(other.state_dict()[found].equal(model.state_dict()[found]) for found in kept)


def test_the_last_norm_of_a_deeper_model_is_the_one_that_carries_a_tied_head():
    model = tiny.make("bart")
    _, deep = grown(model, dict(layers=6, depth="stack", hidden=48))
    gains = [layer.final_layer_norm.weight[:24] for layer in deep.model.decoder.layers]
    own = [layer.final_layer_norm.weight for layer in model.model.decoder.layers]
    assert torch.equal(gains[2], own[2]) and torch.allclose(gains[5], own[2] / 2, rtol=1e-12)


UNEVEN = [
    (dict(layers=4), "its encoder has 3 layers and its decoder 2, .* the other would have 2.67; take a multiple of 3"),
    (dict(depth="identity", after=[3]), "--after speaks of the layers of one stack, and its encoder has 3 layers"),
    (dict(layers=6, depth="average"), "average is for models of one stack"),
]


@pytest.mark.parametrize(("growth", "sentence"), UNEVEN)
def test_stacks_that_cannot_grow_alike(growth, sentence):
    model = tiny.make("bart", decoder_layers=2)
    with pytest.raises(RequestError, match=sentence):
        grown(model, growth)


def test_like_another_whose_stacks_are_other_in_proportion(tmp_path):
    tiny.make("whisper").save_pretrained(tmp_path / "src")
    for name, changes in (("twice", dict(decoder_layers=6)), ("turbo", dict(decoder_layers=1))):
        tiny.make("whisper", d_model=48, encoder_layers=6, **changes).save_pretrained(tmp_path / name)
    plan = growkit.grow(tmp_path / "src", like=tmp_path / "twice", depth="identity", dry_run=True).plan
    assert [plan.config[key] for key in ("d_model", "encoder_layers", "decoder_layers")] == [48, 6, 6]
    with pytest.raises(RequestError, match="has 6 layers and 1 in its decoder, the source 3 and 3; both grow as many"):
        growkit.grow(tmp_path / "src", like=tmp_path / "turbo", dry_run=True)


def test_layers_are_counted_in_each_stack():
    model = tiny.make("t5")
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("decoder.block.2.")}
    with pytest.raises(CheckpointError, match=r"3 layers of its decoder .* tensors of 2"):
        grow_state_dict(state, model.config, hidden=48)
    state = {name: tensor for name, tensor in model.state_dict().items() if "decoder" not in name}
    with pytest.raises(CheckpointError, match=r"3 layers of its decoder .* tensors of 0"):
        grow_state_dict(state, {**model.config.to_dict(), "architectures": ["T5ForConditionalGeneration"]}, ffn=60)


def test_a_head_that_names_do_not_show_is_not_guessed():
    model = tiny.make("t5")
    body = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    with pytest.raises(CheckpointError, match="say which class it is under 'architectures'"):
        grow_state_dict(body, model.config, hidden=48)
    stated = {**model.config.to_dict(), "architectures": ["T5ForConditionalGeneration"]}
    whole, _ = grow_state_dict(model.state_dict(), stated, hidden=48)
    state, _ = grow_state_dict(body, stated, hidden=48)
    assert all(tensor.equal(whole[name]) for name, tensor in state.items())


def test_a_second_number_in_a_name_is_no_expert_by_accident():
    t5 = FAMILIES["t5"]
    assert not t5.of_each_expert("decoder.block.1.layer.2.DenseReluDense.wi.weight")
    assert t5.in_layer("decoder.block.1.layer.2.DenseReluDense.wi.weight", 7).startswith("decoder.block.7.layer.2.")
    with pytest.raises(CheckpointError, match="is not one of the t5 family's"):
        t5.axes_of("encoder.block.1.layer.2.DenseReluDense.wi.weight")


def test_what_is_not_there_yet_is_refused(tmp_path):
    model = tiny.make("t5", dtype=torch.float32)
    model.save_pretrained(tmp_path / "src")
    with pytest.raises(RequestError, match="attention from one stack of layers to another"):
        growkit.panel(tmp_path / "src", tmp_path / "panel", rank=4)
    assert not (tmp_path / "panel").exists()
    (tmp_path / "src/config.json").unlink()
    with pytest.raises(RequestError, match="scales its embeddings or gates its layers cannot be seen in shapes"):
        growkit.widen(tmp_path / "src", tmp_path / "out", ffn=60, source_heads=4, family="t5")
    with pytest.raises(CheckpointError, match="pretrain, tune, teach and eval are for models of one stack"):
        objective({**model.config.to_dict(), "architectures": ["T5ForConditionalGeneration"]}, "tiny")
