"""From a plan to a finished folder: weights, config, companions, provenance, model card. Knows what a Hugging Face folder
holds; ignorant of how maps were chosen.
"""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from growkit.axes import READ, WRITE
from growkit.checkpoint.companions import copy_companions, sentence_modules
from growkit.checkpoint.headers import StoredTensor
from growkit.checkpoint.source import CONFIG, PROVENANCE, Checkpoint, open_checkpoint, read_json
from growkit.checkpoint.writer import SINGLE, check_space, layout, new_folder, write_index, write_json
from growkit.errors import CheckpointError
from growkit.execute import Progress, write_tensors
from growkit.maps import FREE, GATHER, AxisMap, axis_map, identity
from growkit.operators.blocks import Rule, select
from growkit.plan import FORMAT, Plan, TensorPlan
from growkit.rules import check_shape, dual_rule, grown_shape, rate_multipliers, tensor_rule
from growkit.version import __version__

OPTIMIZER, MULTIPLIERS = "optimizer.safetensors", "lr_multipliers.json"
MOMENTS = {"exp_avg": 1, "exp_avg_sq": 2}


def write_checkpoint(
    plan: Plan,
    source: Checkpoint,
    out: Path,
    shard_bytes: int,
    allow_nonfinite: bool = False,
    optimizer: Checkpoint | None = None,
    progress: Progress = lambda _: None,
) -> None:
    """Carry a plan out into a new folder. Raises GrowkitError and leaves nothing behind where that cannot be done."""
    jobs = [(plan.tensors, source, "", SINGLE)]
    jobs += [(_dense_tensors(module, plan), module, folder, SINGLE) for folder, module in _dense_modules(source)]
    if optimizer is not None:
        jobs.append((optimizer_tensors(plan, optimizer.tensors), optimizer, "", OPTIMIZER))
    limits = [shard_bytes] + [sys.maxsize] * (len(jobs) - 1)  # only the model is ever divided: one folder has one index
    layouts = [layout([(t.name, t.dtype, t.shape) for t in job[0]], limit, job[3]) for job, limit in zip(jobs, limits)]
    check_space(out, sum(sum(sizes.values()) for _, _, sizes in layouts))
    stop = Event()
    with new_folder(out) as folder, ThreadPoolExecutor(1) as pool, _setting(stop):
        hashes = pool.submit(source.hashes, stop.is_set)  # reads the files once more, while the weights are grown
        if source.folder is not None:
            copy_companions(source.folder, folder, (plan.growth.maps["hidden"].old, plan.growth.maps["hidden"].new))
        for (tensors, origin, place, _), (headers, slots, sizes) in zip(jobs, layouts):
            write_tensors(
                tensors, origin, folder / place, headers, slots, sizes, plan.recipe.seed, allow_nonfinite, progress
            )
            write_index(folder / place, slots, sum(tensor.bytes for tensor in tensors))
        if optimizer is not None:
            write_json(folder / MULTIPLIERS, learning_rates(plan))
        provenance = {**describe(plan), "source": {"name": source.name, "files": hashes.result()}}
        parent = source.folder / PROVENANCE if source.folder else None
        if parent is not None and parent.exists():
            before = read_json(parent)
            provenance["parent"] = {
                k: before.get(k) for k in ("source", "request", "exactness", "maps_digest", "parent")
            }
        (folder / PROVENANCE).write_text(provenance_text(provenance), "utf-8")
        (folder / "README.md").write_text(model_card(plan, source.name), "utf-8")
        # last: a folder without a config is no model to anyone
        write_json(folder / CONFIG, plan.config)


@contextmanager
def _setting(stop: Event) -> Iterator[None]:
    """Set an event where the block fails or is interrupted, so that nobody waits for work in vain."""
    try:
        yield
    except BaseException:
        stop.set()
        raise


