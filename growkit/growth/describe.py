"""What a growth's result says of itself: growkit.json and the model card. Knows plans; ignorant of weights."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from growkit.checkpoint.card import FINE_TUNE, MERGE, model_card
from growkit.checkpoint.inserted import carried, inserted_layers
from growkit.checkpoint.record import record, source_entries
from growkit.checkpoint.source import PROVENANCE, Checkpoint
from growkit.families.upcycling import upcycling_of
from growkit.growth.plan import Plan
from growkit.maps.axis import AxisMap
from growkit.maps.map_json import map_to_json
from growkit.version import __version__


def describe(plan: Plan, sources: Sequence[Checkpoint], hashes: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """What growkit.json says of a growth: the request, the axes, every map that is not the identity, and their digest.

    Maps are those of the first source; the digest is of the maps of all.
    """
    first = _changed_maps(plan.growth.maps, plan)
    return record(
        plan.recipe.command,
        family=plan.result_family.model_type,
        request=plan.recipe.to_json(),
        exactness=plan.exactness,
        axes=[axis.to_json() for axis in plan.axes],
        maps_digest=maps_digest(plan),
        # maps that learned are no runs of copies
        maps={axis: map_to_json(m) for axis, m in first.items()} if plan.learned is None else {},
        sources=source_entries(sources, hashes),
        inserted=_inserted(plan, sources),
        learned=plan.learned,
    )


def maps_digest(plan: Plan) -> str:
    """SHA-256 of the maps of all sources that are not the identity."""
    all_maps = [_changed_maps(member.growth.maps, plan) for member in plan.members]
    lines = [f"{axis} {m.digest()}\n" for maps in all_maps for axis, m in maps.items()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _inserted(plan: Plan, sources: Sequence[Checkpoint]) -> tuple[int, ...]:
    """Where layers that an earlier growth of the one source inserted are now."""
    before = inserted_layers(sources[0].folder, plan.layers.old) if len(sources) == 1 else ()
    return carried(before, plan.layers)


def _changed_maps(maps: Mapping[str, AxisMap], plan: Plan) -> dict[str, AxisMap]:
    layers = {"layer": plan.layers}  # and those of another stack, where they are not the same
    layers |= {f"{stack}layer": m for stack, m in plan.stacks.items() if m.digest() != plan.layers.digest()}
    return {axis: m for axis, m in sorted({**maps, **layers}.items()) if not m.is_identity}


def growth_card(plan: Plan, sources: Sequence[Checkpoint]) -> str:
    """A short README.md for the result."""
    names = [source.name for source in sources]
    before, after = plan.parameters()
    rows = "\n".join(
        f"| {a.axis} | {a.old} | {a.new} | {a.how} | {a.exactness} |" for a in plan.axes if a.how != "kept"
    )
    claim = {
        "exact": "It computes the same function as its source, to rounding.",
        "near": "It computes nearly the same function as its source; how nearly is measured by `growkit verify`.",
        "approximate": "It does not compute the same function as before; it is a starting point for training.",
    }[str(plan.exactness)]
    participle = {
        "widen": "widened",
        "stack": "deepened",
        "grow": "grown",
        "fuse": "fused",
        "upcycle": "upcycled to a mixture of experts",
    }[plan.recipe.command]
    active = plan.active_parameters()[1]
    at_work = f", of which {active:,} are active for one token" if active != after else ""
    request = json.dumps(plan.recipe.to_json(), ensure_ascii=False)
    row = upcycling_of(plan.source, plan.family.model_type) if plan.recipe.experts is not None else None
    elsewhere = f"Elsewhere: {row.elsewhere}.\n\n" if row is not None and row.elsewhere else ""
    return model_card(
        f"{' + '.join(names)}, {participle}",
        f"Grown by growkit {__version__} from {' and '.join(f'`{name}`' for name in names)}"
        f" ({plan.family.model_type}, {before:,} parameters) to {after:,} parameters{at_work}. {claim}\n\n"
        f"| axis | from | to | how | function |\n|---|---|---|---|---|\n{rows}\n\n{elsewhere}"
        f"Request: `{request}`. Maps, hashes of the source and exactness per axis: `{PROVENANCE}`.\n"
        f"Check it: `growkit verify SOURCE THIS_FOLDER`.",
        sources=sources,
        relation=MERGE if len({*names}) > 1 else FINE_TUNE,
    )
