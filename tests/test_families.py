"""The tables of axes, held against stock models: every tensor claimed, every line used, roles as transformers shards
them, and every task head carried through growth.
"""

import re
from math import prod

import pytest
import tiny
import torch
import transformers

from growkit import CheckpointError, RequestError, grow_state_dict
from growkit.families import FAMILIES, family_named
from growkit.families.modules import task_heads
from growkit.families.naming import name_of_today
from growkit.growth.width.sizes import read_sizes, target_sizes
from growkit.maps.notation import BASE, PAIR, SIZED, UNSIZED, parse

TASKS = ("Model", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice")
EXTRA = {
    "bert": ["BertForPreTraining"], "electra": ["ElectraForPreTraining"], "albert": ["AlbertForPreTraining"],
}  # fmt: skip
# settings beside the tiny config's at which a class has tensors that it has not there
SETTINGS = {"deberta-v2": [dict(legacy=False, embedding_size=24), dict(conv_kernel_size=3)]}
STORED_COPIES = {"embed_out.weight"}  # GPT-NeoX's head as files name it; a live model says lm_head


def classes(family: str) -> list[str]:
    names = [tiny.STEMS[family] + task for task in TASKS] + [tiny.language_model(family)] + EXTRA.get(family, [])
    return [name for name in names if hasattr(transformers, name)]


def shapes_of(family: str, architecture: str, **changes) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        kind, sizes = tiny.ALL[family]
        model = getattr(transformers, architecture)(kind(**{**sizes, **changes}))
    return {name: tuple(tensor.shape) for name, tensor in tiny.stored(model).items()}


@pytest.mark.parametrize("family", tiny.ALL)
def test_every_tensor_has_axes_that_multiply_to_its_shape(family):
    for architecture in classes(family):
        config = tiny.ALL[family][0](**tiny.ALL[family][1])
        sizes = read_sizes(FAMILIES[family], config.to_dict())
        for name, shape in shapes_of(family, architecture).items():
            dimensions = FAMILIES[family].axes_of(name, architecture)
            for dimension, size in zip(dimensions, shape, strict=True):
                if dimension.axes[0] in UNSIZED:
                    continue
                total = sum(
                    prod(2 if axis == PAIR else sizes[BASE.get(axis, axis)] for axis in block)
                    for block in dimension.blocks
                )
                assert total == size, (architecture, name, dimension)


def test_every_line_of_a_table_is_some_stock_tensor():
    """Data nobody reads goes stale. Biases come with their weight; heads that any decoder may have count once for
    all."""
    found, lines = {}, {}
    for family, row in FAMILIES.items():
        settings = [dict(tie_word_embeddings=True), dict(tie_word_embeddings=False), *SETTINGS.get(family, ())]
        for alternatives in row.stored_where.values():
            settings += [{key: values[0] for key, values in one.items()} for one in alternatives]
        stock = {n for a in classes(family) for changes in settings for n in shapes_of(family, a, **changes)}
        found[family] = {row.template(name) for name in stock} | STORED_COPIES
        lines[family] = {name for name in row.tensors if name.endswith(".weight")}
    shared = set(task_heads())
    unused = {family: lines[family] - found[family] - shared for family in lines}
    assert not any(unused.values()), unused
    assert shared - {"score.bias"} <= set.union(*found.values())


@pytest.mark.parametrize("family", tiny.CONFIGS)
def test_roles_agree_with_the_tensor_parallel_plan(family):
    """transformers' own plan says which matrices are cut along what they write (colwise) or read (rowwise)."""
    plan = getattr(tiny.CONFIGS[family][0], "base_model_tp_plan", None) or {}
    checked = 0
    for glob, style in plan.items():
        name = glob.replace("*", "0") + ".weight"
        if style.split("_")[0] not in ("colwise", "rowwise") or not FAMILIES[family].knows(name):
            continue
        out, into = FAMILIES[family].axes_of(name)
        inner = out if style.startswith("colwise") else into
        assert inner.axes != ("hidden",) and (out if inner is into else into).axes == ("hidden",), name
        checked += 1
    assert checked >= 4 or not plan, plan


@pytest.mark.parametrize("growth", [dict(hidden=48), dict(hidden=36)], ids=["x2", "x1.5"])
@pytest.mark.parametrize("family", tiny.CONFIGS)
def test_task_heads_come_through(family, growth):
    """A classifier on a widened body gives the same logits; near where the body is near."""
    for architecture in classes(family):
        if architecture.endswith("Model"):
            continue
        with tiny.float32_parts_in_double():
            model = tiny.make(
                family, architecture, pad_token_id=1, num_labels=3 if "Question" not in architecture else 2
            )
            state, config = grow_state_dict(
                model.state_dict(), {**model.config.to_dict(), "architectures": [architecture]}, **growth
            )
            grown = tiny.rebuild(model, state, config)
            ids = tiny.tokens(batch=1)[:, None, :] if "MultipleChoice" in architecture else tiny.tokens(batch=1)
            with torch.no_grad():
                ours, theirs = (m(input_ids=ids).to_tuple() for m in (model, grown))
        near = FAMILIES[family].norms.after and growth["hidden"] % 24
        for a, b in zip(ours, theirs):
            if isinstance(a, torch.Tensor) and a.shape == b.shape:
                assert tiny.relative(a, b) <= (0.35 if near else 1e-10), architecture


@pytest.mark.parametrize("family", tiny.CONFIGS)
def test_sizes_that_pass_are_sizes_transformers_takes(family):
    """Every width from the source's to twice it: what growkit lets through, transformers builds; what it stops as
    impossible for transformers, transformers stops too."""
    row, (config_class, sizes) = FAMILIES[family], tiny.CONFIGS[family]
    config = config_class(**sizes).to_dict()
    passed = 0
    for hidden in range(24, 49):
        for heads in (None, 4, 5, 6, 8):
            try:
                new = target_sizes(row, config, {"hidden": hidden, "head": heads})
            except RequestError as error:
                assert "\n" not in str(error)
                continue
            keys = {key: new[axis] for axis in row.sizes if axis in SIZED for key in row.keys(axis)}
            with torch.device("meta"):
                getattr(transformers, tiny.language_model(family))(config_class(**{**sizes, **keys}))
            passed += 1
    assert passed >= 5


@pytest.mark.parametrize("family", ["llama", "gemma2", "bert", "gpt2", "gpt_neox", "opt", "distilbert", "roberta"])
def test_what_is_stopped_for_transformers_is_stopped_by_transformers(family):
    config_class, sizes = tiny.CONFIGS[family]
    hidden = {"gpt2": "n_embd", "distilbert": "dim"}.get(family, "hidden_size")
    with pytest.raises(RequestError):
        target_sizes(FAMILIES[family], config_class(**sizes).to_dict(), {"hidden": 50, "head": 4})
    changed = {**sizes, hidden: 50} | ({"word_embed_proj_dim": 50} if family == "opt" else {})
    with pytest.raises(Exception), torch.device("meta"):  # noqa: B017  transformers has an error of its own per family
        getattr(transformers, tiny.language_model(family))(config_class(**changed))


def test_old_bert_names_are_those_of_today():
    assert name_of_today("bert.embeddings.LayerNorm.gamma.exp_avg") == "bert.embeddings.LayerNorm.weight.exp_avg"
    assert name_of_today("bert.embeddings.LayerNorm.beta") == "bert.embeddings.LayerNorm.bias"
    assert all(name_of_today(name) == name for family in FAMILIES.values() for name in family.tensors)


def test_names_are_matched_whole():
    llama = FAMILIES["llama"]
    for name in ("model.layers.0.mlp.up_proj.weight2", "xmodel.norm.weight", "model.layers.x.mlp.up_proj.weight"):
        with pytest.raises(CheckpointError, match="is not one of the llama family's"):
            llama.axes_of(name)
    assert llama.in_layer("model.layers.3.mlp.up_proj.weight", 11) == "model.layers.11.mlp.up_proj.weight"
    assert llama.layer_of("model.layers.12.mlp.up_proj.weight") == 12 and llama.layer_of("lm_head.weight") is None


@pytest.mark.parametrize("model_type", ["mamba2", None, 3])
def test_unknown_families_are_refused_by_name(model_type):
    with pytest.raises(CheckpointError, match=re.escape(repr(model_type))):
        family_named(model_type)


@pytest.mark.parametrize(
    ("family", "setting", "reason"),
    [
        ("opt", {"do_layer_norm_before": False}, "no norm stands before its tied head"),
        ("opt", {"_remove_final_layer_norm": True}, "no norm before it"),
        ("opt", {"word_embed_proj_dim": 12}, "growkit grows models where they are one size"),
        ("gpt2", {"add_cross_attention": True}, "another model's hidden axis"),
        ("phi", {"qk_layernorm": True}, "no published Phi"),
        ("llama", {"quantization_config": {"quant_method": "gptq"}}, "quantised \\(gptq\\)"),
    ],
)
def test_settings_growkit_does_not_understand_are_refused(family, setting, reason):
    model = tiny.make(family)
    with pytest.raises(CheckpointError, match=reason):
        grow_state_dict(model.state_dict(), {**model.config.to_dict(), **setting}, hidden=48)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(head: head query_dim | head key_dim | head value_dim) /hidden", "write read"),
        ("/hidden (ffn | ffn)", "read write"),
        ("~/hidden", "gain"),
        ("+head_hidden", "shift"),
        ("vocab hidden", "write write"),
    ],
)
def test_notation(pattern, text):
    assert " ".join(dimension.role for dimension in parse(pattern)) == text


@pytest.mark.parametrize(
    "pattern", ["hiden", "//hidden", "(head", "hidden*", "~~hidden", "(ffn |)", "(heads: ffn | ffn)"]
)
def test_notation_refuses_what_it_does_not_know(pattern):
    with pytest.raises(ValueError, match=re.escape(pattern)):
        parse(pattern)
