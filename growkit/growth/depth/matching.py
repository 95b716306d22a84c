"""Two layers whose heads and units are matched before they are averaged. Knows tensors, and which axes may change their
order; ignorant of why layers are averaged.

The order of a layer's heads, and of its feed-forward units, means nothing: to move one with all that writes and reads
it leaves the layer's function as it is. So of two layers, the upper one's heads and units are put where those of the
lower one are that they are most like (by the cosine of all their weights), and only then does an average mean something
(arXiv 2508.08011 does it by optimal transport). Heads stay in groups, whole groups change places, and the slots of a
head, which positions turn, stay where they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from growkit.checkpoint.stream import Source
from growkit.growth.plan import Member, Neighbours, Part, Plan
from growkit.growth.rules import Growth, composite, tensor_rule
from growkit.maps.axis import AxisMap, identity
from growkit.maps.notation import READ, SHIFT, WRITE, base
from growkit.operators.rule import Rule

# the role of a map that tells to which head, key-value head or unit an entry belongs, and the least such number
_TELLS, _FIRST = {"head": WRITE, "kv_head": READ, "ffn": SHIFT}, 2.0
Order = dict[str, np.ndarray]  # axis -> for each index of the lower layer the one of the upper layer that it meets


def matched(plan: Plan, sources: Sequence[Source]) -> Plan:
    """The plan with the upper of two averaged layers in the lower one's order; weights of both are read whole."""
    growths: dict[Neighbours, Growth] = {}
    pairs: dict[tuple[Neighbours, str], Neighbours] = {}
    rules: dict[tuple[Neighbours, int], Rule] = {}

    def in_order(part: Part) -> Part:
        pair = part.pair
        if pair is None:
            return part
        member = plan.members[part.source]
        if pair not in growths:
            growths[pair] = _turned_growth(member, sources[part.source], pair)
        if (pair, part.name) not in pairs:
            turn = tensor_rule(part.name, member.shapes[part.name], growths[pair])
            pairs[pair, part.name] = replace(pair, turn=turn)
        told = pairs[pair, part.name]
        assert told.turn is not None
        if (told, id(part.rule)) not in rules:
            rules[told, id(part.rule)] = turned(part.rule, told.turn)
        return replace(part, rule=rules[told, id(part.rule)], pair=told)

    tensors = tuple(
        replace(tensor, parts=tuple(map(in_order, tensor.parts))) if any(part.pair for part in tensor.parts) else tensor
        for tensor in plan.tensors
    )
    return replace(plan, tensors=tensors) if growths else plan


def turned(rule: Rule, turn: Rule) -> Rule:
    """A rule that takes from a source what another has put into another order."""
    rows, columns = rule.rows, rule.columns
    return replace(
        rule,
        rows=replace(rows, index=turn.rows.index[rows.index]),
        columns=replace(columns, index=turn.columns.index[columns.index]),
    )


def assigned(likeness: torch.Tensor) -> np.ndarray:
    """(n,) the column of each row of a matrix (n, n), each once: again and again those that are each other's largest.

    Not the assignment of the largest sum, which takes n^3; of a row that equals a column and no other it is the same.
    """
    chosen = np.empty(len(likeness), dtype=np.int64)
    rows, columns = np.arange(len(likeness)), np.arange(len(likeness))
    while len(rows):
        if likeness.min() == likeness.max():  # all alike: as they lie
            chosen[rows] = columns
            break
        best, back = likeness.argmax(1).numpy(), likeness.argmax(0).numpy()
        mutual = back[best] == np.arange(len(rows))
        chosen[rows[mutual]] = columns[best[mutual]]
        left = np.setdiff1d(np.arange(len(columns)), best[mutual])
        likeness = likeness[torch.from_numpy(np.flatnonzero(~mutual))][:, torch.from_numpy(left)]
        rows, columns = rows[~mutual], columns[left]
    return chosen


def _turned_growth(member: Member, source: Source, pair: Neighbours) -> Growth:
    """A growth that puts the upper layer's heads and units where their likes in the lower one are, and nothing else."""
    growth, order = member.growth, _order(member, source, pair.lower, pair.upper)
    maps = {axis: identity(old.old) for axis, old in growth.maps.items()}
    for axis in maps:
        if base(axis) in order:
            maps[axis] = replace(maps[axis], index=order[base(axis)])
    return replace(growth, maps=maps, noise=0.0, share=1.0)


def _order(member: Member, source: Source, lower: int, upper: int) -> Order:
    growth, family = member.growth, member.growth.family
    fixed = {*family.forbidden(member.config)}  # as the heads of positions by slopes
    fixed |= {
        base(axis)
        for name in member.shapes
        if family.layer_of(name) is None and not family.is_buffer(name)
        for dimension in growth.dimensions(name)
        for axis in dimension.axes
    }
    alike = {axis: _likeness(axis, member, source, lower, upper) for axis in _TELLS}
    order: Order = {}
    if alike["ffn"] is not None and "ffn" not in fixed:
        order["ffn"] = assigned(alike["ffn"])
    heads, groups = alike["head"], alike["kv_head"]
    if heads is None or fixed & {"head", "kv_head"}:
        return order
    count = growth.maps["kv_head"].old
    size = len(heads) // count
    blocks = heads.reshape(count, size, count, size).transpose(1, 2)
    within = [[assigned(block) for block in row] for row in blocks]
    whole = torch.tensor([[blocks[i, j, range(size), within[i][j]].mean() for j in range(count)] for i in range(count)])
    order["kv_head"] = assigned(whole if groups is None else whole + groups.to(whole.dtype))
    order["head"] = np.concatenate([size * j + within[i][j] for i, j in enumerate(order["kv_head"])])
    return order


def _likeness(axis: str, member: Member, source: Source, lower: int, upper: int) -> torch.Tensor | None:
    """(n, n) cosines between the heads or units of one layer and of the other, over all tensors that have them."""
    growth, family = member.growth, member.growth.family
    inner: torch.Tensor | None = None
    lengths: list[torch.Tensor] = []
    for name, shape in member.shapes.items():
        if family.layer_of(name) != lower or family.is_buffer(name):
            continue
        for place, dimension in enumerate(growth.dimensions(name)):
            if axis not in map(base, dimension.axes):
                continue
            tells = composite(dimension, _telling(growth.maps)).sides[_TELLS[axis]].amplitude
            entries = torch.from_numpy(np.argsort(tells, kind="stable")[np.count_nonzero(tells < _FIRST) :])
            both = []
            for layer in (lower, upper):
                tensor = _whole(source, family.in_layer(name, layer), shape).movedim(place, 0)
                both.append(tensor[entries].reshape(growth.maps[axis].old, -1))
            squares = [(one**2).sum(1) for one in both]
            product = both[0] @ both[1].T
            inner = product if inner is None else inner + product
            lengths = squares if not lengths else [a + b for a, b in zip(lengths, squares)]
    if inner is None:
        return None
    return inner / (lengths[0][:, None] * lengths[1]).sqrt().clamp_min(torch.finfo(inner.dtype).tiny)


def _telling(maps: Mapping[str, AxisMap]) -> dict[str, AxisMap]:
    """Maps whose amplitudes number the heads and units; 1 of what belongs to none."""
    telling = {}
    for axis, old in maps.items():
        telling[axis] = identity(old.old)
        if base(axis) in _TELLS:
            telling[axis].sides[_TELLS[base(axis)]].amplitude[:] = np.arange(old.old) + _FIRST
    return telling


def _whole(source: Source, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    tensor = source.rows(name, np.arange(shape[0])).reshape(shape)
    return tensor if tensor.dtype == torch.float64 else tensor.float()
