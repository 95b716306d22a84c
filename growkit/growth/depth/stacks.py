"""Depth of models with several stacks of layers, an encoder and a decoder: each grows as many times over as the first.
Knows what may be asked of stacks together; ignorant of tensors and files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import gcd

from growkit.errors import RequestError
from growkit.growth.depth.layers import AVERAGE, layer_line, layer_map
from growkit.growth.plan import AxisPlan
from growkit.growth.request import Depth
from growkit.maps.axis import AxisMap

Counts = Sequence[Mapping[str, int]]  # of each source: the stem before the numbers of a stack -> how many layers it has


def stack_maps(old: Counts, depth: Depth | None) -> dict[str, AxisMap]:
    """The map of layers of each stack. What is asked for is said of the first; others of as many layers are as it is.

    Raises RequestError as layer_map does, and for what others of fewer or more layers cannot follow.
    """
    first = next(iter(old[0]))
    if depth is not None and depth.method == AVERAGE and len(old[0]) > 1:
        raise RequestError(
            f"{AVERAGE} is for models of one stack of layers: in an encoder with its decoder, layers may share what tells"
            " their heads apart"
        )
    firsts = [counts[first] for counts in old]
    maps = {first: layer_map(firsts, depth)}
    for stack in [*old[0]][1:]:
        own = [counts[stack] for counts in old]
        alike = own == firsts or depth is None
        maps[stack] = layer_map(own, depth if alike else _in_proportion(depth, (first, firsts), (stack, own)))
    return maps


def stack_lines(maps: Mapping[str, AxisMap], old: Counts, post_norm: bool, fixed: int = 0) -> list[AxisPlan]:
    """What a plan says of the layers: of stacks that grow alike once, of another in a line of its own. fixed: as
    layer_line has it.
    """
    (first, first_map), *others = maps.items()
    lines = [layer_line(first_map, [counts[first] for counts in old], post_norm, fixed)]
    for stack, layers in others:
        if layers.digest() != first_map.digest():
            line = layer_line(layers, [counts[stack] for counts in old], post_norm)
            lines.append(replace(line, axis=f"{_called(stack)} layer"))
    return lines


def _in_proportion(depth: Depth | None, first: tuple[str, list[int]], other: tuple[str, list[int]]) -> Depth | None:
    """What is asked of a stack that has another number of layers than the first, (stem, layers of each source) both."""
    if depth is None:
        return None
    (one, ours), (another, theirs) = first, other
    sizes = f"its {_called(one)} has {sum(ours)} layers and its {_called(another)} {sum(theirs)}"
    singly = {"--slices": depth.slices, "--after": depth.after, "--every": depth.every, "--block": depth.block,
              "--overlap": depth.overlap}  # fmt: skip
    asked = [option for option, value in singly.items() if value not in (None, ())]
    if asked:
        raise RequestError(f"{asked[0]} speaks of the layers of one stack, and {sizes}; say --layers and how alone")
    if depth.layers is None:
        return depth
    layers, rest = divmod(depth.layers * sum(theirs), sum(ours))
    if rest:
        step = sum(ours) // gcd(sum(ours), sum(theirs))
        raise RequestError(
            f"{sizes}, which grow alike: with --layers {depth.layers} for the first, the other would have"
            f" {layers + rest / sum(ours):.2f}; take a multiple of {step}"
        )
    return replace(depth, layers=layers)


def _called(stack: str) -> str:
    return stack.removesuffix(".")
