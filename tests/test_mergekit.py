"""Recipes of mergekit and weights by layer and name: values computed by hand, and what is refused."""

import json
import os
from pathlib import Path

import pytest
import torch
from on_disk import fine_tune, linked, state
from refusing import cases, refused, run

import growkit
from growkit.errors import RequestError

Q, DOWN, NORM = "model.layers.{}.self_attn.q_proj.weight", "model.layers.{}.mlp.down_proj.weight", "model.norm.weight"
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
BASED = "base_model: base\nmodels:\n- model: base\n- model: a\n  parameters: {%s}\n- model: b\n  parameters: {%s}\n"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mergekit")
    fine_tune(folder, "ab")
    return folder


@pytest.fixture
def here(models, tmp_path, monkeypatch):
    """The models under their names in a new current folder."""
    return linked(models, tmp_path, monkeypatch)


def carried_out(recipe, **options):
    Path("recipe.yml").write_text(recipe)
    return growkit.merge(recipe="recipe.yml", out="result", **options)


def agree(expected):
    """The result's tensors are those expected, to rounding; names -> function of (base, a, b)."""
    result, base, a, b = (state(name) for name in ("result", "base", "a", "b"))
    for name, of in expected.items():
        wanted = of(base[name], a[name], b[name])
        torch.testing.assert_close(result[name], wanted, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


def top(delta, density):
    """The largest of one tensor."""
    least = delta.abs().flatten().sort(descending=True).values[max(1, int(density * delta.numel())) - 1]
    return delta * (delta.abs() >= least)


def elected(x, y, weights=None):
    """Of two weighted deltas, those with the sign of their sum; their mean with weights."""
    sign = (x + y).sign()
    agree_x, agree_y = x * sign > 0, y * sign > 0
    total = x * agree_x + y * agree_y
    if weights is None:
        return total
    return total / (weights[0] * agree_x + weights[1] * agree_y).clamp(min=1e-30)


def arc(t, x, y):
    angle = torch.acos((x * y).sum() / (x.norm() * y.norm()))
    return (torch.sin((1 - t) * angle) * x + torch.sin(t * angle) * y) / torch.sin(angle)


def straight(t, x, y):
    return (1 - t) * x + t * y


def test_linear_is_a_mean_by_weight_and_layer(here):
    """Three layers: a gradient of three numbers gives each layer one; embeddings, last norm and head get the first."""
    carried_out(
        "merge_method: linear\nmodels:\n- model: a\n  parameters: {weight: [1, 2, 4]}\n- model: b\n"
        "  parameters: {weight: [{filter: self_attn, value: 3}, {value: 1e-0}]}\n"
    )
    agree(
        {Q.format(n): lambda _, a, b, w=w: (w * a + 3 * b) / (w + 3) for n, w in enumerate((1, 2, 4))}
        | {DOWN.format(n): lambda _, a, b, w=w: (w * a + b) / (w + 1) for n, w in enumerate((1, 2, 4))}
        | dict.fromkeys((EMBED, NORM, HEAD), lambda _, a, b: (a + b) / 2)
    )
    carried_out(
        "merge_method: linear\nparameters: {normalize: false}\nmodels:\n- model: a\n  parameters: {weight: 0.7}\n"
        "- model: b\n  parameters: {weight: 0.7}\n",
        force=True,
    )
    agree({Q.format(1): lambda _, a, b: 0.7 * a + 0.7 * b})


def test_task_arithmetic_with_lambda_and_normalize(here):
    carried_out(
        "merge_method: task_arithmetic\nparameters: {lambda: [0, 1, 1]}\n" + BASED % ("weight: 0.5", "weight: -1")
    )
    agree({Q.format(0): lambda o, a, b: o, Q.format(2): lambda o, a, b: o + 0.5 * (a - o) - (b - o)})
    normal = "merge_method: task_arithmetic\nparameters: {normalize: true}\n"
    carried_out(normal + BASED % ("weight: 3", "weight: 1"), force=True)
    agree({EMBED: lambda o, a, b: o + (3 * (a - o) + (b - o)) / 4})


def test_ties_trims_each_tensor(here):
    merged = carried_out(
        "merge_method: ties\nparameters: {int8_mask: true}\n"
        + BASED % ("weight: 0.5, density: [1, 0.2, 0.2]", "weight: 1, density: 0.6")
    )
    agree(
        {
            name: lambda o, a, b, d=d: o + elected(0.5 * top(a - o, d), top(b - o, 0.6), (0.5, 1))
            for name, d in ((Q.format(0), 1), (Q.format(1), 0.2), (DOWN.format(2), 0.2), (EMBED, 1))
        }
    )
    notes = " ".join(merged.plan.notes)
    assert "int8_mask changes no value" in notes and "adds up" not in notes and "elects" in notes
    rest = "merge_method: ties\nparameters: {normalize: false}\n" + BASED % ("weight: 0.5", "weight: 1, density: 0.6")
    carried_out(rest, force=True)
    agree({Q.format(2): lambda o, a, b: o + elected(0.5 * (a - o), top(b - o, 0.6))})
    merged = carried_out("merge_method: ties\n" + BASED % ("weight: 1", "weight: -1"), force=True)
    assert any("negative weights" in note for note in merged.plan.notes)


@pytest.mark.parametrize("method, join", [("dare_linear", lambda x, y: x + y), ("dare_ties", elected)])
def test_dare_drops_by_density_in_vectors_too(here, method, join):
    merged = carried_out(f"merge_method: {method}\n" + BASED % ("weight: 0.5", "weight: 1, density: 1"))
    agree({name: lambda o, a, b: o + join(0.5 * (a - o), b - o) for name in (Q.format(1), NORM)})
    assert any("not what mergekit draws" in note for note in merged.plan.notes)
    carried_out(f"merge_method: {method}\n" + BASED % ("weight: 1, density: [1, 0.5, 0.5]", "weight: 0"), force=True)
    base, a, result = state("base"), state("a"), state("result")
    for name, kept in ((Q.format(0), 1.0), (Q.format(1), 0.5), ("model.layers.2.input_layernorm.weight", 0.5)):
        change, whole = result[name] - base[name], a[name] - base[name]
        stays = change.abs() > 1e-12
        torch.testing.assert_close(change[stays], whole[stays] / kept, rtol=1e-7, atol=1e-9)
        assert 0 < stays.double().mean() <= 1 and (kept == 1) == bool(stays.all())


def test_slerp_goes_from_the_base_by_layer_and_filter(here):
    carried_out(
        "merge_method: slerp\nbase_model: b\nparameters:\n  t:\n  - {filter: self_attn, value: [0, 0.5, 1]}\n"
        "  - {filter: mlp, value: 0.25}\n  - value: 0.5\nslices:\n- sources:\n  - {model: a, layer_range: [0, 3]}\n"
        "  - {model: b, layer_range: [0, 3]}\n"
    )
    a, b = state("a"), state("b")
    for name in (Q.format(1), DOWN.format(1), EMBED):  # else the great circle is a line and the test says nothing
        assert (a[name] * b[name]).sum() / (a[name].norm() * b[name].norm()) < 0.9995
    agree(
        {Q.format(0): lambda _, a, b: b, Q.format(1): lambda _, a, b: arc(0.5, b, a), Q.format(2): lambda _, a, b: a}
        | {DOWN.format(1): lambda _, a, b: arc(0.25, b, a), EMBED: lambda _, a, b: arc(0.5, b, a)}
    )


def test_slices_have_gradients_of_their_own(here):
    """Layers 0 and 1 are a slice without b; what stands after the layers goes with the last slice, by its first."""
    carried_out(
        "merge_method: task_arithmetic\nbase_model: base\nslices:\n- sources: [{model: a, layer_range: [0, 2],"
        " parameters: {weight: [1, 2]}}, {model: base, layer_range: [0, 2]}]\n- sources: [{model: a, layer_range: [2, 3]},"
        " {model: b, layer_range: [2, 3]}]\n  parameters: {weight: [5, 7]}\n"
    )
    agree(
        {Q.format(0): lambda o, a, b: a, Q.format(1): lambda o, a, b: o + 2 * (a - o), EMBED: lambda o, a, b: a}
        | {
            Q.format(2): lambda o, a, b: o + 7 * (a - o) + 7 * (b - o),
            NORM: lambda o, a, b: o + 5 * (a - o) + 5 * (b - o),
        }
    )


def test_passthrough_stacks(here):
    text = "merge_method: passthrough\nslices:\n" + "".join(
        f"- sources: [{{model: {model}, layer_range: {run}}}]\n"
        for model, run in (("a", [0, 2]), ("b", [1, 3]), ("a", [2, 3]))
    )
    result = carried_out(text)
    grown, a, b = state("result"), state("a"), state("b")
    assert json.loads(Path("result/config.json").read_text())["num_hidden_layers"] == 5
    for place, (model, layer) in enumerate(((a, 0), (a, 1), (b, 1), (b, 2), (a, 2))):
        assert torch.equal(grown[Q.format(place)], model[Q.format(layer)])
    assert torch.equal(grown[EMBED], a[EMBED]) and torch.equal(grown[HEAD], a[HEAD])
    assert "slices" in result.plan.to_json()["request"]["depth"]
    assert run("merge", "--recipe", "recipe.yml", "-o", "again", "--dry-run").exit_code == 0


def test_weights_by_tensor_from_python(here):
    """What a recipe can say a call can; a weight of one number stays the number it was."""
    by_part = {"self_attn": [0, 1], "mlp": 0.5, "*": 2}
    merged = growkit.merge([("a", by_part), ("b", 1)], "result", base="base", method="task-arithmetic")
    agree(
        {Q.format(n): lambda o, a, b, w=w: o + w * (a - o) + (b - o) for n, w in enumerate((0, 0.5, 1))}
        | {DOWN.format(2): lambda o, a, b: o + 0.5 * (a - o) + (b - o), NORM: lambda o, a, b: o + 2 * (a - o) + (b - o)}
    )
    members = merged.plan.to_json()["members"]
    assert members[1]["weight"] == 1.0 and members[0]["weight"][0] == {"value": [0.0, 1.0], "filter": "self_attn"}
    said = json.loads(Path("result/growkit.json").read_text())["sources"][1]["weight"]
    assert said == members[0]["weight"] and "self_attn: 0 1; mlp: 0.5; 2" in Path("result/README.md").read_text()
    for weight, says in (([], "0 numbers"), ({}, "empty table"), ([1, "x"], "finite number"), ({"a": True}, "finite")):
        with pytest.raises(RequestError, match=says):
            growkit.merge([("a", weight)], "no", base="base", method="task-arithmetic")
    with pytest.raises(RequestError, match="all weights of tensor"):
        growkit.merge([("a", [0, 1]), ("b", [0, 1])], "no", method="average")
    assert not Path("no").exists()


def test_a_plan_is_shown_before(here):
    Path("recipe.yml").write_text("merge_method: ties\n" + BASED % ("weight: [0, 1]", "weight: 1, density: 0.5"))
    shown = run("merge", "--recipe", "recipe.yml", "--dry-run")
    assert shown.exit_code == 0 and "density 0.5" in shown.stdout and "0 1" in shown.stdout
    assert "mergekit computes" in " ".join(shown.stdout.split()) and not Path("result").exists()


ONE = "models:\n- model: a\n  parameters: {weight: 1}\n"
REFUSALS = [
    ("models: [", "line 1: "),
    ("- a\n- b", "should be a table of keys, not list"),
    ("!!python/object/apply:os.system ['touch hacked']", "is no plain YAML"),
    ("a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(9)), "more than 20,000 values"),
    ("[" * 3000, "is no plain YAML"),
    ("x" * 300_000, "has more than 262,144 bytes"),
    ("merge_method: linear\nyes_sir: 1\n" + ONE, "'yes_sir' is not handled"),
    ("merge_method: linear\nmodules: {}\n" + ONE, "'modules' is not handled"),
    ("merge_method: linear\nchat_template: auto\n" + ONE, "'chat_template' is not handled"),
    ("merge_method: della\n" + ONE, "merge_method 'della'"),
    ("merge_method: [1]\n" + ONE, "merge_method [1]"),
    ("merge_method: linear\n", "either models or slices"),
    ("merge_method: linear\nmodels: a\n", "should list models"),
    ("merge_method: linear\nmodels:\n- model: 5\n", "model 5; it should be a path"),
    ("merge_method: linear\nmodels:\n- {model: a}\n", "lacks weight of 'a'"),
    ("merge_method: linear\nmodels:\n- model: a\n  parameters: {weight: [{filter: mlp, value: 1}]}\n", "lacks weight of 'a'"),
    ("merge_method: linear\nmodels:\n- model: a\n  parameters: {weight: {values: 1}}\n", "an entry with 'values'"),
    ("merge_method: linear\nmodels:\n- model: a\n  parameters: {weight: .nan}\n", "weight in the recipe should be a finite"),
    ("merge_method: linear\nmodels:\n- model: a\n  parameters: {weight: 1, density: 1}\n", "'density' is not handled"),
    ("merge_method: linear\nparameters: {normalize: 3}\n" + ONE, "normalize 3; it should be true or false"),
    ("merge_method: linear\ndtype: int8\n" + ONE, "--dtype 'int8' is not one of"),
    ("merge_method: linear\nbase_model: b\n" + ONE, "linear lacks the weight of base_model 'b'"),
    ("merge_method: ties\n" + ONE, "lacks base_model"),
    ("merge_method: ties\nbase_model: base\nparameters: {rescale: true}\n" + ONE, "rescale true, which is not handled"),
    ("merge_method: dare_linear\nbase_model: base\nparameters: {rescale: false}\n" + ONE, "rescale false, which is not"),
    ("merge_method: ties\nbase_model: base\ntokenizer_source: union\n" + ONE, "tokenizer_source 'union'"),
    ("merge_method: ties\nbase_model: base\nmodels:\n- model: a\n  parameters: {weight: 1, density: 0}\n", "--density 0 should"),
    ("merge_method: slerp\nbase_model: base\nparameters: {t: 0.5}\nmodels: [{model: a}, {model: b}]\n", "slerp goes from"),
    ("merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: b}]\n", "the recipe lacks t"),
    ("merge_method: passthrough\nmodels: [{model: a}]\n", "passthrough takes slices"),
    ("merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [2, 1]}]}]\n", "layer_range [2, 1]"),
    ("merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [0, 9]}]}]\n", "the source's layers are 1 to 3"),
    ("merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [0, 1], parameters: {scale: 0}}]}]\n", "'scale'"),
    ("merge_method: linear\nparameters: {weight: 1}\nslices: [{sources: [{model: a, layer_range: [1, 3]}]}]\n", "go on with layer 1"),
    ("merge_method: linear\nparameters: {weight: 1}\nslices: [{sources: [{model: a, layer_range: [0, 2]}]}]\n", "make 2 layers and 'a' has 3"),
    ("merge_method: linear\nslices: [{sources: [{model: a, layer_range: [0, 3]}, {model: b, layer_range: [1, 3]}]}]\n", "other layers"),
]  # fmt: skip


@pytest.mark.parametrize("text, says", cases(REFUSALS))
def test_a_recipe_is_refused_by_key(here, text, says):
    Path("recipe.yml").write_text(text)
    refused("merge", "--recipe", "recipe.yml", says=says)


def test_a_recipe_stands_alone(here):
    Path("recipe.yml").write_text("merge_method: linear\n" + ONE)
    refused("merge", "a", "--recipe", "recipe.yml", says="leave members out")
    refused("merge", "--recipe", "recipe.yml", "--base", "base", says="leave --base out")
    refused("merge", "--recipe", "none.yml", says="cannot read 'none.yml'")
    refused("merge", says="nothing to merge")
    os.mkfifo("pipe.yml")
    refused("merge", "--recipe", "pipe.yml", says="is a pipe and no file")
