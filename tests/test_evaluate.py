"""A loss is what plain transformers computes, over every token once; its bits are of bytes that are counted; what
cannot be measured is refused. And models from scratch are stock models.
"""

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import transformers
from covering import sample
from on_disk import checkpoint, thesis
from refusing import cases, refused, run, tree
from safetensors.torch import load_file
from texts import EXCERPT, TOKENIZERS, header, put, wrap

import growkit
from growkit.data.batches import IGNORED
from growkit.data.windows import Windows

MODELS = {
    "gpt2": dict(vocab_size=400, n_positions=64),
    "llama": dict(vocab_size=512, max_position_embeddings=64),
    "bert": dict(vocab_size=400, max_position_embeddings=64),
    "roberta": dict(vocab_size=400, max_position_embeddings=66),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Tiny models with a tokenizer, a text and the dataset of it."""
    folder = tmp_path_factory.mktemp("made")
    for family, sizes in MODELS.items():
        tiny.make(family, dtype=torch.float32, **sizes).save_pretrained(folder / family)
        if family in tiny.ENCODERS:
            tokenizer = wrap(TOKENIZERS["bert"], sep_token="[SEP]", mask_token="[MASK]", unk_token="[UNK]")
        else:
            tokenizer = wrap(TOKENIZERS["gpt2"], eos_token="<end>")
        tokenizer.save_pretrained(folder / family)
    text = EXCERPT.read_text("utf-8")
    (folder / "text").mkdir()
    for number in range(3):
        (folder / f"text/{number}.txt").write_text(text[number * 500 : (number + 1) * 500] + "é", "utf-8")
    for family in ("gpt2", "bert"):
        growkit.tokenize(
            folder / "text/0.txt", folder / f"{family}-data", folder / family, val=folder / "text/[12].txt"
        )
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A copy of all that, as the current folder."""
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "here"))


def ids_of(path="gpt2-data/val.bin"):
    return np.fromfile(path, "<u2").astype(np.int64)


def stock(folder):
    config = transformers.AutoConfig.from_pretrained(folder)
    return getattr(transformers, config.architectures[0]).from_pretrained(folder, dtype=torch.float32).eval()


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.from_numpy(ids)[None]).logits[0].double().log_softmax(-1)


def losses_by_hand(folder, ids, context, stride):
    """Nats of every token but the first, each in the first window that predicts it; the last window moved back."""
    nats, model = {}, stock(folder)
    starts = [*range(0, len(ids) - 1 - context, stride), len(ids) - 1 - context]
    for start in starts:
        piece = ids[start : start + context + 1]
        scores = logits(model, piece[:-1])
        for place in range(context):
            nats.setdefault(start + place + 1, -scores[place, piece[place + 1]].item())
    assert sorted(nats) == list(range(1, len(ids)))
    return list(nats.values())


@pytest.mark.parametrize("model", ["gpt2", "llama"])
@pytest.mark.parametrize("context, stride", [(64, 64), (64, 16), (50, 7), (16, 1)])
def test_causal_loss_is_that_of_plain_transformers(here, model, context, stride):
    if stride == 1:
        ids_of()[:60].astype("<u2").tofile("short.bin")
        data = "short.bin"
    else:
        data = "gpt2-data"
    found = growkit.evaluate(model, data, context=context, stride=stride, batch_size=3)
    ids = ids_of(data if stride == 1 else "gpt2-data/val.bin")
    nats = losses_by_hand(model, ids, context, stride)
    assert found.loss == pytest.approx(sum(nats) / len(nats), rel=1e-6)
    assert found.perplexity == pytest.approx(math.exp(found.loss))
    assert found.predicted == len(ids) - 1 == found.tokens - 1 and (found.context, found.stride) == (context, stride)
    assert found.windows == 1 + math.ceil((len(ids) - 1 - context) / stride)


def test_bits_per_byte_by_hand(here):
    found = growkit.evaluate("gpt2", "gpt2-data")
    size = sum(len(Path(f"text/{n}.txt").read_bytes()) for n in (1, 2))
    assert found.text_bytes == size and "end-of-document tokens stand for none" in found.counted
    assert found.bits_per_byte == pytest.approx(found.loss / math.log(2) * len(ids_of()) / size)
    text = growkit.evaluate("gpt2", "text/[12].txt")
    assert (text.loss, text.bits_per_byte, text.text_bytes) == (found.loss, found.bits_per_byte, size)
    bare = growkit.evaluate("gpt2", "gpt2-data/val.bin")
    assert bare.loss == found.loss and bare.bits_per_byte is None and "does not say how much text" in bare.notes[0]


