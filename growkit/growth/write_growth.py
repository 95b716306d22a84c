"""From a plan to a finished folder: weights, config, companions, provenance, model card. Knows what a Hugging Face folder
holds; ignorant of how maps were chosen.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any

from growkit.checkpoint.companions import copy_companions, sentence_modules
from growkit.checkpoint.record import provenance_text, record_of
from growkit.checkpoint.source import CONFIG, PROVENANCE, Checkpoint, open_checkpoint
from growkit.checkpoint.stream import Progress
from growkit.checkpoint.writer import SINGLE, check_space, layout, new_folder, write_index, write_json
from growkit.growth.describe import describe, model_card
from growkit.growth.execute import write_tensors
from growkit.growth.optimizer import MULTIPLIERS, OPTIMIZER, learning_rates, optimizer_tensors
from growkit.growth.plan import Plan, TensorPlan
from growkit.growth.source_headers import Headers
from growkit.growth.tensors import TensorPlans
from growkit.maps.axis import identity


@dataclass(frozen=True)
class Job:
    """Tensors to write, where they come from, and the place and name of the file they go to."""

    tensors: tuple[TensorPlan, ...]
    sources: Sequence[Checkpoint]
    place: str = ""
    file: str = SINGLE


def write_checkpoint(
    plan: Plan,
    sources: Sequence[Checkpoint],
    out: Path,
    shard_bytes: int,
    allow_nonfinite: bool = False,
    optimizers: Sequence[Checkpoint] = (),
    rates: Sequence[Mapping[str, Any]] = (),
    progress: Progress = lambda _: None,
) -> None:
    """Carry a plan out into a new folder. Raises GrowkitError and leaves nothing behind where that cannot be done.

    optimizers: AdamW state of each source, or none; rates: the learning-rate multipliers each source already has.
    """
    jobs = [Job(plan.tensors, sources), *_dense_jobs(plan, sources)]
    if optimizers:
        state = optimizer_tensors(plan, [optimizer.tensors for optimizer in optimizers])
        jobs.append(Job(state, optimizers, file=OPTIMIZER))
    limits = [shard_bytes] + [sys.maxsize] * (len(jobs) - 1)  # only the model is ever divided: one folder has one index
    layouts = [
        layout([(t.name, t.dtype, t.shape) for t in job.tensors], limit, job.file) for job, limit in zip(jobs, limits)
    ]
    check_space(out, sum(sum(sizes.values()) for _, _, sizes in layouts))
    stop = Event()
    with new_folder(out) as folder, ThreadPoolExecutor(1) as pool, setting(stop):
        # reads the files once more, while the weights are grown
        hashes = pool.submit(lambda: [source.hashes(stop.is_set) for source in sources])
        if sources[0].folder is not None:
            hidden = plan.growth.maps["hidden"]
            copy_companions(sources[0].folder, folder, (hidden.old, hidden.new))
        for job, (headers, slots, sizes) in zip(jobs, layouts):
            write_tensors(
                job.tensors,
                job.sources,
                folder / job.place,
                headers,
                slots,
                sizes,
                plan.recipe.seed,
                allow_nonfinite,
                progress,
            )
            write_index(folder / job.place, slots, sum(tensor.bytes for tensor in job.tensors))
        if optimizers:
            write_json(folder / MULTIPLIERS, learning_rates(plan, rates))
        provenance = {**describe(plan), "sources": _sources(sources, hashes.result())}
        (folder / PROVENANCE).write_text(provenance_text(provenance), "utf-8")
        (folder / "README.md").write_text(model_card(plan, [source.name for source in sources]), "utf-8")
        # last: a folder without a config is no model to anyone
        write_json(folder / CONFIG, plan.config)


@contextmanager
def setting(stop: Event) -> Iterator[None]:
    """Set an event where the block fails or is interrupted, so that nobody waits for work in vain."""
    try:
        yield
    except BaseException:
        stop.set()
        raise


def _sources(sources: Sequence[Checkpoint], hashes: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """What growkit.json says of the sources: names, hashes and, where growkit made them, how."""
    entries = []
    for source, files in zip(sources, hashes):
        record = record_of(source.folder)
        entries.append({"name": source.name, "files": files, **({"record": record} if record else {})})
    return entries


def _dense_jobs(plan: Plan, sources: Sequence[Checkpoint]) -> list[Job]:
    """The Dense layer of sentence models, which reads the hidden axis; whatever follows sees what it saw before."""
    # stacked models end in the last one's layers; fused ones share what follows
    numbers = range(len(sources)) if plan.recipe.mode else [len(sources) - 1]
    found = [[folder for kind, folder in _modules(sources[n]) if kind == "Dense"] for n in numbers]
    if not any(found):
        return []
    modules = [open_checkpoint(folders[0]) for folders in found]
    family = replace(plan.family, tensors={"linear.weight": "label /hidden", "linear.bias": "label"}, prefixes=())
    headers, growths = [], []
    for number, module in zip(numbers, modules):
        shapes = {name: tensor.shape for name, tensor in module.tensors.items()}
        dtypes = {name: tensor.dtype for name, tensor in module.tensors.items()}
        headers.append(Headers(module.label, shapes, dtypes, {}))
        growths.append(replace(plan.members[number].growth, family=family))
    recipe = replace(plan.recipe, dtype=None)
    return [Job(TensorPlans(headers, growths, identity(1), [1], recipe).plans(), modules, found[0][0].name)]


def _modules(source: Checkpoint) -> list[tuple[str, Path]]:
    return sentence_modules(source.folder) if source.folder is not None else []
