"""Which layer of the sources each layer of the target is. Knows what may be asked of depth, and says what came of it;
ignorant of tensors and files. The depth operators themselves are in growkit.maps.layer_order.

Layers count from 1 wherever a person reads or writes them and from 0 in code. Several sources are one after another.
"""

import re
from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np

from growkit.errors import RequestError
from growkit.growth.plan import AxisPlan
from growkit.growth.request import Depth
from growkit.maps.axis import FREE, AxisMap, axis_map, copy_rank, counts, identity
from growkit.maps.exactness import Exactness
from growkit.maps.layer_order import (
    each_followed,
    interleaved,
    middle_repeated,
    overlapped,
    put_between,
    stacked,
    top_repeated,
)
from growkit.maps.notation import READ, WRITE

MOST_LAYERS, MOST_SOURCES = 4096, 26
OF_SEVERAL = ("stack", "interleave")  # methods that say what several sources become
PLACES = ("spread", "middle", "top")  # where single new layers go
AVERAGE = "average"
_SLICE = re.compile(r"(?:([A-Z]):)?(\d+)(?:-(\d+))?")

Layers = list[int]


def layer_map(old: Sequence[int], depth: Depth | None) -> AxisMap:
    """The map of layers for sources of `old` layers each: index over all of them, write 0 where a layer is inserted as
    the identity, and between 0 and 1 where the layer above that one gives the rest.

    Raises RequestError for a method, a number or a combination of options that cannot be.
    """
    total = sum(old)
    if depth is None:
        return identity(total)
    _check(depth, old)
    if depth.slices is not None:
        index, name = _slices(depth, old), "slices"
    else:
        order = _alternating(old) if depth.method == "interleave" else list(range(total))
        size = depth.layers if depth.layers is not None else _implied(depth, total, len(old))
        if size < total:
            raise RequestError(
                f"--layers {size} is fewer than the source's {total}; growkit only grows: to leave layers out, say which"
                f" to keep with --slices, such as --slices 1-{size}"
            )
        index, name = _ordered(order, size, depth), depth.method
    if depth.layers not in (None, len(index)):
        raise RequestError(
            f"--layers {depth.layers} contradicts the other options, which make {len(index)}; give one or the other"
        )
    if len(index) > MOST_LAYERS:
        raise RequestError(f"{len(index)} layers are more than growkit plans for, {MOST_LAYERS}")
    # an inserted layer, which follows its source, carries nothing of it: it starts as the identity
    silent = np.diff(index, prepend=-1) == 0 if name == "identity" else np.zeros(len(index), dtype=bool)
    write = np.where(silent, 0.0, 1.0)
    if name == AVERAGE:  # of k between two layers the j-th has j / (k + 1) of the upper one
        write = 1.0 - copy_rank(np.array(index)) / counts(np.array(index), total)
    return axis_map(name, total, np.array(index), write, 1.0, modes={READ: FREE * silent})


def between(layers: AxisMap) -> np.ndarray:
    """(new,) what the layer above the one that a layer is gives to it: 0 but where two are averaged."""
    own = layers.sides[WRITE].amplitude
    return np.where((own > 0) & (own < 1), 1.0 - own, 0.0)


def layer_line(layers: AxisMap, old: Sequence[int], post_norm: bool, fixed: int = 0) -> AxisPlan:
    """What a plan says of the layers; several sources are never what any of them was. fixed: behind each of how many
    first layers something is added to the stream, whichever they are.
    """
    size = layers.new
    how = f"{layers.name}: {spelled(layers, old)}"
    if layers.is_identity and len(old) == 1:
        return AxisPlan(axis="layer", old=layers.old, new=size, how="kept", exactness=Exactness.EXACT, why="unchanged")
    if layers.name == AVERAGE:
        why = "a new layer is the mean of its two neighbours, heads and units of one matched to those of the other"
        return AxisPlan(axis="layer", old=layers.old, new=size, how=how, exactness=Exactness.APPROXIMATE, why=why)
    if layers.name != "identity":
        why = "a copy computes on what the layers below it made, which is not what it was trained on"
        return AxisPlan(axis="layer", old=layers.old, new=size, how=how, exactness=Exactness.APPROXIMATE, why=why)
    if post_norm:
        why = "after a post-LayerNorm no layer is the identity: the new ones add nothing, but norm the stream again"
        return AxisPlan(axis="layer", old=layers.old, new=size, how=how, exactness=Exactness.APPROXIMATE, why=why)
    fixed = min(fixed, size)
    if (layers.index[:fixed] != np.arange(fixed)).any() or (layers.sides[WRITE].amplitude[:fixed] == 0).any():
        why = (
            f"what images add behind the first {fixed} layers would come elsewhere; exact where new layers stand behind them:"
            f" --after {fixed} or more"
        )
        return AxisPlan(axis="layer", old=layers.old, new=size, how=how, exactness=Exactness.APPROXIMATE, why=why)
    why = "new layers, in brackets, copy the one before but what they add to the stream starts at zero"
    return AxisPlan(axis="layer", old=layers.old, new=size, how=how, exactness=Exactness.EXACT, why=why)


