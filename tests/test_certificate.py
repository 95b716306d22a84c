"""What a gate promises holds: thresholds and bounds by their formulas, and the share of false openings by simulation;
and what it goes by: the range of a skill's own texts, and how they differ from general ones."""

import math
from fractions import Fraction

import pytest
import torch

from growkit.errors import RequestError
from growkit.skills.gates.certify import certified, contrast_of, promise
from growkit.skills.gates.conformal import binomial_tail, clopper_pearson, conformal_thresholds, order_of, texts_needed
from growkit.skills.gates.own_texts import own_texts
from growkit.skills.gates.shrunk_metric import shrunk_metric
from growkit.skills.gates.told_apart import own_range, told_apart


def test_the_threshold_is_the_stated_order():
    for alpha, needed in ((0.01, 99), (0.05, 19), (0.1, 9), (0.03, 33), (0.5, 1)):
        assert texts_needed(alpha) == needed and order_of(needed, alpha) <= needed < order_of(needed - 1, alpha) + 1
        for texts in range(needed, needed + 300):
            assert order_of(texts, alpha) == math.ceil((texts + 1) * (1 - Fraction(str(alpha))))
    assert texts_needed(0.01, 5) == 499 and order_of(499, 0.01, 5) == 499 and order_of(999, 0.01, 5) == 998
    scores = torch.stack([torch.randperm(399), 1000 + torch.randperm(399)], 1).double()
    assert (
        conformal_thresholds(scores, 0.01).tolist() == [397, 1397] and conformal_thresholds(scores[:, :1], 0.01) == 395
    )


BOUNDS = [(0, 10, 0.258866), (1, 10, 0.394163), (4, 400, 0.022737), (0, 299, 0.009969), (3, 300, 0.025641)]


@pytest.mark.parametrize(("hits", "texts", "bound"), BOUNDS)
def test_the_bound_is_clopper_and_pearsons(hits, texts, bound):
    """Figures of scipy.stats.beta.ppf(0.95, hits + 1, texts - hits)."""
    assert clopper_pearson(hits, texts) == pytest.approx(bound, abs=1e-6)
    exact = sum(math.comb(texts, k) * bound**k * (1 - bound) ** (texts - k) for k in range(hits + 1))
    assert binomial_tail(hits, texts, bound) == pytest.approx(exact, rel=1e-9)
    assert exact == pytest.approx(0.05, abs=1e-4)


def test_a_bound_of_nothing_and_of_everything():
    assert clopper_pearson(5, 5) == clopper_pearson(0, 0) == 1
    assert clopper_pearson(0, 50) == pytest.approx(1 - 0.05 ** (1 / 50), abs=1e-12)


@pytest.mark.parametrize("skills", [1, 4])
@pytest.mark.parametrize("dependent", [0.0, 3.0])
@pytest.mark.parametrize(("alpha", "texts"), [(0.1, 60), (0.05, 151)])
def test_the_share_of_false_openings_of_the_whole_bundle_is_at_most_alpha(skills, dependent, alpha, texts):
    """Exchangeable scores of unlike scales and tails, drawn 1,500 times: of each draw's next texts as many open a given
    skill as the order says, and as many open any as alpha allows, within what chance allows; where skills do not depend
    on one another, not many fewer."""
    draws, rounds, next_ones, hits, firsts = torch.Generator().manual_seed(skills), 1500, 20, 0, 0
    for _ in range(rounds):
        shared = dependent * torch.randn(texts + next_ones, 1, generator=draws).double()
        own = torch.randn(texts + next_ones, skills, generator=draws).double()
        scores = (shared + own).exp() * -(10.0 ** torch.arange(skills)) - 50 * torch.arange(skills)
        made = promise(scores[:texts], alpha)
        opened = scores[texts:] > made.thresholds
        hits, firsts = hits + int(opened.any(1).sum()), firsts + int(opened[:, 0].sum())
    count = len(made.calibration)
    each = 1 - made.order / (count + 1)
    assert alpha / skills - 1 / (count + 1) < each <= alpha / skills + 1e-12 and count + len(made.fresh) == texts

    def spread(
        share,
    ):  # a draw's next texts share its thresholds: between draws the share varies, by about its own size
        return share * (1 / (count * share) + 1 / (next_ones * share)) ** 0.5 / rounds**0.5

    assert abs(firsts / (rounds * next_ones) - each) < 4 * spread(each)
    share = hits / (rounds * next_ones)
    assert share < alpha + 4 * spread(alpha)
    assert dependent or share > 1 - (1 - each) ** skills - 4 * spread(skills * each)


