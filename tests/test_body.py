"""Models of one body and other heads: the body merges, the base's head stays; and files that hold more than their class
uses. Values equal arithmetic by hand."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
import transformers
from on_disk import edit_config, edit_weights, old_words, state
from refusing import refused

import growkit
from growkit.families import FAMILIES


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def save(name, architecture, family="bert", **changes):
    """A model near every other of its family: each parameter a little off what its stem alone decides."""
    model = tiny.make(family, architecture, seed=len(name), **changes)
    for stem, parameter in ((FAMILIES[family].stem(n), p) for n, p in model.named_parameters()):
        common = torch.Generator().manual_seed(sum(map(ord, stem)))
        parameter.data = torch.randn(parameter.shape, generator=common, dtype=torch.float64) / 3 + parameter.data / 10
    model.save_pretrained(name)
    return model


def by_stem(name, family="bert"):
    return {FAMILIES[family].stem(key): tensor for key, tensor in state(name).items()}


def loads(folder):
    config = json.loads(Path(folder, "config.json").read_text())
    kind = getattr(transformers, config["architectures"][0])
    _, info = kind.from_pretrained(folder, output_loading_info=True, dtype=torch.float64)
    return not info["missing_keys"] and not info["unexpected_keys"]


def expected(base, members, body):
    """base + sum of w (member - base) in the body's tensors, and the base's own elsewhere."""
    return {
        stem: tensor + sum(w * (m[stem] - tensor) for m, w in members) if stem in body else tensor
        for stem, tensor in base.items()
    }


def holds(folder, tensors, family="bert"):
    ours = by_stem(folder, family)
    assert ours.keys() == tensors.keys()
    for stem, tensor in ours.items():
        assert torch.allclose(tensor, tensors[stem], rtol=0, atol=1e-12), stem


ENCODER = ("encoder.", "embeddings.")
HEADED = {  # base, members, the body beside the encoder, a part of the notes
    "a pooler that one lacks": (
        ("BertForPreTraining", {}),
        [("BertForSequenceClassification", {"num_labels": 3}), ("BertForTokenClassification", {"num_labels": 3})],
        (),
        "what 'base' has beside the body that all share stays as it is: bert.pooler.dense.bias, ",
    ),
    "a pooler that all have": (
        ("BertForSequenceClassification", {"num_labels": 2}),
        [("BertForSequenceClassification", {"num_labels": 3}), ("BertForSequenceClassification", {"num_labels": 2})],
        ("pooler.",),
        "what 'first' has beside the body that all share is left out: classifier.bias, classifier.weight",
    ),
    "a pooler that the base lacks": (
        ("BertForMaskedLM", {}),
        [("BertModel", {}), ("BertForNextSentencePrediction", {})],
        (),
        "what 'first' has beside the body that all share is left out: pooler.dense.bias, pooler.dense.weight",
    ),
    "heads of one name": (
        ("BertForTokenClassification", {"num_labels": 3}),
        [("BertForSequenceClassification", {"num_labels": 3}), ("BertForQuestionAnswering", {})],
        (),
        "what 'base' has beside the body that all share stays as it is: classifier.bias, classifier.weight",
    ),
}


@pytest.mark.parametrize("case", HEADED)
@pytest.mark.parametrize("old", [False, True], ids=["today", "first words"])
def test_the_body_is_merged_and_the_bases_head_stays(case, old):
    (kind, changes), others, more, note = HEADED[case]
    save("base", kind, **changes)
    for name, (architecture, differing) in zip(("first", "second"), others):
        save(name, architecture, **differing)
    base, first, second = map(by_stem, ("base", "first", "second"))
    if old:
        for name in ("base", "second"):
            edit_weights(Path(name), lambda tensors: old_words(tensors, "cls.predictions.bias" in tensors))
    made = growkit.merge([("first", 1.0), ("second", -0.5)], "out", base="base", method="task-arithmetic", body=True)
    body = {stem for stem in base if stem.startswith((*ENCODER, *more))}
    assert len(body) == 16 * 3 + 5 + 2 * len(more)
    holds("out", expected(base, [(first, 1.0), (second, -0.5)], body))
    assert any(note in told for told in made.plan.notes)
    assert json.loads(Path("out/config.json").read_text()) == json.loads(Path("base/config.json").read_text())
    assert loads("out")
    says = "with --body (body=True) the body that all share is merged, and the base's head stays"
    refused("merge", "first", "second", "--base", "base", says=says)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "qwen2_moe"])
def test_bodies_of_decoders(family):
    """A classifier or a reward model is fine-tuned from a language model."""
    save("base", tiny.language_model(family), family, tie_word_embeddings=False)
    save("reward", tiny.STEMS[family] + "ForSequenceClassification", family, num_labels=1, pad_token_id=1)
    edit_config(Path("base"), pad_token_id=1)
    base, reward = by_stem("base", family), by_stem("reward", family)
    growkit.merge(["reward"], "out", base="base", method="task-arithmetic", body=True)
    body = base.keys() & reward.keys()
    assert base.keys() - body == {"lm_head.weight"}
    holds("out", expected(base, [(reward, 1.0)], body), family)
    assert loads("out")


def test_other_methods_take_bodies_too():
    save("base", "BertForMaskedLM")
    save("first", "BertForTokenClassification")
    save("second", "BertForQuestionAnswering")
    for method in ("slerp", "ties", "average", "tsv", "dare-ties", "breadcrumbs"):
        growkit.merge(["first", "second"], method, base="base", method=method, body=True)
        merged, base = by_stem(method), by_stem("base")
        changed = {stem for stem in base if not torch.equal(base[stem], merged[stem])}
        assert changed and all(stem.startswith(ENCODER) for stem in changed)
    refused(
        "merge", "first", "second", "--method", "average", "--body", says="--body keeps the base's head: name the base"
    )


def test_a_delta_of_the_body_is_added_as_it_was_merged():
    save("base", "BertForPreTraining")
    save("first", "BertForTokenClassification")
    refused("delta", "base", "first", says="with --body (body=True)")
    measured = growkit.delta("base", "first", "skill", body=True)
    assert not any("cls" in name or "pooler" in name for name in state("skill"))
    assert any("is left out: classifier.bias" in note for note in measured.report.notes)
    growkit.apply("base", ["skill"], "applied")
    growkit.merge(["first"], "merged", base="base", method="task-arithmetic", body=True)
    holds("applied", by_stem("merged"))
    growkit.delta("base", "first", "lora", body=True, rank=4)


@pytest.mark.parametrize("fuller", ["base", "first"])
def test_a_file_may_hold_more_than_its_class_uses(fuller):
    """BERT's first files hold a pooler and a next-sentence head beside a masked language model; one of today does not."""
    save("full", "BertForPreTraining")
    model = save("plain", "BertForMaskedLM")
    edit_config(Path("full"), architectures=["BertForMaskedLM"])
    edit_weights(Path("full"), lambda tensors: old_words(tensors, True))
    assert {"bert.pooler.dense.weight", "cls.seq_relationship.bias", "bert.embeddings.LayerNorm.beta"} <= {
        *state("full")
    }
    shutil.move("full", fuller)
    shutil.move("plain", "first" if fuller == "base" else "base")
    made = growkit.merge(["first"], "out", base="base", method="task-arithmetic")
    fate = "stays as it is" if fuller == "base" else "is left out"
    assert any(f"what {fuller!r} has beside what a BertForMaskedLM uses {fate}" in note for note in made.plan.notes)
    first, out = state("first"), state("out")
    assert all(
        torch.allclose(out[name], first[name], atol=1e-12) for name in model.state_dict() if name in {*out} & {*first}
    )
    assert ("bert.pooler.dense.weight" in out) == (fuller == "base")
    growkit.delta("base", "first", "skill")
    growkit.apply("base", ["skill"], "applied")
    assert state("applied").keys() == out.keys()
    assert all(torch.allclose(tensor, out[name], atol=1e-12) for name, tensor in state("applied").items())
    growkit.merge(["base", "first"], "mean", method="average")
    assert loads("mean")


def test_what_a_layer_lacks_is_no_other_head():
    save("base", "BertForMaskedLM")
    save("first", "BertForTokenClassification")
    edit_weights(Path("first"), lambda tensors: tensors.pop("bert.encoder.layer.1.output.dense.bias"))
    says = "only one of 'base' and 'first' has tensor 'encoder.layer.1.output.dense.bias'"
    refused("merge", "first", "--base", "base", "--body", says=says)
