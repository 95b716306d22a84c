"""A gated model is the base where it is closed and the base with the skill where it is open, to the last bit, whoever
else is in the batch."""

import copy

import peft
import pytest
import skill_folders
import tiny
import torch

from growkit.errors import CheckpointError, RequestError
from growkit.models.adapters import adapted
from growkit.skills.gates.gated_model import gated
from growkit.skills.gates.skill_parts import parts_of

KINDS = ["llama lora", "gpt2 lora", "llama ia3", "llama mov", "gpt2 molora", "mixtral experts"]
ONE, TWO, PLAIN = (tiny.tokens(seed, 1, length)[0] for seed, length in ((1, 9), (2, 6), (3, 9)))


def base(family="llama"):
    return tiny.make(family, dtype=torch.float32)


def folder_of(kind, path, seed=0):
    family, word = kind.split()
    model = base(family)
    if word in ("mov", "molora"):
        return skill_folders.mixture_folder(model, path, word, seed)
    if word == "ia3":
        targets = ["k_proj", "v_proj", "down_proj"]
        return skill_folders.peft_folder(
            model, path, peft.IA3Config(target_modules=targets, feedforward_modules=targets[-1:]), seed
        )
    if word == "experts":
        stacked = [f"mlp.experts.{name}" for name in ("gate_up_proj", "down_proj")]
        settings = dict(target_modules=["q_proj", "v_proj"], target_parameters=stacked)
        return skill_folders.lora_folder(model, path, seed, **settings)
    return skill_folders.lora_folder(model, path, seed)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("gated")
    return {kind: [folder_of(kind, place / kind / str(seed), seed) for seed in (0, 1)] for kind in KINDS}


def plugged(kind, folders, strengths=(1.0, 1.0), together=()):
    model = base(kind.split()[0])
    gate = skill_folders.gate_for(model, {"one": [ONE], "two": [TWO]}, together)
    return gated(model, gate, [parts_of(model, folder) for folder in folders[kind]], strengths)


def logits(model, ids, mask=None):
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask).logits


def batch():
    """(ids, mask) of ONE, TWO, PLAIN and TWO again, padded on the left."""
    rows = [ONE, TWO, PLAIN, TWO]
    ids = torch.stack([torch.cat([torch.zeros(9 - len(row), dtype=torch.int64), row]) for row in rows])
    return ids, torch.stack([torch.arange(9) >= 9 - len(row) for row in rows]).long()


def spoken(model, ids, mask=None, **more):
    mask = torch.ones_like(ids) if mask is None else mask
    return model.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=0, **more)


@pytest.mark.parametrize("kind", KINDS)
def test_closed_is_the_base_and_open_the_base_with_the_skill(kind, folders):
    model, plain = plugged(kind, folders), base(kind.split()[0])
    with_one, with_two = (adapted(base(kind.split()[0]), folder) for folder in folders[kind])
    for ids, wanted in ((PLAIN, plain), (ONE, with_one), (TWO, with_two)):
        assert torch.equal(logits(model, ids[None]), logits(wanted, ids[None]))
        assert torch.equal(spoken(model, ids[None]), spoken(wanted, ids[None]))
    assert (logits(plain, ONE[None]) - logits(with_one, ONE[None])).abs().max() > 1e-2
    assert type(model) is type(plain) and model.skills.last == [("two",)]
    for (name, one), (other_name, other) in zip(model.state_dict().items(), plain.state_dict().items(), strict=True):
        assert name == other_name and torch.equal(one, other)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mixtral experts"])
def test_each_row_of_a_batch_is_decided_and_computed_as_if_all_were_like_it(kind, folders):
    """Also padded: the same numbers as the base makes of this batch, or the base with the one skill."""
    model, (ids, mask) = plugged(kind, folders), batch()
    plain, *skilled = base(kind.split()[0]), *(adapted(base(kind.split()[0]), folder) for folder in folders[kind])
    mixed = logits(model, ids, mask)
    assert model.skills.last == [("one",), ("two",), (), ("two",)]
    for row, wanted in enumerate((skilled[0], skilled[1], plain, skilled[1])):
        assert torch.equal(mixed[row], logits(wanted, ids, mask)[row])
    said = spoken(model, ids, mask)
    for row, wanted in enumerate((skilled[0], skilled[1], plain, skilled[1])):
        assert torch.equal(said[row], spoken(wanted, ids, mask)[row])


def test_a_mixtures_rows_are_each_their_own_too(folders):
    """Its experts multiply what tokens of all rows come to them, so rows agree to rounding."""
    model, (ids, mask) = plugged("mixtral experts", folders), batch()
    mixed = logits(model, ids, mask)
    assert model.skills.last == [("one",), ("two",), (), ("two",)]
    for row, wanted in ((0, adapted(base("mixtral"), folders["mixtral experts"][0])), (2, base("mixtral"))):
        assert (mixed[row] - logits(wanted, ids, mask)[row]).abs().max() < 1e-4


MODES = [{}, {"use_cache": False}, {"num_beams": 3}, {"cache_implementation": "static", "disable_compile": True}]


@pytest.mark.parametrize("more", MODES, ids=["cache", "none", "beams", "static"])
def test_generating_decides_once(folders, more):
    """Of the prompt, though the text grows, and for all beams of it."""
    model, (ids, mask) = plugged("llama lora", folders), batch()
    said = spoken(model, ids, mask, **more)
    for row, wanted in enumerate([adapted(base(), folder) for folder in folders["llama lora"]] + [base()]):
        assert torch.equal(said[row], spoken(wanted, ids, mask, **more)[row])
    assert len(model.skills.last) == (12 if "num_beams" in more else 4)  # a second decision would be of longer rows
    assert {*model.skills.last} == {("one",), ("two",), ()}


