"""The tables of axes, held against transformers: roles as it shards tensors, task heads carried through growth, sizes
that it takes; names and notation. Tensors and lines of every family: test_every_family.py.
"""

import ast
import importlib
import re
from pathlib import Path
from statistics import median

import pytest
import tiny
import torch
import transformers
from covering import cover, features, kind

import growkit
from growkit import CheckpointError, RequestError, grow_state_dict
from growkit.families import FAMILIES, family_named
from growkit.families.modules import task_heads
from growkit.families.naming import name_of_today
from growkit.families.not_grown import NOT_GROWN
from growkit.growth.width.sizes import target_sizes
from growkit.maps.notation import SIZED, parse

TASKS = ("Model", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice")
EXTRA = {
    "bert": ["BertForPreTraining"], "electra": ["ElectraForPreTraining"], "albert": ["AlbertForPreTraining"],
}  # fmt: skip


def classes(family: str) -> list[str]:
    names = [tiny.STEMS[family] + task for task in TASKS] + [tiny.language_model(family)] + EXTRA.get(family, [])
    return [name for name in names if hasattr(transformers, name)]


def shapes_of(family: str, architecture: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        config, sizes = tiny.ALL[family]
        model = getattr(transformers, architecture)(config(**sizes))
    return {name: tuple(tensor.shape) for name, tensor in tiny.stored(model).items()}


def test_heads_that_any_decoder_may_have_are_of_stock_models():
    """Lines of a table that its own stock models need not have: test_every_family.py asks it of all others."""
    stock = {
        FAMILIES[family].template(name)
        for family in ("llama", "distilbert")
        for architecture in classes(family)
        for name in shapes_of(family, architecture)
    }
    assert task_heads().keys() - {"score.bias"} <= stock


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


def heads_of(family: str) -> set:
    """Which tasks' heads a kind of family has, and whether a class has lines of its own."""
    tasks = {name.removeprefix(tiny.STEMS[family]) for name in classes(family)}
    return {(kind(family), task) for task in tasks} | {"task_tensors"} & features(family)


@pytest.mark.parametrize("growth", [dict(hidden=48), dict(hidden=36)], ids=["x2", "x1.5"])
@pytest.mark.parametrize("family", cover(tiny.CONFIGS, heads_of))
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


def facts_of_sizes(family: str) -> set:
    """The facts that say which sizes go together."""
    row = FAMILIES[family]
    facts = dict(own=row.own_head_dim, fill=row.hidden_by_heads, on_heads=row.norms.on_heads, turns=row.rotary is None)
    return {*facts.items(), *row.sizes}


@pytest.mark.parametrize("family", cover(tiny.CONFIGS, facts_of_sizes))
def test_sizes_that_pass_are_sizes_transformers_takes(family):
    """Every width from the source's to twice it: what growkit lets through, transformers builds; what it stops as
    impossible for transformers, transformers stops too."""
    row, (config_class, sizes) = FAMILIES[family], tiny.CONFIGS[family]
    config = config_class(**sizes).to_dict()
    passed: set = set()
    for hidden in range(24, 49):
        for heads in (None, 4, 5, 6, 8):
            try:
                new = target_sizes(row, config, {"hidden": hidden, "head": heads})
            except RequestError as error:
                assert "\n" not in str(error)
                continue
            keys = {key: new[axis] for axis in row.sizes if axis in SIZED for key in row.keys(axis)}
            if tuple(keys.values()) in passed:
                continue
            with torch.device("meta"):
                getattr(transformers, tiny.language_model(family))(config_class(**{**sizes, **keys}))
            passed.add(tuple(keys.values()))
    assert len(passed) >= 5


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
    with pytest.raises(CheckpointError, match=re.escape(str(model_type))):
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


def test_what_is_not_grown_is_refused_by_name():
    for name, reason in NOT_GROWN.items():
        assert name not in FAMILIES
        with pytest.raises(CheckpointError, match=re.escape(f"growkit does not grow {name}: {reason}")):
            family_named(name)


def test_no_family_is_named_outside_of_its_tables():
    """What an engine knows of a family is a fact of the family's. Words for people may name some as examples."""
    names = {name for name in FAMILIES if len(name) > 3}
    for path in sorted(Path(growkit.__file__).parent.rglob("*.py")):
        if path.parent.name != "families":
            tree = ast.parse(path.read_text("utf-8"))
            strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
            assert not names & strings, path


def test_a_table_is_short():
    """Half of the families are said in 20 lines or fewer, as they are written; one that has no name of its own in its
    file counts as all of the file."""
    tables = {id(family): name for name, family in FAMILIES.items()}
    lines: dict[str, int] = {}
    for path in sorted((Path(growkit.__file__).parent / "families").glob("[a-z]*.py")):
        module, text = importlib.import_module(f"growkit.families.{path.stem}"), path.read_text("utf-8")
        for node in ast.parse(text).body:
            names = [
                name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
            ]
            for name in names if isinstance(node, ast.Assign) else ():
                value = getattr(module, name, None)
                for family in value if isinstance(value, tuple) else [value]:
                    if id(family) in tables:
                        length = node.end_lineno - node.lineno + 1 if family is value else text.count("\n")
                        known = lines.get(tables[id(family)], length)
                        lines[tables[id(family)]] = min(known, length)
    assert lines.keys() == FAMILIES.keys() and median(lines.values()) <= 20
