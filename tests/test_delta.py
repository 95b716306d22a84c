"""Deltas by themselves: what is measured is what is there, and what is saved is what is added again, in PEFT too."""

import json
import shutil
import warnings
from collections import Counter
from pathlib import Path

import pytest
import tiny
import torch
import transformers
from on_disk import edit_weights, fine_tune, linked, state
from refusing import cases, refused, run
from safetensors.torch import save_file

import growkit
from growkit.checkpoint import source
from growkit.checkpoint.headers import header_bytes
from growkit.checkpoint.source import Checkpoint
from growkit.errors import RequestError
from growkit.merging.operators.sparsify import drop as drop_at
from growkit.operators.streams import draws


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("delta")
    fine_tune(folder, "ab")
    return folder


@pytest.fixture
def here(models, tmp_path, monkeypatch):
    """The models under their names in a new current folder."""
    return linked(models, tmp_path, monkeypatch)


def test_what_is_measured_is_what_is_there(here):
    report = growkit.delta("base", "a").report
    base, member = state("base"), state("a")
    flat = torch.cat([(member[name] - base[name]).flatten() for name in base])
    assert sum(kind.elements for kind in report.kinds) == len(flat)
    squares = sum(kind.rms**2 * kind.elements for kind in report.kinds)
    assert squares == pytest.approx(float(flat.square().sum()), rel=1e-5)
    assert max(kind.largest for kind in report.kinds) == pytest.approx(float(flat.abs().max()), rel=1e-6)
    below = sum(kind.below[3] * kind.elements for kind in report.kinds)
    assert below == pytest.approx(int((flat.abs() < 5e-3).sum()))
    assert report.q999 == pytest.approx(float(flat.abs().quantile(0.999)), rel=0.02)
    assert sum(share for _, share in report.histogram) == pytest.approx(1)
    assert report.safe_drop == 0


@pytest.mark.parametrize("size, safe", [(1e-3, 0.9), (5e-3, 0.5), (2e-2, 0.0)])
def test_the_safe_drop_rate_follows_the_size(tmp_path, size, safe):
    fine_tune(tmp_path, "a", size=size)
    assert growkit.delta(tmp_path / "base", tmp_path / "a").report.safe_drop == safe


def test_a_sparse_delta_applied_is_the_merge(here, monkeypatch):
    growkit.delta("base", "a", "skill-a", drop=0.9, seed=4)
    growkit.delta("base", "b", "skill-b", drop=0.9, seed=4)
    monkeypatch.setattr("growkit.merging.merged_tensor.BLOCK_ELEMENTS", 100)
    growkit.apply("base", ["skill-a", "skill-b:0.5"], "applied")
    growkit.merge(["a", "b:0.5"], "merged", base="base", drop=0.9, seed=4)
    applied, merged = state("applied"), state("merged")
    assert all(torch.equal(applied[name], tensor) for name, tensor in merged.items())
    size = Path("skill-a/delta.safetensors").stat().st_size
    assert size < 0.4 * Path("a/model.safetensors").stat().st_size


def naive_sparse_file(base, member, plan):
    """The bytes of delta.safetensors, from whole tensors in memory. plan: of the merge that draws alike."""
    parts = []
    for tensor in plan.tensors:
        delta = (member[tensor.names[0]] - base[tensor.names[0]]).to(tensor.compute)
        flat = delta.flatten()
        if delta.dim() > 1:
            chances = draws(plan.request.seed, f"{tensor.stem}/{plan.members[0].key}", 0, len(flat))
            flat = drop_at(flat, plan.request.options["drop"], chances)
        delta = flat.view(delta.shape)
        whole = delta.to(tensor.dtype)
        sparse = {
            "row_ends": (delta != 0).sum(dim=-1).cumsum(0),
            "columns": delta.nonzero()[:, -1].int(),
            "values": whole[delta != 0],
        }
        smaller = sum(part.nbytes for part in sparse.values()) < whole.nbytes
        chosen = sparse if delta.dim() > 1 and smaller else {"dense": whole}
        parts += [(f"{tensor.stem}.{part}", values) for part, values in chosen.items()]
    parts.sort(key=lambda part: -part[1].element_size())
    header, _ = header_bytes([(name, values.dtype, tuple(values.shape)) for name, values in parts])
    return header + b"".join(values.contiguous().numpy().tobytes() for _, values in parts)


