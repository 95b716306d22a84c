"""Several models into one: whether they belong together, and what each axis becomes. Knows which settings must agree;
ignorant of tensors' values and of files.

Side by side, each axis that grows is the members' axes one after another, what reads it reads its own member's block,
and where all meet (the logits) they take the mean. With fpi and aki the members are one model widened, whose first
copies are the first member's and whose later copies are the others'.
"""

from collections.abc import Sequence

from growkit.errors import RequestError
from growkit.families import Family
from growkit.growth.plan import AxisPlan
from growkit.growth.source_headers import Headers
from growkit.growth.width.sizes import Sizes
from growkit.maps.axis import AxisMap, block_of, identity
from growkit.maps.exactness import Exactness

MODES = ("side-by-side", "fpi", "aki")
SUMMED = ("hidden", "embedding", "head", "kv_head", "ffn")  # sizes that add up
BLOCKS = {  # axis word -> the size it is a block of
    "hidden": "hidden",
    "normed": "hidden",
    "pooled": "hidden",
    "head_hidden": "hidden",
    "embedding": "embedding",
    "head_embedding": "embedding",
    "head": "head",
    "query_head": "head",
    "kv_head": "kv_head",
    "key_head": "kv_head",
    "ffn": "ffn",
}


def added_sizes(family: Family, sources: Sequence[Headers], sizes: Sequence[Sizes]) -> Sizes:
    """The sizes of models side by side. Raises RequestError where their heads are grouped differently, or where stock
    code cannot have the sum.
    """
    first = sizes[0]
    for source, other in zip(sources[1:], sizes[1:]):
        groups = first["head"] // first["kv_head"], other["head"] // other["kv_head"]
        if groups[0] != groups[1]:
            raise RequestError(
                f"{sources[0].label!r} and {source.label!r} have {groups[0]} and {groups[1]} query heads for each kv"
                " head; side by side they must have equally many: widen one first, with growkit widen --kv-heads"
            )
    added = {**first, **{axis: sum(member[axis] for member in sizes) for axis in SUMMED if axis in first}}
    for source in sources:  # only_multiples is of scales and fillers, and here there are neither
        for axis, sentence in family.forbidden(source.config).items():
            if added[axis] != first[axis]:
                raise RequestError(f"{source.label!r} cannot stand side by side with others: {sentence}")
        if family.shares_kv(source.config):
            raise RequestError(
                f"{source.label!r} cannot stand side by side with others: all its heads share one kv head, and theirs another"
            )
    if family.hidden_by_heads and added["hidden"] % added["head"]:
        names = " and ".join(repr(source.label) for source in sources)
        raise RequestError(
            f"{names} side by side: transformers' {family.model_type} needs hidden {added['hidden']} to be a multiple"
            f" of its {added['head']} heads; widen one first, to as much hidden for each head as the other has"
        )
    return added


def side_by_side_maps(sizes: Sequence[Sizes], member: int) -> dict[str, AxisMap]:
    """The maps of one member: its block of every axis that grows, all of every other."""
    own = sizes[member]
    blocks = {axis: block_of([other[size] for other in sizes], member) for axis, size in BLOCKS.items() if size in own}
    kept = {axis: identity(own["head_dim"]) for axis in ("query_dim", "key_dim", "value_dim")}
    return {"vocab": identity(own["vocab"]), **kept, **blocks}


def side_by_side_lines(family: Family, sizes: Sequence[Sizes], identical: bool) -> list[AxisPlan]:
    """What a plan says of models side by side."""
    lines = []
    for axis in SUMMED:
        if axis == "kv_head" and sizes[0]["head"] == sizes[0]["kv_head"]:
            continue
        if axis == "embedding" and all(member.get(axis, member["hidden"]) == member["hidden"] for member in sizes):
            continue
        exactness, why = Exactness.EXACT, "each member reads its own block only"
        if axis in ("hidden", "embedding") and identical:
            why = "the members are one model, so every norm sees the statistics it saw"
        elif axis in ("hidden", "embedding"):
            exactness = Exactness.APPROXIMATE
            why = f"a {family.norms.kind} takes one statistic over all members, where each had its own"
        elif axis == "head" and family.norms.on_heads and not identical:
            exactness, why = (
                Exactness.APPROXIMATE,
                "the members share one gain, or one statistic, of the query and key norms",
            )
        total = sum(member[axis] for member in sizes)
        how = "side by side: " + " + ".join(str(member[axis]) for member in sizes)
        lines.append(AxisPlan(axis=axis, old=sizes[0][axis], new=total, how=how, exactness=exactness, why=why))
    return lines
