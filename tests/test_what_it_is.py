"""Files that are not what their names say, and models that are not what was meant: a sentence says what they are, and
what to do.
"""

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
import transformers
from on_disk import edit_weights
from refusing import do_what_it_says, refused, run
from texts import EXCERPT, TOKENIZERS, wrap

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1234\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    tiny.make("llama", dtype=torch.float32, vocab_size=512).save_pretrained(folder / "src")
    tiny.make("llama", dtype=torch.float32, vocab_size=520, seed=1).save_pretrained(folder / "larger")
    wrap(TOKENIZERS["gpt2"], eos_token="<end>", unk_token="<end>").save_pretrained(folder / "src")
    (folder / "text.txt").write_text(EXCERPT.read_text("utf-8")[:2000], "utf-8")
    for labels in (2, 3):
        bert = tiny.make("bert", "BertForSequenceClassification", dtype=torch.float32, num_labels=labels, seed=labels)
        bert.save_pretrained(folder / f"of-{labels}")
    return folder


@pytest.fixture
def src(made, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "here"))
    return Path("src")


@pytest.mark.parametrize(
    ("file", "line"),
    [("model.safetensors", "widen src --hidden 48 -o out"), ("config.json", "inspect src")]
    + [("tokenizer.json", "tokenize text.txt --tokenizer src -o data"), ("config.json", "init src -o new")]
    + [("model.safetensors.index.json", "verify src src"), ("tokenizer.json", "eval src --data text.txt")],
)
def test_a_pointer_of_git_lfs(src, file, line):
    (src / file).write_text(POINTER)
    refused(
        *line.split(), says=f"'src/{file}' is a pointer of Git LFS, not the file itself; fetch it with git lfs pull"
    )


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_fsdp_wrapped_module."])
def test_a_model_that_was_saved_in_a_wrapper(src, prefix):
    """The command that the sentence gives makes a model of it."""
    edit_weights(src, lambda state: wrapped(state, prefix))
    for _ in range(prefix.count(".")):
        sentence = refused("inspect", "src", says="wrapped; save the model inside, or strip '")
        do_what_it_says(sentence)
        shutil.move("NEW.safetensors", "src/model.safetensors")
    _, info = transformers.LlamaForCausalLM.from_pretrained("src", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert run("inspect", "src").exit_code == 0


def wrapped(state, prefix):
    for name in list(state):
        state[prefix + name] = state.pop(name)


@pytest.mark.parametrize("line", ["fuse of-2 of-3", "stack of-2 of-3 --slices A:1-3,B:1-3"])
def test_classifiers_of_other_labels(src, line):
    refused(
        *line.split(), "-o", "out", says="tell 2 and 3 labels apart; only classifiers of the same labels become one"
    )


def test_only_merge_is_said_to_have_an_option_for_vocabularies(src):
    says = "have vocabularies of 512 and 520; growkit merge joins them with --vocab base"
    refused("delta", "src", "larger", says=says)
    refused("merge", "larger", "--base", "src", "-o", "out", says=says)


def test_an_adapter_is_no_model(src):
    Path("lora").mkdir()
    Path("lora/adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1}))
    Path("lora/adapter_model.bin").write_bytes(b"\x80\x02}q\x00.")
    for line in ("widen lora --hidden 48", "inspect lora", "init lora -o new", "eval lora --data text.txt"):
        sentence = refused(*line.split(), says="'lora")
        assert "add it to its base with growkit apply" in sentence or line.startswith("init"), sentence
    refused("apply", "src", "lora", "-o", "out", says="'lora/adapter_model.bin' is a pickle, which can run code")


def test_the_transformer_of_a_sentence_model_saved_the_old_way(tmp_path, monkeypatch):
    """modules.json in the folder, the transformer in one within it, named by sentence-transformers or by anybody."""
    monkeypatch.chdir(tmp_path)
    for name in ("0_Transformer", "bert"):
        shutil.rmtree("st", ignore_errors=True)
        tiny.make("bert", "BertModel", dtype=torch.float32).save_pretrained(f"st/{name}")
        Path("st/1_Pooling").mkdir()
        Path("st/1_Pooling/config.json").write_text("{}")
        modules = [{"type": "x.Transformer", "path": name}, {"type": "x.Pooling", "path": "1_Pooling"}]
        Path("st/modules.json").write_text(json.dumps(modules))
        for line in (["widen", "st", "--hidden", "48"], ["inspect", "st"], ["push", "st", "me/st", "--dry-run"]):
            said = refused(*line, says=f"; 'st/{name}' holds one: give that folder")
            assert said.endswith("to keep the modules beside it, save the model anew with sentence-transformers first")
    assert run("widen", "st/bert", "--hidden", "48", "-o", "out").exit_code == 0
    Path("st/modules.json").unlink()
    assert refused("inspect", "st", says="'st/bert' holds one").endswith("give that folder")