@pytest.mark.parametrize("drop", [0.0, 0.5, 0.9])
def test_a_sparse_delta_is_read_and_hashed_once_and_its_bytes_are_the_naive_ones(tmp_path, monkeypatch, drop):
    """The base's and the member's rows, for the report and the file together; a third of the delta is -0.0."""
    monkeypatch.chdir(tmp_path)
    fine_tune(tmp_path, "a", dtype=torch.float32)
    edit_weights(Path("base"), lambda tensors: [tensor.view(-1)[::3].zero_() for tensor in tensors.values()])
    edit_weights(Path("a"), lambda tensors: [tensor.view(-1)[::3].fill_(-0.0) for tensor in tensors.values()])
    base, member = state("base"), state("a")
    read, hashed = Counter(), Counter()
    rows, file_hash = Checkpoint.rows, source.file_hash

    def counted_rows(self, name, wanted, *more):
        read[self.label, name] += len(wanted)
        return rows(self, name, wanted, *more)

    def counted_hash(path, *more):
        hashed[str(path)] += 1
        return file_hash(path, *more)

    monkeypatch.setattr(Checkpoint, "rows", counted_rows)
    monkeypatch.setattr(source, "file_hash", counted_hash)
    plan = growkit.merge(["a"], base="base", method="dare", drop=drop, seed=4, dry_run=True).plan
    planning = read.copy()  # whether a head is a copy of the embedding
    read.clear()
    monkeypatch.setattr("growkit.merging.merged_tensor.BLOCK_ELEMENTS", 100)
    growkit.delta("base", "a", "skill", drop=drop, seed=4)
    assert read - planning == {(label, name): len(tensor) for label in ("base", "a") for name, tensor in base.items()}
    assert hashed == {f"{label}/model.safetensors": 1 for label in ("base", "a")}
    assert Path("skill/delta.safetensors").read_bytes() == naive_sparse_file(base, member, plan)
    assert sorted(path.name for path in Path("skill").iterdir()) == ["delta.safetensors", "growkit.json"]


def test_a_whole_delta_gives_the_member(here):
    growkit.delta("base", "a", "skill")
    growkit.apply("base", ["skill"], "applied")
    assert all(torch.allclose(t, state("applied")[name], rtol=0, atol=1e-14) for name, t in state("a").items())
    for number, alone in enumerate(("skill", Path("skill"))):
        growkit.apply("base", alone, f"alone-{number}")
        assert all(torch.equal(t, state(f"alone-{number}")[name]) for name, t in state("applied").items())


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_a_lora_of_full_rank_gives_the_linear_layers(tmp_path, monkeypatch, family):
    monkeypatch.chdir(tmp_path)
    fine_tune(tmp_path, "a", family)
    errors = growkit.delta("base", "a", "lora", rank=24).errors
    growkit.apply("base", ["lora"], "applied")
    base, member, applied = state("base"), state("a"), state("applied")
    assert errors and max(errors.values()) < 1e-12
    for name in base:
        linear = f"{name.removesuffix('.weight')}" in errors
        assert torch.allclose(applied[name], (member if linear else base)[name], rtol=0, atol=1e-6), name
    low = growkit.delta("base", "a", "low", rank=2).errors
    assert min(low.values()) > 0.1


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.filterwarnings("ignore")
def test_peft_computes_what_apply_does(tmp_path, monkeypatch, family):
    peft = pytest.importorskip("peft", reason="peft is not installed: pip install peft")
    monkeypatch.chdir(tmp_path)
    fine_tune(tmp_path, "a", family)
    growkit.delta("base", "a", "lora", rank=4)
    growkit.apply("base", ["lora:1"], "applied")
    kind = getattr(transformers, tiny.language_model(family))
    before = kind.from_pretrained("base", dtype=torch.float64).eval()
    after = kind.from_pretrained("applied", dtype=torch.float64).eval()
    ids = tiny.tokens()
    with torch.no_grad():
        start, expected = before(ids).logits, after(ids).logits
        found = peft.PeftModel.from_pretrained(before, "lora").double().eval()(ids).logits
    assert tiny.relative(expected, found) < 1e-5 < 1e-2 < tiny.relative(expected, start)


def test_commands(here):
    assert run("delta", "base", "a", "--save", "skill", "--drop", "0.5").exit_code == 0
    shown = run("delta", "base", "a", "--rank", "2", "--save", "lora", "--json")
    assert json.loads(shown.stdout)["folder"] == "lora"
    assert "safe to drop" in run("delta", "base", "a").stdout
    assert run("apply", "base", "skill", "lora:0.5", "-o", "out").exit_code == 0
    sources = json.loads(Path("out/growkit.json").read_text())["sources"]
    assert [source["part"] for source in sources] == ["base", "member", "member"]


