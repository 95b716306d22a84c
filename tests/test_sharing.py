"""Models that no process holds whole: read row by row into their shares, and written row by row out of them."""

import json
import os
import weakref
from itertools import product
from pathlib import Path

import pytest
import tiny
import torch
import transformers
from covering import cover, features
from processes import pair
from refusing import tree
from safetensors.torch import load_file, save_file
from tiny_runs import ask, dataset, same, tokenizer
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from growkit.checkpoint.source import Checkpoint
from growkit.errors import CheckpointError, RequestError
from growkit.families import FAMILIES
from growkit.growth.sources import open_source
from growkit.models.live_layers import layers_of
from growkit.training import pretrain, ready
from growkit.training.blank import blank_model
from growkit.training.machine import this_machine
from growkit.training.optim import moments
from growkit.training.sharing import give_memory

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def filled(folder):
    """A model as a run opens it, in one process."""
    blank = blank_model(open_source(folder))
    assert all(parameter.is_meta for parameter in blank.model.parameters())
    give_memory(blank.model, CPU)
    blank.fill()
    return blank.model


def stock(folder):
    config = json.loads(Path(folder, "config.json").read_text())
    kind = getattr(transformers, config["architectures"][0])
    return kind.from_pretrained(folder, dtype=torch.float32)


def assert_alike(folder):
    """Parameters, buffers and ties are those that transformers loads, and so is what is written beside weights."""
    mine, theirs = filled(folder), stock(folder)
    for kind in ("named_parameters", "named_buffers"):
        ours, stocks = dict(getattr(mine, kind)()), dict(getattr(theirs, kind)())  # tied ones once
        assert list(ours) == list(stocks)
        for name, tensor in ours.items():
            assert tensor.dtype == stocks[name].dtype and torch.equal(tensor, stocks[name]), name
    said = [{**model.config.to_dict(), "_name_or_path": ""} for model in (mine, theirs)]
    assert not mine.training and said[0] == said[1]
    if mine.can_generate():
        assert mine.generation_config.to_dict() == theirs.generation_config.to_dict()


@pytest.mark.parametrize(
    ("family", "dtype"),
    cover(
        product(tiny.CONFIGS, (torch.float32, torch.bfloat16)),
        lambda row: {*features(row[0]), row[1], (row[1], FAMILIES[row[0]].causal, FAMILIES[row[0]].is_moe)},
    ),
    ids=str,
)
def test_a_model_is_filled_as_transformers_loads_it(family, dtype):
    tiny.make(family, dtype=dtype).save_pretrained("stored")
    assert_alike("stored")


def renamed(change):
    """Files of a tiny model with other names in them."""
    tensors = {change(name): tensor for name, tensor in load_file("stored/model.safetensors").items()}
    save_file(tensors, "stored/model.safetensors", {"format": "pt"})


def old_names(name):
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "gpt_neox", "mixtral"])
def test_names_that_files_may_have(family):
    """Tied or not, of a base model without its prefix, BERT's first ones, without settings for generating."""
    for tied in (True, False):
        tiny.make(family, dtype=torch.float32, tie_word_embeddings=tied).save_pretrained("stored")
        assert_alike("stored")
    if family == "bert":
        renamed(old_names)
        assert any("gamma" in name for name in load_file("stored/model.safetensors"))
    else:
        prefix = stock("stored").base_model_prefix + "."
        renamed(lambda name: name.removeprefix(prefix))
    Path("stored/generation_config.json").unlink(missing_ok=True)
    assert_alike("stored")


@pytest.mark.parametrize("head", ["the same", "another", "alone"])
def test_a_head_that_is_stored_though_it_is_tied(head):
    """It is tied where it is the same, stays its own where it is not, and may stand for the embedding."""
    tiny.make("llama", dtype=torch.float32, tie_word_embeddings=True).save_pretrained("stored")
    tensors = load_file("stored/model.safetensors")
    embedding = tensors["model.embed_tokens.weight"]
    tensors["lm_head.weight"] = embedding + 1.0 if head == "another" else embedding.clone()
    if head == "alone":
        del tensors["model.embed_tokens.weight"]
    save_file(tensors, "stored/model.safetensors", {"format": "pt"})
    assert_alike("stored")
    model = filled("stored")
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == (head != "another")


def test_weights_that_cannot_be():
    for name, change, says in (
        ("model.norm.weight", lambda tensor: None, r"missing: model\.norm\.weight"),
        ("model.norm.weight", lambda tensor: tensor[:7].clone(), r"model\.norm\.weight' with shape \[7\].*\[24\]"),
    ):
        tiny.make("llama", dtype=torch.float32).save_pretrained("stored")
        tensors = load_file("stored/model.safetensors")
        tensors[name] = change(tensors[name])
        save_file({n: t for n, t in tensors.items() if t is not None}, "stored/model.safetensors", {"format": "pt"})
        with pytest.raises(CheckpointError, match=says):
            blank_model(open_source("stored"))


# ---------------------------------------------------------------- two processes


