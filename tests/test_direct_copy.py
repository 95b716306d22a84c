"""Direct copy: the source in a corner of the larger model bit for bit, and all else as transformers draws a new model's
weights (bert2BERT's baseline, arXiv 2110.07143)."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from on_disk import written
from safetensors.torch import load_file, save_file

import growkit
from growkit.errors import CheckpointError, RequestError
from growkit.families import FAMILIES
from growkit.family_check.small_models import small_model, stock_classes, stored
from growkit.growth.request import grow_recipe
from growkit.growth.state_dict import planned_and_grown
from growkit.growth.width.direct_copy import cornered
from growkit.maps.axis import ABSENT, GATHER, copies, cyclic_index
from growkit.models.stock import unfilled_model
from growkit.training.blank import first_names
from growkit.training.new_weights import new_weight, with_new_weights

DIRECT = dict(method="direct-copy")
# one of each way to draw: plain, by depth, an own deviation for embeddings, scaled by sizes, a gain stored less 1
WAYS = ("llama", "gpt2", "bert", "modernbert", "youtu", "t5", "gemma", "nemotron", "clip", "vit", "llava")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corner")
    tiny.make("llama", dtype=torch.float32, tie_word_embeddings=True).save_pretrained(folder / "llama")
    tiny.make("mixtral", dtype=torch.float32).save_pretrained(folder / "mixtral")
    growkit.grow(folder / "llama", folder / "large", hidden=48, heads=8, kv_heads=4, ffn=64, layers=6, **DIRECT)
    return folder


def tensors(folder):
    return load_file(Path(folder, "model.safetensors"))


def grown(family, **request):
    """(plan, source's tensors, grown tensors) of a small stock model, float64."""
    kind = stock_classes(FAMILIES[family])[0]
    model = small_model(FAMILIES[family], kind, 0, torch.float64)
    state = stored(FAMILIES[family], model)
    config = {**model.config.to_dict(), "architectures": [kind.__name__]}
    request = grow_recipe(**request, **DIRECT)
    plan, after = planned_and_grown(state, config, request, with_new_weights)
    return plan, state, after


@pytest.mark.parametrize("family", WAYS)
def test_the_source_lies_in_a_corner_and_all_else_is_a_new_models(family):
    hidden = small_model(FAMILIES[family], stock_classes(FAMILIES[family])[0], 0).config.get_text_config()
    plan, before, after = grown(family, hidden=2 * hidden.hidden_size)
    assert str(plan.exactness) == "approximate"
    model = unfilled_model(plan.config, family, torch.device("meta"), torch.float32)
    names = first_names(plan.family, [*after], model)
    opened = 0
    for tensor in plan.tensors:
        (part,), rule = tensor.parts, tensor.parts[0].rule
        large, small = after[tensor.name], before[part.name]
        flat = large.T if rule.transposed else large.reshape(rule.rows.new, -1)
        rows, columns = (torch.from_numpy(side.mode == GATHER) for side in (rule.rows, rule.columns))
        corner = flat[rows][:, columns]
        source = small.T if rule.transposed else small.reshape(rule.rows.old, -1)
        kept = source[rule.rows.index[rows.numpy()]][:, rule.columns.index[columns.numpy()]]
        assert kept.numel() == small.numel(), tensor.name  # all of it is there, once
        corner, kept = corner + rule.offset, kept + rule.offset  # gains that are stored less 1
        scale = corner[kept != 0] / kept[kept != 0]
        # what a class multiplies itself by its width, embeddings and what a tied head reads, is undone, and nothing else
        assert len(scale) == 0 or float(scale.max() - scale.min()) < 1e-12, tensor.name
        rest = flat[~(rows[:, None] & columns)]
        opened += len(rest)
        if len(rest):
            new = new_weight(model, names[tensor.name], 0).double()
            new = new.T if rule.transposed else new.reshape(rule.rows.new, -1)
            assert torch.equal(rest, new[~(rows[:, None] & columns)]), tensor.name
    assert opened > 1000


@pytest.mark.parametrize("family", WAYS)
def test_new_weights_are_those_of_a_new_stock_model(family):
    """The same moments, tensor by tensor, as where the class makes a whole model of its own accord."""
    kind = stock_classes(FAMILIES[family])[0]
    config = small_model(FAMILIES[family], kind, 0).config
    said = {**config.to_dict(), "architectures": [kind.__name__]}
    blank = unfilled_model(said, family, torch.device("meta"), torch.float32)
    torch.manual_seed(0)
    for name, whole in kind(config).named_parameters():
        if whole.numel() < 100:
            continue
        whole = whole.detach()
        drawn = new_weight(blank, name, 0)
        assert abs(float(drawn.mean() - whole.mean())) <= 0.3 * float(whole.std()) + 1e-6, name
        assert float(drawn.std()) == pytest.approx(float(whole.std()), rel=0.35, abs=1e-6), name
        zeros = (whole == 0).float().mean()
        assert float((drawn == 0).float().mean()) == pytest.approx(float(zeros), abs=0.02), name
    assert all(parameter.is_meta for parameter in blank.parameters())


def test_each_tensor_has_a_draw_of_its_own_and_one_seed_one_result(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    request = dict(hidden=48, heads=8, kv_heads=4, ffn=64, layers=6, **DIRECT)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    made = growkit.grow(world / "llama", **request)
    assert torch.equal(torch.get_rng_state(), before)  # nobody else's numbers are drawn
    assert made.folder.name == "llama-h48-heads8-kv4-ffn64-direct-copy-l6" and made.plan.recipe.noise == 0
    assert written(made.folder) == written(world / "large")
    one, other = tensors(made.folder), tensors(growkit.grow(world / "llama", "other", seed=1, **request).folder)
    first, fourth = (one[f"model.layers.{layer}.mlp.up_proj.weight"] for layer in (0, 3))
    source = tensors(world / "llama")["model.layers.0.mlp.up_proj.weight"]
    rows, columns = source.shape
    assert torch.equal(first[:rows, :columns], source) and torch.equal(fourth[:rows, :columns], source)
    assert not torch.equal(first[rows:], fourth[rows:])
    assert not torch.equal(first[rows:], other["model.layers.0.mlp.up_proj.weight"][rows:])
    assert growkit.verify(world / "llama", made.folder).tolerance is None  # nothing is promised


def test_a_model_in_memory_grows_to_the_same(world):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(world / "llama", dtype=torch.float32)
    after, _ = growkit.grow_state_dict(
        model.state_dict(), model.config, hidden=48, heads=8, kv_heads=4, ffn=64, layers=6, **DIRECT
    )
    on_disk = tensors(world / "large")
    assert all(torch.equal(after[name], on_disk[name]) for name in on_disk)


def test_inserted_layers_still_add_nothing(world, tmp_path):
    growkit.grow(world / "llama", tmp_path / "deep", hidden=48, layers=4, depth="identity", **DIRECT)
    growkit.widen(world / "llama", tmp_path / "wide", hidden=48, **DIRECT)
    deep, wide = growkit.verify(tmp_path / "wide", tmp_path / "deep"), tensors(tmp_path / "deep")
    # layers are named anew, so what is drawn is drawn anew; but what writes to the stream is 0
    assert deep.tolerance is None
    silent = [name for name in wide if name.endswith(("o_proj.weight", "down_proj.weight")) and not wide[name].any()]
    assert len(silent) == 2


def test_free_slots_are_not_taken_for_a_source():
    axis = copies(4, cyclic_index(4, 10))
    corner = cornered({"ffn": axis, "vocab": copies(3, cyclic_index(3, 3))})
    assert [*corner["ffn"].sides["write"].mode] == [GATHER] * 4 + [ABSENT] * 6
    assert corner["vocab"].is_identity
    plan, _, _ = grown("llama", head_dim=16)
    for name in ("query_dim", "key_dim", "value_dim"):
        sides = plan.growth.maps[name].sides
        held = plan.growth.maps[name].index[sides["write"].mode == GATHER]
        assert sorted(held) == [*range(plan.growth.maps[name].old)], name


def test_states_beside_the_weights_stay_behind(world, tmp_path):
    shutil.copytree(world / "llama", tmp_path / "source")
    state = {}
    for name, tensor in tensors(world / "llama").items():
        state |= {f"{name}.exp_avg": torch.zeros_like(tensor), f"{name}.exp_avg_sq": torch.zeros_like(tensor)}
    (tmp_path / "source" / "optimizer").mkdir()
    file = tmp_path / "source" / "optimizer" / "optimizer.safetensors"
    save_file(state, file)
    made = growkit.widen(tmp_path / "source", tmp_path / "out", hidden=48, **DIRECT)
    assert not made.carried and not (tmp_path / "out" / "optimizer").exists()
    assert any("is left out" in note for note in made.plan.notes)
    with pytest.raises(RequestError, match="--optimizer FILE grows by copies"):
        growkit.widen(tmp_path / "source", tmp_path / "no", hidden=48, optimizer=file, **DIRECT)
    assert not (tmp_path / "no").exists()
    deeper = growkit.grow(tmp_path / "source", tmp_path / "deeper", layers=4, **DIRECT)  # in depth all are copies
    assert deeper.carried and not any("is left out" in note for note in deeper.plan.notes)


def test_a_dense_layer_stays_where_the_stream_does(tmp_path):
    source = tmp_path / "sentences"
    tiny.make("bert", "BertModel", dtype=torch.float32).save_pretrained(source)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")]
    said = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in modules]
    (source / "modules.json").write_text(json.dumps(said))
    for path, settings in (("1_Pooling", {"word_embedding_dimension": 24}), ("2_Dense", {"in_features": 24})):
        (source / path).mkdir()
        (source / path / "config.json").write_text(json.dumps(settings))
    save_file({"linear.weight": torch.ones(16, 24)}, source / "2_Dense" / "model.safetensors")
    with pytest.raises(RequestError, match=r"a Dense layer of its own.*take another --method than direct-copy"):
        growkit.widen(source, tmp_path / "out", hidden=48, **DIRECT)
    made = growkit.widen(source, tmp_path / "out", ffn=48, **DIRECT).folder
    assert torch.equal(tensors(made / "2_Dense")["linear.weight"], torch.ones(16, 24))


@pytest.mark.parametrize(
    "source, request_, says",
    [
        ("llama", dict(hidden=48, noise=0.1), "--noise parts copies, and --method direct-copy makes none"),
        ("llama", dict(hidden=48, mapping="random"), "--mapping says what is copied"),
        ("llama", dict(heads=4, kv_heads=4), "each kv head keeps its 2 query heads.*--kv-heads 2 at most, not 4"),
        ("llama", dict(hidden=48, keep=0.5), "--keep is for --method shrink-perturb, not for direct-copy"),
        ("mixtral", dict(hidden=48), "is for dense models; .*mixtral. is a mixture"),
    ],
)
def test_refusals(world, tmp_path, source, request_, says):
    with pytest.raises(RequestError, match=says):
        growkit.widen(world / source, tmp_path / "out", **request_, **DIRECT)
    assert not [*tmp_path.iterdir()]


def test_gains_stored_less_1_are_the_sources_to_the_last_bit(tmp_path):
    tiny.make("gemma2", dtype=torch.float32).save_pretrained(tmp_path / "gemma2")
    growkit.widen(tmp_path / "gemma2", tmp_path / "out", hidden=48, **DIRECT)
    gains = [name for name in tensors(tmp_path / "gemma2") if name.endswith("layernorm.weight")]
    before, after = tensors(tmp_path / "gemma2"), tensors(tmp_path / "out")
    assert len(gains) > 3 and all(torch.equal(after[name][:24], before[name]) for name in gains)


def test_a_config_without_a_class_is_of_the_one_its_tensors_are(world, tmp_path):
    """As that of a model that was never saved is."""
    model = tiny.make("llama", dtype=torch.float32, tie_word_embeddings=False)
    assert not model.config.architectures
    after, _ = growkit.grow_state_dict(model.state_dict(), model.config, hidden=48, **DIRECT)
    assert after["lm_head.weight"].shape == (61, 48) and bool(after["lm_head.weight"].all())
    shutil.copytree(world / "llama", tmp_path / "source")
    config = json.loads((tmp_path / "source" / "config.json").read_text())
    (tmp_path / "source" / "config.json").write_text(json.dumps({**config, "architectures": ["Owl"]}))
    for dry_run in (True, False):
        with pytest.raises(
            CheckpointError, match=r"config\.json of '.*source' names class 'Owl'.*take another --method than"
        ):
            growkit.widen(tmp_path / "source", tmp_path / "no", hidden=48, dry_run=dry_run, **DIRECT)
    assert not (tmp_path / "no").exists()


def test_new_weights_do_not_depend_on_the_default_dtype():
    state, config = tiny.make("llama").state_dict(), tiny.make("llama").config
    request = dict(ffn=64, **DIRECT)
    once, _ = growkit.grow_state_dict(state, config, **request)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        again, _ = growkit.grow_state_dict(state, config, **request)
    finally:
        torch.set_default_dtype(before)
    assert all(torch.equal(once[name], again[name]) for name in once)
