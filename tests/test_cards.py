"""Model cards: what a result inherits from its sources' cards, and files of members that a merge keeps."""

import json
import os
from pathlib import Path

import pytest
import tiny
import tiny_runs
import torch
import yaml
from huggingface_hub import ModelCard
from on_disk import fine_tune, linked
from refusing import run

import growkit
from growkit.checkpoint.card import model_card, read_card
from growkit.checkpoint.source import Checkpoint

APACHE = "license: apache-2.0\nlanguage:\n- en\n- de\npipeline_tag: text-generation\ntags:\n- chat\n"
OTHER = (
    "license: other\nlicense_name: mine\nlicense_link: LICENSE\nlanguage: fr\ntags: [code, generated_from_trainer]\n"
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards")
    fine_tune(folder, "abc", dtype=torch.float32)
    for name, front in (("base", APACHE + "base_model: org/first\n"), ("a", APACHE), ("b", OTHER)):
        (folder / name / "README.md").write_text(f"---\n{front}---\n# {name}\n")
    return folder


@pytest.fixture
def here(models, tmp_path, monkeypatch):
    """The models under their names in a new current folder."""
    return linked(models, tmp_path, monkeypatch)


def head(folder):
    """A card's data, as the hub's own client reads it."""
    return ModelCard.load(Path(folder) / "README.md").data.to_dict()


def test_a_growth_inherits(here):
    growkit.widen("base", "wide", hidden=48)
    wanted = dict(license="apache-2.0", language=["en", "de"], pipeline_tag="text-generation", tags=["chat", "growkit"])
    wanted |= dict(library_name="transformers", base_model="org/first", base_model_relation="finetune")
    assert head("wide") == wanted
    growkit.stack("wide", "deep", layers=6)
    assert head("deep") == wanted
    growkit.stack("c", "plain", layers=6)
    assert head("plain") == {"library_name": "transformers", "tags": ["growkit"]}


def test_a_merge_states_what_its_sources_share(here):
    growkit.merge(["a"], "one", base="base", method="task-arithmetic")
    assert head("one")["base_model_relation"] == "merge" and head("one")["license"] == "apache-2.0"
    growkit.merge(["a", "b"], "two", base="base", method="task-arithmetic")
    two, text = head("two"), Path("two/README.md").read_text()
    assert "license" not in two and "- `b`: other" in text and two["language"] == ["en", "de", "fr"]
    assert two["tags"] == ["chat", "code", "growkit", "merge"]
    growkit.merge(["a", "c"], "three", base="base", method="task-arithmetic")
    assert "license" not in head("three") and "- `c`: not stated" in Path("three/README.md").read_text()
    growkit.merge(["b"], "four", method="average")
    assert head("four")["license_name"] == "mine" and head("four")["license_link"] == "LICENSE"


def test_a_lora_is_an_adapter_of_its_base(here):
    growkit.delta("base", "a", "lora", rank=2)
    lora = head("lora")
    assert lora["library_name"] == "peft" and lora["base_model_relation"] == "adapter"
    assert lora["base_model"] == "org/first" and lora["license"] == "apache-2.0" and "lora" in lora["tags"]


def test_a_run_leaves_a_card(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.make("llama", dtype=torch.float32).save_pretrained("model")
    Path("model/README.md").write_text(f"---\n{APACHE}---\n")
    tiny_runs.dataset(Path("data"), 400)
    growkit.pretrain("model", "data", "run", steps=1, seq_len=16, batch_size=2, save_every=10)
    assert head("run/final")["license"] == "apache-2.0" and "`model`" in Path("run/final/README.md").read_text()


def test_a_hub_id_is_the_base():
    source = Checkpoint(label="some-org/some-model", tensors={}, config=None, folder=None)
    data = ModelCard(model_card("t", "text", [source])).data
    assert data.base_model == "some-org/some-model" and data.base_model_relation == "finetune"


HOSTILE = [
    "license: [1, 2]\nlanguage: {a: b}\ntags: 5\npipeline_tag: [x]\nlibrary_name: evil\nbase_model: ../x",
    'license: "a\\nbase_model: evil/evil"\ntags: ["x\\n---\\n# y", "\\e[31m"]\nlanguage: ["no\\nyes"]',
    "license: !!python/object/apply:os.system [x]",
    "tags: [" * 3000,
    "- a\n- b",
    "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(9)
    ),
]  # fmt: skip


@pytest.mark.parametrize("front", HOSTILE)
def test_a_card_of_a_stranger_breaks_nothing(tmp_path, front):
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\n# title\n")
    source = Checkpoint(label=str(tmp_path), tensors={}, config=None, folder=tmp_path)
    data = yaml.safe_load(model_card("t", "text", [source]).split("---\n")[1])
    assert data == {"library_name": "transformers", "tags": ["growkit"]}


def test_tags_are_written_so_that_they_stay_tags(tmp_path):
    odd = ["a: b", "- c", "#d", "'e", "yes", "[f", "---", "*g", "ü"]
    (tmp_path / "README.md").write_text(f"---\n{yaml.safe_dump({'tags': odd})}---\n")
    source = Checkpoint(label=str(tmp_path), tensors={}, config=None, folder=tmp_path)
    assert ModelCard(model_card("two\nlines", "text", [source])).data.tags == [*odd, "growkit"]
    (tmp_path / "README.md").unlink()
    os.mkfifo(tmp_path / "README.md")
    assert read_card(tmp_path) == {}


def with_template(name, **places):
    """A copy of a model with a chat template in one of the places that there are."""
    folder = Path(f"{name}-{'-'.join(places)}")
    folder.mkdir()
    for path in Path(name).iterdir():
        if path.name != "generation_config.json":
            (folder / path.name).write_bytes(path.read_bytes())
    for place, text in places.items():
        file = {"jinja": "chat_template.jinja", "config": "tokenizer_config.json", "json": "chat_template.json"}[place]
        (folder / file).write_text(text if place == "jinja" else json.dumps({"chat_template": text}))
    return str(folder)


def test_a_merge_keeps_template_and_generation_settings(here):
    """The base's, else those of the first member by name that has them."""
    base, named = with_template("base"), [{"name": "default", "template": "B"}, {"name": "tools", "template": "T"}]
    a, b, c = with_template("a", jinja="A"), with_template("b", config=named), with_template("c", json="C")
    for number, (members, template) in enumerate((([b, a], "A"), ([c, b], "B"), ([c], "C"))):
        merged = growkit.merge(members, f"out-{number}", base=base, method="task-arithmetic")
        assert Path(f"out-{number}/chat_template.jinja").read_text() == template
        assert any("the chat template of" in note for note in merged.plan.notes)
        assert not Path(f"out-{number}/generation_config.json").exists()
    growkit.merge([a, "c"], "settings", base=base, method="task-arithmetic")
    assert Path("settings/generation_config.json").read_bytes() == Path("c/generation_config.json").read_bytes()
    own = with_template("base", jinja="BASE")
    merged = growkit.merge([a], "own", base=own, method="task-arithmetic")
    assert Path("own/chat_template.jinja").read_text() == "BASE" and not merged.plan.notes
    assert "chat template" not in run("delta", base, a).output
