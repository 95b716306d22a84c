"""check-family: sound families pass, and each kind of mistake in a table ends in a sentence that blames its line."""

from dataclasses import replace

import pytest

import growkit
from growkit import RequestError
from growkit.families import FAMILIES
from growkit.families.schema import LAYER, Norms
from growkit.family_check import blame
from growkit.family_check import checked_family as module
from growkit.family_check.checked_family import check_one

LLAMA = FAMILIES["llama"]
QUERY, FINAL = "layers.{layer}.self_attn.q_proj.weight", "norm.weight"
DOWN, NORM = "layers.{layer}.mlp.down_proj.weight", "layers.{layer}.input_layernorm.weight"


def with_lines(family, lines):
    """The family with other patterns; None takes a line away."""
    table = {**family.tensors, **lines}
    return replace(family, tensors={name: pattern for name, pattern in table.items() if pattern}, variants=())


def faults(monkeypatch, family) -> str:
    monkeypatch.setitem(FAMILIES, family.model_type, family)
    return " ".join(check_one(family).faults)


def only(monkeypatch, name):
    """One growth of all that are tried."""
    tries = module.growths_to_try
    monkeypatch.setattr(module, "growths_to_try", lambda *of: {name: tries(*of)[name]})


@pytest.mark.parametrize(
    ("lines", "blames"),
    [
        ({DOWN: None}, "has no line: the table lacks 'layers.{layer}.mlp.down_proj.weight'"),
        ({"layers.{layer}.mlp.extra.weight": "ffn /hidden"}, "'layers.{layer}.mlp.extra.weight': 'ffn /hidden' is no"),
        ({DOWN: "/hidden ffn"}, "'layers.{layer}.mlp.down_proj.weight': '/hidden ffn' has the marks of"),
        ({NORM: "+hidden"}, "'layers.{layer}.input_layernorm.weight': '+hidden' has the marks of the weight of a"),
        ({DOWN: "ffn /hidden"}, "'layers.{layer}.mlp.down_proj.weight': 'ffn /hidden' is 40 x 24 in a small"),
        (
            {FINAL: "~hidden"},
            "but it is exact where the line 'norm.weight': '~hidden' is '~/hidden': this line is wrong",
        ),
        ({NORM: "~/hidden"}, "'layers.{layer}.input_layernorm.weight': '~/hidden' has a mark of the last norm before"),
        ({QUERY: "(query_dim head) /hidden"}, "'(query_dim head) /hidden' is '(head query_dim) /hidden': this line is"),
    ],
    ids=["forgotten", "surplus", "roles swapped", "shift for gain", "axes swapped", "~ for ~/", "~/ for ~", "order"],
)
def test_a_wrong_line_is_blamed(monkeypatch, lines, blames):
    assert blames in faults(monkeypatch, with_lines(LLAMA, lines))


def test_a_wrong_block_of_a_fused_line_is_blamed(monkeypatch):
    only(monkeypatch, "hidden, heads kept")
    line = "h.{layer}.attn.c_attn.weight"
    sound, wrong = (
        FAMILIES["gpt_bigcode"].tensors[line],
        "(kv_head: head query_dim | kv_head key_dim | kv_head key_dim)",
    )
    said = faults(monkeypatch, with_lines(FAMILIES["gpt_bigcode"], {line: f"{wrong} /hidden"}))
    assert f"they are equal where the line {line!r}: '{wrong} /hidden' is {sound!r}: this line is wrong" in said


def test_other_orders_of_a_term():
    assert "(query_dim head)" in blame._other_orders("(head query_dim)") and not [*blame._other_orders("hidden")]
    fused = {*blame._other_orders("(kv_head: head query_dim | kv_head key_dim)")}
    assert fused >= {
        "(kv_head: query_dim head | kv_head key_dim)",
        "(kv_head: kv_head key_dim | head query_dim)",
        "(kv_head: head query_dim | kv_head value_dim)",
        "(head query_dim | kv_head key_dim)",
    }


