"""What people call: the Python twins of the commands. Knows the order of things; every step lives below.

import growkit
growkit.widen("src", "out", hidden=1024)
growkit.verify("src", "out").ok
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from growkit.checkpoint.source import Checkpoint, open_state
from growkit.checkpoint.writer import check_target
from growkit.errors import RequestError
from growkit.execute import Progress, StateSource, grow_tensor
from growkit.families import family_named
from growkit.output import optimizer_tensors, write_checkpoint
from growkit.plan import Plan, Recipe
from growkit.planners.widen import Headers, widen_plan
from growkit.sources import head_and_embedding, headers_of, open_source

if TYPE_CHECKING:
    from growkit.proof import Report

SHARD_BYTES = 5_000_000_000
SHORT = {"hidden": "h", "head": "heads", "kv_head": "kv", "head_dim": "d", "ffn": "ffn"}
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Grown:
    """What a growth did: the folder it made, the plan it followed, and the proof where one was run."""

    folder: Path
    plan: Plan
    report: "Report | None" = None
    unverified: str = ""


def recipe(
    hidden: int | None = None,
    heads: int | None = None,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    ffn: int | None = None,
    method: str = "fpi",
    mapping: str = "cyclic",
    noise: float | None = None,
    seed: int = 0,
    dtype: str | None = None,
) -> Recipe:
    """A request for a growth in width. noise defaults to 0.5 for fpi and to 0 for aki, which parts copies by itself.

    Raises RequestError for a dtype that is none of float64, float32, bfloat16, float16.
    """
    if dtype is not None and dtype not in DTYPES:
        raise RequestError(f"--dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    sizes = {"hidden": hidden, "head": heads, "kv_head": kv_heads, "head_dim": head_dim, "ffn": ffn}
    default = 0.0 if method == "aki" else 0.5
    return Recipe(sizes, method, mapping, default if noise is None else noise, seed, DTYPES[dtype] if dtype else None)


def plan_widen(
    source: str | Path,
    out: str | Path | None = None,
    *,
    force: bool = False,
    optimizer: str | Path | None = None,
    family: str | None = None,
    source_heads: int | None = None,
    **request: Any,
) -> Plan:
    """What `widen` would do, without writing anything; it refuses what `widen` would. `request` as in `recipe`."""
    with _prepared(source, out, force, optimizer, family, source_heads, request) as prepared:
        return prepared.plan


@dataclass(frozen=True)
class _Prepared:
    """All that is settled before a byte is written."""

    source: Checkpoint
    state: Checkpoint | None
    plan: Plan
    folder: Path


@contextmanager
def _prepared(
    source: str | Path,
    out: str | Path | None,
    force: bool,
    optimizer: str | Path | None,
    family: str | None,
    source_heads: int | None,
    request: Mapping[str, Any],
) -> Iterator[_Prepared]:
    """Open, plan and check everything that can be checked; close what was opened."""
    checkpoint = open_source(source, family, source_heads)
    state = open_state(Path(optimizer)) if optimizer is not None else None
    try:
        todo = widen_plan(headers_of(checkpoint), recipe(**request))
        folder = Path(out) if out is not None else Path(default_name(checkpoint, todo))
        for origin in (source, optimizer):
            if origin is not None and Path(origin).exists():
                check_target(folder, Path(origin), force)
        if not Path(source).exists():
            check_target(folder, None, force)
        if state is not None:
            optimizer_tensors(todo, state.tensors)  # refuses what does not belong
        yield _Prepared(checkpoint, state, todo, folder)
    finally:
        for opened in (checkpoint, state):
            if opened is not None:
                opened.close()


def widen(
    source: str | Path,
    out: str | Path | None = None,
    *,
    shard_bytes: int = SHARD_BYTES,
    force: bool = False,
    verify: bool = False,
    optimizer: str | Path | None = None,
    allow_nonfinite: bool = False,
    family: str | None = None,
    source_heads: int | None = None,
    progress: Progress = lambda _: None,
    announce: Callable[[Plan], None] = lambda _: None,
    **request: Any,
) -> Grown:
    """Grow a checkpoint in width into a new Hugging Face folder.

    source: folder, .safetensors file or hub id. out: the folder to make; without it, one in the current folder named
    by what changed. request: hidden, heads, kv_heads, head_dim, ffn, method, mapping, noise, seed, dtype (see `recipe`).
    optimizer: AdamW state as safetensors, grown by the dual map. verify: prove the result, where it fits in memory.
    progress, announce: called with bytes written, and with the plan before work starts.

    Raises CheckpointError or RequestError, having written nothing and touched nothing.
    """
    with _prepared(source, out, force, optimizer, family, source_heads, request) as ready:
        announce(ready.plan)
        write_checkpoint(ready.plan, ready.source, ready.folder, shard_bytes, allow_nonfinite, ready.state, progress)
    grown = Grown(ready.folder, ready.plan)
    return prove(source, grown, family, source_heads) if verify else grown


def prove(source: str | Path, grown: Grown, family: str | None = None, source_heads: int | None = None) -> Grown:
    """Verify a growth that was just made, where it fits in memory; the report, or why there is none, is in the result."""
    from growkit import proof  # loads transformers

    too_big = proof.fits_in_memory(grown.plan)
    if too_big:
        return replace(grown, unverified=too_big)
    return replace(grown, report=proof.verify(source, grown.folder, family=family, source_heads=source_heads))


def grow_state_dict(
    state: Mapping[str, torch.Tensor], config: Any, **request: Any
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Grow a live model's state dict: (new state, new config as a dict), on the CPU, bit for bit what `widen` writes.

    config: a transformers config or its dict; `request` as in `recipe`. The model itself is not changed; build the new
    one from the new config and load the new state. Raises CheckpointError or RequestError.
    """
    content = dict(config.to_dict() if hasattr(config, "to_dict") else config)
    family = family_named(content.get("model_type"))
    tensors = dict(state)
    head, embedding = head_and_embedding(family, tensors)
    headers = Headers(
        "the state dict",
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        {name: tensor.dtype for name, tensor in tensors.items()},
        content,
        torch.equal(tensors[head], tensors[embedding]) if head and embedding else None,
        # names without a prefix are a base model's own, whatever class its config remembers
        body=head is None and not any(name.startswith(family.prefixes) for name in tensors),
    )
    source = StateSource(tensors)
    todo = widen_plan(headers, recipe(**request))
    return {tensor.name: grow_tensor(tensor, source, todo.recipe.seed) for tensor in todo.tensors}, todo.config


def default_name(checkpoint: Checkpoint, todo: Plan) -> str:
    """The folder a result gets without -o: the source's name and what changed, such as src-h1024."""
    stem = checkpoint.name.removesuffix(".safetensors")
    asked = [(a.axis, a.new) for a in todo.axes if todo.recipe.sizes.get(a.axis) is not None]
    marks = [f"{SHORT[axis]}{size}" for axis, size in asked] + (["aki"] if todo.recipe.method == "aki" else [])
    return "-".join([stem, *marks])