def test_headers_change_nothing(here):
    Path("llmc.bin").write_bytes(header(20240520, 1, len(ids_of())) + ids_of().astype("<u2").tobytes())
    assert growkit.evaluate("gpt2", "llmc.bin").loss == growkit.evaluate("gpt2", "gpt2-data").loss


@pytest.mark.parametrize("model", ["bert", "roberta"])
def test_masked_loss_is_that_of_plain_transformers(here, model):
    found = growkit.evaluate(model, "bert-data", context=40, batch_size=4)
    ids = ids_of("bert-data/val.bin")
    nats, right, plain = [], [], stock(model)
    windows = Windows(ids=ids, context=40, stride=40, masked=(2, 400))
    for number in range(len(ids) // 40):
        batch = windows.at([number])
        inputs, labels = batch.inputs[0].numpy(), batch.labels[0].numpy()
        original = ids[number * 40 : number * 40 + 40]
        assert ((inputs == original) | (labels != IGNORED)).all() and (
            labels[labels != IGNORED] == original[labels != IGNORED]
        ).all()
        scores = logits(plain, inputs)
        for place in np.flatnonzero(labels != IGNORED):
            nats.append(-scores[place, labels[place]].item())
            right.append(scores[place].argmax().item() == labels[place])
    assert found.loss == pytest.approx(np.mean(nats), rel=1e-6) and found.accuracy == pytest.approx(np.mean(right))
    assert found.predicted == len(nats) == found.windows * 6 and found.objective == "masked"
    assert found.perplexity is None and found.bits_per_byte is None and "seed 0" in found.notes[0]
    assert found == growkit.evaluate(model, "bert-data", context=40, batch_size=1)


@pytest.mark.parametrize("context, stride", [(64, 64), (64, 10), (7, 3), (300, 1)])
@pytest.mark.parametrize("tokens", [301, 302, 340, 1000])
def test_windows_predict_every_token_but_the_first_once(tokens, context, stride):
    windows = Windows(ids=np.arange(tokens), context=context, stride=stride)
    predicted = []
    for number in range(windows.windows):
        start, count = windows.place(number)
        assert start >= 0 and start + context < tokens and 0 < count <= context
        predicted += range(start + context - count + 1, start + context + 1)
    assert predicted == list(range(1, tokens))


def test_limit_spreads_over_the_data(here):
    whole = growkit.evaluate("gpt2", "gpt2-data", context=32)
    some = growkit.evaluate("gpt2", "gpt2-data", context=32, limit=150)
    assert some.windows == 5 and 128 < some.predicted <= 160 and some.tokens == whole.tokens
    assert growkit.evaluate("gpt2", "gpt2-data", context=32, limit=10**9) == whole


def test_what_is_shown(here):
    shown = run("eval", "gpt2", "--data", "gpt2-data", "--context", "32", "--stride", "16")
    assert shown.exit_code == 0 and not shown.stderr
    for part in ("context", "32, stride 16", "nats per token", "perplexity", "bits per byte", "end-of-document"):
        assert part in " ".join(shown.stdout.split())
    masked = run("eval", "bert", "--data", "bert-data")
    assert masked.exit_code == 0 and "perplexity  " not in masked.stdout and "of masked tokens" in masked.stdout
    found = json.loads(run("eval", "gpt2", "--data", "text", "--json").stdout)
    assert {"loss", "perplexity", "bits_per_byte", "context", "stride", "tokens", "text_bytes", "split"} <= found.keys()


def test_a_checkpoint_without_a_tokenizer_can_be_measured_on_a_dataset(here):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        os.remove(f"gpt2/{name}")
    found = growkit.evaluate("gpt2", "gpt2-data")
    assert found.bits_per_byte and "no tokenizer" in found.notes[0]
    refused("eval", "gpt2", "--data", "text", says="'gpt2' has no tokenizer to read text with; give a dataset")


def edit(path, **changes):
    put(path, json.dumps(json.loads(Path(path).read_text()) | changes))


def bare(count, value=5):
    np.full(count, value, "<u2").tofile("a.bin")


def body_only():
    tiny.make("gpt2", "GPT2Model", dtype=torch.float32, vocab_size=400).save_pretrained("gpt2")


def headless():
    state = load_file("bert/model.safetensors")
    from safetensors.torch import save_file

    keep = {name: tensor for name, tensor in state.items() if "transform" not in name}
    save_file(keep, "bert/model.safetensors", {"format": "pt"})


EVALS = [  # what is changed, arguments, part of the sentence
    (lambda: None, "gpt2 --data bert-data", "'bert-data' was made with another tokenizer than 'gpt2' has"),
    (lambda: bare(99, 400), "gpt2 --data a.bin", "'a.bin' holds token 400, and the embedding of 'gpt2' has 400 rows"),
    (lambda: None, "gpt2 --data gpt2-data --context 65", "--context 65 is more than the model's 64 positions"),
    (lambda: None, "roberta --data bert-data --context 65", "--context 65 is more than the model's 64 positions"),
    (lambda: None, "gpt2 --data gpt2-data --context 8 --stride 9", "--stride 9 is more than the context of 8"),
    (lambda: None, "bert --data bert-data --stride 9", "--stride is for causal models"),
    (lambda: bare(1), "gpt2 --data a.bin", "'a.bin' is too short: it can fill a window of 0 tokens, not of 1"),
    (lambda: bare(32), "gpt2 --data a.bin --context 32", "too short: it can fill a window of 31 tokens, not of 32; give a smaller"),
    (lambda: None, "gpt2 --data gpt2-data --split test", "'gpt2-data' has no split 'test'; it has train and val"),
    (lambda: None, "gpt2 --data nosuch", "'nosuch' does not exist"),
    (lambda: None, "gpt2 --data nosuch.bin", "'nosuch.bin' does not exist"),
    (lambda: put("a.txt", " "), "gpt2 --data a.txt", "there is no text in 'a.txt'"),
    (lambda: None, "nosuch --data text", "'nosuch' does not exist"),
    (lambda: None, "gpt2 --data text --device tpu", "--device 'tpu' is not one of auto, cpu, cuda"),
    (lambda: put("gpt2/tokenizer.json", "{}"), "gpt2 --data gpt2-data", "the tokenizer of 'gpt2' does not load"),
    (body_only, "gpt2 --data gpt2-data", "'gpt2' is a GPT2Model, which has no language-model head"),
    (lambda: edit("bert/config.json", architectures=["BertLMHeadModel"]), "bert --data bert-data", "sees the tokens that it should predict"),
    (lambda: edit("gpt2/config.json", use_bidirectional_attention=True), "gpt2 --data gpt2-data", "with use_bidirectional_attention: it sees"),
    (headless, "bert --data bert-data", "'bert' lacks weights that its class needs (missing: cls.predictions.transform"),
    (lambda: wrap(TOKENIZERS["bert"], sep_token="[SEP]").save_pretrained("bert"), "bert --data text", "its tokenizer has no mask token"),
]  # fmt: skip


@pytest.mark.parametrize("prepare, args, says", cases(EVALS))
def test_what_cannot_be_measured(here, prepare, args, says):
    prepare()
    refused("eval", *args.split(), says=says)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(here):
    refused("eval", "gpt2", "--data", "gpt2-data", "--device", "cuda", says="PyTorch finds no GPU here")


# models from scratch


@pytest.mark.parametrize("family", sample(tiny.CONFIGS))
def test_init_is_a_stock_model_of_the_same_shape(tmp_path, family):
    model = tiny.make(family, dtype=torch.float32)
    model.save_pretrained(tmp_path / "src")
    made = growkit.init(tmp_path / "src", tmp_path / "new")
    new, info = type(model).from_pretrained(tmp_path / "new", output_loading_info=True)
    assert not any(info.values()) and made.parameters == sum(p.numel() for p in new.parameters())
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert {name: tensor.shape for name, tensor in new.state_dict().items()} == shapes
    torch.manual_seed(0)
    plain = type(model)(model.config).state_dict()
    assert all(torch.equal(tensor, plain[name]) for name, tensor in new.state_dict().items())
    wider = growkit.widen(tmp_path / "new", tmp_path / "wide", ffn=100, verify=True)
    assert wider.report.ok and wider.report.exactness == "exact"


def test_init_by_seed_and_dtype(here):
    state = torch.get_rng_state()
    for name, options in (("a", []), ("b", []), ("c", ["--seed", "1"]), ("d", ["--dtype", "bfloat16"])):
        assert run("init", "gpt2", "-o", name, *options).exit_code == 0
    assert torch.equal(state, torch.get_rng_state()), "nobody else's random numbers are touched"
    a, c, d = (load_file(f"{name}/model.safetensors") for name in "acd")
    assert list(tree("a").values()) == list(tree("b").values())
    assert all(torch.equal(a[n].bfloat16(), d[n]) for n in a) and not all(torch.equal(a[n], c[n]) for n in a)
    assert json.loads(Path("d/config.json").read_text())["dtype"] == "bfloat16"
    assert Path("a/tokenizer.json").read_bytes() == Path("gpt2/tokenizer.json").read_bytes()
    record = json.loads(Path("c/growkit.json").read_text())
    assert record["command"] == "init" and record["request"] == {"config": "gpt2", "seed": 1, "dtype": "float32"}
    assert abs(growkit.evaluate("a", "gpt2-data").loss - math.log(400)) < 0.1, "it knows nothing"


def test_init_from_a_config_alone(here):
    shown = run("init", "gpt2/config.json", "-o", "new")
    assert shown.exit_code == 0 and "it has no tokenizer" in shown.stdout and shown.stdout.endswith("wrote new\n")
    assert sorted(os.listdir("new")) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "growkit.json",
        "model.safetensors",
    ]
    assert json.loads(run("init", "gpt2", "-o", "other", "--json").stdout)["tokenizer"]


