"""Encoders beyond BERT and its nearest: grown as the plan says, whichever class, width of the embeddings or setting."""

import pytest
import tiny
import torch
import transformers
from comparing import ALGEBRA, DIFFERS, embed, headers, logits, stepwise
from covering import sample
from on_disk import edit_weights, saved
from safetensors.torch import load_file
from tiny_runs import dataset
from tokenizers import Tokenizer, models, pre_tokenizers

import growkit
from growkit import CheckpointError, RequestError, grow_state_dict
from growkit.checkpoint.headers import read_header
from growkit.data.batches import batch_of
from growkit.families import FAMILIES
from growkit.growth.grow_plan import grow_plan
from growkit.growth.infer import infer_family
from growkit.growth.optimizer import read_rates
from growkit.growth.plan import forward_flops
from growkit.growth.request import grow_recipe
from growkit.growth.source_headers import is_tied
from growkit.models.compare import collapse
from growkit.models.small.targets import linear_layers
from growkit.training.flops import step_flops
from growkit.training.objective import Predicted
from growkit.training.optim import adamw, load_state

FREE = tuple(family for family in tiny.MORE if "" not in FAMILIES[family].forbids)  # whatever their settings
SOME = sample(FREE)
POST = tuple(family for family in tiny.MORE if FAMILIES[family].norms.after)
SETTINGS = [  # a family, what its config says beside the tiny one's
    ("modernbert", dict(norm_bias=False, attention_bias=False, mlp_bias=False, decoder_bias=False)),
    ("electra", dict(embedding_size=24)),
    ("albert", dict(embedding_size=24)),
    ("albert", dict(num_hidden_groups=2)),
    ("eurobert", dict(attention_bias=False, mlp_bias=False, head_dim=8)),
    ("deberta-v2", dict(embedding_size=24)),
    ("deberta-v2", dict(embedding_size=24, legacy=False, share_att_key=True, position_biased_input=False)),
    ("deberta-v2", dict(conv_kernel_size=3, conv_act="gelu")),
    ("deberta-v2", dict(pos_att_type=["p2c"], norm_rel_ebd="none", attention_head_size=6, position_buckets=-1)),
]


def outputs(model) -> list[torch.Tensor]:
    """What a model puts out for tokens some of which are padding, the others' alone."""
    ids = tiny.tokens(batch=2)
    inputs = dict(input_ids=ids, attention_mask=torch.ones_like(ids).index_fill(1, torch.tensor([9, 10]), 0))
    if getattr(model.config, "type_vocab_size", 0) == 2:
        inputs["token_type_ids"] = ids % 2
    if type(model).__name__.endswith("MultipleChoice"):
        inputs = {name: value[:, None] for name, value in inputs.items()}
    with torch.no_grad(), tiny.float32_parts_in_double():
        found = model(**inputs)
    floats = [value for value in found.values() if isinstance(value, torch.Tensor) and value.is_floating_point()]
    return [value[:, :9] if value.dim() > 1 and value.shape[1] == 11 else value for value in floats]


def grown(family: str, architecture: str, growth: dict, **changes):
    """(plan, how far the outputs of the grown model are from the source's)."""
    with tiny.float32_parts_in_double():
        model = tiny.make(family, architecture, **{"pad_token_id": 1, **changes})
        config = {**model.config.to_dict(), "architectures": [architecture]}
        state = model.state_dict()
        plan = grow_plan([headers(state, config)], grow_recipe(**growth))
        result = tiny.rebuild(model, *grow_state_dict(state, config, **growth))
    pairs = []
    for place, (ours, theirs) in enumerate(zip(outputs(model), outputs(result))):
        if ours.shape != theirs.shape:  # a base model's hidden states, then what it pools
            theirs = collapse(theirs, plan.growth.maps[("hidden", "pooled")[place]])
        pairs.append(tiny.relative(ours, theirs))
    return plan, max(pairs)


def classes(family: str) -> list[str]:
    tasks = ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice", "PreTraining")
    names = [f"{tiny.STEMS[family]}For{task}" for task in tasks] + [f"{tiny.STEMS[family]}Model"]
    return [name for name in names if hasattr(transformers, name)]


