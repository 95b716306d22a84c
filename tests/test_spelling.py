"""One model in the spellings that files have it in: read as what it means, by every command."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
import tiny_runs
import torch
import transformers
from comparing import embed
from on_disk import edit_weights, fine_tune, old_words, saved, state
from refusing import refused, run
from safetensors import safe_open
from safetensors.torch import load_file, save_file, save_model
from texts import EXCERPT, TOKENIZERS, wrap

import growkit
from growkit.checkpoint.headers import read_header
from growkit.growth.sources import open_source

TIED = ("llama", "bert", "roberta")  # a head that sorts first, one that sorts last, one whose bias is tied too


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def written_once(folder, out):
    """A model as safetensors.torch.save_model writes it: what is tied once, under the name that sorts first."""
    config = json.loads(Path(folder, "config.json").read_text())
    model = getattr(transformers, config["architectures"][0]).from_pretrained(folder)
    shutil.copytree(folder, out)
    save_model(model, Path(out, "model.safetensors"))


def near(one, other):
    """To the rounding of base + (member - base)."""
    ours, theirs = state(one), state(other)
    return ours.keys() == theirs.keys() and all(torch.allclose(ours[n], theirs[n], atol=1e-6) for n in ours)


def same(one, other):
    ours, theirs = state(one), state(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("family", TIED)
def test_what_is_tied_may_be_stored_once_under_another_name(family):
    """Every command makes of it what it makes of the file that save_pretrained writes; results are stock files."""
    fine_tune(Path(), "a", family, torch.float32, tie_word_embeddings=True)
    for name in ("base", "a"):
        written_once(name, f"{name}-once")
    with safe_open("base-once/model.safetensors", "pt") as file:
        assert file.metadata() and "pt" not in file.metadata().values()
    for base, member, out in (("base", "a", "stock"), ("base-once", "a-once", "once"), ("base-once", "a", "both")):
        assert growkit.widen(base, f"wide-{out}", hidden=48, verify=True).report.ok
        growkit.stack([base, member], f"deep-{out}", layers=6)
        growkit.fuse([base, member], f"fused-{out}")
        growkit.merge([member], f"merged-{out}", base=base, method="task-arithmetic")
        growkit.delta(base, member, f"delta-{out}")
        growkit.apply(base, [f"delta-{out}"], f"applied-{out}")
        for made in ("wide", "deep", "fused", "merged", "delta", "applied"):
            assert same(f"{made}-{out}", f"{made}-stock"), (made, out)
    assert near("merged-once", "a")
    report = growkit.verify("base", "base-once")
    assert report.ok and report.relative == 0
    assert growkit.inspect("base-once").parameters == growkit.inspect("base").parameters


def test_what_is_tied_and_stored_once_is_trained_and_measured(world):
    shutil.copytree(world / "tied", "stock")
    written_once("stock", "once")
    asked = dict(data=world / "data", steps=3, seq_len=16, batch_size=4, eval_tokens=160)
    for name in ("stock", "once"):
        growkit.pretrain(name, out=f"run-{name}", **asked)
    assert same("run-once/final", "run-stock/final")
    losses = [growkit.evaluate(name, world / "data", limit=200).loss for name in ("stock", "once")]
    assert losses[0] == losses[1]


def test_a_bare_file_says_itself_that_its_head_is_the_embedding():
    tiny.make("gpt2", dtype=torch.float32).save_pretrained("stock")
    written_once("stock", "once")
    for name in ("stock", "once"):
        Path(name, "model.safetensors").rename(f"{name}.safetensors")
        growkit.widen(f"{name}.safetensors", f"wide-{name}", hidden=48, source_heads=4)
    assert same("wide-once", "wide-stock")
    assert Path("wide-once/config.json").read_text() == Path("wide-stock/config.json").read_text()


def test_metadata_give_a_tensor_names_that_no_tensor_has():
    """Only a name that no tensor has, for a name that one has."""
    tensors = {"a": torch.zeros(2), "b": torch.ones(2)}
    save_file(tensors, "x.safetensors", {"format": "pt", "b": "a", "c": "a", "d": "a", "e": "none"})
    assert {name: tensor.aliases for name, tensor in read_header(Path("x.safetensors")).items()} == {
        "a": ("c", "d"),
        "b": (),
    }


def test_an_untied_head_that_shares_memory_has_both_names():
    """The config does not tie them: they are two tensors, which are equal today."""
    model = tiny.make("llama", dtype=torch.float32)
    model.lm_head.weight = model.model.embed_tokens.weight
    model.save_pretrained("stock")
    save_model(model, "stock/model.safetensors")
    assert len(load_file("stock/model.safetensors")) == len(open_source("stock").tensors) - 1
    growkit.widen("stock", "wide", hidden=48)
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= state("wide").keys()


def test_names_of_berts_first_files_are_todays():
    """Bases and members in either spelling; results have the names that stock models save."""
    model = tiny.make("bert", "BertForPreTraining", dtype=torch.float32)
    for name in ("base", "a"):
        tiny.shake(model, ord(name[0])).save_pretrained(name)
        shutil.copytree(name, f"{name}-old")
        edit_weights(Path(f"{name}-old"), old_words)
    assert "bert.embeddings.LayerNorm.gamma" in state("base-old")
    for number, (base, member) in enumerate(
        [("base", "a"), ("base-old", "a"), ("base", "a-old"), ("base-old", "a-old")]
    ):
        assert growkit.widen(base, f"wide-{number}", hidden=48, verify=True).report.ok
        growkit.fuse([base, member], f"fused-{number}")
        growkit.merge([member], f"merged-{number}", base=base, method="task-arithmetic")
        growkit.delta(base, member, f"delta-{number}")
        growkit.apply(base, [f"delta-{number}"], f"applied-{number}")
        for made in ("wide", "fused", "merged", "delta", "applied"):
            assert same(f"{made}-{number}", f"{made}-0"), (made, base, member)
    assert near("merged-0", "a")


def test_a_name_in_both_spellings_is_refused():
    tiny.make("bert", dtype=torch.float32).save_pretrained("src")

    def twice(tensors):
        tensors["bert.embeddings.LayerNorm.gamma"] = tensors["bert.embeddings.LayerNorm.weight"].clone()

    edit_weights(Path("src"), twice)
    refused("widen", "src", "--hidden", "48", says="has 'bert.embeddings.LayerNorm.weight' twice")


def test_a_bias_of_its_own_beside_the_heads_stays():
    """A copy that is none is a tensor, and the source's own bytes."""
    tiny.make("bert", dtype=torch.float32).save_pretrained("src")

    def another(tensors):
        tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"] + 1

    edit_weights(Path("src"), another)
    growkit.widen("src", "wide", ffn=80)
    assert torch.equal(state("wide")["cls.predictions.decoder.bias"], state("src")["cls.predictions.decoder.bias"])


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_sources_with_and_without_the_base_models_prefix_become_one(family):
    kind = tiny.STEMS[family] + "Model"
    for name, seed in (("one", 0), ("two", 1)):
        model = tiny.make(family, kind, seed=seed, dtype=torch.float32)
        model.save_pretrained(name)
        prefix = f"{model.base_model_prefix}."
        shutil.copytree(name, f"{name}-prefixed")
        tensors = {prefix + key: tensor for key, tensor in load_file(f"{name}/model.safetensors").items()}
        save_file(tensors, f"{name}-prefixed/model.safetensors", {"format": "pt"})
    growkit.fuse(["one", "two"], "plain")
    growkit.fuse(["one", "two-prefixed"], "mixed")
    growkit.fuse(["one-prefixed", "two"], "prefixed")
    growkit.stack(["one-prefixed", "two"], "deep", layers=6)
    assert same("plain", "mixed")
    assert {prefix + key for key in state("plain")} == state("prefixed").keys()
    assert all(key.startswith(prefix) for key in state("deep"))