def test_thresholds_that_do_not_share_alpha_would_break_the_promise():
    """Why they do: a law that a test can fail."""
    draws, opened, rounds = torch.Generator().manual_seed(0), 0, 1500
    for _ in range(rounds):
        scores = torch.randn(41, 5, generator=draws).double()
        each = torch.cat([conformal_thresholds(scores[:40, skill : skill + 1], 0.05) for skill in range(5)])
        opened += int((scores[40] > each).any())
    assert opened / rounds > 0.05 + 4 * (0.05 / rounds) ** 0.5


def states_at(place, count, seed, spread=1.0, hidden=12):
    return place + spread * torch.randn(count, hidden, generator=torch.Generator().manual_seed(seed))


def gates(hidden=12):
    """Two skills far from general text, and one whose texts are general."""
    at = [torch.zeros(hidden) for _ in range(3)]
    at[0][0], at[1][1] = 12.0, -12.0
    spread = [0.5, 1.0, 1.0]
    return {
        name: own_texts(states_at(place, 60, seed, wide, hidden), [9] * 60, 1)
        for seed, (name, place, wide) in enumerate(zip(("far", "further", "general"), at, spread))
    }


FAR, FURTHER = torch.tensor([12.0] + 11 * [0.0]), torch.tensor([0.0, -12.0] + 10 * [0.0])


def test_a_skill_that_is_like_general_text_closes_no_other():
    """Nor does a part of general text that is one skill's, as prompts of one template are; that one it closes."""
    skills, general = gates(), states_at(0.0, 1200, 9)
    for impostors in (False, True):
        if impostors:
            general[::40] = states_at(FAR, 30, 8, 0.5)
        gate, made = certified(skills, general, 0.01, [("further", "far")])
        assert gate.together == {(0, 1)} and len(made.fresh) == len(made.calibration) == 450
        assert gate.opened(states_at(FURTHER, 40, 4)).count((1,)) >= 36
        assert gate.opened(states_at(FAR, 40, 3, 0.5)).count((0,)) >= 36 or impostors
        opened = [bool(each) for each in gate.opened(states_at(0.0, 400, 5))]
        assert sum(opened) <= 12 and made.hits <= 10 and made.bound == clopper_pearson(made.hits, 450)


def test_what_is_like_neither_opens_nothing():
    """Far out on the skill's side of general text, where the likelihoods of both say nothing."""
    gate, _ = certified(gates(), states_at(0.0, 800, 9), 0.01)
    for far in (3 * FAR, FAR + 12 * torch.eye(12)[5], FURTHER + FAR):
        assert gate.opened(states_at(far, 20, 4)) == [()] * 20


def test_a_skill_may_be_told_by_what_varies_little():
    """Its texts lie within general ones, but for one direction in which both are thin: by distances from them alone,
    whatever these are divided by, general text is as near."""
    draws = torch.Generator().manual_seed(0)

    def thin(count, at):
        states = 5 * torch.randn(count, 12, generator=draws)
        states[:, 3] = states[:, 2] + at + torch.randn(count, generator=draws)
        return states

    gate, _ = certified({"thin": own_texts(thin(200, 9.0), [9] * 200, 1)}, thin(400, 0.0), 0.01)
    assert gate.opened(thin(50, 9.0)).count((0,)) >= 47 and gate.opened(thin(100, 0.0)).count(()) >= 97


def test_several_open_where_the_pair_may_and_the_likeliest_alone_where_not():
    skills = gates()
    for together, wanted in (((), (1,)), ((("far", "further"),), (0, 1))):
        gate, _ = certified(skills, states_at(0.0, 400, 9), 0.01, together)
        limits = gate.thresholds
        assert (limits >= 0).all()
        assert gate.chosen((limits + torch.tensor([5.0, 6.0, 0.0])).tolist()) == wanted
        assert gate.chosen(limits.tolist()) == () and gate.chosen([math.nan] * 3) == ()
        assert gate.chosen((limits + torch.tensor([5.0, 6.0, 99.0])).tolist()) == (2,)