REFUSED = [
    (["delta", "base", "a", "--drop", "0.5"], "say where with --save"),
    (["delta", "base", "a", "--save", "d", "--drop", "0.5", "--rank", "2"], "give one of them"),
    (["delta", "base", "a", "--save", "d", "--drop", "1"], "--drop 1 should be from 0"),
    (["delta", "base", "a", "--save", "a"], "output 'a' is or contains the source 'a'"),
    (["apply", "base", "a", "-o", "out"], "'a' holds no delta: expected delta.safetensors"),
    (
        ["apply", "base", "nosuch", "-o", "out"],
        "'nosuch' does not exist; name a folder that growkit tune or delta left",
    ),
]


@pytest.mark.parametrize("args, says", cases(REFUSED))
def test_requests_that_are_refused(here, args, says):
    refused(*args, says=says)


def test_a_delta_of_another_shape_is_refused(here):
    growkit.delta("base", "a", "skill")
    tiny.make("llama", intermediate_size=48).save_pretrained("wide")
    refused("apply", "wide", "skill", "-o", "out", says="changes tensor 'model.layers.0.mlp")


def test_mixtures_merge_expert_by_expert_and_have_no_lora(tmp_path, monkeypatch):
    """Task arithmetic over a stock model's stacked experts, a sparse skill that adds the same, and a refusal."""
    monkeypatch.chdir(tmp_path)
    models = {name: tiny.make("qwen2_moe", seed=0) for name in ("base", "a", "b")}
    draws = torch.Generator().manual_seed(1)
    for name, model in models.items():
        for parameter in model.parameters():
            parameter.data += (name != "base") * 0.01 * torch.randn(parameter.shape, generator=draws).double()
        model.save_pretrained(name)
    growkit.merge(["a", "b:0.5"], "merged", base="base", method="task-arithmetic")
    growkit.delta("base", "a", "skill")
    growkit.apply("base", ["skill"], "applied")
    for folder, weights in (("merged", (1.0, 0.5)), ("applied", (1.0, 0.0))):
        made = type(models["base"]).from_pretrained(folder, dtype=torch.float64)
        for parameter, base, a, b in zip(made.parameters(), *(model.parameters() for model in models.values())):
            expected = base + weights[0] * (a - base) + weights[1] * (b - base)
            assert torch.allclose(parameter, expected, rtol=1e-6, atol=1e-7)
    with pytest.raises(RequestError, match="stacked"):
        growkit.delta("base", "a", "lora", rank=2)
    assert not Path("lora").exists()


def test_a_delta_of_nan_is_neither_measured_nor_saved(here):
    tensors = state("a")
    name = sorted(tensors)[0]
    tensors[name].view(-1)[0] = float("nan")
    shutil.copytree("a", "broken")
    for path in Path("broken").glob("*.safetensors"):
        path.unlink()
    Path("broken/model.safetensors.index.json").unlink(missing_ok=True)
    save_file(tensors, "broken/model.safetensors", {"format": "pt"})
    said = refused("delta", "base", "broken", "--save", "skill", says="NaN")
    assert name in said and not Path("skill").exists()


def test_a_whole_delta_is_no_larger_than_the_model(here):
    """Columns are stored only where they are fewer bytes than the zeros they leave out; what is applied is the same."""
    sizes = {}
    for name, more in {"whole": {}, "half": {"drop": 0.5}, "thin": {"drop": 0.9}}.items():
        growkit.delta("base", "a", name, **more)
        growkit.apply("base", [name], f"applied-{name}")
        growkit.merge(["a"], f"merged-{name}", base="base", method="dare", drop=more.get("drop", 0.0))
        assert all(torch.equal(state(f"applied-{name}")[key], value) for key, value in state(f"merged-{name}").items())
        sizes[name] = sum(path.stat().st_size for path in Path(name).glob("*.safetensors"))
    model = sum(tensor.numel() * tensor.element_size() for tensor in state("a").values())
    assert sizes["thin"] < sizes["half"] <= sizes["whole"] < 1.1 * model + 20_000


PREFIXES = [  # family, what its bodies' files lack before their names
    ("bert", "bert."),
    ("roberta", "roberta."),
    ("gpt2", "transformer."),
    ("llama", "model."),
]