def without(*parts):
    def change(tensors):
        for name in [name for name in tensors if any(part in name for part in parts)]:
            del tensors[name]

    return change


def test_what_depends_on_weights_that_a_file_lacks_is_not_compared():
    """Stock models draw a pooler that is not stored, anew each time."""
    tiny.make("roberta", "RobertaModel", dtype=torch.float32).save_pretrained("src")
    whole = growkit.widen("src", "whole", hidden=48, verify=True).report
    assert whole.ok and whole.compared == "last_hidden_state + pooler_output" and not whole.notes
    edit_weights(Path("src"), without("pooler"))
    report = growkit.widen("src", "wide", hidden=48, verify=True).report
    assert report.ok and report.compared == "last_hidden_state" and report.relative < 1e-5
    assert "pooler_output left out" in report.notes[0] and "pooler.dense.weight" in report.notes[0]
    edit_weights(Path("wide"), lambda tensors: tensors["encoder.layer.1.output.dense.weight"].mul_(1.5))
    assert not growkit.verify("src", "wide").ok
    shown = run("verify", "src", "wide")
    assert shown.exit_code == 1 and "pooler_output left out" in shown.stdout


def test_a_result_that_lacks_what_its_source_has_fails():
    tiny.make("bert", "BertModel", dtype=torch.float32).save_pretrained("src")
    growkit.widen("src", "wide", hidden=48)
    edit_weights(Path("wide"), without("pooler"))
    report = growkit.verify("src", "wide")
    assert not report.ok and len(report.keys) == 2 and not report.notes