def spelled(layers: AxisMap, old: Sequence[int]) -> str:
    """A layer table for people: "1..6 1..6 3..6", inserted layers in brackets, several sources as A1..A6 B1..B6, and
    averages as 1+2, or 0.67x1+0.33x2."""
    places = [place(number, old) for number in layers.index]
    silent, above = layers.sides[WRITE].amplitude == 0, between(layers)

    def follows(run: int) -> tuple[int, bool, int]:
        source, layer = places[run]
        return source, bool(silent[run]), layer - run if not above[run] else len(places) + run

    words = []
    for (source, inserted, _), group in groupby(range(len(places)), follows):
        run = list(group)
        letter = chr(ord("A") + source) if len(old) > 1 else ""
        numbers = [f"{letter}{places[number][1] + 1}" for number in run]
        if above[run[0]]:
            numbers = [_mean(places[run[0]][1] + 1, float(above[run[0]]))]
        spoken = numbers if len(numbers) < 3 else [f"{numbers[0]}..{numbers[-1]}"]
        words += [f"({word})" for word in spoken] if inserted else spoken
    return " ".join(words)


def _mean(lower: int, above: float) -> str:
    return f"{lower}+{lower + 1}" if above == 0.5 else f"{1 - above:.2g}x{lower}+{above:.2g}x{lower + 1}"


def place(number: int, old: Sequence[int]) -> tuple[int, int]:
    """(source, layer in it) of a layer counted over all sources."""
    ends = np.cumsum(old)
    source = int(np.searchsorted(ends, number, side="right"))
    return source, int(number - (ends[source] - old[source]))


METHODS: dict[str, Callable[[int, int, Depth], Layers]] = {
    "stack": lambda old, new, depth: stacked(old, new),
    "interleave": lambda old, new, depth: (
        each_followed(old, new, depth.every, depth.after, depth.where or "spread")
        if depth.after or depth.every or depth.where
        else interleaved(old, new)
    ),
    "top": lambda old, new, depth: top_repeated(old, new, depth.block),
    "middle": lambda old, new, depth: middle_repeated(old, new, depth.block),
    "identity": lambda old, new, depth: each_followed(old, new, depth.every, depth.after, depth.where or "spread"),
    AVERAGE: lambda old, new, depth: put_between(old, new, depth.after, depth.where or "spread"),
    "solar": lambda old, new, depth: overlapped(old, new, depth.overlap),
}


def _ordered(order: Layers, size: int, depth: Depth) -> Layers:
    """The layers of `order`, as the method puts them. Raises RequestError for a number that it cannot make."""
    try:
        return [order[number] for number in METHODS[depth.method](len(order), size, depth)]
    except ValueError as error:
        raise RequestError(f"{depth.option} {error}") from None


def _implied(depth: Depth, total: int, sources: int) -> int:
    """How many layers the other options make."""
    if depth.overlap is not None:
        return 2 * (total - depth.overlap)
    if depth.after:
        return total + len(depth.after)
    if depth.every is not None:
        return total + total // depth.every
    if sources > 1:
        return total
    raise RequestError("say how deep: --layers N")


