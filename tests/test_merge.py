"""Merging as laws: every method equals a few lines of arithmetic in memory, and what must not matter does not."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from on_disk import edit_config, edit_weights, fine_tune, linked, state
from refusing import cases, refused, run
from safetensors.torch import load_file

import growkit
from growkit.merging.methods import METHODS, Method
from growkit.merging.operators.select import kth_largest
from growkit.merging.ways import Consensus, Thinning
from growkit.operators.streams import draws

WEIGHTS = {"a": 1.0, "b": 0.5, "c": -0.25}
MEMBERS = [f"{name}:{weight:g}" for name, weight in WEIGHTS.items()]
PAPERS = {  # method -> (how several become one, how each is thinned)
    "dare": ("sum", "drop"),
    "task-arithmetic": ("sum", ""),
    "ties": ("elect", "top"),
    "dare-ties": ("elect", "drop"),
    "della": ("elect", "ranked"),
    "breadcrumbs": ("sum", "band"),
    "average": ("mean", ""),
    "tsv": ("tsv", ""),
    "iso-c": ("iso", ""),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("merge")
    fine_tune(folder)
    return folder


@pytest.fixture
def here(models, tmp_path, monkeypatch):
    """The models under their names in a new current folder."""
    return linked(models, tmp_path, monkeypatch)


def kth(values, rank):
    return values.abs().flatten().sort(descending=True).values[rank - 1] if rank else float("inf")


def reference(base, members, weights, keys, method, scale=1.0, seed=0, **options):
    """The whole of merging, in memory, one tensor after another."""
    (consensus, sparsify), result = PAPERS[method], {}
    options = {**METHODS[method].options, **options}
    deltas = {key: {n: m[n] - base[n] for n in base} for key, m in zip(keys, members)}
    flat = {key: torch.cat([d.flatten() for d in delta.values()]) for key, delta in deltas.items()}
    for name, origin in base.items():
        found = []
        for key, weight in zip(keys, weights):
            d, stem = deltas[key][name].clone(), name.removeprefix("model.")
            u = torch.from_numpy(draws(seed, f"{stem}/{key}", 0, d.numel()) / 2**32).view(d.shape)
            if sparsify == "drop" and d.dim() > 1:
                d = d * (u >= options["drop"]) / (1 - options["drop"])
            elif sparsify == "top":
                d[d.abs() < kth(flat[key], int(options["density"] * flat[key].numel()))] = 0
            elif sparsify == "band":
                top = int(options["gamma"] * d.numel())
                last = top + max(1, int(options["density"] * d.numel()))
                d[(d.abs() >= kth(d, top)) | (d.abs() < kth(d, last))] = 0
            elif sparsify == "ranked" and d.dim() > 1:
                rank = d.abs().argsort(dim=1).argsort(dim=1).double() / (d.shape[1] - 1)
                q = options["density"] + options["epsilon"] * (2 * rank - 1)
                d = d * (u >= 1 - q) / q
            found.append(weight * d)
        total, matrix = sum(found), origin.dim() == 2 and "embed" not in name and "lm_head" not in name
        if consensus == "elect":
            agrees = [f * total.sign() > 0 for f in found]
            count = sum(abs(w) * a for w, a in zip(weights, agrees))
            total = sum(f * a for f, a in zip(found, agrees)) / torch.where(count > 0, count, 1)
        elif consensus == "iso" and matrix:
            u, s, v = torch.linalg.svd(total, full_matrices=False)
            total = s.mean() * u @ v
        elif consensus == "tsv" and matrix:
            cut = [torch.linalg.svd(f, full_matrices=False) for f in found]
            r = min(origin.shape) // len(cut)
            sides = torch.cat([u[:, :r] for u, _, _ in cut], 1), torch.cat([v[:r] for _, _, v in cut])
            left, right = (u @ v for u, _, v in (torch.linalg.svd(side, full_matrices=False) for side in sides))
            total = left @ torch.diag(torch.cat([s[:r] for _, s, _ in cut])) @ right
        elif consensus in ("mean", "iso", "tsv"):
            total = total / sum(weights)
        result[name] = origin + scale * total
    return result


@pytest.mark.parametrize("method", [name for name in METHODS if name != "slerp"])
def test_every_method_equals_its_reference(here, method):
    options = {"drop": 0.7} if "drop" in METHODS[method].options else {}
    weights = dict(WEIGHTS, c=0.25) if method == "tsv" else WEIGHTS
    members = [(name, weight) for name, weight in weights.items()]
    growkit.merge(members, "out", base="base", method=method, scale=0.7, seed=3, **options)
    base, out = state("base"), state("out")
    args = ([state(n) for n in weights], list(weights.values()), list(weights), method)
    expected = reference(base, *args, scale=0.7, seed=3, **options)
    assert out.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensor.dtype == out[name].dtype and torch.allclose(out[name], tensor, rtol=0, atol=1e-11), name
    assert any(not torch.equal(out[name], base[name]) for name in base)


def test_a_method_is_a_row_and_nothing_else(here, monkeypatch):
    """One that thins by rank in each tensor and by chance, and takes the largest: known to Python, the command, the
    record."""

    def thin(delta, known):
        delta[(delta.abs() > known.limits[0]) | torch.from_numpy(known.draws % 2 == 1).view(delta.shape)] = 0
        return delta

    def largest(deltas):
        return torch.stack([weight * delta for weight, delta in deltas]).amax(0)

    way = Thinning(apply=thin, draws=True, ranks=lambda elements, options: [int(options["density"] * elements)])
    row = Method(consensus=Consensus(join=largest), sparsify=way, options={"density": 0.5}, paper="nowhere")
    monkeypatch.setitem(METHODS, "largest", row)
    growkit.merge(["a", "b:0.5"], "out", base="base", method="largest", density=0.25, seed=3)
    base, a, b, out = (state(name) for name in ("base", "a", "b", "out"))
    for name in base:
        found = []
        for key, member, weight in (("a", a, 1.0), ("b", b, 0.5)):
            delta = member[name] - base[name]
            if delta.dim() > 1:  # chance spares vectors
                odd = torch.from_numpy(draws(3, f"{name.removeprefix('model.')}/{key}", 0, delta.numel()) % 2 == 1)
                delta = torch.where((delta.abs() > kth(delta, delta.numel() // 4)) | odd.view(delta.shape), 0, delta)
            found.append(weight * delta)
        assert torch.allclose(out[name], base[name] + torch.maximum(*found), rtol=0, atol=1e-12), name
    assert json.loads(Path("out/growkit.json").read_text())["request"]["density"] == 0.25
    assert "by largest (nowhere)" in Path("out/README.md").read_text()
    line = [
        "merge",
        "a",
        "b:0.5",
        "--base",
        "base",
        "--method",
        "largest",
        "--density",
        "0.25",
        "--seed",
        "3",
        "-o",
        "out",
        "--force",
    ]
    assert run(*line).exit_code == 0 and all(torch.equal(out[name], value) for name, value in state("out").items())
    refused(*line[:-1], "--drop", "0.5", says="--drop is for dare, dare-ties, not for largest")


def test_slerp_equals_its_reference(here):
    growkit.merge(["a", "b:3"], "out", base="base", method="slerp")
    base, a, b, out = (state(name) for name in ("base", "a", "b", "out"))
    for name in base:
        x, y = (a[name] - base[name]).flatten(), (b[name] - base[name]).flatten()
        angle = torch.arccos(x @ y / x.norm() / y.norm())
        mixed = (torch.sin(0.25 * angle) * x + torch.sin(0.75 * angle) * y) / torch.sin(angle)
        assert torch.allclose(out[name], base[name] + mixed.view(base[name].shape), rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_order_threads_and_shards_change_nothing(here, monkeypatch, method):
    members = MEMBERS[:2] if method == "slerp" else [*MEMBERS[:2], "c:0.25"]
    growkit.merge(members, "one", base="base", method=method)
    monkeypatch.setattr("growkit.checkpoint.stream.WORKERS", 1)
    monkeypatch.setattr("growkit.merging.merged_tensor.BLOCK_ELEMENTS", 500)
    growkit.merge(members[::-1], "other", base="base", method=method, shard_size=20_000)
    assert Path("other/model.safetensors.index.json").exists()
    one, other = state("one"), state("other")
    if method == "slerp":  # its angle is a sum over blocks, whose order is theirs
        assert all(torch.allclose(one[name], other[name], rtol=0, atol=1e-13) for name in one)
    else:
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_dropping_nothing_is_task_arithmetic_and_another_seed_is_another_mask(here):
    growkit.merge(MEMBERS, "plain", base="base", method="task-arithmetic")
    growkit.merge(MEMBERS, "kept", base="base", drop=0)
    assert all(torch.equal(t, state("kept")[name]) for name, t in state("plain").items())
    one, two = (state(growkit.merge(["a"], f"s{seed}", base="base", seed=seed).folder) for seed in (0, 1))
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(one[name], two[name])


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("average", "slerp")])
def test_weights_of_zero_give_the_base(here, method):
    growkit.merge(["a:0", "b:0"], "out", base="base", method=method)
    assert (Path("out") / "model.safetensors").read_bytes() == Path("base/model.safetensors").read_bytes()


@pytest.mark.parametrize("method", ["task-arithmetic", "average", "tsv"])
def test_one_member_gives_the_member(here, method):
    growkit.merge(["a"], "out", base="base", method=method)
    assert all(torch.allclose(t, state("out")[name], rtol=0, atol=1e-13) for name, t in state("a").items())


def test_average_needs_no_base_and_a_base_does_not_change_it(here):
    growkit.merge(["a", "b:3"], "out", method="average")
    growkit.merge(["a", "b:3"], "based", base="base", method="average")
    a, b, out, based = (state(name) for name in ("a", "b", "out", "based"))
    for name in a:
        assert torch.allclose(out[name], (a[name] + 3 * b[name]) / 4, rtol=0, atol=1e-13)
        assert torch.allclose(out[name], based[name], rtol=0, atol=1e-13)


def test_the_mean_over_masks_is_the_delta():
    """E[DARE] = delta: the mean of n masks lies within 6 standard deviations, sqrt(p / (1 - p) / n) |delta|,
    everywhere."""
    delta, p, n = torch.linspace(0.5, 2, 1000).double()[:, None], 0.9, 400
    from growkit.merging.operators.sparsify import drop

    masks = torch.stack([drop(delta.clone(), p, draws(seed, "t/m", 0, 1000)) for seed in range(n)])
    assert set((masks / delta).unique().round(decimals=9).tolist()) == {0.0, 10.0}
    assert ((masks.mean(0) - delta).abs() < 6 * (p / (1 - p) / n) ** 0.5 * delta).all()
    assert abs((masks.mean(0) / delta).mean() - 1) < 6 * (p / (1 - p) / n / 1000) ** 0.5


def test_draws_do_not_depend_on_blocks():
    whole = draws(7, "t/m", 0, 1001)
    pieces = [draws(7, "t/m", start, min(37, 1001 - start)) for start in range(0, 1001, 37)]
    assert np.array_equal(whole, np.concatenate(pieces))
    assert not np.array_equal(whole, draws(7 + 2**32, "t/m", 0, 1001))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_order_statistics_are_exact(dtype):
    values = torch.randn(5000, dtype=dtype, generator=torch.Generator().manual_seed(0)).round(decimals=2)
    ranks = [1, 7, 2500, 4999, 5000]
    found = kth_largest(lambda: values.split(321), [0, *ranks, 5001], dtype)
    assert found == [float("inf"), *(float(kth(values, rank)) for rank in ranks), 0.0]


@pytest.mark.parametrize("family", ["gpt2", "bert", "qwen3", "gemma2"])
def test_families_and_tied_heads(tmp_path, monkeypatch, family):
    monkeypatch.chdir(tmp_path)
    fine_tune(tmp_path, "ab", family, torch.bfloat16, vocab_size=70)
    growkit.merge(["a", "b"], "out", base="base")
    model, info = getattr(tiny.transformers, tiny.language_model(family)).from_pretrained(
        "out", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert {t.dtype for t in state("out").values()} == {torch.bfloat16} and model is not None
    growkit.merge(["a"], "one", base="base", method="task-arithmetic")
    assert all(torch.allclose(t.float(), state("a")[n].float(), rtol=2**-8, atol=1e-6) for n, t in state("one").items())


def test_a_stored_copy_of_a_tied_head_stays_a_copy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fine_tune(tmp_path, "a", tie_word_embeddings=True)
    from safetensors.torch import save_file

    tensors = load_file("base/model.safetensors")
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, "base/model.safetensors")
    growkit.merge(["a"], "out", base="base")
    out = state("out")
    assert torch.equal(out["lm_head.weight"], out["model.embed_tokens.weight"])


def vocabulary(folder, words):
    """A word-level tokenizer.json that says these ids."""
    content = {
        "model": {"type": "WordLevel", "vocab": {word: number for number, word in enumerate(words)}},
        "added_tokens": [],
    }
    (Path(folder) / "tokenizer.json").write_text(json.dumps(content))


def test_vocabularies_that_differ_need_a_word(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fine_tune(tmp_path, "")
    fine_tune(tmp_path / "more", "a", vocab_size=63)
    Path("more/a").rename("a")
    refused(
        "merge",
        "a",
        "--base",
        "base",
        "-o",
        "out",
        says="have vocabularies of 61 and 63; growkit merge joins them with --vocab base",
    )
    growkit.merge(["a"], "out", base="base", method="task-arithmetic", vocab="base")
    name = "model.embed_tokens.weight"
    assert torch.allclose(state("out")[name], state("a")[name][:61], rtol=0, atol=1e-13)
    words = [f"w{number}" for number in range(63)]
    vocabulary("base", words[:61])
    vocabulary("a", [words[62], *words[1:62], words[0]])
    refused(
        "merge",
        "a",
        "--base",
        "base",
        "-o",
        "o2",
        "--vocab",
        "base",
        says="token id 0 is 'w0' in 'base' and 'w62' in 'a'",
    )
    growkit.merge(["a"], "o2", base="base", method="task-arithmetic", vocab="tokens")
    assert torch.allclose(state("o2")[name][0], state("a")[name][62], rtol=0, atol=1e-13)
    assert torch.allclose(state("o2")[name][1:], state("a")[name][1:61], rtol=0, atol=1e-13)


def test_provenance_and_what_reads_it(here):
    assert run("merge", *MEMBERS, "--base", "base", "-o", "out").exit_code == 0
    content = json.loads(Path("out/growkit.json").read_text())
    assert [(s["name"], s["part"], s.get("weight")) for s in content["sources"]] == [
        ("base", "base", None), ("a", "member", 1.0), ("b", "member", 0.5), ("c", "member", -0.25),
    ]  # fmt: skip
    assert content["request"]["method"] == "dare" and content["request"]["drop"] == 0.5
    assert all(len(digest) == 64 for source in content["sources"] for digest in source["files"].values())
    assert run("inspect", "out").exit_code == 0 and growkit.verify("base", "out").exactness == "approximate"
    again = run("merge", *MEMBERS, "--base", "base", "-o", "again", "--json")
    assert json.loads(again.stdout)["folder"] == "again"
    assert Path("again/model.safetensors").read_bytes() == Path("out/model.safetensors").read_bytes()


def test_a_member_that_equals_the_base_is_warned_of(here):
    plan = growkit.merge(["a", "base"], base="base", dry_run=True).plan
    assert any("'base' equals the base" in note for note in plan.notes)


REFUSED = [
    (["a", "b"], "dare merges what members have learned beyond a base: name the base with --base"),
    (["a", "--base", "base", "--drop", "1"], "--drop 1 should be from 0"),
    (["a", "--base", "base", "--drop", "-0.1"], "--drop -0.1 should be from 0"),
    (["a", "--base", "base", "--drop", "nan"], "--drop nan should be from 0"),
    (["a:x", "--base", "base"], "member 'a:x' has weight 'x', which is no number"),
    (["a:inf", "--base", "base"], "member 'a:inf' has weight 'inf'"),
    (["a", "--base", "base", "--method", "mix"], "--method 'mix' is not one of dare, task-arithmetic"),
    (["a", "--base", "base", "--density", "0.3"], "--density is for ties, della, breadcrumbs, not for dare"),
    (["a", "--base", "base", "--method", "ties", "--density", "0"], "--density 0 should be above 0"),
    (["a", "--base", "base", "--method", "della", "--epsilon", "0.5"], "--epsilon 0.5 should be from 0"),
    (["a", "--base", "base", "--method", "breadcrumbs", "--gamma", "0.95"], "--gamma 0.95 should be from 0"),
    (["a", "--method", "slerp"], "slerp goes from one model to another: name two members, not 1"),
    (["a:1", "b:-1", "--method", "average"], "the weights of average add up to 0"),
    (["a", "a", "--base", "base"], "is named twice"),
    (["a", "--base", "nosuch"], "'nosuch' does not exist"),
    (["a", "b", "--method", "average", "--vocab", "base"], "name the base with --base"),
    (["a", "--base", "base", "--dtype", "int8"], "--dtype 'int8' is not one of"),
    (["a", "--base", "base", "--scale", "nan"], "--scale nan should be from -1e+06 to 1e+06"),
    (["a", "--base", "base", "--scale", "1e300"], "--scale 1e+300 should be from -1e+06"),
]


@pytest.mark.parametrize("args, says", cases(REFUSED))
def test_requests_that_are_refused(here, args, says):
    refused("merge", *args, "-o", "out", says=says)


def test_members_that_do_not_belong_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fine_tune(tmp_path, "a")
    tiny.make("bert").save_pretrained("bert")
    tiny.make("llama", intermediate_size=48).save_pretrained("wide")
    merge = ("merge", "--base", "base", "-o", "out")
    refused(*merge, "bert", says="'base' is a llama and 'bert' a bert; only models of one family can be merged")
    refused(*merge, "wide", says="'base' and 'wide' have ffn 40 and 48; only models fine-tuned from one base")
    edit_config(Path("a"), rms_norm_eps=1e-3)
    refused(*merge, "a", says="have rms_norm_eps 1e-06 and 0.001 in config.json")
    edit_config(Path("a"), rms_norm_eps=1e-6)
    edit_weights(Path("a"), lambda tensors: tensors["model.norm.weight"].fill_(torch.nan))
    refused(*merge, "a", says="tensor 'model.norm.weight' of 'a' holds NaN", plan_shown=True)
