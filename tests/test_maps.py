"""Laws of maps and of the one rule of growth, over random sizes, shapes and dtypes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from growkit.maps.axis import (
    ABSENT,
    BALANCED,
    FREE,
    GATHER,
    MEAN,
    Mode,
    axis_map,
    concatenate,
    copies,
    copy_rank,
    counts,
    cyclic_index,
    even_norm_copies,
    identity,
    mean_filler,
    norm_undone_copies,
    outer,
    random_index,
)
from growkit.maps.heads import copied_slots, grouped_heads, normed_rotary_slots, rotary_slots
from growkit.maps.map_json import map_from_json, map_to_json
from growkit.maps.notation import GAIN, READ, WRITE
from growkit.models.compare import collapse
from growkit.operators import expand
from growkit.operators.blocks import random_bits
from growkit.operators.seeds import generator, stable_seed

sizes = st.tuples(st.integers(1, 40), st.integers(0, 80)).map(lambda s: (s[0], s[0] + s[1]))
seeds = st.integers(0, 2**32)


def drawn(old: int, new: int, seed: int) -> np.ndarray:
    return random_index(old, new, np.random.Generator(np.random.PCG64(seed)))


def every_map(old: int, new: int, seed: int):
    for index in (cyclic_index(old, new), drawn(old, new, seed)):
        yield from (copies(old, index), even_norm_copies(old, index), norm_undone_copies(old, index))
    yield from (mean_filler(old, new, post_norm) for post_norm in (False, True))


@given(sizes, seeds)
def test_maps_are_complete(size, seed):
    for axis in every_map(*size, seed):
        np.testing.assert_allclose(axis.completeness(), 1.0, rtol=1e-12)


@given(st.integers(1, 4), sizes, sizes, seeds)
def test_blocks_that_are_dealt_out_are_the_blocks_one_after_another_in_other_places(parts, first, second, seed):
    """Which entry comes from which, by the blocks' own indices: (part, block, entry) against (block, part, entry)."""
    blocks = [copies(parts * old, drawn(parts * old, parts * new, seed)) for old, new in (first, second)]
    dealt, plain = concatenate(blocks, parts, parts), concatenate(blocks)

    def places(widths: list[int]) -> np.ndarray:
        """Where each place of the plain order is in the dealt one."""
        own = [
            np.arange(parts * width).reshape(parts, width) + sum(widths[:n]) * parts for n, width in enumerate(widths)
        ]
        return np.concatenate(own, axis=1).ravel()

    old, new = places([first[0], second[0]]), places([first[1], second[1]])
    np.testing.assert_array_equal(old[dealt.index], plain.index[new])
    for role, side in dealt.sides.items():
        np.testing.assert_array_equal(side.amplitude, plain.sides[role].amplitude[new])


@given(sizes, seeds)
def test_norms_see_the_same_statistics(size, seed):
    old, new = size
    values = np.random.default_rng(seed).normal(size=old)
    for index in (cyclic_index(old, new), drawn(old, new, seed)):
        grown = even_norm_copies(old, index).sides[WRITE].amplitude * values[index]
        assert np.isclose(np.mean(grown**2), np.mean(values**2))
    axis = mean_filler(old, new, post_norm=False)
    side = axis.sides[WRITE]
    grown = side.amplitude * np.where(side.mode == MEAN, values.mean(), values[axis.index])
    assert np.isclose(grown.var(), values.var())
    assert np.isclose(grown.mean(), side.amplitude[0] * values.mean())


@given(sizes, seeds)
def test_first_indices_are_the_old_ones_and_ranks_count_copies(size, seed):
    old, new = size
    for index in (cyclic_index(old, new), drawn(old, new, seed)):
        assert (index[:old] == np.arange(old)).all()
        rank = copy_rank(index)
        assert (rank < counts(index, old)).all() and (rank[:old] == 0).all()
        assert sorted(zip(index, rank)) == [(i, r) for i in range(old) for r in range((index == i).sum())]