class Peak(TorchDispatchMode):
    """The most bytes of tensors that were made within it and lived at once; a divided tensor counts what is here of it.

    before: tensors that are there already.
    """

    def __init__(self, before=()):
        super().__init__()
        local = [tensor._local_tensor if isinstance(tensor, DTensor) else tensor for tensor in before]
        self.alive, self.now, self.most = {tensor.untyped_storage()._cdata: None for tensor in local}, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.count(tensor._local_tensor if isinstance(tensor, DTensor) else tensor)
        return result

    def count(self, tensor):
        storage = tensor.untyped_storage()
        if not tensor.is_meta and storage._cdata not in self.alive:
            self.alive[storage._cdata] = weakref.finalize(storage, self.gone, storage._cdata, storage.nbytes())
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)

    def gone(self, key, size):
        del self.alive[key]
        self.now -= size


def wide(folder, family, **changes):
    """A model of many tensors, each small beside all of them."""
    sizes = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=4, vocab_size=61)
    more = dict(moe_intermediate_size=32, decoder_sparse_step=1) if family == "qwen3_moe" else {}
    model = tiny.make(family, dtype=torch.float32, **{**sizes, **more, **changes})
    model.save_pretrained(folder)
    sizes = [tensor.numel() * 4 for tensor in model.parameters()]
    return sum(sizes), max(sizes)


@pytest.mark.parametrize("family", ["llama", "qwen3_moe"])
def test_no_process_ever_holds_a_whole_model(family):
    """Counted in bytes of tensors: its share of the weights and one tensor while it reads, a few shares of one as it
    writes."""
    dataset(Path("data"), 400)
    whole, largest = wide("model", family)
    assert whole / 2 + 2 * largest < 0.8 * whole

    def work():
        machine = this_machine("cpu", "float32")
        with Peak() as reading:
            blank = blank_model(open_source("model"))
            model = machine.spread(blank.model, list(layers_of(blank.model)), "all")
            give_memory(model, machine.device)
            blank.fill()
        going = pretrain.open_run(ask(Path(), "run", model="model", shard="all", steps=1))
        going.begin()
        with Peak(
            [*going.student.model.parameters(), *moments(going.student.optimizer, going.student.model).values()]
        ) as writing:
            going.saved.export(going.student, Path("exported"))
        Path(f"{machine.rank}.json").write_text(json.dumps([reading.most, writing.most]))
        return 0

    assert pair(work) == [0, 0]
    peaks = [json.loads(Path(f"{rank}.json").read_text()) for rank in range(2)]
    for reading, _ in peaks:
        assert whole / 2 < reading < whole / 2 + 2 * largest, (reading, whole, largest)
    assert largest / 2 <= peaks[0][1] <= 2 * largest and peaks[1][1] < 1000, peaks
    assert same(load_file("exported/model.safetensors"), load_file("model/model.safetensors"))
    assert_alike("exported")


SHARED = {  # a family, what is changed in it, how it is divided
    "rows that do not divide": ("llama", dict(intermediate_size=41, num_key_value_heads=1), "all"),
    "tied": ("llama", dict(tie_word_embeddings=True), "all"),
    "experts": ("mixtral", dict(num_local_experts=3), "all"),
    "replicated": ("gpt2", {}, "none"),
    "masked": ("bert", {}, "all"),
    "another head": ("gpt_neox", {}, "all"),
}


@pytest.mark.parametrize("case", SHARED)
def test_two_processes_read_and_write_what_one_does(case):
    """Byte for byte, with AdamW's state that lies beside the weights, before anything is learned."""
    family, changes, shard = SHARED[case]
    dataset(Path("data"), 400)
    layers = "n_layer" if family == "gpt2" else "num_hidden_layers"
    tiny.make(family, dtype=torch.bfloat16, **{layers: 1}, **changes).save_pretrained("first")
    tokenizer().save_pretrained("first")
    pretrain.pretrain(ask(Path(), "run", model="first", steps=2, warmup=0, save_every=99))
    assert max(value.abs().max() for value in load_file("run/final/optimizer/optimizer.safetensors").values()) > 0

    def export(name):
        settings = ask(Path(), f"of-{name}", model="run/final", steps=1, shard=shard)
        going = pretrain.open_run(settings)
        going.begin()
        going.saved.export(going.student, Path(name))
        return 0

    assert pair(lambda: export("two")) == [0, 0]
    export("one")
    assert {name.removeprefix("one/"): said for name, said in tree("one").items()} == {
        name.removeprefix("two/"): said for name, said in tree("two").items()
    }
    assert same(load_file("one/model.safetensors"), load_file("run/final/model.safetensors"))
    assert same(
        load_file("one/optimizer/optimizer.safetensors"), load_file("run/final/optimizer/optimizer.safetensors")
    )


def test_the_first_process_alone_hashes(monkeypatch):
    """The others are told; what it finds wrong is said by all."""
    dataset(Path("data"), 400)
    tiny.make("llama", dtype=torch.float32).save_pretrained("model")

    def forbidden(*_):
        raise AssertionError("this process reads a file that another has read")

    def never():
        ready.file_hash = Checkpoint.hashes = forbidden

    def work():
        settings = ready.prepare(ask(Path(), "run", model="model", steps=1), False).settings
        Path(os.environ["RANK"]).write_text(json.dumps(settings.hashes))
        return 0

    assert pair(work, never) == [0, 0]
    assert Path("0").read_text() == Path("1").read_text() and json.loads(Path("0").read_text())["checkpoint"]

    def fails():
        with pytest.raises(RequestError, match="found wrong"):
            this_machine("cpu", "float32").agreed(wrong)
        return 3

    def wrong():
        raise RequestError("found wrong")

    assert pair(fails, never) == [3, 3]