def test_nothing_to_compare_where_all_depends_on_what_is_missing():
    tiny.make("bert", "BertForTokenClassification", dtype=torch.float32).save_pretrained("src")
    edit_weights(Path("src"), without("classifier"))
    refused(
        "verify", "src", "src", says="all that a BertForTokenClassification puts out depends on weights that the file"
    )


def test_a_tokenizer_may_have_more_tokens_than_the_model_has_rows():
    """As CodeLlama's has: what is refused is a token that occurs, by its id and name."""
    tokenizer = wrap(TOKENIZERS["gpt2"], eos_token="<end>")
    tokenizer.add_tokens(["<suffix>", "<prefix>"])
    tiny.make("llama", dtype=torch.float32, vocab_size=400).save_pretrained("src")
    tokenizer.save_pretrained("src")
    assert len(tokenizer) == 402
    text = EXCERPT.read_text("utf-8")[:3000]
    Path("fine.txt").write_text(text + "\n", "utf-8")
    Path("beyond.txt").write_text(text + "<prefix>" + text, "utf-8")
    for name in ("fine", "beyond"):
        made = growkit.tokenize(f"{name}.txt", f"{name}-data", "src")
        assert made.meta["vocab_size"] == 402
    asked = ("--out", "run", "--steps", "2", "--seq-len", "16", "--batch-size", "2")
    says = "holds token 401 ('<prefix>'), and the embedding of 'src' has 400 rows, for ids below 400"
    for data in ("fine.txt", "fine-data"):
        assert growkit.evaluate("src", data, split="train").loss > 0
    assert growkit.widen("src", "wide", hidden=48) and growkit.verify("src", "wide", text="fine.txt").ok
    refused("eval", "src", "--data", "beyond.txt", says=f"'beyond.txt' {says}")
    refused("eval", "src", "--data", "beyond-data", "--split", "train", says=f"'beyond-data' {says}")
    refused("verify", "src", "wide", "--text", "beyond.txt", says=f"'beyond.txt' {says}")
    refused("pretrain", "src", "--data", "beyond-data", *asked, says=f"'beyond-data/train.bin' {says}")
    assert run("pretrain", "src", "--data", "fine-data", *asked).exit_code == 0


def test_a_mask_without_a_row_is_refused(world):
    shutil.copytree(world / "bert", "bert")
    tiny.make("bert", dtype=torch.float32, vocab_size=60).save_pretrained("bert")
    tokenizer = tiny_runs.tokenizer(mask=False)
    tokenizer.add_special_tokens({"mask_token": "<hidden>"})
    tokenizer.save_pretrained("bert")
    asked = ("--out", "run", "--steps", "2", "--seq-len", "16", "--batch-size", "2")
    says = "masks are token 61 ('<hidden>'), and the embedding of 'bert' has 60 rows"
    refused("pretrain", "bert", "--data", world / "data", *asked, says=says)


