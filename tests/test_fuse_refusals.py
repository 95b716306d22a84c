"""Fusing and stacking checkpoints on disk: what a result says of itself, what verify makes of it, models without heads
and with sentence modules; and what cannot be one model, refused in one sentence that names both, with nothing written.
"""

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from comparing import embed
from on_disk import edit_weights
from refusing import cases, refused, run
from safetensors.torch import load_file, save_file

import growkit
from growkit.checkpoint.record import record_of
from growkit.checkpoint.source import file_hash

LARGER = dict(hidden_size=36, num_attention_heads=6, num_key_value_heads=3, intermediate_size=60)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, seed in (("a", 0), ("b", 1)):
        tiny.make("llama", dtype=torch.float32, seed=seed).save_pretrained(folder / name)
    return folder


@pytest.fixture
def here(models, tmp_path, monkeypatch):
    """Two tiny models as `a` and `b` in the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(models, ".", dirs_exist_ok=True)
    return tmp_path


def make(name: str | Path, family: str, *architecture, seed: int = 0, **changes):
    tiny.make(family, *architecture, seed=seed, dtype=torch.float32, **changes).save_pretrained(name)
    return name


OTHERS = [  # how b is made, part of the sentence
    (("llama",), dict(vocab_size=67), "have vocab 61 and 67, which must be the same"),
    (("qwen2",), {}, "'a' is a llama and 'b' a qwen2"),
    (("llama", "LlamaModel"), {}, "are a LlamaForCausalLM and a LlamaModel"),
    (("llama",), dict(head_dim=8), "have head_dim 6 and 8"),
    (("llama",), dict(num_hidden_layers=2), "have layer 3 and 2"),
    (("llama",), dict(num_key_value_heads=4), "2 and 1 query heads for each kv head"),
    (("llama",), dict(rope_parameters={"rope_type": "default", "rope_theta": 5000.0}), "have rope_parameters {"),
    (("llama",), dict(hidden_act="gelu"), "have hidden_act 'silu' and 'gelu'"),
    (("llama",), dict(rms_norm_eps=1e-5), "have rms_norm_eps 1e-06 and 1e-05"),
    (("llama",), dict(mlp_bias=False), "have mlp_bias True and False"),
]


@pytest.mark.parametrize("made, changes, says", cases(OTHERS))
def test_members_that_are_no_kin(here, made, changes, says):
    shutil.rmtree("b")
    make("b", *made, **changes)
    for more in ([], ["--mode", "fpi", "--dry-run"]):
        if "query heads" in says and more:
            continue  # there kv heads themselves must be the same, which is said
        line = refused("fuse", "a", "b", *more, says=says)
        assert "'a'" in line and "'b'" in line


@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_members_whose_layers_see_differently(here, family):
    """Fused models share their layers, and so what each layer is."""
    kinds = ["full_attention", "sliding_attention"]
    settings = dict(use_sliding_window=True, sliding_window=6) if family == "qwen2" else {}
    make("c", family, layer_types=[*kinds, kinds[0]], **settings)
    make("d", family, layer_types=[*kinds[::-1], kinds[1]], **settings)
    refused("fuse", "c", "d", says="layer_types")


def test_sizes_that_stock_code_cannot_have(here):
    """Llama needs hidden to be a multiple of its heads, also of the members' added up."""
    make("c", "llama", hidden_size=36, head_dim=6)
    assert growkit.widen("c", "wide", ffn=80, verify=True).report.ok
    refused("fuse", "a", "c", says="needs hidden 60 to be a multiple of its 8 heads")


def test_tokenizers_must_be_one(here):
    for name in "ab":
        Path(name, "tokenizer.json").write_text(f'{{"version": "{name}"}}')
    line = refused("fuse", "a", "b", says="different tokenizer.json; growkit joins models of one tokenizer")
    assert "'a'" in line and "'b'" in line
    Path("b", "tokenizer.json").write_bytes(Path("a", "tokenizer.json").read_bytes())
    assert run("fuse", "a", "b", "-o", "out", "--no-verify").exit_code == 0
    assert Path("out", "tokenizer.json").read_bytes() == Path("a", "tokenizer.json").read_bytes()


