"""From a tensor's axes and the maps of those axes to its rule. Knows roles and what a tied head needs; ignorant of
values and of why a map was chosen.

A rule depends on a tensor's template and shape alone, and is made once for all tensors that share them: the 18,867
tensors of a large mixture have a dozen rules.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, TypeVar

import numpy as np

from growkit.errors import CheckpointError
from growkit.families import Family
from growkit.growth.width.uneven import Noise, unevenness
from growkit.maps.axis import ABSENT, AxisMap, concatenate, identity, outer
from growkit.maps.notation import GAIN, PAIR, READ, SHIFT, UNSIZED, WORDS, WRITE, Dimension, base, parse, spread
from growkit.operators.rule import Rule, Selection, rule_of, select

Maps = Mapping[str, AxisMap]
Shape = tuple[int, ...]
Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Growth:
    """The maps of all axes of one source, with the facts about the model that a rule depends on.

    head_scale: what undoes that a model divides the stream before its head by sqrt(hidden); embedding_scale: that it
    multiplies its embeddings by it (Gemma). depths: how many layers each stack has, by the stem before their numbers.
    share: what this source contributes where several meet, such as in the logits of models side by side: 1 / their
    number.
    """

    family: Family
    maps: Maps
    tied: bool
    noise: Noise
    architecture: str = ""
    share: float = 1.0
    head_scale: float = 1.0
    embedding_scale: float = 1.0
    depths: Mapping[str, int] = field(default_factory=dict)
    sum_of_copies: bool = False  # a token takes all copies of an expert or none, with equal weights
    _by_key: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """What `make` gives, made for the first who asks with this key and handed to all others."""
        if key not in self._by_key:
            self._by_key[key] = make()
        return self._by_key[key]

    def for_kind(self, what: Hashable, name: str, shape: Shape, make: Callable[[], Value]) -> Value:
        """The same for all tensors of one template and shape."""
        return self.once((what, self.family.template(name), self.stands_last(name), shape), make)

    def dimensions(self, name: str, rank: int = 1) -> tuple[Dimension, ...]:
        """The dimensions of a stored tensor; a stored copy of a tied embedding has the embedding's. rank: how many
        dimensions there are of what may have any number.
        """
        if is_tied_head(name, self):
            return parse(self.family.tensors[self.family.embedding])
        dimensions = spread(self.family.axes_of(name, self.architecture), rank)
        return tuple(replace(d, before_head=True) for d in dimensions) if self.stands_last(name) else dimensions

    def stands_last(self, name: str) -> bool:
        """Whether this is of the norm that ends the last layer, before the head."""
        if not self.family.ends_layer(name):
            return False
        return self.family.layer_of(name) == self.depths.get(self.family.stack_of(name), 0) - 1


def unchanged(sizes: Mapping[str, int]) -> dict[str, AxisMap]:
    """The maps of a model that stays as it is."""
    return {axis: identity(sizes[base(axis)]) for axis in sorted(WORDS) if base(axis) in sizes} | {PAIR: identity(2)}


def composite(dimension: Dimension, maps: Maps) -> AxisMap:
    """The map of a dimension of several axes: of each block their product, of several blocks one after another."""
    blocks = [reduce(outer, (maps[axis] for axis in block)) for block in dimension.blocks]
    if len(blocks) == 1:
        return blocks[0]
    dealt = dimension.dealt or "1"
    return concatenate(blocks, *((int(dealt),) * 2 if dealt.isdigit() else (maps[dealt].old, maps[dealt].new)))


def dimension_map(dimension: Dimension, size: int, growth: Growth) -> AxisMap:
    """The map of one dimension of one tensor; axes without a size of their own stay as they are."""
    if dimension.axes[0] in UNSIZED:
        return growth.once(("kept", size), lambda: identity(size))
    key = ("map", dimension.blocks, dimension.dealt)
    return growth.once(key, lambda: composite(dimension, growth.maps))


def check_shape(name: str, shape: Shape, growth: Growth) -> None:
    """Raises CheckpointError where a stored shape is not what the config says it should be."""
    growth.for_kind("checked", name, shape, lambda: _check_shape(name, shape, growth))


def _check_shape(name: str, shape: Shape, growth: Growth) -> None:
    dimensions = growth.dimensions(name, len(shape))
    expected = [dimension_map(d, size, growth).old for d, size in zip(dimensions, shape)]
    if len(dimensions) != len(shape) or expected != list(shape):
        axes = " x ".join(" + ".join("*".join(base(axis) for axis in block) for block in d.blocks) for d in dimensions)
        wanted = expected if len(dimensions) == len(shape) else f"{len(dimensions)} dimensions"
        raise CheckpointError(
            f"tensor {name!r} has shape {list(shape)} but config.json says {wanted} ({axes}); one of them is wrong"
        )


def tensor_rule(name: str, shape: Shape, growth: Growth) -> Rule:
    """How one tensor grows: the one rule of growth, W'[i, j] = write[i] * read[j] * W[s(i), s(j)]."""
    return growth.for_kind("rule", name, shape, lambda: _tensor_rule(name, shape, growth))


