"""Several models into one: whether they belong together, and what each axis becomes. Knows which settings must agree;
ignorant of tensors' values and of files.

Side by side, each axis that grows is the members' axes one after another, what reads it reads its own member's block, and
where all meet (the logits) they take the mean. With fpi and aki the members are one model widened, whose first copies are
the first member's and whose later copies are the others'.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from growkit.errors import RequestError
from growkit.families import Family
from growkit.maps import AxisMap, block_of, identity
from growkit.plan import AxisPlan, Exactness
from growkit.planners.by_layer import difference, is_by_layer
from growkit.planners.headers import Headers, architecture_of, is_tied
from growkit.planners.sizes import OPTIONS, Sizes

MODES = ("side-by-side", "fpi", "aki")
SUMMED = ("hidden", "head", "kv_head", "ffn")  # sizes that add up
BLOCKS = {  # axis word -> the size it is a block of
    "hidden": "hidden",
    "pooled": "hidden",
    "head_hidden": "hidden",
    "head": "head",
    "query_head": "head",
    "kv_head": "kv_head",
    "key_head": "kv_head",
    "ffn": "ffn",
}
# settings of training, loading or storing, which say nothing of the function that is computed
PASSING = ("dropout", "pdrop", "initializer", "layerdrop", "cache", "_name_or_path", "transformers_version", "dtype")


def check_members(family: Family, sources: Sequence[Headers], sizes: Sequence[Sizes], same: tuple[str, ...]) -> None:
    """Refuse sources of one family that are no kin: class, tying, settings, tensors and the sizes in `same` must agree."""
    first = sources[0]
    for other, other_sizes in zip(sources[1:], sizes[1:]):
        pair = f"{first.label!r} and {other.label!r}"
        classes = architecture_of(family, first), architecture_of(family, other)
        if classes[0] != classes[1]:
            raise RequestError(f"{pair} are a {classes[0]} and a {classes[1]}; only models of one class become one")
        for axis in same:
            if sizes[0].get(axis) != other_sizes.get(axis):
                raise RequestError(
                    f"{pair} have {axis} {sizes[0][axis]} and {other_sizes[axis]}, which must be the same" + _cure(axis)
                )
        if is_tied(family, first) != is_tied(family, other):
            raise RequestError(f"{pair}: one has a tied head and one has not; save both alike first")
        key = disagreement(family, first.config, other.config)
        if key is not None:
            values = first.config.get(key), other.config.get(key)
            raise RequestError(
                f"{pair} have {key} {values[0]!r} and {values[1]!r} in config.json, which must"
                " agree; where that is one setting written in two ways, write it alike in both"
            )
        key = difference(family, first.config, other.config, sizes[0]["layer"]) if "layer" in same else None
        if key is not None:
            raise RequestError(f"{pair} differ in {key}: layers that become one must see alike; fuse models that agree")
        strange = _names(family, first) ^ _names(family, other)
        if strange:
            raise RequestError(f"only one of {pair} has tensor {sorted(strange)[0]!r}; save both from one class first")


def _cure(axis: str) -> str:
    if axis == "vocab":
        return "; growkit joins models of one tokenizer"
    if axis == "layer":
        return "; deepen the other first, with growkit stack --method identity where that is exact"
    return f"; widen one first, with growkit widen {OPTIONS[axis]}" if axis != "head_dim" else ""


def disagreement(
    family: Family, one: Mapping[str, Any], other: Mapping[str, Any], passing: tuple[str, ...] = PASSING
) -> str | None:
    """The first setting that two configs do not share, sizes and what is passing left out."""
    sizes = {key for axis, keys in family.sizes.items() if axis != "position" for key in keys.split()}
    for key in sorted({*one, *other}):
        if key in sizes or is_by_layer(key) or key in ("model_type", "architectures", "tie_word_embeddings"):
            continue
        if not any(word in key for word in passing) and one.get(key) != other.get(key):
            return key
    return None


def _names(family: Family, headers: Headers) -> set[str]:
    """Names as they are stored, each layer's as if it were the first."""
    names = [name for name in headers.shapes if not family.is_buffer(name)]
    return {name if family.layer_of(name) is None else family.in_layer(name, 0) for name in names}


def added_sizes(family: Family, sources: Sequence[Headers], sizes: Sequence[Sizes]) -> Sizes:
    """The sizes of models side by side. Raises RequestError where their heads are grouped differently, or where stock code
    cannot have the sum."""
    first = sizes[0]
    for source, other in zip(sources[1:], sizes[1:]):
        groups = first["head"] // first["kv_head"], other["head"] // other["kv_head"]
        if groups[0] != groups[1]:
            raise RequestError(
                f"{sources[0].label!r} and {source.label!r} have {groups[0]} and {groups[1]} query heads for each kv head;"
                " side by side they must have equally many: widen one first, with growkit widen --kv-heads"
            )
    added = {**first, **{axis: sum(member[axis] for member in sizes) for axis in SUMMED}}
    if family.hidden_by_heads and added["hidden"] % added["head"]:
        names = " and ".join(repr(source.label) for source in sources)
        raise RequestError(
            f"{names} side by side: transformers' {family.model_type} needs hidden {added['hidden']} to be a multiple of its"
            f" {added['head']} heads; widen one first, to as much hidden for each head as the other has"
        )
    return added


def side_by_side_maps(sizes: Sequence[Sizes], member: int) -> dict[str, AxisMap]:
    """The maps of one member: its block of every axis that grows, all of every other."""
    own = sizes[member]
    blocks = {axis: block_of([other[size] for other in sizes], member) for axis, size in BLOCKS.items()}
    kept = {axis: identity(own["head_dim"]) for axis in ("query_dim", "key_dim", "value_dim")}
    return {"vocab": identity(own["vocab"]), **kept, **blocks}


def side_by_side_lines(family: Family, sizes: Sequence[Sizes], identical: bool) -> list[AxisPlan]:
    """What a plan says of models side by side."""
    lines = []
    for axis in SUMMED:
        if axis == "kv_head" and sizes[0]["head"] == sizes[0]["kv_head"]:
            continue
        exactness, why = Exactness.EXACT, "each member reads its own block only"
        if axis == "hidden" and identical:
            why = "the members are one model, so every norm sees the statistics it saw"
        elif axis == "hidden":
            exactness = Exactness.APPROXIMATE
            why = f"a {family.norm} takes one statistic over all members, where each had its own"
        elif axis == "head" and family.head_norm and not identical:
            exactness, why = (
                Exactness.APPROXIMATE,
                "the members share one gain, or one statistic, of the query and key norms",
            )
        total = sum(member[axis] for member in sizes)
        how = "side by side: " + " + ".join(str(member[axis]) for member in sizes)
        lines.append(AxisPlan(axis, sizes[0][axis], total, how, exactness, why))
    return lines