def test_scores_of_a_text_do_not_depend_on_the_others():
    gate, _ = certified(gates(), states_at(0.0, 400, 9), 0.01)
    states = states_at(0.9 * FURTHER, 7, 2)
    whole = gate.scores(states)
    assert (whole[:, 1] > 0).any()
    for number in range(7):
        assert torch.equal(gate.scores(states[number : number + 1]), whole[number : number + 1])


def test_the_metric_is_the_inverse_of_the_shrunk_covariance():
    mixing = torch.eye(12) + torch.randn(12, 12, generator=torch.Generator().manual_seed(1))
    skill = own_texts(states_at(0.0, 60, 1) @ mixing, [9] * 60, 1)
    metric = shrunk_metric([skill.spread], skill.freedom)
    scale = metric.scale.double()
    correlation = (skill.spread.double().T @ skill.spread.double()) / scale / scale[:, None]
    shrunk = (1 - metric.shrinkage) * correlation + metric.shrinkage * torch.eye(12)
    inverse = torch.linalg.inv(shrunk) / scale / scale[:, None]
    points = states_at(0.0, 5, 1).double()
    assert torch.allclose(metric.inverse(points), points @ inverse, rtol=1e-4, atol=1e-5)
    assert torch.allclose(metric.squared(points), ((points @ inverse) * points).sum(1), rtol=1e-4)
    assert 1e-3 <= metric.shrinkage < 0.3 and correlation.diagonal().allclose(torch.ones(12).double(), atol=1e-4)
    far = gates()["far"]
    assert shrunk_metric([far.spread], far.freedom).shrinkage > 0.6  # what seems correlated there is chance


def test_a_score_is_how_much_likelier_a_text_is_as_the_skills():
    """By the densities themselves, of the shrunk covariance of all kinds."""
    skills, general = [*gates().values()], states_at(0.0, 100, 9)
    directions, offsets = told_apart(skills, general)
    spread = (general - general.mean(0)) / 99**0.5
    metric = shrunk_metric([spread, *(skill.spread for skill in skills)], 99 + sum(one.freedom for one in skills))
    shrunk = metric.inverse(torch.eye(12)).inverse()
    points = states_at(2.0, 5, 1).double()
    density = [torch.distributions.MultivariateNormal(mean.double(), (shrunk + shrunk.T) / 2).log_prob(points)
               for mean in (general.mean(0), *(skill.mean for skill in skills))]  # fmt: skip
    assert torch.allclose(points @ directions.T - offsets, torch.stack(density[1:], 1) - density[0][:, None], rtol=1e-4)


def test_the_range_is_where_all_but_a_fiftieth_of_own_texts_lie():
    skill = own_texts(states_at(3.0, 1200, 1), [9] * 1200, 1)
    found = own_range(skill)
    assert 295 <= sum(found.holds(state) for state in skill.held) == 295
    fresh = [found.holds(state) for state in states_at(3.0, 1000, 2)]
    assert 960 < sum(fresh) < 995 and not found.holds(torch.zeros(12))
    few = own_texts(states_at(3.0, 16, 1), [9] * 16, 1)
    assert all(own_range(few).holds(state) for state in few.held)


FEWER = [
    (
        1,
        119,
        "--alpha 0.01 needs 119 general texts, 20 to tell skills apart from and 99 to set thresholds by, and there are",
    ),
    (
        3,
        319,
        "--alpha 0.01, which 3 skills share, needs 319 general texts, 20 to tell skills apart from and 299 to set",
    ),
]


@pytest.mark.parametrize(("skills", "texts", "says"), FEWER)
def test_fewer_texts_than_alpha_needs(skills, texts, says):
    with pytest.raises(RequestError, match=says):
        contrast_of(texts - 1, 0.01, skills)
    assert contrast_of(texts, 0.01, skills) == 20 and contrast_of(4 * texts, 0.01, skills) == texts
    scores = torch.randn(texts - 20, skills, generator=torch.Generator().manual_seed(0)).double()
    made = promise(scores, 0.01)
    assert not len(made.fresh) and made.bound is None and len(made.calibration) == texts - 20