FIRST_WORDS = dict(word_embedding_dimension=24, pooling_mode_cls_token=True, pooling_mode_mean_tokens=False)
POOLINGS = {  # of one meaning
    "first": FIRST_WORDS | dict(pooling_mode_max_tokens=False, pooling_mode_mean_sqrt_len_tokens=False),
    "fifth": dict(embedding_dimension=24, pooling_mode="cls", include_prompt=True),
    "listed": dict(embedding_dimension=24, pooling_mode=["cls"]),
}
PLACES = {"first": "models", "fifth": "sentence_transformer.modules", "listed": "models"}


def sentence_model(name, pooling, normalized=False, mode=None):
    """A sentence model as some release wrote it. normalized: whether the folder of its Normalize is there."""
    folder = Path(name)
    tiny.make("bert", "BertModel", seed=len(name), dtype=torch.float32, vocab_size=400).save_pretrained(folder)
    wrap(TOKENIZERS["bert"], unk_token="[UNK]", pad_token="[UNK]", sep_token="[SEP]").save_pretrained(folder)
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.{PLACES[pooling]}.{kind}"}
        for n, (kind, path) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps(POOLINGS[pooling] | (mode or {})))
    if normalized:
        (folder / "2_Normalize").mkdir()
    return folder


def test_sentence_models_of_several_releases_go_together():
    """Poolings are compared by what they mean; a Normalize needs no folder."""
    names = {"a": ("first", False), "bb": ("fifth", True), "ccc": ("listed", False)}
    for name, (pooling, normalized) in names.items():
        sentence_model(name, pooling, normalized)
        grown = growkit.widen(name, f"{name}-wide", hidden=48, verify=True)
        assert grown.report.ok
        settings = json.loads(Path(f"{name}-wide/1_Pooling/config.json").read_text())
        assert settings == {k: 48 if v == 24 else v for k, v in POOLINGS[pooling].items()}
        assert Path(f"{name}-wide/2_Normalize").is_dir() == normalized
    for first in names:
        growkit.fuse([first, *(names.keys() - {first})], f"fused-{first}")
        growkit.merge(["bb"], f"merged-{first}", base=first)
    sentence_model("other", "fifth", mode={"pooling_mode": "mean"})
    refused("merge", "other", "--base", "a", says="'a' and 'other' have different settings of their Pooling module")
    shutil.rmtree("a/1_Pooling")
    refused("widen", "a", "--hidden", "48", says="lists a Pooling module in '1_Pooling', which is not there")


def test_sentence_models_of_several_releases_load_in_sentence_transformers():
    pytest.importorskip("sentence_transformers")
    texts = ["the wind blows over the hill", "a hill", "what was said was not heard"]
    for name, pooling, normalized in (("a", "first", False), ("bb", "fifth", True)):
        sentence_model(name, pooling, normalized)
        growkit.widen(name, f"{name}-wide", hidden=48)
        before, after = embed(name, texts), embed(f"{name}-wide", texts)
        assert before.shape == (3, 24) and after.shape == (3, 48)
        assert (before @ before.T - after @ after.T).abs().max() < 1e-5, "unit lengths and angles stay"
        assert (before @ before.T).std() > 1e-3


def test_adamw_state_and_state_dicts_may_have_the_first_words_too():
    model, moments = saved("bert", Path("src"))
    grown = growkit.widen("src", "wide", hidden=48, optimizer="src/adam.safetensors")
    edit_weights(Path("src"), old_words)
    growkit.widen("src", "wide-old", hidden=48, optimizer="src/adam.safetensors")
    renamed = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor for name, tensor in moments.items()}
    assert renamed.keys() != moments.keys()
    save_file(renamed, "src/old.safetensors")
    growkit.widen("src", "wide-older", hidden=48, optimizer="src/old.safetensors")
    state_of = [load_file(f"{name}/optimizer/optimizer.safetensors") for name in ("wide", "wide-old", "wide-older")]
    for other in state_of[1:]:
        assert state_of[0].keys() == other.keys()
        assert all(torch.equal(tensor, other[name]) for name, tensor in state_of[0].items())
    tensors = dict(model.state_dict())
    old_words(tensors)
    new, _ = growkit.grow_state_dict(tensors, model.config, hidden=48)
    assert all(torch.equal(new[name], tensor) for name, tensor in state("wide").items()) and grown.plan