@pytest.mark.parametrize("family", sample(tiny.MORE))
def test_every_class_comes_through(family):
    for architecture in classes(family):
        plan, distance = grown(family, architecture, dict(hidden=48))
        assert str(plan.exactness) == "exact" and distance <= ALGEBRA, architecture


@pytest.mark.parametrize(("family", "changes"), SETTINGS)
def test_settings(family, changes):
    plan, distance = grown(family, tiny.language_model(family), dict(hidden=48), **changes)
    assert str(plan.exactness) == "exact" and distance <= ALGEBRA


def test_a_convolution_grows_by_multiples():
    with pytest.raises(
        RequestError, match="hidden grows by multiples of 24 with conv_kernel_size 3: what its convolution"
    ):
        grown("deberta-v2", "DebertaV2ForMaskedLM", dict(hidden=36), conv_kernel_size=3)
    with pytest.raises(CheckpointError, match="conv_groups 2, which growkit cannot grow"):
        grown("deberta-v2", "DebertaV2ForMaskedLM", dict(hidden=48), conv_kernel_size=3, conv_groups=2)
    for growth in (dict(hidden=72, noise=0.9), dict(hidden=48, ffn=90, head_dim=12)):
        plan, distance = grown("deberta-v2", "DebertaV2ForMaskedLM", growth, conv_kernel_size=3)
        assert str(plan.exactness) == "exact" and distance <= ALGEBRA


@pytest.mark.parametrize("family", SOME)
def test_a_width_that_is_no_multiple(family):
    """Near where a norm writes what is read next, and where the head has a norm of its own."""
    expected = "exact" if family == "eurobert" else "near"
    plan, distance = grown(family, tiny.language_model(family), dict(hidden=30, heads=5 if family != "eurobert" else 6))
    assert str(plan.exactness) == expected and (
        distance <= ALGEBRA if expected == "exact" else DIFFERS < distance < 0.5
    )


@pytest.mark.parametrize("family", SOME)
def test_depth(family):
    if FAMILIES[family].passes:
        with pytest.raises(CheckpointError, match=f"{family} passes the layer it has 3 times: it grows in width"):
            grown(family, tiny.language_model(family), dict(layers=5, depth="identity"))
        return
    plan, distance = grown(family, tiny.language_model(family), dict(layers=5, depth="identity"))
    expected = "approximate" if family in POST else "exact"
    assert str(plan.exactness) == expected and (distance <= ALGEBRA) == (expected == "exact")


@pytest.mark.parametrize("family", ["modernbert", "modernbert-decoder"])
def test_slots_turn_by_two_bases(family):
    """Heads half as many again: the bases of both kinds of layers follow, and so does the cache."""
    with tiny.float32_parts_in_double():
        model = tiny.make(family)
        state, config = grow_state_dict(model.state_dict(), model.config, hidden=48, head_dim=8)
        result = tiny.rebuild(model, state, config)
        ids = tiny.tokens()
        assert tiny.relative(logits(model, ids), logits(result, ids)) <= ALGEBRA
        if family == "modernbert-decoder":
            assert tiny.relative(logits(model, ids), stepwise(result, ids)) <= ALGEBRA
    bases = {kind: one["rope_theta"] for kind, one in config["rope_parameters"].items()}
    assert bases == pytest.approx({"full_attention": 160_000 ** (8 / 6), "sliding_attention": 10_000 ** (8 / 6)})


def test_a_copy_of_the_first_layer_has_the_norm_of_the_embeddings_before_it():
    model = tiny.make("modernbert")
    config = {key: value for key, value in model.config.to_dict().items() if key != "layer_types"}
    config["global_attn_every_n_layers"] = 2
    state, deeper = grow_state_dict(model.state_dict(), config, layers=6)
    assert torch.equal(state["model.layers.3.attn_norm.weight"], state["model.embeddings.norm.weight"])
    assert torch.equal(state["model.layers.3.attn_norm.bias"], state["model.embeddings.norm.bias"])
    kinds = ["full_attention", "sliding_attention", "full_attention"] * 2
    assert deeper["layer_types"] == kinds and "model.layers.0.attn_norm.weight" not in state
    tiny.rebuild(model, state, deeper)
    state, shorter = grow_state_dict(model.state_dict(), config, slices="2-3")
    assert "model.layers.0.attn_norm.weight" not in state
    assert torch.equal(state["model.layers.1.attn_norm.weight"], model.state_dict()["model.layers.2.attn_norm.weight"])
    tiny.rebuild(model, state, shorter)


