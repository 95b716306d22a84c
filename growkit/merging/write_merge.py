"""From the plan of a merge to a finished folder: its weights, and what it says of itself. Knows merges; ignorant of
arithmetic and of how a folder is written.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from growkit.checkpoint.card import ADAPTER, FINE_TUNE, MERGE, model_card
from growkit.checkpoint.folder import WeightFiles, beside, write_folder
from growkit.checkpoint.new_folder import NOTHING, Contents
from growkit.checkpoint.record import record, source_entries
from growkit.checkpoint.source import PROVENANCE, Checkpoint
from growkit.checkpoint.stream import Progress, write_blocks
from growkit.checkpoint.writer import Slot
from growkit.maps.exactness import Exactness
from growkit.merging.by_tensor import in_words, plain
from growkit.merging.kept_files import givers_of, keep
from growkit.merging.merge_plan import MergePlan
from growkit.merging.merger import Merger
from growkit.version import __version__


def write_merged(
    merger: Merger,
    first: Checkpoint,
    sources: Sequence[Checkpoint],
    out: Path,
    shard_bytes: int,
    replaces: Contents = NOTHING,
    progress: Progress = lambda _: None,
    card: str | None = None,
) -> None:
    """Carry a merge out into a new folder. Raises GrowkitError and leaves nothing behind where that cannot be done.

    first: whose companions the result gets. sources: the base, where there is one, then the plan's members.
    replaces: what lies there and may give way. card: README.md; None: a merge's.
    """
    plan = merger.plan

    def write(folder: Path, headers: Mapping[str, bytes], slots: Mapping[str, Slot], sizes: Mapping[str, int]) -> None:
        trims = merger.model_trims()
        work = (
            ([(name, tensor.dtype.itemsize) for name in tensor.names], merger.blocks(tensor, trims))
            for tensor in plan.tensors
        )
        write_blocks(work, folder, headers, slots, sizes, progress)

    given = givers_of(first, sources[plan.base is not None :]) if plan.command == "merge" else {}
    entries = [(name, tensor.dtype, tensor.shape) for tensor in plan.tensors for name in tensor.names]
    hidden = plan.family.value(plan.config, plan.family.keys("hidden")[0])
    write_folder(
        out,
        sources=sources,
        fill=lambda folder: keep(given, folder),
        beside=beside(first, hidden, hidden),
        weights=[WeightFiles(tensors=entries, write=write, largest=shard_bytes)],
        record=lambda hashes: describe(plan, plan.command, plan.request.to_json(), sources, hashes),
        card=merge_card(plan, sources) if card is None else card,
        config=plan.config,
        replaces=replaces,
    )


def describe(
    plan: MergePlan,
    command: str,
    request: Mapping[str, Any],
    sources: Sequence[Checkpoint],
    hashes: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """What growkit.json says of a merge or a delta: the request, and every source with its part, weight and hashes."""
    parts: list[dict[str, Any]] = [{"part": "base"}] if plan.base is not None else []
    parts += [{"part": "member", "weight": plain(member.weight), "drawn_as": member.key} for member in plan.members]
    return record(
        command,
        family=plan.family.model_type,
        request=request,
        exactness=Exactness.APPROXIMATE,
        axes=[],
        maps_digest=hashlib.sha256().hexdigest(),
        sources=source_entries(sources, hashes, parts),
    )


def lora_card(plan: MergePlan, sources: Sequence[Checkpoint], rank: int) -> str:
    """A short README.md for a delta of low rank. sources: the base and the fine-tuned model."""
    base, member = sources
    return model_card(
        f"{member.name} less {base.name}, rank {rank}",
        f"What `{member.name}` changed of `{base.name}` in its linear layers, as a LoRA made by growkit {__version__} by"
        f" singular value decomposition ({plan.family.model_type}). Changes of embeddings, head, norms and biases are not"
        f" in it. Hashes of both models: `{PROVENANCE}`.",
        sources=sources,
        bases=[base],
        relation=ADAPTER,
        tags=("growkit", "lora"),
        library="peft",
    )


def merge_card(plan: MergePlan, sources: Sequence[Checkpoint]) -> str:
    """A short README.md for the result. sources: the base, where there is one, then the plan's members."""
    rows = "\n".join(f"| {member.key} | {in_words(member.weight)} |" for member in plan.members)
    based = f"on the base `{plan.base.label}`" if plan.base is not None else "without a base"
    paper = f" ({plan.request.row.paper})" if plan.request.row.paper else ""
    return model_card(
        " + ".join(member.key for member in plan.members),
        f"Merged by growkit {__version__} by {plan.request.method}{paper}, {based}: {plan.family.model_type},"
        f" {plan.parameters:,} parameters. A merge computes a new function; measure it.\n\n"
        f"| member | weight |\n|---|---|\n{rows}\n\n"
        f"Request: `{json.dumps(plan.request.to_json(), ensure_ascii=False)}`. Hashes of all sources: `{PROVENANCE}`.",
        sources=sources if plan.command == "merge" else sources[:1],
        relation=MERGE if plan.command == "merge" else FINE_TUNE,
        tags=("growkit", "merge"),
    )