def describe(plan: Plan) -> dict[str, Any]:
    """What growkit.json says of a result: the request, the axes, every map that is not the identity, and their digest."""
    maps = {axis: m for axis, m in sorted(plan.growth.maps.items()) if not m.is_identity}
    digest = hashlib.sha256("".join(f"{axis} {m.digest()}\n" for axis, m in maps.items()).encode()).hexdigest()
    return {
        "format": FORMAT,
        "growkit": __version__,
        "command": "widen",
        "family": plan.family.model_type,
        "request": plan.recipe.to_json(),
        "exactness": str(plan.exactness),
        "axes": [axis.to_json() for axis in plan.axes],
        "maps_digest": digest,
        "maps": {axis: map_to_json(m) for axis, m in maps.items()},
    }


def provenance_text(content: Mapping[str, Any]) -> str:
    """growkit.json: indented for people, except for the maps, one to a line."""
    maps = ",\n".join(f"    {json.dumps(axis)}: {json.dumps(entry)}" for axis, entry in content["maps"].items())
    rest = json.dumps({key: value for key, value in content.items() if key != "maps"}, indent=2, ensure_ascii=False)
    return rest.removesuffix("\n}") + f',\n  "maps": {{\n{maps}\n  }}\n}}\n'


def map_to_json(axis: AxisMap) -> dict[str, Any]:
    """A map as runs [first source, length, write, read, carried]: what a reader needs to collapse the axis again."""
    write, read = axis.sides[WRITE], axis.sides[READ]
    carried = (write.mode == GATHER) & (read.mode == GATHER)
    same = [np.diff(values) == 0 for values in (write.amplitude, read.amplitude, carried.astype(int))]
    follows = np.logical_and.reduce([np.diff(axis.index) == 1, *same])
    starts = np.r_[0, np.flatnonzero(~follows) + 1]
    lengths = np.diff(np.r_[starts, axis.new])
    runs = [
        [int(axis.index[s]), int(n), float(write.amplitude[s]), float(read.amplitude[s]), int(carried[s])]
        for s, n in zip(starts, lengths)
    ]
    return {"old": axis.old, "new": axis.new, "name": axis.name, "runs": runs}


def maps_from_json(content: Any) -> dict[str, AxisMap]:
    """All maps of a growkit.json. Raises CheckpointError for what holds none."""
    if not isinstance(content, dict):
        raise CheckpointError(f"{PROVENANCE} holds a map that cannot be read; verify against an intact result")
    return {axis: map_from_json(entry) for axis, entry in content.items()}


def map_from_json(entry: Mapping[str, Any]) -> AxisMap:
    """The inverse of map_to_json, for the roles it keeps. Raises CheckpointError for what is no such map."""
    try:
        runs = entry["runs"]
        sound = all(first >= 0 and length >= 0 and first + length <= entry["old"] for first, length, *_ in runs)
        if not sound or sum(run[1] for run in runs) != entry["new"]:
            raise ValueError("its runs leave the axis")
        index = np.concatenate([np.arange(first, first + length) for first, length, *_ in runs])
        write, read, carried = (np.repeat([run[k] for run in runs], [run[1] for run in runs]) for k in (2, 3, 4))
        mode = np.where(carried, GATHER, FREE)  # what is not carried has no use but to be known as such
        return axis_map(entry["name"], entry["old"], index, write, read, modes={WRITE: mode, READ: mode})
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{PROVENANCE} holds a map that cannot be read ({error}); verify against an intact result"
        ) from None


def optimizer_tensors(plan: Plan, stored: Mapping[str, StoredTensor]) -> tuple[TensorPlan, ...]:
    """Plans for AdamW state: <param>.exp_avg and <param>.exp_avg_sq by the dual map, <param>.step as it is.

    Raises CheckpointError for entries that are no such state of this checkpoint's parameters.
    """
    targets = {name: tensor for tensor in plan.tensors for name in _names(tensor, plan)}
    found = []
    for name, entry in stored.items():
        parameter, _, kind = name.rpartition(".")
        if kind == "step" and parameter in targets and entry.elements == 1:
            one = select(identity(1), WRITE)
            found.append(TensorPlan(name, entry.shape, entry.dtype, Rule(one, one, WRITE)))
            continue
        if kind not in MOMENTS or parameter not in targets:
            raise CheckpointError(
                f"optimizer entry {name!r} is no exp_avg, exp_avg_sq or step of a parameter of {plan.source!r}; name entries"
                " <parameter>.exp_avg and <parameter>.exp_avg_sq"
            )
        target = targets[parameter]
        shape = plan.source_shapes[target.name]
        if entry.shape != shape:
            raise CheckpointError(
                f"optimizer entry {name!r} has shape {list(entry.shape)}, its parameter {list(shape)}"
            )
        rule = dual_rule(target.name, shape, plan.growth, MOMENTS[kind])
        donor = f"{target.donor}.{kind}" if target.donor else None
        found.append(TensorPlan(name, target.shape, entry.dtype, rule, donor if donor in stored else None))
    return tuple(found)


