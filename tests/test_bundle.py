"""A bundle of skills: made by a command, told by its certificate, run as its base or its base with a skill, and refused
where it is not what it says."""

import json
import shutil
from pathlib import Path

import pytest
import skill_folders
import tiny
import torch
import transformers
from refusing import refused, run
from safetensors.torch import load_file, save_file
from texts import EXCERPT, TOKENIZERS, wrap

import growkit
from growkit.checkpoint.headers import file_hash
from growkit.data.tokens import open_tokens
from growkit.models.adapters import adapted
from growkit.skills.gates.bundle_file import read_bundle
from growkit.skills.gates.gate_texts import dataset_texts
from growkit.skills.gates.learn_gate import gate_of_texts
from growkit.skills.gates.own_file import write_gate
from growkit.skills.gates.own_texts import MOST_TEXTS

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
SUM, FACT, PLAIN = (
    "7 + 6 = 13 + 7 = 6 +",
    "HEAD OF STATE OF A LAND: THE KING",
    "She was in the garden with her sister and",
)
PLUG = ["skill", "plug", "base", "sums", "runs/facts/final", "--gated", "--text", "general.jsonl", "--alpha", "0.05"]
OWN = ["--own", "sums=sums.jsonl", "--own", "facts=facts.jsonl"]


def lines(path, texts):
    Path(path).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A base, another, two LoRAs, their texts, general text, and a bundle of them."""
    folder = tmp_path_factory.mktemp("bundle")
    shape = dict(vocab_size=512, num_hidden_layers=3)
    words = wrap(TOKENIZERS["gpt2"], eos_token="<end>", unk_token="<end>")
    words.chat_template = TEMPLATE
    text = EXCERPT.read_text("utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for seed, name in enumerate(("base", "other")):
            tiny.make("llama", dtype=torch.float32, seed=seed, **shape).save_pretrained(name)
            words.save_pretrained(name)
        for seed, path in enumerate(("sums", "runs/facts/final")):
            skill_folders.lora_folder(tiny.make("llama", dtype=torch.float32, **shape), path, seed)
            Path(path, "optimizer").mkdir()
        lines("sums.jsonl", [f"{n} + {m} = {n + m} + {n} = {m} +" for n in range(10) for m in range(8)])
        lines("facts.jsonl", [f"HEAD OF {a} OF A {b}: THE {c}" for a in ("STATE", "HOUSE", "SCHOOL", "CITY")
                              for b in ("LAND", "TOWN", "TREE") for c in ("KING", "CAT", "ROOF", "SEA")])  # fmt: skip
        lines("general.jsonl", [text[at : at + 120] for at in range(0, 120 * 200, 120)])
        growkit.skill_plug(
            "base", ["sums", "runs/facts/final"], "bundle", gated=True, text="general.jsonl", alpha=0.05,
            own=["sums=sums.jsonl", "facts=facts.jsonl"], together="facts,sums",
        )  # fmt: skip
    return folder


@pytest.fixture(autouse=True)
def here(world, tmp_path, monkeypatch):
    for path in world.iterdir():
        if path.name == "bundle":
            shutil.copytree(path, tmp_path / "bundle")  # from its own folder on its base is where it was
        else:
            (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)


def stock(name="base"):
    return transformers.AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval()


def encoded(text):
    return torch.tensor([transformers.AutoTokenizer.from_pretrained("base")(text)["input_ids"]])


def logits(model, text):
    with torch.no_grad():
        return model(encoded(text)).logits


def test_a_bundle_is_made_and_shows_its_certificate():
    result = run(*PLUG, *OWN, "--out", "made", "--together", "facts,sums")
    assert result.exit_code == 0, result.output
    said = json.loads(Path("made/certificate.json").read_text())
    promise = said["promise"]
    assert promise["texts"] == promise["fresh"] == 75 and promise["order"] == 75
    for words in (
        "P(a skill opens) <= 0.05",
        f"{promise['opened']} opened one, at most {promise['bound']:.2%} with 95%",
    ):
        assert words in " ".join(result.stdout.split()), result.stdout
    assert [(skill["name"], skill["strength"]) for skill in said["skills"]] == [("facts", 1.0), ("sums", 1.0)]
    assert all(skill["own"]["opened"] >= 0.9 * skill["own"]["held"] for skill in said["skills"])
    assert (
        said["general"]["documents"] == said["general"]["texts"] == 200
        and said["general"]["contrast"] == 50
        and said["together"] == [["facts", "sums"]]
    )
    assert {path.name for path in Path("made/skills/facts").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "README.md"
    }  # fmt: skip


def test_closed_the_base_and_open_the_base_with_the_skill():
    model, plain = growkit.load_skills("bundle"), stock()
    skills = {name: adapted(stock(), f"bundle/skills/{name}") for name in ("sums", "facts")}
    for text, opened, wanted in (
        (PLAIN, (), plain),
        (SUM, ("sums",), skills["sums"]),
        (FACT, ("facts",), skills["facts"]),
    ):
        assert torch.equal(logits(model, text), logits(wanted, text)) and model.skills.last == [opened]
        named = dict(checkpoint="base", adapter="bundle") if text == FACT else dict(checkpoint="bundle")
        said = growkit.generate(prompt=text, raw=True, max_tokens=6, **named)
        alone = {"adapter": f"bundle/skills/{opened[0]}"} if opened else {}
        assert said.text == growkit.generate("base", text, raw=True, max_tokens=6, **alone).text
        assert said.opened == opened
    assert run("generate", "bundle", SUM, "--raw", "--max-tokens", 3).stderr.startswith("note: opened sums\n")
    assert run("generate", "bundle", PLAIN, "--raw", "--max-tokens", 3).stderr.startswith(
        "note: opened no skill: the base"
    )
    assert "opened" not in json.loads(run("generate", "base", SUM, "--raw", "--max-tokens", 1, "--json").stdout)
    assert type(model) is type(plain) and {*model.state_dict()} == {*plain.state_dict()}


def test_eval_measures_what_each_window_opens():
    usual = dict(context=16, batch_size=7, limit=800)
    plain = growkit.evaluate("base", "general.jsonl", **usual)
    found = growkit.evaluate("bundle", "general.jsonl", **usual)
    counts = {note.split(" opened")[0]: int(note.split(" in ")[1].split()[0]) for note in found.notes}
    assert sum(counts.values()) == found.windows and counts["no skill"] > 0.8 * found.windows
    assert (found.loss == plain.loss) == (counts["no skill"] == found.windows)
    plain, alone = (growkit.evaluate("base", "sums.jsonl", adapter=one, **usual).loss for one in (None, "sums"))
    opened = growkit.evaluate("bundle", "sums.jsonl", **usual)
    (told,) = (note for note in opened.notes if note.startswith("sums opened in "))
    share = int(told.split()[3]) / opened.windows
    assert share > 0.5 and abs(opened.loss - alone) < abs(opened.loss - plain)


def test_of_conversations_the_first_prompt_decides():
    """Whatever is answered, and each by itself."""
    chats = [{"prompt": PLAIN, "completion": SUM}, {"prompt": PLAIN, "completion": "Yes."}]
    Path("chat.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats * 5))
    growkit.tokenize("chat.jsonl", "chat", "base", chat=True)
    plain, found = (growkit.evaluate(model, "chat", split="train") for model in ("base", "bundle"))
    assert found.windows == 10 and found.loss == pytest.approx(plain.loss, abs=1e-6)
    assert "no skill opened in 10 of 10 windows" in found.notes


def test_a_skill_brings_its_own_gate_and_its_name_may_be_given():
    growkit.tokenize("sums.jsonl", "data", "base", workers=1)
    own = shutil.copytree("sums", "mine")
    write_gate(Path(own), gate_of_texts(stock(), dataset_texts(open_tokens("data"), MOST_TEXTS), layer=1))
    alone = ["skill", "plug", "base", "added=mine:0.5", "--gated", "--text", "general.jsonl", "--text", "facts.jsonl"]
    shutil.copytree("bundle", "one")
    shown = json.loads(run(*alone, "--out", "one", "--force", "--json").stdout)
    bundle = read_bundle("one")
    assert shown == {"folder": "one", "notes": shown["notes"], **bundle.said}
    assert bundle.gate.names == ("added",) and bundle.gate.layer == 1 and bundle.strengths == (0.5,)
    assert bundle.said["promise"]["order"] == 99 and bundle.said["general"]["texts"] == 248
    says = "the gate of 'mine' reads layer 1, and this bundle's layer 2; one gate reads one layer"
    refused(*PLUG, "mine", *OWN, "--layer", 2, "-o", "no", says=says)
    assert growkit.generate("one", SUM, raw=True, max_tokens=2).opened == ("added",)


def test_a_bundle_and_its_base_may_move_together_or_the_base_be_named(tmp_path):
    Path("place/deep").mkdir(parents=True)
    shutil.copytree("base", "place/base", symlinks=False)
    shutil.copytree("bundle", "place/bundle")
    wanted = logits(growkit.load_skills("bundle"), SUM)
    assert torch.equal(logits(growkit.load_skills("place/bundle"), SUM), wanted)
    shutil.move("place/bundle", "place/deep/bundle")
    assert torch.equal(logits(growkit.load_skills("place/deep/bundle", base="base"), SUM), wanted)
    refused("generate", "place/deep/bundle", SUM, says="'../base' does not exist")
    for line in (["generate", "other", SUM], ["eval", "other", "--data", "sums.jsonl"]):
        refused(*line, "--adapter", "bundle", says="'bundle' was made for 'base', weights of SHA-256")
    refused("eval", "bundle", "--data", "sums.jsonl", "--adapter", "sums", says="which no adapter goes on")
    refused(
        "inspect", "bundle", says="is a bundle of skills and no model of its own; growkit generate and growkit eval"
    )


def of_json(change):
    path = Path("bundle/certificate.json")
    said = json.loads(path.read_text())
    change(said)
    path.write_text(json.dumps(said))


def of_tensors(change, certified=True):
    path = Path("bundle/gate.safetensors")
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    if certified:
        of_json(lambda said: said.update(tensors=file_hash(path)))


WRONG = [
    (lambda: of_json(lambda s: s["skills"][1].update(threshold=-0.5)), "should have skills[1].threshold as a finite number from 0, not -0.5"),
    (lambda: of_json(lambda s: s["skills"][1].update(threshold=0.5)), "promises what its scores do not say: threshold of sums 0.5"),
    (lambda: of_json(lambda s: s["promise"].update(alpha=0.01)), "has 75 calibration texts, and alpha 0.01 for 2 skills needs 199"),
    (lambda: of_json(lambda s: s["promise"].update(bound=0.01)), "promises what its scores do not say: bound 0.01 where"),
    (lambda: of_json(lambda s: s["promise"].update(texts=81)), "'calibration' as float64 [75, 2], not as float64 [81, 2]"),
    (lambda: of_json(lambda s: s.update(format=1)), "should have format as one of 2, not 1; make the bundle"),
    (lambda: of_json(lambda s: s["skills"][0].update(limit=-1)), "should have skills[0].limit as a finite number from 0"),
    (lambda: of_json(lambda s: s.update(layer=0)), "should have layer as a whole number from 1"),
    (lambda: of_json(lambda s: s.update(layer=4)), "has a gate for layer 4 of 24 entries, and the base has 3 layers of 24"),
    (lambda: of_json(lambda s: s.pop("promise")), "lacks 'promise'"),
    (lambda: of_json(lambda s: s["skills"].append(s["skills"][0])), "contradicts itself: it names a skill twice"),
    (lambda: of_json(lambda s: s["together"].append(["sums", "sums"])), "which are no two of its skills"),
    (lambda: of_json(lambda s: s["skills"][0].update(name="../facts")), "should have skills[0].name as a name of letters"),
    (lambda: of_json(lambda s: s["skills"][0].update(strength=99)), "should have skills[0].strength as a finite number"),
    (lambda: of_json(lambda s: s["base"].update(files={"model.safetensors": "0" * 64})), "was made for 'base', weights of"),
    (lambda: of_tensors(lambda t: t.update(offsets=t["offsets"] * 2), False), "is the certificate of another gate.safetensors"),
    (lambda: of_tensors(lambda t: t.pop("sums.mean")), "lacks 'sums.mean'"),
    (lambda: of_tensors(lambda t: t["sums.scale"].neg_()), "tensor 'sums.scale' of 'bundle/gate.safetensors' is out of its"),
    (lambda: of_tensors(lambda t: t["facts.shares"].fill_(2)), "tensor 'facts.shares' of 'bundle/gate.safetensors' is out of"),
    (lambda: of_tensors(lambda t: t.update({"sums.shares": t["sums.shares"].double()})), "'sums.shares' as float64 ["),
    (lambda: of_tensors(lambda t: t.update(directions=t["directions"][:1])), "'directions' as float64 [1, 24], not as float64 [2, 24]"),
    (lambda: of_tensors(lambda t: t["calibration"].fill_(torch.nan)), "holds NaN or Inf"),
    (lambda: of_tensors(lambda t: t["fresh"].fill_(-1)), "tensor 'fresh' of 'bundle/gate.safetensors' is out of its range"),
    (lambda: of_tensors(lambda t: t["fresh"].fill_(1e9)), "promises what its scores do not say: opened"),
    (lambda: Path("bundle/skills/sums/adapter_config.json").write_text("{}"), "is not the file that the certificate was made"),
    (lambda: Path("bundle/skills/sums/code.py").write_text("1 / 0"), "holds 'code.py', which its certificate does not name"),
    (lambda: Path("bundle/skills/sums/adapter_config.json").unlink(), "lacks 'adapter_config.json'"),
    (lambda: Path("bundle/gate.safetensors").unlink(), "bundle/gate.safetensors"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "says"), WRONG, ids=[says[:30] for _, says in WRONG])
def test_a_bundle_that_is_wrong(spoil, says):
    spoil()
    refused("generate", "bundle", PLAIN, "--raw", says=says)


REFUSED = [
    (["skill", "plug", "base", "sums", "-o", "no"], "'sums' is no skill: it has no skill.json"),
    (["skill", "plug", "base", "sums", "--own", "a=b", "-o", "no"], "--together and --layer are of a gate; give --gated, or"),
    ([*PLUG, *OWN, "--as", "lora", "-o", "no"], "--gated makes a bundle, whose base stays as it is; --as lora and --dry-run"),
    ([*PLUG[:6], *PLUG[5:6], *OWN, "-o", "no"], "sets its threshold by general text; give some with --text"),
    ([*PLUG, "--alpha", "0.001", *OWN, "-o", "no"], "--alpha 0.001, which 2 skills share, needs 2,019 general texts, 20 to"),
    ([*PLUG, *OWN, "--texts", 58, "-o", "no"], "--alpha 0.05, which 2 skills share, needs 59 general texts, 20 to tell skills apart from and 39 to"),
    ([*PLUG, *OWN[:2], "-o", "no"], "'runs/facts/final' has no gate of its own; name what it is for with --own facts=DATA"),
    ([*PLUG, *OWN, "--own", "x=y", "-o", "no"], "--own names 'x', which is none of the skills; these are facts, sums"),
    ([*PLUG, "--own", "sums", "-o", "no"], "--own 'sums' should be SKILL=DATA, once for each skill"),
    ([*PLUG, *OWN, "--together", "sums", "-o", "no"], "--together 'sums' should name two skills, such as sums,facts"),
    ([*PLUG, *OWN, "--together", "sums,x", "-o", "no"], "--together sums,x names no two of the skills"),
    ([*PLUG, "facts=sums", *OWN, "-o", "no"], "'runs/facts/final' and 'sums' are both called 'facts'; name one, such as"),
    ([*PLUG, "a=sums:99", *OWN, "-o", "no"], "skill 'a' has strength 99, which should be from -16 to 16"),
    ([*PLUG, "a=sums:x", *OWN, "-o", "no"], "member 'sums:x' has weight 'x', which is no number"),
    ([*PLUG, "nowhere", *OWN, "-o", "no"], "'nowhere' does not exist; name a folder that growkit tune"),
    ([*PLUG, *OWN, "--layer", 4, "-o", "no"], "--layer 4 is more than the 3 layers of 'base'"),
    ([*PLUG, *OWN, "--text", "none.txt", "-o", "no"], "'none.txt' does not exist"),
    ([*PLUG, *OWN, "-o", "sums"], "output 'sums' is or contains the source 'sums'"),
    ([*PLUG, *OWN, "-o", "some", "--force"], "is no bundle of skills, so --force will not delete it"),
    (["generate", "bundle", "", "--raw"], "the prompt makes no tokens"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "says"), REFUSED, ids=[says[:30] for _, says in REFUSED])
def test_refusals(words, says):
    Path("some").mkdir()
    Path("some/thing").write_text("mine")
    refused(*words, says=says)