def test_a_sequence_that_goes_on_stays_what_it_was(folders):
    """Also where two are gone on with in turn, each with its own cache."""
    model, skilled, plain = plugged("llama lora", folders), adapted(base(), folders["llama lora"][0]), base()
    more = tiny.tokens(5, 1, 4)
    caches = []
    with torch.no_grad():
        for ids in (ONE, PLAIN):
            caches.append(model(input_ids=ids[None]).past_key_values)
        copied = copy.deepcopy(caches[0])
        for cache, ids, wanted in zip((*caches, copied), (ONE, PLAIN, ONE), (skilled, plain, skilled)):
            begun = wanted(input_ids=ids[None]).past_key_values
            ours, theirs = (m(input_ids=more, past_key_values=c).logits for m, c in ((model, cache), (wanted, begun)))
            assert torch.equal(ours, theirs)
        foreign = plain(input_ids=ONE[None]).past_key_values
        with pytest.raises(RequestError, match="cache was not begun by this model"):
            model(input_ids=more, past_key_values=foreign)
    assert torch.equal(logits(model, PLAIN[None]), logits(plain, PLAIN[None]))  # and nothing is left of the refusal


def test_a_decision_does_not_depend_on_others_or_on_padding(folders):
    model, (ids, mask) = plugged("llama lora", folders), batch()
    whole = model.skills.decide(ids, mask)
    assert whole == [(0,), (1,), (), (1,)]
    right = torch.stack([row.roll(int(own.sum())) for row, own in zip(ids, mask)])
    assert model.skills.decide(right, mask.flip(1)) == whole
    for number in range(4):
        assert model.skills.decide(ids[number : number + 1], mask[number : number + 1]) == [whole[number]]
    assert model.skills.decide(ids[:1], torch.zeros_like(mask[:1])) == [()]


def test_strength_and_several_at_once(folders):
    kind = "llama lora"
    model = plugged(kind, folders, strengths=(0.5, 1.0), together=[(0, 1)])
    plain, one, two = base(), *(adapted(base(), folder) for folder in folders[kind])
    layer = "model.layers.1.mlp.down_proj"
    kept = {}

    def keep(name):
        return lambda module, inputs, output: kept.update({name: (inputs[0], output)})

    model.get_submodule(layer).register_forward_hook(keep("model"))
    with model.skills.opening("one", "two"):
        logits(model, PLAIN[None])
    inputs, output = kept["model"]
    with torch.no_grad():
        plain_out = plain.get_submodule(layer)(inputs)
        deltas = [m.base_model.model.get_submodule(layer)(inputs) - plain_out for m in (one, two)]
    assert torch.allclose(output, plain_out + 0.5 * deltas[0] + deltas[1], atol=1e-5)
    with model.skills.opening("two"):
        assert torch.equal(logits(model, PLAIN[None]), logits(two, PLAIN[None]))
    with model.skills.opening():
        assert torch.equal(logits(model, ONE[None]), logits(plain, ONE[None]))
    with pytest.raises(RequestError, match="there is no skill 'three' here; there are one, two"):
        model.skills.opening("three").__enter__()


@pytest.mark.parametrize("kind", ["llama lora", "llama ia3", "gpt2 molora"])
def test_unplugged_is_the_base(kind, folders):
    model, plain = plugged(kind, folders), base(kind.split()[0])
    logits(model, ONE[None])
    model.skills.unplug()
    assert torch.equal(logits(model, ONE[None]), logits(plain, ONE[None]))
    assert torch.equal(spoken(model, ONE[None]), spoken(plain, ONE[None]))
    assert {*vars(model)} == {*vars(plain)} and all("forward" not in vars(module) for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in plain.parameters()]


def test_parts_go_where_the_model_goes(folders):
    model = plugged("llama lora", folders).to(torch.float64)
    wanted = adapted(base(), folders["llama lora"][0]).to(torch.float64)
    with model.skills.opening("one"):
        assert torch.equal(logits(model, PLAIN[None]), logits(wanted, PLAIN[None]))


def test_what_no_gate_can_read_or_close(folders, tmp_path):
    model = plugged("llama lora", folders)
    with pytest.raises(RequestError, match="reads token ids; give input_ids, not inputs_embeds"):
        model(inputs_embeds=torch.zeros(1, 3, 24))
    with pytest.raises(RequestError, match="reads the whole prompt before it decides; leave prefill_chunk_size out"):
        spoken(model, ONE[None], prefill_chunk_size=2)
    with pytest.raises(RequestError, match=r"attention_mask of the shape of input_ids, \[1, 9\], not \[1, 1, 9, 9\]"):
        logits(model, ONE[None], torch.ones(1, 1, 9, 9))
    assert torch.equal(logits(model, PLAIN[None]), logits(base(), PLAIN[None]))
    biased = tiny.make("llama", dtype=torch.float32)
    skill_folders.lora_folder(biased, tmp_path / "biased", bias="all")
    with pytest.raises(CheckpointError, match="changes weights of the base itself"):
        parts_of(base(), tmp_path / "biased")
    prompts = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    peft.get_peft_model(base(), prompts).save_pretrained(tmp_path / "prompts")
    with pytest.raises(CheckpointError, match="is on none of the base's modules"):
        parts_of(base(), tmp_path / "prompts")
