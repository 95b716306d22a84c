"""Which old layer each new layer is: the depth operators of the literature, as lists of layer numbers from 0. Knows
arithmetic; ignorant of tensors, of requests and of several sources.
"""

from collections.abc import Callable, Sequence


def stacked(old: int, new: int) -> list[int]:
    """The whole model again and again, then its top layers (StackBERT; bert2BERT arXiv 2110.07143 algorithm 1):
    stacked(3, 8) == [0, 1, 2, 0, 1, 2, 1, 2]."""
    whole, rest = divmod(new, old)
    return [*range(old)] * whole + [*range(old - rest, old)]


def interleaved(old: int, new: int) -> list[int]:
    """Each layer beside its copies, l from floor(l * old / new): interleaved(3, 5) == [0, 0, 1, 1, 2]."""
    return [layer * old // new for layer in range(new)]


def top_repeated(old: int, new: int, block: int | None = None) -> list[int]:
    """The top block again and again (MSLT, arXiv 2011.13635): top_repeated(4, 6) == [0, 1, 2, 3, 2, 3].

    block: its layers; by default what is missing, but at most half of what there is.
    """
    return _repeated(old, new, block or _block(old, new), old)


def middle_repeated(old: int, new: int, block: int | None = None) -> list[int]:
    """The block in the middle again and again, in its place (MIDAS, arXiv 2409.19044): middle_repeated(4, 6) ==
    [0, 1, 2, 1, 2, 3]. block: as in top_repeated."""
    block = block or _block(old, new)
    return _repeated(old, new, block, (old + block + 1) // 2)


def overlapped(old: int, new: int, overlap: int | None = None) -> list[int]:
    """The model twice, without the last `overlap` layers of the first and the first of the second (SOLAR, arXiv
    2312.15166): overlapped(4, 6) == [0, 1, 2, 1, 2, 3].

    Raises ValueError for a number of layers that no overlap gives.
    """
    if (2 * old - new) % 2 or not old <= new <= 2 * old:
        raise ValueError(
            f"solar makes {old} layers into 2 x ({old} - overlap): an even number from {old + old % 2} to {2 * old},"
            f" not {new}"
        )
    overlap = old - new // 2 if overlap is None else overlap
    return [*range(old - overlap), *range(overlap, old)]


def each_followed(
    old: int, new: int, every: int | None = None, after: Sequence[int] = (), where: str = "spread"
) -> list[int]:
    """Single layers that follow their own, after every k-th (LLaMA-Pro, arXiv 2401.02415), after those that `after`
    counts from 1, or else as `placed` says: each_followed(4, 6) == [0, 1, 1, 2, 3, 3]."""
    followed = list(after or (range(every, old + 1, every) if every else placed(old, new - old, where)))
    return [layer for layer in range(old) for _ in range(1 + followed.count(layer + 1))]


def put_between(old: int, new: int, after: Sequence[int] = (), where: str = "spread") -> list[int]:
    """Layers that stand between two, after the lower of them, as in each_followed; none stands behind the last.

    Raises ValueError for a model of one layer, and for one behind the last.
    """
    if old < 2 and new > old:
        raise ValueError("average puts a layer between two, and the source has one")
    if old in after:
        raise ValueError(f"average puts a layer between two, and above the source's last, {old}, there is none")
    return [*each_followed(old - 1, new - 1, after=after, where=where), old - 1] if old > 1 else [0]


def placed(count: int, added: int, where: str = "spread") -> list[int]:
    """Which of so many places, counted from 1, as many more go to: evenly "spread", in the "middle" or at the "top".

    placed(6, 2, "middle") == [3, 4]; placed(6, 2, "top") == [5, 6]. All have as many, or one more where it says.
    """
    if where == "spread":
        return [-(-(number + 1) * count // added) for number in range(added)]
    whole, rest = divmod(added, count)
    first = count - rest if where == "top" else (count - rest + 1) // 2
    return sorted([*range(1, count + 1)] * whole + [*range(first + 1, first + rest + 1)])


def _repeated(old: int, new: int, block: int, end: int) -> list[int]:
    """All layers, with those of the block that ends before layer `end` repeated there."""
    whole, rest = divmod(new - old, block)
    return [*range(end), *[*range(end - block, end)] * whole, *range(end - rest, end), *range(end, old)]


def _block(old: int, new: int) -> int:
    return max(1, min(new - old, -(-old // 2)))


# orders that take nothing but two numbers of layers
ORDERS: dict[str, Callable[[int, int], list[int]]] = {
    "stack": stacked,
    "interleave": interleaved,
    "top": top_repeated,
    "middle": middle_repeated,
    "solar": overlapped,
}
