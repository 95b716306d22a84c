"""From the plan of a merge to a finished folder: weights, config, companions, provenance, model card. Knows what a Hugging Face
folder holds; ignorant of arithmetic.
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

from growkit.checkpoint.companions import copy_companions
from growkit.checkpoint.record import FORMAT, provenance_text, record_of
from growkit.checkpoint.source import CONFIG, PROVENANCE, Checkpoint
from growkit.checkpoint.stream import Progress, write_blocks
from growkit.checkpoint.writer import check_space, layout, new_folder, write_index, write_json
from growkit.growth.write_growth import setting
from growkit.maps.exactness import Exactness
from growkit.merging.merge_plan import MergePlan
from growkit.merging.merger import Merger
from growkit.version import __version__


def write_merged(
    merger: Merger,
    first: Checkpoint,
    sources: Sequence[Checkpoint],
    out: Path,
    shard_bytes: int,
    progress: Progress = lambda _: None,
) -> None:
    """Carry a merge out into a new folder. Raises GrowkitError and leaves nothing behind where that cannot be done.

    first: whose companions the result gets. sources: the base, where there is one, then the plan's members.
    """
    plan = merger.plan
    entries = [(name, tensor.dtype, tensor.shape) for tensor in plan.tensors for name in tensor.names]
    headers, slots, sizes = layout(entries, shard_bytes)
    check_space(out, sum(sizes.values()))
    stop = Event()
    with new_folder(out) as folder, ThreadPoolExecutor(1) as pool, setting(stop):
        # reads the files once more, while the weights are merged
        hashes: Future[list[dict[str, str]]] = pool.submit(lambda: [source.hashes(stop.is_set) for source in sources])
        if first.folder is not None:
            hidden = plan.config[plan.family.keys("hidden")[0]]
            copy_companions(first.folder, folder, (hidden, hidden))
        trims = merger.model_trims()
        work = (
            ([(name, tensor.dtype.itemsize) for name in tensor.names], merger.blocks(tensor, trims))
            for tensor in plan.tensors
        )
        write_blocks(work, folder, headers, slots, sizes, progress)
        write_index(folder, slots, plan.bytes)
        (folder / PROVENANCE).write_text(provenance_text(describe(plan, sources, hashes.result())), "utf-8")
        (folder / "README.md").write_text(model_card(plan), "utf-8")
        # last: a folder without a config is no model to anyone
        write_json(folder / CONFIG, plan.config)


def describe(plan: MergePlan, sources: Sequence[Checkpoint], hashes: Sequence[dict[str, str]]) -> dict[str, Any]:
    """What growkit.json says of a merge: the request, and every source with its part, weight and hashes."""
    entries = []
    parts = [{"part": "base"}] if plan.base is not None else []
    parts += [{"part": "member", "weight": member.weight, "drawn_as": member.key} for member in plan.members]  # type: ignore[dict-item]
    for source, files, part in zip(sources, hashes, parts):
        record = record_of(source.folder)
        entries.append({"name": source.name, **part, "files": files, **({"record": record} if record else {})})
    return {
        "format": FORMAT,
        "growkit": __version__,
        "command": plan.command,
        "family": plan.family.model_type,
        "request": plan.request.to_json(),
        "exactness": str(Exactness.APPROXIMATE),
        "axes": [],
        "maps_digest": hashlib.sha256().hexdigest(),
        "maps": {},
        "sources": entries,
    }


def model_card(plan: MergePlan) -> str:
    """A short README.md for the result."""
    rows = "\n".join(f"| {member.key} | {member.weight:g} |" for member in plan.members)
    based = f"on the base `{plan.base.label}`" if plan.base is not None else "without a base"
    paper = f" ({plan.request.row.paper})" if plan.request.row.paper else ""
    return (
        f"---\nlibrary_name: transformers\ntags:\n- growkit\n- merge\n---\n\n# {' + '.join(m.key for m in plan.members)}\n\n"
        f"Merged by growkit {__version__} by {plan.request.method}{paper}, {based}: {plan.family.model_type},"
        f" {plan.parameters:,} parameters. A merge computes a new function; measure it.\n\n"
        f"| member | weight |\n|---|---|\n{rows}\n\n"
        f"Request: `{json.dumps(plan.request.to_json(), ensure_ascii=False)}`. Hashes of all sources: `{PROVENANCE}`.\n"
    )