COMMANDS = [
    (["fuse", "a"], "name two sources or more"),
    (["fuse", "a", "--mode", "fpi"], "name two sources or more"),
    (["fuse", "a", "b", "--mode", "mean"], "--mode 'mean' is not one of side-by-side, fpi, aki"),
    (["fuse", "a", "b", "--hidden", "48"], "side by side, sizes are the members' added up"),
    (["fuse", "a", "b", "--ffn", "99"], "side by side, sizes are the members' added up"),
    (
        ["fuse", "a", "big", "--mode", "fpi"],
        "'a' and 'big' have hidden 24 and 36, which must be the same; widen one first",
    ),
    (["fuse", "a", "b", "--mode", "aki", "--hidden", "12"], "--hidden 12 is smaller than the source's 24"),
    (["fuse", "a", "b", "--optimizer", "s.safetensors"], "1 optimizer states for 2 sources; give one for each"),
    (["fuse", "a", "b", *["--optimizer", "s.safetensors"] * 3], "3 optimizer states for 2 sources"),
    (["stack", "a", "b", "--optimizer", "s.safetensors"], "1 optimizer states for 2 sources"),
    (
        ["fuse", "a", "b", "--optimizer", "s.safetensors", "--optimizer", "t.safetensors"],
        "optimizer state of 'b' lacks",
    ),
    (
        ["fuse", "a", "b", "--optimizer", "t.safetensors", "--optimizer", "s.safetensors"],
        "optimizer state of 'a' lacks",
    ),
    (["fuse", "a", "missing"], "'missing' does not exist"),
    (["fuse", "a", "nan"], "holds NaN"),
    (["fuse", "a", "b", "-o", "b", "--force"], "output 'b' is or contains the source 'b'"),
    (["stack", "a", "b", "--slices", "A:1-2,C:1"], "but the sources are A, B"),
    (["stack", "a", "b", "--slices", "1-2"], "for example --slices A:1-8,B:5-12"),
    (
        ["stack", "a", "b", "--method", "solar", "--layers", "4"],
        "takes one source; stack several with stack or interleave",
    ),
    (["stack", "a", "b", "--layers", "5"], "fewer than the source's 6"),
]


@pytest.fixture(scope="module")
def others(models, tmp_path_factory):
    """A larger model, one that holds NaN, an optimizer state and half of one."""
    folder = tmp_path_factory.mktemp("others")
    make(folder / "big", "llama", **LARGER)
    shutil.copytree(models / "b", folder / "nan")
    edit_weights(folder / "nan", lambda s: s["model.layers.1.mlp.up_proj.weight"].fill_(float("nan")))
    state = {f"{name}.exp_avg": tensor.clone() for name, tensor in load_file(models / "a/model.safetensors").items()}
    save_file(state, folder / "s.safetensors")
    save_file({k: v for k, v in state.items() if "mlp" in k}, folder / "t.safetensors")
    return folder


@pytest.mark.parametrize("command, says", cases(COMMANDS))
def test_requests_that_cannot_be(here, others, command, says):
    shutil.copytree(others, ".", dirs_exist_ok=True)
    refused(*command, "--no-verify", says=says, plan_shown="nan" in command)


