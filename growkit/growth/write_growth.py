"""From a plan to a finished folder: what of it is weights, and where each part comes from. Knows plans and sentence
models; ignorant of how a folder is written and of how maps were chosen.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from growkit.checkpoint.companions import sentence_modules
from growkit.checkpoint.folder import WeightFiles, beside, write_folder
from growkit.checkpoint.new_folder import NOTHING, Contents
from growkit.checkpoint.source import Checkpoint, open_checkpoint
from growkit.checkpoint.stream import Progress
from growkit.checkpoint.writer import SINGLE, Slot, write_json
from growkit.growth.describe import describe, growth_card
from growkit.growth.execute import write_tensors
from growkit.growth.named_heads import carried_settings
from growkit.growth.optimizer import MULTIPLIERS, OPTIMIZER, PLACE, is_muon_state, learning_rates, optimizer_tensors
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
    replaces: Contents = NOTHING,
    progress: Progress = lambda _: None,
) -> None:
    """Carry a plan out into a new folder. Raises GrowkitError and leaves nothing behind where that cannot be done.

    optimizers: AdamW state of each source, or none; rates: the learning-rate multipliers each source already has.
    replaces: what lies there and may give way.
    """
    jobs = [Job(plan.tensors, sources), *_dense_jobs(plan, sources)]
    if optimizers:
        state = optimizer_tensors(plan, [optimizer.tensors for optimizer in optimizers])
        jobs.append(Job(state, optimizers, PLACE, OPTIMIZER))

    def files(job: Job, largest: int = sys.maxsize) -> WeightFiles:
        def write(
            folder: Path, headers: Mapping[str, bytes], slots: Mapping[str, Slot], sizes: Mapping[str, int]
        ) -> None:
            seed = plan.recipe.seed
            write_tensors(job.tensors, job.sources, folder, headers, slots, sizes, seed, allow_nonfinite, progress)

        entries = [(tensor.name, tensor.dtype, tensor.shape) for tensor in job.tensors]
        return WeightFiles(tensors=entries, write=write, place=job.place, name=job.file, largest=largest)

    def fill(folder: Path) -> None:
        if optimizers:
            (folder / PLACE).mkdir()
            muon = is_muon_state(optimizers[0].tensors)
            write_json(folder / MULTIPLIERS, learning_rates(plan, rates, muon))

    hidden = plan.growth.maps["hidden"]
    write_folder(
        out,
        sources=sources,
        fill=fill,
        beside=beside(sources[0], hidden.old, hidden.new, settings=carried_settings(plan, sources[0].folder)),
        # only the model is ever divided: one folder has one index
        weights=[files(jobs[0], shard_bytes), *map(files, jobs[1:])],
        record=lambda hashes: describe(plan, sources, hashes),
        card=growth_card(plan, sources),
        config=plan.config,
        replaces=replaces,
    )


def _dense_jobs(plan: Plan, sources: Sequence[Checkpoint]) -> list[Job]:
    """The Dense layer of sentence models, which reads the hidden axis; whatever follows sees what it saw before."""
    # stacked models end in the last one's layers; fused ones share what follows
    numbers = range(len(sources)) if plan.recipe.mode else [len(sources) - 1]
    dense_folders = [[folder for kind, folder in _modules(sources[n]) if kind == "Dense"] for n in numbers]
    if not any(dense_folders):
        return []
    modules = [open_checkpoint(folders[0]) for folders in dense_folders]
    family = replace(plan.family, tensors={"linear.weight": "label /hidden", "linear.bias": "label"}, prefixes=())
    headers, growths = [], []
    for number, module in zip(numbers, modules):
        shapes = {name: tensor.shape for name, tensor in module.tensors.items()}
        dtypes = {name: tensor.dtype for name, tensor in module.tensors.items()}
        headers.append(Headers(label=module.label, shapes=shapes, dtypes=dtypes, config={}))
        growths.append(replace(plan.members[number].growth, family=family))
    recipe = replace(plan.recipe, dtype=None)
    return [
        Job(
            TensorPlans(
                sources=headers, growths=growths, layers={"": identity(1)}, depths=[{"": 1}], recipe=recipe
            ).plans(),
            modules,
            dense_folders[0][0].name,
        )
    ]


def _modules(source: Checkpoint) -> list[tuple[str, Path]]:
    return sentence_modules(source.folder) if source.folder is not None else []