def test_a_line_that_hides_what_is_wrong_is_not_blamed(monkeypatch):
    """An identity layer is silent, too, where what a block reads counts as written, so that it becomes zeros."""
    only(monkeypatch, "layers")
    readings = blame._other_readings
    monkeypatch.setattr(blame, "_other_readings", lambda *of: (one for one in readings(*of) if "mlp" in one[0]))
    said = faults(monkeypatch, with_lines(LLAMA, {DOWN: "normed /ffn"}))
    assert f"they are equal where the line {DOWN!r}: 'normed /ffn' is 'hidden /ffn': this line is wrong" in said


def test_a_second_number_in_a_name_is_an_expert_only_where_there_are_experts(monkeypatch):
    line = "encoder.block.{layer}.layer.0.SelfAttention.q.weight"
    assert f"the table lacks {line!r}" in faults(monkeypatch, with_lines(FAMILIES["t5"], {line: None}))


def test_a_prefix_that_is_not_named_is_blamed(monkeypatch):
    said = faults(monkeypatch, replace(LLAMA, prefixes=("transformer.",)))
    assert "but for 'model.' before it, which is not among the prefixes 'transformer.'" in said


def test_a_head_above_the_layers_is_blamed(monkeypatch):
    first = {"lm_head.weight": LLAMA.tensors["lm_head.weight"]}
    assert "stands above all layers'" in faults(monkeypatch, replace(LLAMA, tensors={**first, **LLAMA.tensors}))


def test_an_embedding_below_the_layers_is_blamed(monkeypatch):
    """A stack of several models would take it of the last one."""
    table = {name: axes for name, axes in LLAMA.tensors.items() if name != LLAMA.embedding}
    said = faults(monkeypatch, replace(LLAMA, tensors={**table, LLAMA.embedding: "vocab hidden"}))
    assert "the line 'embed_tokens.weight': 'vocab hidden' stands below the layers'" in said


def test_a_wrong_size_is_blamed(monkeypatch):
    said = faults(monkeypatch, replace(LLAMA, sizes={**LLAMA.sizes, "ffn": "hidden_size"}))
    assert "'ffn /hidden' is 40 x 40 in a small LlamaForCausalLM, whose model.layers.0.mlp.gate_proj.weight is" in said


def test_a_wrong_fact_is_no_line_of_the_table(monkeypatch):
    monkeypatch.setattr(blame, "_other_readings", lambda *_: iter([(QUERY, LLAMA.tensors[QUERY], "head /hidden")]))
    said = faults(monkeypatch, replace(LLAMA, rotary=None, variants=()))
    assert "grown by head_dim x2: the plan says exact, but outputs differ by" in said
    assert "no single line read otherwise mends it, so look at the facts beside the table" in said
    assert "'layers.{layer}.self_attn.o_proj.weight': 'hidden /(head value_dim)'" in said


def test_a_warning_of_nothing_is_a_fault(monkeypatch):
    gpt2 = replace(FAMILIES["gpt2"], norms=Norms(kind=LAYER, after=True), variants=())
    assert "the plan says approximate, but outputs differ by no more than" in faults(monkeypatch, gpt2)


def test_the_check_of_a_sound_family_says_what_was_measured():
    (check,) = growkit.check_family("gemma")
    assert check.ok and check.to_json()["ok"] and not check.faults
    tried = {(growth.growth, growth.tied): growth for growth in check.growths}
    assert tried["heads in groups", True].exactness == "exact" and tried["all", False].difference <= 1e-10
    assert tried["hidden x2, aki", True].exactness == "approximate"
    assert tried["head_dim +4", True].reason == "" or tried["head_dim +4", True].exactness == "refused"


def test_names_and_all(monkeypatch):
    monkeypatch.setattr(module, "check_one", lambda family: family.model_type)
    assert growkit.check_family(every=True) == tuple(FAMILIES)
    assert growkit.check_family(["bert", "llama", "bert"]) == ("bert", "llama")
    with pytest.raises(RequestError, match="no family 'lama'; did you mean llama"):
        growkit.check_family("lama")
    for wrong in (dict(), dict(families="bert", every=True)):
        with pytest.raises(RequestError, match="or all of them by --all"):
            growkit.check_family(**wrong)