def test_verify_compares_the_mean_of_the_members_logits(here):
    """One body under two heads: norms agree, so the mean is kept, which no single member computes."""
    state = load_file("a/model.safetensors")
    state["lm_head.weight"] = load_file("b/model.safetensors")["lm_head.weight"]
    save_file(state, "b/model.safetensors", {"format": "pt"})
    done = run("fuse", "a", "b", "-o", "out", "--json")
    report = json.loads(done.stdout)["verify"]
    assert done.exit_code == 0 and report["exactness"] == "approximate" and report["relative"] < 1e-5
    assert [name for name, _ in report["members"]] == ["a", "b"]
    losses = [growkit.verify(name, name).loss_source for name in "ab"]
    assert [loss for _, loss in report["members"]] == pytest.approx(losses)
    assert report["loss_source"] == pytest.approx(report["loss_target"], rel=1e-5) != pytest.approx(losses[0], rel=1e-2)
    again = growkit.verify(["b", "a"], "out")
    assert again.relative < 1e-5 < growkit.verify("a", "out").relative and growkit.verify("a", "out").ok
    assert run("verify", "a", "b", "out", "--tolerance", "1e-5").exit_code == 0
    assert run("verify", "a", "a", "out", "--tolerance", "1e-5").exit_code == 1
    shown = run("verify", "a", "b", "out").stdout
    assert all(f"{loss:.3f}"[:5] in shown for loss in losses), shown


@pytest.mark.parametrize(
    ("family", "architecture", "mode"),
    [("bert", "BertModel", "fpi"), ("gpt2", "GPT2Model", "side-by-side"), ("llama", "LlamaModel", "fpi")],
)
def test_models_without_a_head(here, family, architecture, mode):
    """Their hidden states are read back to the first member's block, or the mean of copies."""
    make("c", family, architecture)
    make("d", family, architecture, seed=1)
    grown = growkit.fuse(["c", "c"], "same", mode=mode, verify=True)
    assert grown.report.ok and grown.report.exactness == "exact" and grown.report.relative < 1e-5
    grown = growkit.fuse(["c", "d"], "other", mode=mode, verify=True)
    assert grown.report.ok and grown.report.exactness == "approximate" and grown.report.relative > 1e-5
    assert run("fuse", "c", "d", "-o", "cli", "--mode", mode).exit_code == 0


def test_classifiers_are_averaged(here):
    sizes = dict(seed=1, hidden_size=36, num_attention_heads=6, intermediate_size=60)
    make("c", "bert", "BertForSequenceClassification"), make("d", "bert", "BertForSequenceClassification", **sizes)
    assert growkit.fuse(["c", "c"], "same", verify=True).report.relative < 1e-5
    grown = growkit.fuse(["c", "d"], "other", verify=True)
    assert grown.report.ok and len(grown.report.members) == 2
    states = [load_file(f"{name}/model.safetensors") for name in ("c", "d", "other")]
    *parts, fused = (state["classifier.weight"] for state in states)
    assert torch.equal(fused, torch.cat(parts, 1) / 2)
    *parts, fused = (state["classifier.bias"] for state in states)
    assert torch.equal(fused, torch.stack(parts).mean(0))