def learning_rates(plan: Plan) -> dict[str, Any]:
    """Per-parameter multipliers that make AdamW on the grown model step as it did on the small one.

    With weights grown by w and gradients by g: lr * w, weight_decay / w, eps * g (arXiv 2602.10545). Tensors
    whose entries have different multipliers get their root mean square: outputs then follow the source's exactly only at
    whole multiples with noise 0, and on average elsewhere. Gemma's gains must not decay: what decays is gain - 1.
    """
    rates: dict[str, dict[str, float]] = {}
    for tensor in plan.tensors:
        weight, gradient = rate_multipliers(tensor.name, plan.source_shapes[tensor.name], plan.growth)
        multipliers = {"lr": weight, "weight_decay": 1.0 / weight if weight else 1.0, "eps": gradient}
        rates |= dict.fromkeys(_names(tensor, plan), multipliers)
    return {"format": FORMAT, "optimizer": "AdamW", "multipliers": rates}


def _names(tensor: TensorPlan, plan: Plan) -> tuple[str, ...]:
    """What a parameter is called: as it is stored, and a head also as live models name it (GPT-NeoX has two names)."""
    is_head = plan.family.stem(tensor.name) in plan.family.heads
    return (tensor.name, *plan.family.heads) if is_head else (tensor.name,)


def model_card(plan: Plan, name: str) -> str:
    """A short README.md for the result."""
    before, after = plan.parameters()
    rows = "\n".join(f"| {a.axis} | {a.old} | {a.new} | {a.how} | {a.exactness} |" for a in plan.axes if a.old != a.new)
    claim = {
        "exact": "It computes the same function as its source, to rounding.",
        "near": "It computes nearly the same function as its source; how nearly is measured by `growkit verify`.",
        "approximate": "It does not compute the same function as its source; it is a starting point for training.",
    }[str(plan.exactness)]
    request = json.dumps(plan.recipe.to_json(), ensure_ascii=False)
    return (
        f"---\nlibrary_name: transformers\ntags:\n- growkit\n---\n\n# {name}, widened\n\n"
        f"Grown by growkit {__version__} from `{name}`"
        f" ({plan.family.model_type}, {before:,} parameters) to {after:,} parameters. {claim}\n\n"
        f"| axis | from | to | how | function |\n|---|---|---|---|---|\n{rows}\n\n"
        f"Request: `{request}`. Maps, hashes of the source and exactness per axis: `{PROVENANCE}`.\n"
        f"Check it: `growkit verify SOURCE THIS_FOLDER`.\n"
    )


def _dense_modules(source: Checkpoint) -> list[tuple[str, Checkpoint]]:
    if source.folder is None:
        return []
    return [(f.name, open_checkpoint(f)) for kind, f in sentence_modules(source.folder) if kind == "Dense"][:1]


def _dense_tensors(module: Checkpoint, plan: Plan) -> tuple[TensorPlan, ...]:
    """A sentence model's Dense layer reads the hidden axis; whatever follows it sees what it saw before."""
    family = replace(plan.family, tensors={"linear.weight": "label /hidden", "linear.bias": "label"}, prefixes=())
    growth = replace(plan.growth, family=family)
    found = []
    for name, entry in module.tensors.items():
        check_shape(name, entry.shape, growth)
        found.append(
            TensorPlan(
                name, grown_shape(name, entry.shape, growth), entry.dtype, tensor_rule(name, entry.shape, growth)
            )
        )
    return tuple(found)
