"""The promise: what the plan calls exact computes the same function, and what it does not call exact differs.

Every growth of every kind of family, each feature of a family at least once, tied and untied heads, whole sequences and
token by token through the cache, on stock models in float64; every family is test_every_family.py's, and all growths of
all families are check-family's. Stock code computes norms, softmax or rotary tables in float32 in most families: there
1e-5 is asked of it as it is, and 1e-10 once those parts are computed in float64 too, which leaves nothing but growkit's
algebra.
"""

from copy import deepcopy
from itertools import product

import pytest
import tiny
import torch
from comparing import ALGEBRA, DIFFERS, NEVER_FLOAT64, PURE_FLOAT64, STOCK, headers, logits, source, stepwise
from covering import can, carries_head, cover, features, free, kind, sample, sizes

from growkit import GrowkitError, grow_state_dict
from growkit.families import FAMILIES
from growkit.growth.grow_plan import grow_plan
from growkit.growth.request import recipe

# growths every family can do, and what is expected of each kind of family: (post-LayerNorm, pre-LayerNorm, RMSNorm)
EVERYWHERE = {
    "hidden x2": (dict(hidden=48), "exact exact exact"),
    "hidden x3": (dict(hidden=72), "exact exact exact"),
    "hidden x1.5": (dict(hidden=36), "near exact exact"),
    "hidden x2.5": (dict(hidden=60, heads=10, kv_heads=None), "near exact exact"),
    "ffn any": (dict(ffn=101), "exact exact exact"),
    "ffn any, random": (dict(ffn=101, mapping="random", seed=5), "exact exact exact"),
    "all at once": (dict(hidden=48, ffn=131), "exact exact exact"),
    "head_dim x2": (dict(head_dim="x2"), "exact exact exact"),
    "no split": (dict(hidden=48, noise=0.0), "exact exact exact"),
    "large split": (dict(hidden=72, noise=0.9), "exact exact exact"),
    "random x2": (dict(hidden=48, mapping="random"), "approximate approximate exact"),
    "random x1.5": (dict(hidden=36, mapping="random", seed=3), "approximate approximate exact"),
    "aki x2": (dict(hidden=48, method="aki"), "approximate approximate approximate"),
}
# growths of axes that only some families have free: these axes
SOME = {
    "heads in groups": (dict(heads=6), "head"),
    "heads alone": (dict(heads=8), "head"),
    "heads alone, random": (dict(heads=8, mapping="random"), "head"),
    "kv heads to heads": (dict(kv_heads=4), "kv_head"),
    "kv heads uneven": (dict(heads=6, kv_heads=6), "kv_head"),
    "kv heads dealt": (dict(heads=8, kv_heads=4), "kv_head"),
    "groups widen": (dict(heads=12, kv_heads=4), "kv_head"),
    "head_dim uneven": (dict(head_dim="+4"), "head_dim"),
    "hidden kept, heads fewer wider": (dict(hidden=48, heads=4), ""),
}
KINDS = ("post", "pre", "RMS")


def resolved(family: str, growth: dict) -> dict:
    """The request with head_dim written relative to the model's own made absolute; heads only where they are free."""
    own = sizes(family)["head_dim"]
    words = {"x2": 2 * own, "+4": own + 4}
    asked = {axis: words.get(size, size) for axis, size in growth.items() if size is not None}
    if "kv_heads" in growth and not FAMILIES[family].own_head_dim and "hidden" in growth:
        del asked["heads"]
    return asked


def plain(family: str) -> bool:
    """Whether the kind of family says all of what is exact: one stack of layers, no norm over embeddings or of a head of
    its own.
    """
    patterns = FAMILIES[family].tensors.values()
    return family not in tiny.SEQUENCES and not any(
        "normed" in p or (kind(family) == "pre" and p.startswith("~/head_")) for p in patterns
    )


PLAIN = sample(filter(plain, tiny.ALL))


def chosen(table: dict, able) -> list:
    """(name, family, tied): each growth of each kind of family, of a mixture, tied and not; each kind of family tied and
    not; and each feature of families that are able to."""
    everything = [
        (name, family, tied)
        for name, family, tied in product(table, PLAIN, (True, False))
        if (carries_head(family) or not tied) and able(name, family)
    ]

    def of(row: tuple[str, str, bool]) -> set:
        name, family, tied = row
        pairs = {(name, kind(family)), (name, tied), (name, FAMILIES[family].is_moe), (kind(family), tied)}
        return pairs | features(family)

    return sorted(cover(everything, of))


def grow(model, growth: dict):
    """(plan, grown model) of a live model."""
    state = tiny.stored(model)
    new, config = grow_state_dict(state, model.config, **growth)
    return grow_plan([headers(state, model.config.to_dict())], recipe(**growth)), tiny.rebuild(model, new, config)