@given(sizes, sizes, seeds)
def test_grow_then_collapse_is_nothing(rows, columns, seed):
    """What is grown by a map and read back by it is what it was, whatever the split."""
    weight = torch.randn(rows[0], columns[0], dtype=torch.float64, generator=generator(seed, "w"))
    out, into = copies(rows[0], cyclic_index(*rows)), even_norm_copies(columns[0], drawn(*columns, seed))
    for noise in (0.0, 0.7):
        grown = expand(weight, [(out, WRITE), (into, READ)], noise=noise, seed=seed)
        assert grown.shape == (rows[1], columns[1])
        summed = torch.zeros(rows[1], columns[0], dtype=torch.float64)
        amplitude = torch.from_numpy(into.sides[WRITE].amplitude)
        summed.index_add_(1, torch.from_numpy(into.index), grown * amplitude)
        torch.testing.assert_close(summed[: rows[0]], weight, rtol=1e-12, atol=1e-12)


@given(sizes, seeds, st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]))
def test_identity_maps_are_bitwise_nothing(size, seed, dtype):
    weight = torch.randn(size, generator=generator(seed, "w")).to(dtype)
    kept = [identity(n) for n in size]
    assert torch.equal(expand(weight, [(kept[0], WRITE), (kept[1], READ)], noise=0.9, seed=seed), weight)


