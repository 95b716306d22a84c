"""Directions of a skill from sketches alone: what is the skill's own, and what others do not use."""

import pytest
import torch

from growkit.skills.directions import input_directions, output_directions


def sketch(spread, rotation):
    """E[z z^T] of data that has so much of each of a rotation's columns."""
    return (rotation * torch.tensor(spread, dtype=torch.float64)) @ rotation.T


def energy(others, chosen):
    """The share of a sketch that lies in directions."""
    chosen = chosen.double()
    return float((chosen.T @ others @ chosen).trace() / others.trace())


@pytest.fixture
def rotation():
    draws = torch.Generator().manual_seed(0)
    return torch.linalg.qr(torch.randn(12, 12, generator=draws, dtype=torch.float64)).Q


def test_without_others_they_are_the_top_of_the_own_sketch(rotation):
    own = sketch([2.0**-n for n in range(12)], rotation)
    chosen = input_directions(own, [], 4)
    assert chosen.dtype == torch.float32 and torch.allclose(chosen.T @ chosen, torch.eye(4), atol=1e-6)
    assert torch.allclose((rotation[:, :4].T.float() @ chosen).abs(), torch.eye(4), atol=1e-6)


def test_disjoint_inputs_are_kept_apart_and_shared_ones_are_given_up(rotation):
    """The skill uses directions 0 to 3 most, which are others' too, and 4 to 7 less; the others 0 to 3 and 8 to 11."""
    own = sketch([4.0] * 4 + [1.0] * 4 + [1e-4] * 4, rotation)
    one, two = sketch([3.0] * 4 + [1e-4] * 8, rotation), sketch([1e-4] * 8 + [3.0] * 4, rotation)
    free = input_directions(own, [], 4)
    kept = input_directions(own, [one, two], 4)
    assert torch.allclose(kept.T @ kept, torch.eye(4), atol=1e-6)
    assert energy(one, free) > 0.99 and energy(one, kept) < 1e-3 and energy(two, kept) < 1e-3
    assert energy(own, kept) > 0.15  # all of what is its own alone
    assert torch.equal(input_directions(own, [two, one], 4), kept)


def test_they_solve_the_generalised_problem(rotation):
    """By the definition: K P = (others + eps I) P M for some M, of the largest eigenvalues."""
    own = sketch([3.0 / (n + 1) for n in range(12)], rotation)
    other = sketch([1.0 + (5 * n % 12) for n in range(12)], torch.roll(rotation, 1, 1).flip(0))
    damped = other + 0.01 * other.diagonal().mean() * torch.eye(12, dtype=torch.float64)
    values, vectors = torch.linalg.eig(torch.linalg.solve(damped, own))
    top = vectors.real[:, values.real.argsort(descending=True)[:3]]
    chosen = input_directions(own, [other], 3).double()
    span = torch.linalg.qr(top).Q
    assert torch.allclose(span @ span.T, chosen @ chosen.T, atol=1e-6)


def test_sketches_of_few_tokens_are_no_trouble():
    """Their rank is less than the directions that are asked for."""
    row = torch.ones(1, 6)
    chosen = input_directions(row.T @ row, [torch.zeros(6, 6)], 3)
    assert torch.isfinite(chosen).all() and torch.allclose(chosen.T @ chosen, torch.eye(3), atol=1e-5)
    assert torch.allclose(chosen[:, 0].abs(), torch.full((6,), 6**-0.5), atol=1e-5)


def test_output_directions_are_where_the_gradient_is_largest():
    draws = torch.Generator().manual_seed(1)
    wanted = torch.randn(7, 2, generator=draws) @ torch.randn(2, 3, generator=draws)
    chosen = output_directions(wanted, 5)  # more than there are: the others are any
    assert torch.allclose(chosen.T @ chosen, torch.eye(5), atol=1e-6)
    assert torch.allclose(chosen[:, :2] @ (chosen[:, :2].T @ wanted), wanted, atol=1e-5)
    one = (chosen[:, :1].T @ wanted).norm()
    assert torch.allclose(one, torch.linalg.matrix_norm(wanted, 2), atol=1e-5)
