"""What is kept of a teacher's rows, against what it says by definition, and the laws of what is estimated from it."""

import numpy as np
import pytest
import torch

from growkit.training.objective import WholeWord, mixed
from growkit.training.teachers.estimates import ESTIMATES, ShortWord, Summary
from growkit.training.teachers.summary import block_size, summarised, uniforms

UNBIASED = ("head+sampled", "sampled")


def logits(rows, entries=61, seed=0, scale=2.0):
    return scale * torch.randn(rows, entries, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def summary(teacher, head, tail, temperature=1.0, seed=3):
    rows = len(teacher)
    ids, *kept = summarised(teacher, torch.from_numpy(uniforms(seed, np.arange(rows))), head, tail, temperature)
    lots = torch.from_numpy(uniforms(seed + 1, np.arange(rows * tail)).reshape(rows, tail))
    return Summary(ids=ids, head=kept[0], tail=kept[1], drawn=kept[2], lots=lots)


def word(name, teacher, head=8, tail=8, temperature=1.0, seed=3):
    terms = ESTIMATES[name](summary(teacher, head, tail, temperature, seed))
    return ShortWord(terms, teacher.shape[1], temperature)


def gradient(some_word, student):
    """(nats, gradient (n, V)) of a student's logits."""
    student = student.clone().requires_grad_()
    nats = some_word.nats(student)
    nats.backward()
    return nats.item(), student.grad


# ---------------------------------------------------------------- what is kept of a row


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("entries", [2, 5, 16, 61, 64, 1000])
def test_a_summary_by_definition(entries, temperature):
    """The largest entries, the rest's mass without cancellation, and draws from the rest alone; any width of blocks."""
    teacher = logits(7, entries)
    teacher[0, 1:] -= 60.0  # nearly all is one entry's
    head = min(entries - 1, 8)
    row, whole = summary(teacher, head, 4, temperature), torch.log_softmax(teacher / temperature, -1)
    largest = whole.topk(head)
    assert torch.equal(row.ids[:, :head], largest.indices)
    assert torch.allclose(row.head, largest.values, rtol=1e-12, atol=1e-12)
    rest = whole.scatter(1, largest.indices, -torch.inf)
    assert torch.allclose(row.tail, rest.logsumexp(1), rtol=1e-10)
    drawn = row.ids[:, head:]
    assert not (drawn[:, :, None] == largest.indices[:, None]).any() and (drawn < entries).all()
    assert torch.allclose(row.drawn, whole.gather(1, drawn).mean(1), rtol=1e-10)
    everything = summary(teacher, entries, 0, temperature)
    assert (everything.tail == -torch.inf).all() and torch.allclose(everything.head, whole.gather(1, everything.ids))


def test_blocks_divide_a_row_where_they_can():
    assert {entries: block_size(entries) for entries in (1, 2, 61, 512, 50_257, 50_304)} == {
        1: 1, 2: 1, 61: 8, 512: 16, 50_257: 256, 50_304: 128
    }  # fmt: skip


def test_numbers_depend_on_seed_and_place_alone():
    some = uniforms(5, np.arange(1000))
    assert np.array_equal(some[[7, 3]], uniforms(5, np.array([7, 3]))) and not np.array_equal(
        some, uniforms(6, np.arange(1000))
    )
    assert some.min() >= 0.0 and some.max() < 1.0 and abs(some.mean() - 0.5) < 0.05
    assert abs(np.corrcoef(some[1:], some[:-1])[0, 1]) < 0.1


# ---------------------------------------------------------------- laws


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("name", [name for name in ESTIMATES if name != "sampled"])
def test_all_entries_are_the_live_teacher(name, temperature):
    """k = V: value and gradient, to the rounding of the arithmetic."""
    for dtype, rounding in ((torch.float32, 1e-6), (torch.float64, 1e-13)):
        teacher, student = logits(5).to(dtype), logits(5, seed=1).to(dtype)
        shortened = word(name, teacher, head=61, tail=0, temperature=temperature)
        if dtype == torch.float64:  # the live one computes in float32
            wanted = torch.log_softmax(teacher / temperature, -1)
            value = (wanted.exp() * (wanted - torch.log_softmax(student / temperature, -1))).sum() * temperature**2
            slope = temperature * (torch.softmax(student / temperature, -1) - wanted.exp())
        else:
            value, slope = gradient(WholeWord(teacher, temperature), student)
        found = gradient(shortened, student)
        assert found[0] == pytest.approx(float(value), rel=10 * rounding)
        assert torch.allclose(found[1], slope, atol=10 * rounding)


def deviation(found, teacher):
    """The largest mean of (draws, V), in standard errors: what is seen to vary, at least what 8 draws of p would."""
    error = torch.maximum(found.std(0), (torch.softmax(teacher[0], -1) / 8).sqrt()) / len(found) ** 0.5
    return (found.mean(0).abs() / error).max().item()


def bias(name, student, teacher, number=4000):
    """How many standard errors the mean gradient over many draws is from the live teacher's, and the mean value."""
    many = teacher.expand(number, -1)
    slope = torch.softmax(student, -1) - torch.softmax(teacher, -1)
    value, found = gradient(word(name, many), student.expand(number, -1))
    exact = gradient(word("top-k", teacher, head=61, tail=0), student)[0]
    return deviation(found - slope, teacher), abs(value / number - exact)


@pytest.mark.parametrize("name", ESTIMATES)
def test_what_is_drawn_is_right_on_average(name):
    """Mean over draws of gradient and value; bucket and top-k are the controls, which are not."""
    slope, off = bias(name, logits(1, seed=1), logits(1))
    assert (slope < 5.0) == (name in UNBIASED), slope
    assert (off < 0.02) == (name in UNBIASED), off


@pytest.mark.parametrize("name", ESTIMATES)
def test_a_student_that_says_the_same_learns_nothing(name):
    """The step-0 law of exact growth: a gradient of 0 of bucket, a mean of 0 where it is drawn; top-k is the control."""
    teacher = logits(1)
    many = teacher.expand(4000, -1)
    value, found = gradient(word(name, many), many)
    if name == "bucket":
        assert abs(value) < 1e-9 and found.abs().max() < 1e-14
    assert (deviation(found, teacher) < 5.0) == (name != "top-k")
    if name == "head+sampled":  # the head is known: only the tail is drawn
        head = teacher.topk(8).indices[0]
        assert found[:, head].abs().max() < 1e-14 < found.abs().max() and abs(value) < 1e-9


def test_a_bucket_is_a_lower_bound():
    teacher, student = logits(50), logits(50, seed=1)
    exact, _ = gradient(word("top-k", teacher, head=61, tail=0), student)
    assert 0.0 < gradient(word("bucket", teacher), student)[0] < exact


# ---------------------------------------------------------------- in the loss


@pytest.mark.parametrize("name", ESTIMATES)
def test_one_normaliser_is_two(name, monkeypatch):
    """At temperature 1 the student's log-probabilities are computed once for both losses: the same sums."""
    teacher, student = logits(9).float(), logits(9, seed=1).float().requires_grad_()
    labels = torch.arange(9)
    one = word(name, teacher)
    assert one.is_plain(student) and not word(name, teacher, temperature=2.0).is_plain(student)
    found = mixed(student, labels, one, 0.3)
    monkeypatch.setattr(ShortWord, "is_plain", lambda *_: False)
    wanted = mixed(student, labels, one, 0.3)
    for value, other in zip(found, wanted):
        assert value.item() == pytest.approx(other.item(), rel=1e-6)
    slopes = [torch.autograd.grad(values[0], student, retain_graph=True)[0] for values in (found, wanted)]
    assert torch.allclose(*slopes, atol=1e-6)


def test_a_smaller_vocabulary_teaches_on_what_both_have():
    """The student's other entries take no part: no gradient, and the others' is that of the shared ones alone."""
    teacher, student = logits(5), logits(5, entries=70, seed=1)
    for some in (word("head+sampled", teacher), WholeWord(teacher, 1.0)):
        value, slope = gradient(some, student)
        alone = gradient(some, student[:, :61])
        assert value == pytest.approx(alone[0]) and torch.allclose(slope[:, :61], alone[1]) and not slope[:, 61:].any()