@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 4), seeds)
def test_growing_twice_is_growing_once(old, first, second, seed):
    weight = torch.randn(5, old, dtype=torch.float64, generator=generator(seed, "w"))
    kept, middle, new = identity(5), first * old, first * second * old
    once = expand(weight, [(kept, WRITE), (copies(old, cyclic_index(old, new)), READ)])
    half = expand(weight, [(kept, WRITE), (copies(old, cyclic_index(old, middle)), READ)])
    twice = expand(half, [(kept, WRITE), (copies(middle, cyclic_index(middle, new)), READ)])
    torch.testing.assert_close(once, twice, rtol=1e-14, atol=0)


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 12), st.integers(1, 12))
def test_grouped_heads_keep_their_partners(kv, group, new_kv, new_group):
    heads = grouped_heads((kv, group), (new_kv, new_group))
    if kv * -(-group // new_group) > new_kv:
        assert heads is None
        return
    assert set(heads.query) == set(range(kv * group)) and set(heads.key_value) == set(range(kv))
    assert (heads.query // group == np.repeat(heads.key_value, new_group)).all()


def test_repeat_interleave_leaves_queries_where_they_are():
    heads = grouped_heads((2, 4), (4, 2))
    assert heads.query.tolist() == list(range(8)) and heads.key_value.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("new", [8, 12, 16, 24])
def test_scores_survive_new_slots(new):
    """For random q and k, the sum over slots of the grown q*k is score times the old one, at every rotation."""
    old, score, rng = 8, np.sqrt(new / 8), np.random.default_rng(0)
    q, k = rng.normal(size=(2, old))
    makers = [copied_slots(old, new, 0, score), copied_slots(old, new, 4, score), rotary_slots(old, new, score, False)]
    makers += [rotary_slots(old, new, score, True)] if new % old == 0 else []
    for slots in makers:
        write = [m.sides[WRITE].amplitude * x[m.index] for m, x in ((slots.query, q), (slots.key, k))]
        np.testing.assert_allclose(write[0] @ write[1], score * (q @ k))
    if new % old == 0:
        slots = normed_rotary_slots(old, new, score)
        gain = [m.sides[GAIN].amplitude * x[m.index] for m, x in ((slots.query, q), (slots.key, k))]
        np.testing.assert_allclose(gain[0] @ gain[1], score * (q @ k))


@given(sizes, sizes, seeds)
def test_outer_and_concatenate_are_block_index_arithmetic(a, b, seed):
    left, right = copies(a[0], drawn(*a, seed)), copies(b[0], cyclic_index(*b))
    grid = np.arange(a[0] * b[0]).reshape(a[0], b[0])
    assert (grid[left.index][:, right.index].ravel() == outer(left, right).index).all()
    both = concatenate([left, right])
    assert both.old == a[0] + b[0] and both.index[left.new :].min() >= a[0]
    np.testing.assert_allclose(both.completeness(), 1.0)


def test_modes_are_small_numbers_that_arrays_keep():
    """They enter the digests of maps that results hold."""
    assert [(mode.name, int(mode)) for mode in Mode] == list(zip(Mode.__members__, range(5)))
    assert list(Mode) == [GATHER, MEAN, FREE, BALANCED, ABSENT]
    arrays = [np.where([True, False], ABSENT, GATHER), FREE * np.array([True, False])]
    arrays += [side.mode for side in mean_filler(4, 6, post_norm=True).sides.values()]
    assert {array.dtype for array in arrays} == {np.dtype(np.int8)}


@pytest.mark.parametrize("role", [WRITE, READ])
@pytest.mark.parametrize("mode", [FREE, ABSENT])
def test_a_place_of_a_composite_axis_has_the_later_mode_of_its_factors(mode, role):
    """A free slot is free in every head, old or copied; what another source fills is that source's in every part."""
    heads, slots = (
        copies(2, cyclic_index(2, 4)),
        axis_map("slots", 3, np.arange(3), 1.0, 1.0, modes={role: [0, mode, 0]}),
    )
    for axis in (outer(heads, slots), outer(slots, heads)):
        assert axis.sides[role].mode.sum() == 4 * mode and outer(axis, identity(1)).digest() == axis.digest()
    side = outer(heads, slots).sides[role]
    assert side.mode.reshape(4, 3).tolist() == [[0, mode, 0]] * 4
    free = axis_map("free", 1, [0], 1.0, 1.0, modes={role: [FREE]})
    absent = axis_map("absent", 1, [0], 1.0, 1.0, modes={role: [ABSENT]})
    assert outer(free, absent).sides[role].mode == outer(absent, free).sides[role].mode == ABSENT


@given(sizes, seeds)
def test_stored_maps_read_back(size, seed):
    for axis in every_map(*size, seed):
        back = map_from_json(map_to_json(axis))
        assert (back.index == axis.index).all() and back.old == axis.old
        np.testing.assert_allclose(back.completeness(), axis.completeness(), rtol=1e-15)
        values = torch.randn(3, size[0], dtype=torch.float64, generator=generator(seed, "v"))
        side = axis.sides[WRITE]
        grown = values[:, torch.from_numpy(axis.index)] * torch.from_numpy(side.amplitude)
        torch.testing.assert_close(collapse(grown, back), values, rtol=1e-12, atol=1e-12)


def test_blocks_do_not_change_bytes(monkeypatch):
    """A tensor of many blocks has, within each, the bits of its own place: order cannot matter. Without noise or free
    fillers, not even the size of a block does."""
    weight = torch.randn(64, 48, generator=generator(0, "w"))
    maps = [(copies(64, cyclic_index(64, 150)), WRITE), (copies(48, cyclic_index(48, 96)), READ)]
    whole = expand(weight, maps)
    monkeypatch.setattr("growkit.operators.rule.BLOCK_ELEMENTS", 1000)
    assert torch.equal(expand(weight, maps), whole)
    assert torch.equal(expand(weight, maps, noise=0.5, seed=3), expand(weight, maps, noise=0.5, seed=3))
    assert not torch.equal(expand(weight, maps, noise=0.5, seed=3), expand(weight, maps, noise=0.5, seed=4))


def test_random_bits_are_fair_and_differ():
    bits = random_bits(torch.Size((1000, 100)), generator(0, "bits")).double()
    assert abs(bits.mean().item() - 0.5) < 0.01
    assert (bits.mean(0) - 0.5).abs().max() < 0.08 and (bits.mean(1) - 0.5).abs().max() < 0.25


def test_seeds_are_the_same_everywhere():
    assert stable_seed(0, "model.embed_tokens.weight") == 5669377478142347175
    assert len({stable_seed(seed, name) for seed in range(20) for name in "abcdefgh"}) == 160


def test_copies_of_one_source_may_differ_in_amplitude_but_are_split_only_where_they_do_not():
    uneven = axis_map("uneven", 2, np.array([0, 1, 0, 1]), 1.0, np.array([0.3, 0.5, 0.7, 0.5]))
    axes = [(identity(1), WRITE), (uneven, READ)]
    assert expand(torch.ones(1, 2), axes, noise=0.0).tolist() == [pytest.approx([0.3, 0.5, 0.7, 0.5])]
    with pytest.raises(AssertionError, match="read alike by all copies"):
        expand(torch.ones(1, 2), axes, noise=0.5)
