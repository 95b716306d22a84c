"""Which files of a folder are the model: those that stock transformers' from_pretrained reads."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from on_disk import edit_config, state
from refusing import cases, refused
from safetensors.torch import save_file

import growkit
from growkit.growth.sources import headers_of, open_source

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for name, seed in (("one", 0), ("two", 1)):
        tiny.make("llama", seed=seed, dtype=torch.float32).save_pretrained(folder / name)
        tiny.make("llama", seed=seed, dtype=torch.float32).save_pretrained(
            folder / f"{name}-shards", max_shard_size=20_000
        )
    return folder


@pytest.fixture
def src(models, tmp_path, monkeypatch):
    """A folder `src` with the config alone."""
    monkeypatch.chdir(tmp_path)
    Path("src").mkdir()
    Path("src/config.json").write_bytes((models / "one/config.json").read_bytes())
    return Path("src")


def put(*parts):
    """Lays files of the models down in a folder, each under another name where one is given."""

    def lay(models, src):
        for part in parts:
            place, _, name = part.partition(" as ")
            for path in sorted(models.glob(place)):
                (src / (name or path.name)).write_bytes(path.read_bytes())

    return lay


def pickled(models, src):
    torch.save(state(models / "two"), src / "pytorch_model.bin")


def both(*lays):
    return lambda models, src: [lay(models, src) for lay in lays]


def settings(**changes):
    return lambda models, src: edit_config(src, **changes)


LAYOUTS = {
    "one file": put("one/model.safetensors"),
    "shards": put("one-shards/model*"),
    "one file beside shards of another model": put("two-shards/model*", "one/model.safetensors"),
    "one file beside an index whose shards are gone": put(f"two-shards/{INDEX}", "one/model.safetensors"),
    "an index of the one file": put("one/model.safetensors"),
    "one file beside a pickle": both(put("one/model.safetensors"), pickled),
    "shards beside a pickle": both(put("one-shards/model*"), pickled),
    "a variant beside the file": put("one/model.safetensors", "two/model.safetensors as model.fp16.safetensors"),
    "a file that the config names": both(
        put("two/model.safetensors", "one/model.safetensors as own.safetensors"),
        settings(transformers_weights="own.safetensors"),
    ),
    "an index that the config names": both(
        put("two/model.safetensors", "one-shards/model-*", f"one-shards/{INDEX} as own.safetensors.index.json"),
        settings(transformers_weights="own.safetensors.index.json"),
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_read_is_what_transformers_reads(models, src, layout):
    LAYOUTS[layout](models, src)
    if layout == "an index of the one file":
        names = state(src)
        Path("src", INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, SINGLE)}))
    stock = tiny.transformers.LlamaForCausalLM.from_pretrained("src").state_dict()
    growkit.merge(["src"], "out", method="average")
    for folder in ("src", "out"):
        checkpoint = open_source(folder)
        assert {*checkpoint.tensors} == {*stock}
        for name, tensor in stock.items():
            rows = checkpoint.rows(name, torch.arange(tensor.shape[0]).numpy())
            assert torch.equal(rows.view(tensor.shape), tensor), name
    notes = headers_of(open_source("src")).notes
    assert any("the single file is read" in note for note in notes) == (
        "file beside an" in layout or "file beside shards" in layout
    )
    assert growkit.verify("src", "out").max_difference == 0


REFUSED = [
    (
        both(put("one/model.safetensors as model.fp16.safetensors"), pickled),
        "has 'model.fp16.safetensors', but transformers would read 'pytorch_model.bin', a pickle",
    ),
    (pickled, "is a pickle, which can run code"),
    (
        both(put("one/model.safetensors"), settings(transformers_weights="../one.safetensors")),
        "should name a safetensors file or index in its folder under 'transformers_weights', not '../one.safetensors'",
    ),
    (
        both(put("one/model.safetensors"), settings(transformers_weights="own.safetensors")),
        "names 'own.safetensors' as its weights, which is not there",
    ),
    (
        both(put("one/model.safetensors"), settings(transformers_weights=5)),
        "under 'transformers_weights', not 5",
    ),
]


@pytest.mark.parametrize("lay, says", cases(REFUSED))
def test_what_transformers_would_read_and_growkit_does_not(models, src, lay, says):
    lay(models, src)
    refused("widen", "src", "--hidden", "48", says=says)


def test_a_variant_alone_is_taken(models, src):
    """Transformers would have to be told its name; there is nothing else that could be meant."""
    put("one/model.safetensors as model.fp16.safetensors")(models, src)
    assert growkit.verify("src", models / "one").max_difference == 0


def test_an_index_of_a_variant_is_no_companion(models, src):
    put("one/model.safetensors", f"two-shards/{INDEX} as model.safetensors.index.fp16.json")(models, src)
    save_file({"x": torch.ones(1)}, "src/other.safetensors")
    growkit.widen("src", "out", ffn=80)
    assert not list(Path("out").glob("*.index.*"))