@pytest.fixture
def sentences(here):
    """Builds sentence models of one tokenizer."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "growing": 2, "is": 3, "fun": 4}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]")

    def build(name: str, seed: int, dense: int = 7, mode: str = "mean", activation=torch.nn.Tanh):
        torch.manual_seed(seed)
        fast.save_pretrained(make(f"{name}-body", "bert", "BertModel", seed=seed))
        modules = [Transformer(f"{name}-body"), Pooling(24, pooling_mode=mode)]
        modules += [Dense(24, dense, activation_function=activation())] * bool(dense)
        SentenceTransformer(modules=modules, device="cpu").save(name)
        return name

    return build


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["side-by-side", "fpi"])
def test_sentence_models(sentences, mode):
    """What follows the transformer reads all members: side by side the mean of their Dense layers."""
    texts = ["growing is fun", "is growing fun", "fun"]
    names = [sentences("c", 1), sentences("d", 2)]
    growkit.fuse(["c", "c"], "same", mode=mode)
    assert tiny.relative(embed("c", texts), embed("same", texts)) < 1e-5
    growkit.fuse(names, "other", mode=mode)
    assert embed("other", texts).shape == (3, 7)
    dense = [load_file(next(Path(name).glob("*Dense/model.safetensors"))) for name in (*names, "other")]
    weights, biases = ([state[f"linear.{kind}"] for state in dense] for kind in ("weight", "bias"))
    assert torch.equal(weights[2], torch.cat(weights[:2], 1) / 2)
    assert torch.equal(biases[2], sum(biases[:2]) / 2 if mode == "side-by-side" else biases[0])


MODULES = [  # the second sentence model, the module that must be alike, what is asked
    (dict(dense=0), "Dense", "fuse"),
    (dict(dense=5), "Dense", "stack"),
    (dict(activation=torch.nn.Identity), "Dense", "fuse"),
    (dict(mode="cls"), "Pooling", "stack"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("second", "says", "command"), MODULES, ids=["none", "narrower", "other activation", "other pooling"]
)
def test_sentence_modules_must_be_alike(sentences, second, says, command):
    sentences("c", 1), sentences("d", 2, **second)
    for members in (["c", "d"], ["d", "c"]):
        refused(command, *members, "--no-verify", says=says, plan_shown=True)


def test_tables_that_no_config_measures_must_be_alike(here):
    """How many labels a classifier has is read off its tensor."""
    make("c", "bert", "BertForSequenceClassification"), shutil.copytree("c", "d")
    edit_weights(
        Path("d"), lambda s: s.update({"classifier.weight": torch.rand(3, 24), "classifier.bias": torch.rand(3)})
    )
    for mode in ("side-by-side", "fpi"):
        refused("fuse", "c", "d", "--mode", mode, "--no-verify", says="classifier", plan_shown=True)


def test_a_result_names_its_members_and_what_they_came_from(here):
    growkit.widen("a", "a2", hidden=48), growkit.widen("b", "b2", hidden=48, method="aki")
    growkit.fuse(["a2", "b2", "a2"], "out", mode="aki")
    said = json.loads(Path("out/growkit.json").read_text())
    assert said["command"] == "fuse" and said["request"]["mode"] == "aki" and said["exactness"] == "approximate"
    assert [entry["name"] for entry in said["sources"]] == ["a2", "b2", "a2"]
    for entry in said["sources"]:
        assert entry["files"] == {"model.safetensors": file_hash(Path(entry["name"], "model.safetensors"))}
        assert entry["record"] == record_of(Path(entry["name"]))
    assert "a2 + b2 + a2, fused" in Path("out/README.md").read_text()
    assert run("stack", "--layers", "4", "--no-verify").exit_code == 0, "out is the one leaf"
    assert json.loads(Path("out-l4/growkit.json").read_text())["sources"][0]["record"] == record_of(Path("out"))


def test_an_ancestor_of_a_fused_model_is_judged_by_what_lies_between(here):
    growkit.widen("a", "exact", hidden=48), growkit.widen("a", "aki", hidden=48, method="aki")
    growkit.fuse(["exact", "exact"], "twice"), growkit.fuse(["aki", "aki"], "other")
    for name, said in (("exact", "exact"), ("a", "exact")):
        assert str(growkit.verify(name, "twice").exactness) == said and growkit.verify(name, "twice").ok
        assert growkit.verify([name, name], "twice").ok
    assert growkit.verify("aki", "other").exactness == "exact" and growkit.verify("aki", "other").ok
    assert growkit.verify("a", "other").exactness == "approximate" and growkit.verify("a", "other").ok
    assert growkit.verify(["a", "a"], "other").exactness == "approximate", "aki lies between"


def test_paths_and_shards_of_members_are_only_names(here):
    """The same weights, wherever they lie and however they are divided, make the same bytes."""
    growkit.fuse(["a", "b"], "out")
    shutil.copytree("a", "elsewhere")
    tiny.make("llama", dtype=torch.float32, seed=1).save_pretrained("sharded", max_shard_size="20KB")
    assert len(list(Path("sharded").glob("*.safetensors"))) > 1
    growkit.fuse([Path("elsewhere").resolve(), "sharded"], "again")
    assert Path("out/model.safetensors").read_bytes() == Path("again/model.safetensors").read_bytes()
    assert Path("out/config.json").read_bytes() == Path("again/config.json").read_bytes()


@pytest.mark.parametrize("again", ["a", "./a", "{here}/a", "link"])
def test_one_model_under_two_names_is_one_model(here, again):
    """By where its files lie: a copy is not compared byte by byte, so the plan promises less of it than it does."""
    Path("link").symlink_to("a")
    assert str(growkit.fuse(["a", again.format(here=here)], dry_run=True).plan.exactness) == "exact"


def test_members_of_two_dtypes_are_stored_and_loaded_in_the_wider(here):
    tiny.make("llama", dtype=torch.bfloat16).save_pretrained("half")
    for number, members in enumerate((["half", "a"], ["a", "half"])):
        growkit.fuse(members, f"out{number}")
        assert {tensor.dtype for tensor in load_file(f"out{number}/model.safetensors").values()} == {torch.float32}
        assert json.loads(Path(f"out{number}/config.json").read_text())["dtype"] == "float32"


@pytest.mark.parametrize(("method", "slices"), [("stack", None), ("interleave", None), ("stack", "A:2-3,B:1,A:1")])
def test_stacked_models_are_widened_first_then_laid_on_one_another(here, method, slices):
    """Embeddings from the first, the last norm and the head from the last; layers as they are named."""
    make("big", "llama", **LARGER, seed=4)
    growkit.stack(["a", "big"], "out", method=method, slices=slices)
    growkit.widen("a", "wide", hidden=36, heads=6, kv_heads=3, ffn=60)
    first, last, out = (load_file(f"{name}/model.safetensors") for name in ("wide", "big", "out"))
    pairs = [(first, n) for n in range(3)] + [(last, n) for n in range(3)]
    order = [0, 3, 1, 4, 2, 5] if method == "interleave" else [1, 2, 3, 0] if slices else range(6)
    expected = {"model.embed_tokens.weight": first["model.embed_tokens.weight"]}
    expected |= {name: last[name] for name in ("model.norm.weight", "lm_head.weight")}
    for target, (state, layer) in enumerate(pairs[number] for number in order):
        own = f"model.layers.{layer}."
        expected |= {
            name.replace(own, f"model.layers.{target}."): t for name, t in state.items() if name.startswith(own)
        }
    assert out.keys() == expected.keys() and all(torch.equal(out[name], expected[name]) for name in out)
    assert json.loads(Path("out/config.json").read_text())["num_hidden_layers"] == len(order)
    assert not growkit.verify(["a", "big"], "out").keys


def test_state_of_stacked_models_follows_their_layers(here):
    for name in "ab":
        weights = load_file(f"{name}/model.safetensors")
        state = {
            f"{key}.{kind}": torch.rand_like(t) for key, t in weights.items() for kind in ("exp_avg", "exp_avg_sq")
        }
        save_file(state, f"{name}.safetensors")
    growkit.stack(["a", "b"], "out", optimizer=["a.safetensors", "b.safetensors"])
    first, last, out = (
        load_file(name) for name in ("a.safetensors", "b.safetensors", "out/optimizer/optimizer.safetensors")
    )
    for key, tensor in out.items():
        number = int(key.split(".")[2]) if ".layers." in key else None
        state = last if ("norm.weight.e" in key and number is None) or "lm_head" in key or (number or 0) > 2 else first
        origin = key if number is None else key.replace(f"layers.{number}.", f"layers.{number % 3}.")
        assert torch.equal(tensor, state[origin]), key
    assert len(out) == 2 * len(load_file("out/model.safetensors"))