INITS = [
    (lambda: None, "nosuch", "'nosuch' does not exist; give a config.json, a checkpoint or a hub id"),
    (lambda: None, "text", "'text' has no config.json; give one"),
    (lambda: put("a.json", "{"), "a.json", "'a.json' is no valid JSON"),
    (lambda: edit("gpt2/config.json", architectures=None, model_type="t5"), "gpt2", "names no class, and transformers has no language model of model_type 't5'"),
    (lambda: edit("gpt2/config.json", architectures=5), "gpt2", "should have architectures as a list, each the name of a class, or null, not 5"),
    (lambda: edit("gpt2/config.json", architectures=["Yeti"]), "gpt2", "names class 'Yeti', which transformers does not have"),
    (lambda: edit("gpt2/config.json", architectures=["load_tf"]), "gpt2", "names class 'load_tf'"),
    (lambda: edit("gpt2/config.json", architectures=["LlamaForCausalLM"]), "gpt2", "has model_type 'gpt2', but its class LlamaForCausalLM is of 'llama'"),
    (lambda: edit("gpt2/config.json", n_head=5), "gpt2", "transformers cannot build a model from the config of 'gpt2'"),
    (lambda: edit("gpt2/config.json", quantization_config={"bits": 4}), "gpt2", "is of a quantised model"),
    (lambda: None, "gpt2 --dtype int8", "--dtype 'int8' is not one of float64, float32, bfloat16, float16"),
    (lambda: edit("gpt2/config.json", dtype="int8"), "gpt2", "dtype 'int8' in the config is not one of"),
    (lambda: checkpoint("out"), "gpt2", "output 'out' exists; choose another with -o, or replace it with --force"),
    (lambda: thesis("out"), "gpt2 --force", "output 'out' is no checkpoint, so --force will not delete it"),
]  # fmt: skip