def check(family: str, growth: dict, expected: str, tied: bool, seed: int) -> None:
    model = source(family, tied, seed)
    with tiny.float32_parts_in_double():
        plan, grown = grow(model, resolved(family, growth))
    assert str(plan.exactness) == expected
    ids = tiny.tokens(seed)
    with tiny.float32_parts_in_double():
        algebra = tiny.relative(logits(model, ids), logits(grown, ids))
        # a mixture has its attention, and so its cache, from llama: once is enough
        stepped = FAMILIES[family].causal and not (tied and FAMILIES[family].is_moe)
        cached = tiny.relative(logits(model, ids), stepwise(grown, ids)) if stepped else 0.0
    if expected != "exact":
        assert algebra > DIFFERS, "the plan warns of a difference that is not there"
        return
    assert algebra <= ALGEBRA and cached <= ALGEBRA
    if family in NEVER_FLOAT64:
        model, grown = deepcopy(model).float(), grown.float()
    assert tiny.relative(logits(model, ids), logits(grown, ids)) <= (ALGEBRA if family in PURE_FLOAT64 else STOCK)


@pytest.mark.parametrize(
    ("name", "family", "tied"),
    chosen(EVERYWHERE, lambda name, family: can(family, **resolved(family, EVERYWHERE[name][0]))),
)
def test_every_growth(name, family, tied):
    growth, expected = EVERYWHERE[name]
    check(family, growth, expected.split()[KINDS.index(kind(family))], tied, seed=0)


def moves(name: str, family: str) -> bool:
    """Whether a family has an axis of its own for a growth of SOME, and can grow so."""
    growth, axis = SOME[name]
    return (not axis or free(family, axis)) and can(family, **resolved(family, growth))


@pytest.mark.parametrize(("name", "family", "tied"), chosen(SOME, moves))
def test_free_axes(name, family, tied):
    check(family, SOME[name][0], "exact", tied, seed=1)


@pytest.mark.parametrize("family", cover(PLAIN, lambda family: {kind(family), FAMILIES[family].is_moe}))
def test_seeds(family):
    for seed in (2, 3):
        check(family, dict(hidden=48, ffn=119, seed=seed), "exact", tied=bool(seed % 2), seed=seed)


@pytest.mark.parametrize("rope", ["linear", "llama3", "yarn"])
@pytest.mark.parametrize("head_dim", [12, 10])
def test_rotary_scaling_keeps_its_meaning(rope, head_dim):
    scaling = {"rope_type": rope, "rope_theta": 10000.0, "factor": 4.0}
    if rope == "llama3":
        scaling |= dict(low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
    if rope == "yarn":
        scaling |= dict(original_max_position_embeddings=16)
    with tiny.float32_parts_in_double():
        model = tiny.make("llama", rope_parameters=scaling)
        _, grown = grow(model, dict(head_dim=head_dim))
        ids = tiny.tokens(length=40)
        assert tiny.relative(logits(model, ids), logits(grown, ids)) <= ALGEBRA
    if rope == "yarn" or head_dim == 10:
        assert grown.config.rope_parameters["rope_theta"] != 10000.0


@pytest.mark.parametrize("rope", ["dynamic", "longrope"])
def test_rotary_kinds_that_head_dim_cannot_grow_under(rope):
    config = tiny.make("llama").config.to_dict()
    config["rope_parameters"] = {"rope_type": rope, "rope_theta": 10000.0, "factor": 2.0}
    state = tiny.make("llama").state_dict()
    with pytest.raises(GrowkitError, match=f"rope type '{rope}'"):
        grow_state_dict(state, config, head_dim=12)
    grow_state_dict(state, config, hidden=48)  # any other axis is free


def test_left_padding_and_batches_agree():
    model = source("llama", False, 0)
    with tiny.float32_parts_in_double():
        _, grown = grow(model, dict(hidden=36))
        ids, mask = tiny.tokens(length=12), torch.ones(3, 12, dtype=torch.long)
        mask[0, :5] = mask[1, :2] = 0
        with torch.no_grad():
            ours, theirs = (m(input_ids=ids, attention_mask=mask).logits[mask.bool()] for m in (model, grown))
    assert tiny.relative(ours, theirs) <= ALGEBRA


def test_gpt2_without_score_scaling():
    with tiny.float32_parts_in_double():
        model = tiny.make("gpt2", scale_attn_weights=False, scale_attn_by_inverse_layer_idx=True)
        _, grown = grow(model, dict(head_dim=10))
        ids = tiny.tokens()
        assert tiny.relative(logits(model, ids), logits(grown, ids)) <= ALGEBRA


CONTROLS = {
    "tied head without the last norm's factor": ("gpt2", "transformer.ln_f.weight"),
    "Gemma without the embedding's scale": ("gemma", "model.embed_tokens.weight"),
    "key slots not scaled": ("bert", "bert.encoder.layer.0.attention.self.key.weight"),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_that_must_fail(name):
    """Taking back one correction ruins the result: the checks above can fail."""
    family, tensor = CONTROLS[name]
    growth = dict(hidden=48, heads=4) if family == "bert" else dict(hidden=48)
    model = source(family, True, 0)
    with tiny.float32_parts_in_double():
        _, grown = grow(model, growth)
        parameter = dict(grown.named_parameters())[tensor]
        parameter.data *= 2 ** (0.5 if family != "gpt2" else 1)
        ids = tiny.tokens()
        assert tiny.relative(logits(model, ids), logits(grown, ids)) > 1e-2