def test_an_electra_that_would_lose_its_projection_is_refused():
    wide = dict(embedding_size=48)
    with pytest.raises(RequestError, match="hidden 48 is the width of the embeddings, for which"):
        grown("electra", "ElectraForMaskedLM", dict(hidden=48), **wide)
    plan, distance = grown("electra", "ElectraForMaskedLM", dict(hidden=72), **wide)
    assert str(plan.exactness) == "exact" and distance <= ALGEBRA


def test_a_discriminator_has_no_language_head():
    family = FAMILIES["electra"]
    discriminator = headers({}, {"architectures": ["ElectraForPreTraining"]})
    assert not is_tied(family, discriminator) and family.has_language_head("ElectraForMaskedLM")


def test_a_shared_layer_counts_as_often_as_it_is_passed():
    model = tiny.make("albert")
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    config = model.config.to_dict()
    one, three = (
        forward_flops(FAMILIES["albert"], shapes, True, {**config, "num_hidden_layers": passes}) for passes in (1, 3)
    )
    layer = 4 * 24 * 24 + 2 * 24 * 40
    assert three - one == 2 * 2 * layer
    runs = [step_flops(tiny.make("albert", num_hidden_layers=passes), 10, 5, 1, 1) for passes in (1, 3)]
    assert runs[1] - runs[0] == 2 * 10 * (6 * layer + 12 * 24 * 5)
    assert {layer.module.split(".")[-1] for layer in linear_layers(model)} >= {"query", "dense", "ffn", "ffn_output"}


def test_a_head_that_cannot_be_the_embedding_is_refused():
    model = tiny.make("deberta-v2", embedding_size=12, legacy=False)
    with pytest.raises(CheckpointError, match="head reads 24 entries, and the embedding it is tied to has 12"):
        grow_state_dict(model.state_dict(), model.config.to_dict(), hidden=48)


def test_kin_of_one_table_is_taken_for_the_first():
    """Files without a config whose names and code are RoBERTa's are read as one."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tiny.make("camembert").state_dict().items()}
    assert infer_family(shapes).model_type == "roberta"


@pytest.mark.parametrize(("family", "positions"), [("bert", "position_embeddings.weight"), ("gpt2", "wpe.weight")])
def test_what_has_no_positions_is_not_taken_for_kin_that_have(family, positions):
    """BERTs with ALiBi have BERT's names, but for the table of positions that they lack."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tiny.make(family).state_dict().items()}
    assert infer_family(shapes).model_type == family
    with pytest.raises(CheckpointError, match="fit none of the"):
        infer_family({name: shape for name, shape in shapes.items() if not name.endswith(positions)})


def test_files_whose_names_are_not_those_of_models_say_their_family(tmp_path):
    tiny.make("nomic_bert", dtype=torch.float32).save_pretrained(tmp_path)
    shapes = {name: tensor.shape for name, tensor in read_header(tmp_path / "model.safetensors").items()}
    assert any(name.endswith("Wqkv.weight") for name in shapes) and infer_family(shapes).model_type == "nomic_bert"


def test_a_head_without_a_norm_is_exact_at_any_width():
    """What is near in XLM-RoBERTa-XL is its language-model head alone."""
    plan, distance = grown("xlm-roberta-xl", "XLMRobertaXLForTokenClassification", dict(hidden=36))
    assert str(plan.exactness) == "exact" and distance <= ALGEBRA


@pytest.mark.parametrize("family", ["nomic_bert", "gte"])
def test_names_that_files_have(tmp_path, family):
    """Files hold queries, keys and values in one tensor under older names; what is written has a live model's."""
    tiny.make(family, dtype=torch.float32).save_pretrained(tmp_path / "src")
    stored = load_file(tmp_path / "src" / "model.safetensors")
    assert any("qkv" in name for name in stored), "transformers no longer writes the names that this is about"
    done = growkit.widen(tmp_path / "src", tmp_path / "out", hidden=48, verify=True)
    assert done.report.ok and not any("qkv" in name for name in load_file(tmp_path / "out" / "model.safetensors"))
    assert growkit.widen(tmp_path / "out", tmp_path / "more", hidden=96, verify=True).report.ok