def _check(depth: Depth, old: Sequence[int]) -> None:
    """Refuse options that do not go together or are out of range."""
    total, method, option = sum(old), depth.method, depth.option
    if method not in METHODS:
        raise RequestError(f"{option} {method!r} is not one of {', '.join(METHODS)}")
    numbers = {"--layers": depth.layers, "--overlap": depth.overlap, "--every": depth.every, "--block": depth.block}
    for name, number in [*numbers.items(), *(("--after", number) for number in depth.after)]:
        if number is not None and type(number) is not int:
            raise RequestError(f"{name} should be a whole number, not {number!r}")
    if depth.layers is not None and depth.layers < 1:
        raise RequestError(f"--layers {depth.layers} should be 1 or more")
    if depth.slices is not None and method != "stack":
        raise RequestError(f"--slices says every layer itself; leave {option} {method} out")
    if len(old) > MOST_SOURCES:
        raise RequestError(f"{len(old)} sources are more than growkit has letters for, {MOST_SOURCES}")
    used = {
        "--overlap": (depth.overlap is not None, ("solar",)),
        "--after": (bool(depth.after), ("identity", "interleave", AVERAGE)),
        "--every": (depth.every is not None, ("identity", "interleave")),
        "--where": (depth.where is not None, ("identity", "interleave", AVERAGE)),
        "--block": (depth.block is not None, ("top", "middle")),
    }
    for name, (given, methods) in used.items():
        if given and (method not in methods or depth.slices is not None):
            other = "--slices" if depth.slices is not None else f"{option} {method}"
            raise RequestError(f"{name} is for {option} {' or '.join(methods)}, not for {other}")
        if given and len(old) > 1:
            raise RequestError(f"{name} places layers of one source, and {len(old)} are stacked")
    if depth.slices is None and len(old) > 1 and method not in OF_SEVERAL:
        raise RequestError(f"{option} {method} takes one source; stack several with {' or '.join(OF_SEVERAL)}")
    if (depth.where, depth.every, depth.after).count(None) + (not depth.after) < 2:
        raise RequestError("--after, --every and --where each say where new layers go; give one of them")
    if depth.where not in (None, *PLACES):
        raise RequestError(f"--where {depth.where!r} is not one of {', '.join(PLACES)}")
    if depth.overlap is not None and not 0 <= depth.overlap <= total // 2:
        raise RequestError(f"--overlap {depth.overlap} should be from 0 to half of the source's {total} layers")
    if depth.every is not None and not 1 <= depth.every <= total:
        raise RequestError(f"--every {depth.every} should be from 1 to the source's {total} layers")
    if depth.block is not None and not 1 <= depth.block <= total:
        raise RequestError(f"--block {depth.block} should be from 1 to the source's {total} layers")
    wrong = [number for number in depth.after if not 1 <= number <= total]
    if wrong:
        raise RequestError(f"--after {wrong[0]} should be a layer of the source, from 1 to {total}")


def _alternating(old: Sequence[int]) -> Layers:
    """Layers of several sources in turn, evenly where one has more; of one source, as they are."""
    starts = np.cumsum([0, *old])
    keyed = [((layer + 0.5) / n, start + layer) for n, start in zip(old, starts) for layer in range(n)]
    return [int(number) for _, number in sorted(keyed)]


def _slices(depth: Depth, old: Sequence[int]) -> Layers:
    """The layers that --slices names, such as "1-8,5-12" or "A:1-8,B:5-12"."""
    index: Layers = []
    starts = np.cumsum([0, *old])
    for text in (depth.slices or "").replace(" ", "").split(","):
        match = _SLICE.fullmatch(text)
        if match is None or (match[1] is None and len(old) > 1):
            example = "1-8,5-12" if len(old) == 1 else "A:1-8,B:5-12"
            raise RequestError(
                f"--slices has {text!r}, which is no run of layers; write for example --slices {example}"
            )
        source = ord(match[1] or "A") - ord("A")
        if source >= len(old):
            letters = ", ".join(chr(ord("A") + number) for number in range(len(old)))
            raise RequestError(f"--slices has {text!r}, but the sources are {letters}")
        first, last = int(match[2]), int(match[3] or match[2])
        if not 1 <= first <= last <= old[source]:
            raise RequestError(f"--slices has {text!r}, but the source's layers are 1 to {old[source]}, lower first")
        index += [int(starts[source]) + layer for layer in range(first - 1, last)]
    return index