def _tensor_rule(name: str, shape: Shape, growth: Growth) -> Rule:
    # a single number is a vector of one
    dimensions, shape = (growth.dimensions(name, len(shape)), shape) if shape else (parse("one"), (1,))
    selections = [selection(d, size, growth) for d, size in zip(dimensions, shape)]
    if is_embedding(name, growth):
        selections[-1] = replace(selections[-1], amplitude=selections[-1].amplitude * growth.embedding_scale)
    if growth.share != 1.0 and not is_placed(dimensions, shape, growth):
        selections[0] = replace(selections[0], amplitude=selections[0].amplitude * growth.share)
    roles = [dimension.role for dimension in dimensions]
    offset = growth.family.norms.gain_offset if roles[0] == GAIN else 0.0
    # a router whose rows are equal (finer experts) must keep them so to the last bit: which experts go together is a
    # tie
    router = dimensions[0].axes == ("expert",) and len(shape) < 3
    rule = rule_of(selections, roles, offset)
    if router or not _may_split(dimensions, growth):
        return rule
    return replace(rule, noise=unevenness(growth.noise, rule.columns.new / rule.columns.old))


def _may_split(dimensions: tuple[Dimension, ...], growth: Growth) -> bool:
    """Whether copies of what is read may be split: where they are experts' in one stack too, only what all experts add
    up to, and where a token takes all of them.
    """
    roles = [dimension.role for dimension in dimensions]
    if len(dimensions) < 3 or roles[1:] != [READ, WRITE] or growth.maps["expert"].is_identity:
        return True
    return growth.sum_of_copies and dimensions[-1].axes == ("hidden",)


def is_placed(dimensions: tuple[Dimension, ...], shape: Shape, growth: Growth) -> bool:
    """Whether models side by side each have a place of their own in what this tensor writes; else they meet in it."""
    return any(
        (dimension_map(d, size, growth).sides[d.role].mode == ABSENT).any()
        for d, size in zip(dimensions, shape)
        if d.role != READ
    )


def is_embedding(name: str, growth: Growth) -> bool:
    """Whether this is the token embedding, or a stored copy of it: what the model may multiply by sqrt(hidden)."""
    family, stem = growth.family, growth.family.stem(name)
    return family.embedding in (stem, family.copies.get(stem)) or is_tied_head(name, growth)


def is_tied_head(name: str, growth: Growth) -> bool:
    """Whether this is a stored copy of the embedding, which must stay equal to it."""
    return growth.tied and growth.family.stem(name) in growth.family.heads


def grown_shape(name: str, shape: Shape, growth: Growth) -> Shape:
    """The target shape of a tensor."""

    def grown() -> Shape:
        return tuple(dimension_map(d, size, growth).new for d, size in zip(growth.dimensions(name, len(shape)), shape))

    return growth.for_kind("shape", name, shape, grown)


def head_factor(axis: AxisMap, growth: Growth) -> np.ndarray:
    """What the last norm multiplies by for a head that is tied: its read amplitude, over what the embedding has.

    logits = sum over copies of embedding[j] * activation[j]; the embedding cannot carry the 1/copies, so this norm
    does.
    """
    read = growth.share * axis.sides[READ].amplitude
    embedding = composite(parse(growth.family.tensors[growth.family.embedding])[-1], growth.maps)
    written = embedding.sides[WRITE].amplitude
    if written.shape != read.shape:
        raise CheckpointError(
            f"this {growth.family.model_type}'s head reads {axis.old} entries, and the embedding it is tied to has"
            f" {embedding.old}; config.json is of no model that computes"
        )
    return read / (written * growth.embedding_scale)


def before_head_factor(axis: AxisMap, growth: Growth) -> np.ndarray | float:
    """What the last norm multiplies by for the head."""
    return (head_factor(axis, growth) if growth.tied else 1.0) * growth.head_scale


def selection(dimension: Dimension, size: int, growth: Growth) -> Selection:
    """What one dimension of a tensor takes from its axis: its role's side, and the last norm what a tied head cannot
    carry.
    """
    return growth.once(("selection", dimension, size), lambda: _selection(dimension, size, growth))


def _selection(dimension: Dimension, size: int, growth: Growth) -> Selection:
    axis = dimension_map(dimension, size, growth)
    chosen = select(axis, dimension.role)
    if dimension.before_head and dimension.role in (GAIN, SHIFT):
        chosen = replace(chosen, amplitude=chosen.amplitude * before_head_factor(axis, growth))
    return chosen