def test_a_tensor_that_is_not_whole_pieces_is_refused(tmp_path):
    tiny.make("nomic_bert", dtype=torch.float32).save_pretrained(tmp_path / "src")

    def cut(state):
        name = next(name for name in state if "Wqkv" in name)
        state[name] = state[name][:-1].clone()

    edit_weights(tmp_path / "src", cut)
    with pytest.raises(CheckpointError, match=r"Wqkv.weight' has 71 rows, which should be 3 equal parts"):
        growkit.widen(tmp_path / "src", tmp_path / "out", hidden=48)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["nomic_bert"])
def test_an_embedder_grows_with_its_modules(tmp_path, family):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Pooling, Transformer

    tiny.make(family, f"{tiny.STEMS[family]}Model", dtype=torch.float32).save_pretrained(tmp_path / "body")
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "growing": 2, "is": 3, "fun": 4}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]")
    fast.save_pretrained(tmp_path / "body")
    parts = [Transformer(str(tmp_path / "body")), Pooling(24), Dense(24, 7)]
    SentenceTransformer(modules=parts, device="cpu").save(str(tmp_path / "source"))
    done = growkit.widen(tmp_path / "source", tmp_path / "wide", hidden=48, verify=True)
    texts = ["growing is fun", "is growing fun", "fun"]
    ours, theirs = (embed(tmp_path / name, texts) for name in ("source", "wide"))
    assert done.report.cosine == pytest.approx(1.0, abs=1e-9) and tiny.relative(ours, theirs) < 1e-5


@pytest.mark.parametrize(
    "changes", [{}, dict(legacy=False, embedding_size=24), dict(legacy=False, embedding_size=24, share_att_key=True)]
)
def test_a_head_that_asks_its_base_model_for_the_embeddings_learns(changes):
    """What a run computes of the head on its own is what the whole model puts out."""
    model = tiny.make("deberta-v2", **changes)
    ids = tiny.tokens()
    predicted = Predicted(model, batch_of(ids, ids))
    assert tiny.relative(model(ids).logits.flatten(0, 1), predicted.logits(predicted.hidden)) < 1e-6


def test_stages_of_a_shared_layer_are_refused(tmp_path):
    tiny.make("albert", dtype=torch.float32).save_pretrained(tmp_path / "src")
    data = dataset(tmp_path / "data", 400)
    with pytest.raises(RequestError, match="albert passes the layers it has again and again"):
        growkit.pretrain(tmp_path / "src", data=data, out=tmp_path / "run", steps=8, seq_len=16, schedule="two-stage")


def test_state_of_a_tied_head_that_stands_before_its_embedding(tmp_path):
    """XLM-RoBERTa's classes name the head first: so its AdamW state is called, and the multipliers that go with it are
    found."""
    _, state = saved("xlm-roberta", tmp_path / "src")
    assert "lm_head.decoder.weight.exp_avg" in state
    growkit.widen(
        tmp_path / "src", tmp_path / "out", hidden=48, optimizer=tmp_path / "src" / "adam.safetensors", noise=0
    )
    grown_state = load_file(tmp_path / "out" / "optimizer" / "optimizer.safetensors")
    assert grown_state["lm_head.decoder.weight.exp_avg"].shape == (61, 48)
    wide = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out")
    optimizer = adamw(wide, 0.1, (0.9, 0.99), 1e-8, read_rates(tmp_path / "out" / "lr_multipliers.json"))
    load_state(optimizer, wide, tmp_path / "out" / "optimizer" / "optimizer.safetensors")
    embedding = wide.get_input_embeddings().weight
    assert optimizer.state[embedding]["step"].item() == 1000
    group = next(group for group in optimizer.param_groups if any(p is embedding for p in group["params"]))
    rates = read_rates(tmp_path / "out" / "lr_multipliers.json")
    assert group["own"][0] == rates["roberta.embeddings.word_embeddings.weight"]["lr"]
    other = read_rates(tmp_path / "out" / "lr_multipliers.json")["roberta.encoder.layer.0.output.dense.weight"]
    assert other["lr"] != group["own"][0] or other["eps"] != group["own"][2]
