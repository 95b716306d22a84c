"""The engine computes what ten lines on a page say: loops over the indices of composite axes and one product.

The lines are read from docs/architecture.md and run as they stand there.
"""

import re
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import growkit
from growkit.maps.axis import GATHER, AxisMap, axis_map, identity, outer
from growkit.maps.notation import GAIN, READ, SHIFT, UNSIZED, WRITE
from growkit.operators.seeds import generator

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
LINES = re.search(r"## The engine in ten lines.*?```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)[1]
namespace: dict = {}
exec(LINES, namespace)
grow = namespace["grow"]


def test_there_are_ten():
    assert len([line for line in LINES.splitlines() if line]) == 10  # the formatter's empty lines left out


@st.composite
def maps(draw) -> AxisMap:
    """Any source for each new index, and for each source and role any amplitude; its copies share it."""
    old = draw(st.integers(1, 4))
    index = np.array(draw(st.lists(st.integers(0, old - 1), min_size=1, max_size=5)))
    values = np.random.default_rng(draw(st.integers(0, 2**32))).normal(size=(4, old))
    values *= np.arange(old) != draw(st.integers(-1, old - 1))  # one source may be silent
    return axis_map("any", old, index, *values[:, index])


axes = st.lists(maps(), min_size=1, max_size=3)
written = st.sampled_from([WRITE, GAIN, SHIFT])


@given(axes, axes, written, st.sampled_from([READ, WRITE]), st.integers(0, 2**32))
@settings(deadline=None)
def test_the_engine_computes_the_ten_lines(rows, columns, role, other, seed):
    row, column = reduce(outer, rows), reduce(outer, columns)
    weight = torch.randn(row.old, column.old, dtype=torch.float64, generator=generator(seed, "w"))
    expected = torch.tensor(grow(weight, (role, *rows), (other, *columns)))
    close = dict(rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(growkit.expand(weight, [(row, role), (column, other)]), expected, **close)
    if other == READ:  # as a file holds it that has the axis it reads first
        torch.testing.assert_close(growkit.expand(weight.T, [(column, READ), (row, role)]).T, expected, **close)
    vector = torch.tensor(grow(weight[:, :1], (role, *rows)))[:, 0]
    torch.testing.assert_close(growkit.expand(weight[:, 0], [(row, role)]), vector, **close)


@pytest.mark.parametrize(
    "family, growth",
    [
        ("bert", dict(hidden=48)),
        ("gpt2", dict(hidden=48, ffn=100)),
        ("gpt_neox", dict(hidden=72, mapping="random")),
        ("llama", dict(hidden=40, heads=8, kv_heads=4, mapping="random")),
        ("qwen3", dict(hidden=40, heads=6, kv_heads=2, ffn=57)),
        ("mixtral", dict(hidden=36, ffn=50)),
    ],
)
def test_whole_models_grow_by_the_ten_lines(family, growth, tmp_path):
    """Every tensor whose axes hold copies alone: all of it but fused projections and what a tied head asks of the last
    norm."""
    source, out = tmp_path / "src", tmp_path / "out"
    tiny.make(family, tie_word_embeddings=family == "bert").save_pretrained(source)
    known = growkit.widen(source, out, noise=0.0, verify=False, **growth).plan.growth
    before, after = (load_file(folder / "model.safetensors") for folder in (source, out))
    held = []
    for name, weight in before.items():
        rows, *columns = dimensions = known.dimensions(name)
        factors = [
            [known.maps.get(axis, identity(size)) for axis in d.axes] for d, size in zip(dimensions, weight.shape)
        ]
        plain = all((m.sides[d.role].mode == GATHER).all() for d, maps in zip(dimensions, factors) for m in maps)
        if not plain or any(len(d.blocks) > 1 or (d.before_head and known.tied) for d in dimensions):
            continue
        assert all(axis in known.maps or axis in UNSIZED for d in dimensions for axis in d.axes)
        sides = [(d.role, *maps) for d, maps in zip(dimensions, factors)]
        matrix, turned = weight.reshape(len(weight), -1), bool(columns) and rows.role == READ
        lines = grow(matrix.T, *sides[::-1]) if turned else grow(matrix, *sides)
        expected = torch.tensor(lines).T if turned else torch.tensor(lines)
        torch.testing.assert_close(after[name], expected.reshape(after[name].shape), rtol=1e-12, atol=1e-14)
        held.append(name)
    assert len(held) > 0.7 * len(before)
