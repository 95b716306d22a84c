"""Requests as people write them, made whole. Knows defaults and names of results; ignorant of checkpoints' contents."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from growkit.errors import RequestError
from growkit.plan import Plan
from growkit.recipe import Depth, Experts, Recipe

SHORT = {"hidden": "h", "head": "heads", "kv_head": "kv", "head_dim": "d", "ffn": "ffn"}
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
    depth: Depth | None = None,
    mode: str | None = None,
) -> Recipe:
    """A request for a growth. noise defaults to 0.5 for fpi, and to 0 for aki and fused models, which part by themselves.

    Raises RequestError for a dtype that is none of float64, float32, bfloat16, float16.
    """
    if dtype is not None and dtype not in DTYPES:
        raise RequestError(f"--dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    sizes = {"hidden": hidden, "head": heads, "kv_head": kv_heads, "head_dim": head_dim, "ffn": ffn}
    default = 0.0 if method == "aki" or mode is not None else 0.5
    kind = DTYPES[dtype] if dtype else None
    return Recipe(sizes, method, mapping, default if noise is None else noise, seed, kind, depth, mode)


def stack_recipe(
    layers: int | None = None,
    method: str = "stack",
    overlap: int | None = None,
    after: Sequence[int] = (),
    every: int | None = None,
    block: int | None = None,
    slices: str | None = None,
    seed: int = 0,
    dtype: str | None = None,
) -> Recipe:
    """A request for a growth in depth (see growkit.recipe.Depth)."""
    depth = Depth(layers, method, overlap, tuple(after), every, block, slices)
    return recipe(seed=seed, dtype=dtype, depth=depth)


def grow_recipe(layers: int | None = None, depth: str = "stack", **others: Any) -> Recipe:
    """A request for a growth in width, in depth or in both. depth: how layers are stacked; `others` as in `recipe`, and
    overlap, after, every, block, slices as in `stack_recipe`."""
    placing = {key: others.pop(key) for key in ("overlap", "after", "every", "block", "slices") if key in others}
    if layers is None and not any(value not in (None, ()) for value in placing.values()):
        if depth != "stack":
            raise RequestError(f"--depth {depth} says how to deepen, but not how far: add --layers N")
        return recipe(**others)
    placing["after"] = tuple(placing.get("after", ()))
    return recipe(depth=Depth(layers, depth, option="--depth", **placing), **others)


def upcycle_recipe(
    experts: int = 8,
    top_k: int = 2,
    granularity: int = 1,
    shared: bool = False,
    layers: str = "every",
    diversity: str = "none",
    router: str = "normal",
    text: str | Path | None = None,
    seed: int = 0,
    dtype: str | None = None,
) -> Recipe:
    """A request for a mixture of experts (see growkit.recipe.Experts)."""
    wanted = Experts(experts, top_k, granularity, shared, layers, diversity, router, str(text) if text else None)
    return replace(recipe(seed=seed, dtype=dtype, noise=0.0), experts=wanted)


def default_name(names: Sequence[str], plan: Plan) -> str:
    """What a result is called without -o: the sources' names and what changed, such as src-h1024-l24."""
    recipe = plan.recipe
    if recipe.experts is not None:
        return "-".join([_stem(names), *_expert_marks(recipe.experts)])
    marks = [f"{SHORT[a.axis]}{a.new}" for a in plan.axes if recipe.sizes.get(a.axis) is not None]
    marks += ["aki"] if recipe.method == "aki" else []
    if recipe.depth is not None:
        how = "slices" if recipe.depth.slices else recipe.depth.method
        marks += [f"l{plan.layers.new}"] + ([how] if how != "stack" else [])
    marks += [recipe.mode] if recipe.mode else []
    return "-".join([_stem(names), *marks])


def _stem(names: Sequence[str]) -> str:
    return "+".join(name.removesuffix(".safetensors") for name in names)


def _expert_marks(experts: Experts) -> list[str]:
    """What sets a mixture of experts apart: e8, k2, and what is not the default."""
    marks = [f"e{experts.count}", f"k{experts.top_k}"]
    marks += [f"g{experts.granularity}"] if experts.granularity > 1 else []
    marks += ["at" + experts.layers.replace(",", "+")] if experts.layers != "every" else []
    marks += [experts.diversity.replace(":", "")] if experts.diversity != "none" else []
    return marks + ([experts.router] if experts.router != "normal" else [])


def folder_for(sources: Sequence[str | Path], name: str) -> Path:
    """Where a result without -o goes: here, or beside the source where `here` is inside it."""
    here = Path.cwd().resolve()
    for source in sources:
        place = Path(source).resolve()
        if place.is_dir() and (place == here or place in here.parents):
            return Path(os.path.relpath(place.parent / name))
    return Path(name)
