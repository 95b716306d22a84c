"""BASE+DELTA as a member: the same as the model that `apply` writes, without its being written."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from loras import PREFIX, edit, lora
from on_disk import fine_tune, linked, state
from refusing import cases, refused, run

import growkit

Q = "model.layers.0.self_attn.q_proj"
METHODS = ["task-arithmetic", "dare", "ties", "della", "breadcrumbs", "average", "tsv", "iso-c"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    fine_tune(folder, "a")
    return folder


@pytest.fixture(autouse=True)
def here(models, tmp_path, monkeypatch):
    linked(models, tmp_path, monkeypatch)
    lora({Q: (24, 24), "model.layers.2.mlp.up_proj": (40, 24)})


def same(one, other, most=1e-13):
    for name, tensor in state(one).items():
        assert tiny.relative(tensor, state(other)[name]) <= most, name


@pytest.mark.parametrize("method", METHODS)
def test_a_member_is_what_apply_writes(method, monkeypatch):
    monkeypatch.setattr("growkit.merging.merged_tensor.BLOCK_ELEMENTS", 100)
    growkit.apply("base", ["lora"], "written/lora")  # an end of its name is what draws go by
    for member in ("base+lora", "written/lora"):
        growkit.merge(["a", f"{member}:0.5"], f"merged/{member}", base="base", method=method, seed=3)
    same("merged/written/lora", "merged/base+lora")


def test_the_lora_alone_is_the_model_with_it():
    growkit.apply("base", ["lora"], "applied")
    growkit.merge(["base+./lora"], "merged", base="base", method="task-arithmetic")
    same("applied", "merged")


def test_delta_measures_and_saves_what_a_lora_changed():
    report = growkit.delta("base", "base+lora", "skill", rank=4)
    assert report.report.report if False else report.errors
    touched = {
        name for name, error in report.errors.items() if error < 1e-6 and name in (Q, "model.layers.2.mlp.up_proj")
    }
    assert len(touched) == 2
    growkit.apply("base", ["skill"], "again")
    growkit.apply("base", ["lora"], "applied")
    same("applied", "again", 1e-6)


def test_a_sparse_delta_on_a_base_is_a_member_too():
    growkit.delta("base", "a", "skill", drop=0.5)
    growkit.apply("base", ["skill"], "applied")
    growkit.merge(["base+skill"], "merged", base="base", method="task-arithmetic")
    same("applied", "merged")


def test_another_vocabulary_is_matched_row_by_row(monkeypatch):
    """Rows of a LoRA on an embedding go where their tokens go; blocks of new rows have none."""
    monkeypatch.setattr("growkit.merging.merged_tensor.BLOCK_ELEMENTS", 48)
    edit(change=lambda tensors: tensors.update(embedding()))
    growkit.apply("base", ["lora"], "applied")
    wide = tiny.make("llama", vocab_size=70)
    wide.save_pretrained("wide")
    for member, out in (("base+lora", "streamed"), ("applied", "written")):
        growkit.merge([member], out, base="wide", method="task-arithmetic", vocab="base")
    same("written", "streamed")


def embedding():
    name = f"{PREFIX}model.embed_tokens.lora_embedding_"
    return {f"{name}A": torch.ones(4, 61).double().tril(), f"{name}B": torch.ones(24, 4).double().triu()}


def test_a_path_that_exists_is_that_path(models):
    Path("base+lora").symlink_to(models / "a")
    growkit.merge(["base+lora"], "merged", base="base", method="task-arithmetic")
    same("a", "merged")
    Path("x+y").symlink_to(models / "base")
    Path("l+m").symlink_to("lora")
    growkit.merge(["x+y+l+m"], "both", base="base", method="task-arithmetic")
    growkit.apply("base", ["lora"], "applied")
    same("applied", "both")


def test_the_record_names_both_and_their_files():
    assert run("merge", "a", "base+lora:0.5", "--base", "base", "-o", "out").exit_code == 0
    member = json.loads(Path("out/growkit.json").read_text())["sources"][2]
    assert {*member["files"]} == {"model.safetensors", "adapter_model.safetensors"}


REFUSED = [
    (["merge", "base+nothing", "--base", "base", "-o", "out"], "'base+nothing' does not exist"),
    (["merge", "base+a", "--base", "base", "-o", "out"], "'a' holds no delta: expected delta.safetensors"),
    (["merge", "nobase+lora", "--base", "base", "-o", "out"], "'nobase' does not exist"),
    (["merge", "base+lora", "base+lora", "--base", "base", "-o", "out"], "is named twice"),
    (["merge", "base+lora", "--base", "base", "-o", "lora"], "output 'lora' is or contains the source 'lora'"),
    (["merge", "base+lora", "--base", "base", "-o", "base/new"], "output 'base/new' is inside the source 'base'"),
    (["delta", "base", "base+lora", "--save", "lora"], "output 'lora' is or contains the source 'lora'"),
]


@pytest.mark.parametrize("args, says", cases(REFUSED))
def test_requests_that_are_refused(args, says):
    refused(*args, says=says)


def test_a_lora_of_another_base_is_refused():
    edit(change=lambda tensors: tensors.pop(f"{PREFIX}{Q}.lora_B.weight"))
    refused("merge", "base+lora", "--base", "base", "-o", "out", says="without its lora_B.weight")