@pytest.mark.parametrize("prepare, args, says", cases(INITS))
def test_config_that_makes_no_model(here, prepare, args, says):
    prepare()
    refused("init", *args.split(), "-o", "out", says=says)


@pytest.mark.parametrize("family", dict.fromkeys(["bert", *sample(tiny.CONFIGS)]))
def test_init_from_a_config_without_a_class(tmp_path, monkeypatch, family):
    monkeypatch.chdir(tmp_path)
    kind, sizes = tiny.CONFIGS[family]
    Path("config.json").write_text(json.dumps({**kind(**sizes).to_dict(), "architectures": None}))
    result = run("init", "config.json", "-o", "out")
    assert result.exit_code == 0 and f"names no class: it is a {tiny.language_model(family)}" in " ".join(
        result.stdout.split()
    )
    assert json.loads(Path("out/config.json").read_text())["architectures"] == [tiny.language_model(family)]
    if family == "bert":
        made = growkit.init("out", "decoder")
        assert made.architecture == "BertForMaskedLM" and not made.notes
        edit("config.json", is_decoder=True)
        assert growkit.init("config.json", "decoder", force=True).architecture == "BertLMHeadModel"


def test_init_does_not_overwrite_its_config(here):
    refused("init", "gpt2", "-o", "gpt2", "--force", says="output 'gpt2' is or contains the source 'gpt2'")
    checkpoint("out")
    assert run("init", "gpt2", "-o", "out", "--force").exit_code == 0 and Path("out/growkit.json").exists()


def test_the_way_from_text_to_a_loss(here):
    steps = [
        "tokenize text/0.txt --val text/1.txt --train-tokenizer 300 -o data",
        "init gpt2/config.json -o new",
        "eval new --data data --context 16",
    ]
    for step in steps:
        shown = run(*step.split())
        assert shown.exit_code == 0, shown.output
    assert "bits per byte" in shown.stdout
