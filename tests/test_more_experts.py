"""More experts for a mixture: copies of experts and of the router's rows, exact or not as the plan says by how the router
weighs what a token takes.
"""

import pytest
import tiny
import torch
from comparing import DIFFERS, check_exact, grown, logits
from safetensors.torch import load_file
from texts import EXCERPT, TOKENIZERS, wrap

import growkit
from growkit import RequestError, grow_state_dict
from growkit.models.expert_use import copies_for, dealt_out

# a family, what its config says beside the tiny one's, and how it grows
EXACT = [
    ("mixtral", dict(), dict(experts=8, top_k=4)),  # divided by the sum of those taken
    ("qwen2_moe", dict(norm_topk_prob=False), dict(experts=12, top_k=6)),  # of a softmax over all
    ("olmoe", dict(), dict(experts=8, top_k=4, ffn=50)),
    ("granitemoe", dict(), dict(experts=8, top_k=4)),  # a softmax over those taken
    ("gpt_oss", dict(), dict(experts=8, top_k=4, hidden=36, ffn=50, layers=4, depth="identity")),
    ("gpt_oss", dict(num_experts_per_tok=1), dict(experts=8)),  # one copy for one expert
    ("glm4_moe", dict(norm_topk_prob=False), dict(experts=16, top_k=4)),  # sigmoids, and groups
    ("deepseek_v2", dict(), dict(experts=16, top_k=4)),
    ("deepseek_v2", dict(topk_method="greedy"), dict(experts=24)),  # sets of copies as groups
    ("deepseek_v3", dict(n_group=1), dict(experts=16, hidden=36)),
    ("ernie4_5_moe", dict(), dict(experts=16, top_k=4)),  # a bias added to shares of a softmax
]


@pytest.mark.parametrize(("family", "changes", "growth"), EXACT)
def test_exact(family, changes, growth):
    check_exact(family, growth, **changes)


@pytest.mark.parametrize(
    ("family", "changes", "growth"),
    [
        ("mixtral", dict(), dict(experts=8)),
        ("mixtral", dict(), dict(experts=8, top_k=3)),
        ("olmoe", dict(num_experts_per_tok=1), dict(experts=8)),
        ("glm4_moe", dict(), dict(experts=16)),
    ],
)
def test_not_exact_is_said(family, changes, growth):
    """Copies that tie are taken together, so fewer different experts are; or one of them has half of the weight."""
    with tiny.float32_parts_in_double():
        model, exactness, more = grown(family, growth, **changes)
        assert exactness == "approximate"
        assert tiny.relative(logits(model, tiny.tokens()), logits(more, tiny.tokens())) > DIFFERS


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_copies_part_and_their_sum_stays(dtype):
    model = tiny.make("mixtral", dtype=dtype)
    state = tiny.stored(model)
    more, _ = grow_state_dict(state, model.config, experts=12, top_k=6)
    at = "model.layers.1.block_sparse_moe.experts.{}.{}.weight".format
    old, copies = state[at(3, "w2")], [more[at(number, "w2")] for number in (3, 7, 11)]
    assert torch.equal(sum(copy.double() for copy in copies), 3 * old.double())
    assert not torch.equal(copies[0], copies[1]) and torch.equal(copies[2], old)
    assert all(torch.equal(more[at(number, "w1")], state[at(3, "w1")]) for number in (3, 7, 11))
    router = "model.layers.1.block_sparse_moe.gate.weight"
    assert torch.equal(more[router], state[router].repeat(3, 1))


@pytest.mark.parametrize(
    ("family", "growth", "why"),
    [
        ("mixtral", dict(experts=6), "no multiple of the source's 4.*take 4 or 8"),
        ("mixtral", dict(experts=3), "--experts 3 is smaller than the source's 4"),
        ("mixtral", dict(top_k=4, hidden=48), "give --experts too"),
        ("mixtral", dict(experts=8, top_k=1), "from the source's 2"),
        ("mixtral", dict(experts=8, method="aki"), "from the layer above"),
        ("llama", dict(experts=8), "growkit upcycle makes a mixture"),
    ],
)
def test_refused(family, growth, why):
    model = tiny.make(family)
    with pytest.raises(RequestError, match=why):
        grow_state_dict(tiny.stored(model), model.config, **growth)


def test_a_folder_gets_more_experts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.make("qwen3_moe", dtype=torch.float32, hidden_size=32).save_pretrained("src")
    result = growkit.grow("src", experts=8, top_k=4, verify=True)
    assert result.folder.name == "src-e8"
    found = growkit.inspect(result.folder)
    assert (
        found.sizes["expert"] == 8 and found.parameters["experts"] == 2 * growkit.inspect("src").parameters["experts"]
    )


def test_experts_that_a_text_needs_get_more_copies(tmp_path):
    """Layer by layer, as its router and its experts say; each copy holds what its expert does."""
    model = tiny.make("olmoe", dtype=torch.float32, vocab_size=400, hidden_size=32)
    model.save_pretrained(tmp_path / "src")
    wrap(TOKENIZERS["gpt2"], eos_token="<end>").save_pretrained(tmp_path / "src")
    (tmp_path / "text.txt").write_text(EXCERPT.read_text("utf-8")[:3000], "utf-8")
    found = copies_for(tmp_path / "src", tmp_path / "text.txt", 7, seed=0)
    assert all(sum(counts) == 7 and min(counts) == 1 for counts in found.values()) and len(found) == 3
    result = growkit.grow(tmp_path / "src", tmp_path / "out", experts=7, text=tmp_path / "text.txt")
    assert result.plan.recipe.copies == found and str(result.plan.exactness) == "approximate"
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("src", "out"))
    for layer, counts in found.items():
        sources = [*range(4), *(expert for expert in range(4) for _ in range(counts[expert] - 1))]
        at = f"model.layers.{layer}.mlp."
        assert torch.equal(after[f"{at}gate.weight"], before[f"{at}gate.weight"][sources])
        for number, expert in enumerate(sources):
            names = [f"{at}experts.{n}.down_proj.weight" for n in (number, expert)]
            assert torch.equal(after[names[0]], before[names[1]])


def test_copies_go_where_they_do_most():
    assert dealt_out(torch.tensor([8.0, 1.0, 2.0]), 6) == (4, 1, 1)
    assert dealt_out(torch.tensor([8.0, 1.0, 5.0]), 6) == (3, 1, 2)
