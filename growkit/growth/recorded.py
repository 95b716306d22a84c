"""A growth planned once more from what its result says of it. Knows growkit.json of growths; ignorant of what the plan
is wanted for.

The plan is made from the source's headers by the same request, and is the one that was followed where its maps have the
digest that stands there.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from growkit.checkpoint.fields import AnyOf, FieldKind, Fields, ListOf, MapOf, Null, Number, OneOf, Text, Whole, checked
from growkit.checkpoint.small_files import read_json
from growkit.checkpoint.source import PROVENANCE, Checkpoint
from growkit.errors import CheckpointError, RequestError
from growkit.growth.describe import maps_digest
from growkit.growth.grow_plan import grow_plan
from growkit.growth.plan import Plan
from growkit.growth.request import Depth, Recipe
from growkit.growth.sources import headers_of
from growkit.growth.spelling import DTYPES, dtype_of
from growkit.growth.width.sizes import OPTIONS
from growkit.growth.width.uneven import BY_WIDTH
from growkit.limits import AXIS, EXPERTS, LAYERS, SEEDS

GROWTHS = ("widen", "stack", "grow")  # of one source, layer by layer
SHOWN = 12  # digits of a hash in a sentence
_LAYER = Null(Whole(0, LAYERS))
_ELSEWHERE = ("mode", "experts", "like", "learn")  # of fuse and upcycle, settled before, and refused here
_DEPTH: dict[str, FieldKind] = {
    "layers": _LAYER, "method": Text(), "overlap": _LAYER, "after": ListOf(Whole(1, LAYERS), most=LAYERS),
    "every": _LAYER, "where": Null(Text()), "block": _LAYER, "slices": Null(Text()),
}  # fmt: skip
_KINDS: dict[str, FieldKind] = {
    "sizes": Fields(dict.fromkeys((*OPTIONS, "expert"), Whole(1, AXIS))),
    "method": Text(),
    "keep": Number(0, 1),
    "mapping": Text(),
    "noise": AnyOf((Number(0, 1), OneOf((BY_WIDTH,)))),
    "seed": Whole(*SEEDS),
    "dtype": Null(OneOf([*DTYPES])),
    "depth": Fields({field.name: _DEPTH[field.name] for field in fields(Depth) if field.name != "option"}),
    "top_k": Whole(1, EXPERTS),
    "copies": MapOf(ListOf(Whole(1, EXPERTS), most=EXPERTS), keys=Text(r"[1-9]\d{0,4}", "the number of a layer")),
}
# of every setting that a request has, so that none can be forgotten here
_REQUEST = Fields(
    {field.name: _KINDS[field.name] for field in fields(Recipe) if field.name not in _ELSEWHERE},
    ("sizes", "method", "mapping", "noise", "seed"),
)
_SOURCES = ListOf(Fields({"name": Text(), "files": MapOf(Text())}, ("name", "files")))
SCHEMA = Fields(
    {"request": _REQUEST, "sources": _SOURCES, "maps_digest": Text()}, ("request", "sources", "maps_digest")
)


def recorded_growth(base: Checkpoint, grown: Checkpoint) -> Plan:
    """The plan by which a checkpoint was grown from its base, by `widen`, `stack` or `grow`.

    base, grown: as open_source opens them. Raises RequestError where that is not what was done, and CheckpointError for
    a growkit.json that says what growkit never says.
    """
    path = None if grown.folder is None else grown.folder / PROVENANCE
    if path is None or not path.is_file():
        raise RequestError(
            f"{grown.label!r} has no {PROVENANCE}, so nobody knows how it was grown; name a folder of growkit widen, stack or"
            " grow"
        )
    said = read_json(path)
    if said.get("command") not in GROWTHS:
        raise RequestError(
            f"{grown.label!r} was made by growkit {said.get('command')}; maps are known for what widen, stack or grow made"
            f" of {base.label!r} alone"
        )
    if isinstance(said.get("request"), dict) and "learn" in said["request"]:
        raise RequestError(
            f"{grown.label!r} was grown by maps that learned (--learn), which mix all units: nothing is carried over that"
        )
    said = checked(said, SCHEMA, path)
    sources, there = said["sources"], {*base.hashes().values()}
    if len(sources) != 1:
        raise RequestError(f"{grown.label!r} was made of {len(sources)} models; maps are known for growths of one")
    wanted = {*sources[0]["files"].values()}
    if wanted != there:
        one, other = (sorted(hashes)[0][:SHOWN] for hashes in (wanted - there or wanted, there - wanted or there))
        raise RequestError(
            f"{grown.label!r} was grown from {sources[0]['name']!r}, weights of SHA-256 {one}... ({PROVENANCE}), and"
            f" {base.label!r} has {other}...; go one growth at a time"
        )
    try:
        plan = grow_plan([headers_of(base)], request_of(said["request"]))
    except RequestError as error:
        raise CheckpointError(f"{str(path)!r} tells of a growth that cannot be of {base.label!r}: {error}") from None
    if maps_digest(plan) != said["maps_digest"]:
        raise CheckpointError(
            f"{str(path)!r} tells of other maps than its request makes of {base.label!r} now; grow it again with this growkit"
        )
    return plan


def request_of(said: Mapping[str, Any]) -> Recipe:
    """A request as growkit.json has it (Recipe.to_json), held to SCHEMA; settings that it does not name are as ever."""
    depth, copies = said.get("depth"), said.get("copies", {})
    own = {
        "sizes": {axis: said["sizes"].get(axis) for axis in (*OPTIONS, "expert")},
        "dtype": dtype_of(said.get("dtype")),
        "depth": None if depth is None else Depth(**{**depth, "after": tuple(depth.get("after", ()))}),
        "copies": {int(layer) - 1: tuple(counts) for layer, counts in copies.items()},
    }
    return Recipe(**{**{key: said[key] for key in _REQUEST.kinds if key in said}, **own})