@pytest.mark.parametrize("family, prefix", PREFIXES)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_lora_of_a_base_without_prefix_has_the_names_that_peft_looks_for(tmp_path, monkeypatch, family, prefix):
    """GPT-2's own files are a body's and their config names the language model; PEFT finds each module, silently."""
    peft = pytest.importorskip("peft", reason="peft is not installed: pip install peft")
    monkeypatch.chdir(tmp_path)
    fine_tune(tmp_path, "a", family, tie_word_embeddings=True)
    kind = getattr(transformers, tiny.language_model(family))
    heads = [name for name in state("base") if not name.startswith(prefix)]
    for folder in ("base", "a"):
        edit_weights(Path(folder), lambda tensors: unprefixed(tensors, prefix, heads))
    errors = growkit.delta("base", "a", "lora", rank=4).errors
    assert errors and all(name.startswith(prefix) for name in errors)
    before = kind.from_pretrained("base", dtype=torch.float64).eval()
    ids = tiny.tokens()
    with torch.no_grad():
        start = before(ids).logits
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # keys that are missing
            found = peft.PeftModel.from_pretrained(before, "lora").double().eval()(ids).logits
        growkit.apply("base", ["lora"], "applied")
        expected = kind.from_pretrained("applied", dtype=torch.float64).eval()(ids).logits
    assert tiny.relative(expected, found) < 1e-5 < 1e-2 < tiny.relative(expected, start)


def unprefixed(tensors, prefix, heads):
    """A task model's tensors under the names of its body's file; what is beside the body keeps its own."""
    for name in [name for name in tensors if name not in heads]:
        tensors[name.removeprefix(prefix)] = tensors.pop(name)


ENDS, COLUMNS, VALUES, DENSE = (
    f"layers.0.self_attn.q_proj.weight.{p}" for p in ["row_ends", "columns", "values", "dense"]
)
UNSOUND = [  # what is done to the tensors of a sparse delta, part of the sentence
    (lambda t: t.update({ENDS: t[ENDS] + 10**9}), f"tensor {ENDS!r} of 'skill/delta.safetensors' should grow from 0"),
    (lambda t: t.update({ENDS: -t[ENDS]}), f"tensor {ENDS!r} of 'skill/delta.safetensors' should grow from 0"),
    (lambda t: t.update({ENDS: t[ENDS].flip(0)}), f"tensor {ENDS!r} of 'skill/delta.safetensors' should grow from 0"),
    (lambda t: t.update({COLUMNS: t[COLUMNS] + 24}), f"tensor {COLUMNS!r} of 'skill/delta.safetensors' should be from"),
    (lambda t: t.update({COLUMNS: t[COLUMNS] - 24}), f"tensor {COLUMNS!r} of 'skill/delta.safetensors' should be from"),
    (lambda t: t.update({ENDS: t[ENDS].int()}), "expected dense, or row_ends (int64), columns (int32) and values"),
    (lambda t: t.update({VALUES: t[VALUES].int()}), "in a floating-point dtype; save the delta again"),
    (lambda t: t.update({VALUES: t[VALUES][1:].clone()}), "expected dense, or row_ends (int64)"),
    (lambda t: t.update({VALUES: t[VALUES][None].clone()}), "expected dense, or row_ends (int64)"),
    (lambda t: t.update({ENDS: torch.tensor(3)}), "expected dense, or row_ends (int64)"),
    (lambda t: t.pop(ENDS), "has columns, values of 'layers.0.self_attn.q_proj.weight'"),
    (lambda t: t.pop(VALUES), "has columns, row_ends of 'layers.0.self_attn.q_proj.weight'"),
    (lambda t: t.update({DENSE: torch.ones(24, 24)}), "has columns, dense, row_ends, values of"),
    (lambda t: t.update({"norm.weight.dense": torch.ones(24, 24)}), "of shape [24, 24] and 'base' has [24]"),
    (lambda t: t.update({"norm.weight.dense": torch.tensor(1.0)}), "of shape [] and 'base' has [24]"),
    (lambda t: t.update({"other": torch.ones(2)}), "has other of ''"),
    (lambda t: t.clear(), "holds no tensors: nothing was saved in its delta.safetensors"),
]


@pytest.mark.parametrize("change, says", cases(UNSOUND))
def test_sparse_deltas_that_do_not_hold_together(here, change, says):
    growkit.delta("base", "a", "skill", drop=0.9)
    tensors = state("skill")
    change(tensors)
    save_file(tensors, "skill/delta.safetensors")
    refused("apply", "base", "skill", "-o", "out", says=says, plan_shown=True)
