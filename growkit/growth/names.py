"""Requests as people write them, made whole. Knows defaults and names of results; ignorant of checkpoints' contents."""

import os
from collections.abc import Sequence
from pathlib import Path

from growkit.growth.plan import Plan
from growkit.growth.request import Experts

SHORT = {"hidden": "h", "head": "heads", "kv_head": "kv", "head_dim": "d", "ffn": "ffn", "expert": "e"}


def default_name(names: Sequence[str], plan: Plan) -> str:
    """What a result is called without -o: the sources' names and what changed, such as src-h1024-l24."""
    recipe = plan.recipe
    if recipe.experts is not None:
        return "-".join([_stem(names), *_expert_marks(recipe.experts)])
    marks = [f"{SHORT[a.axis]}{a.new}" for a in plan.axes if recipe.sizes.get(a.axis) is not None]
    marks += [recipe.method] if recipe.method != "fpi" and recipe.widens else []
    if recipe.depth is not None:
        how = "slices" if recipe.depth.slices else recipe.depth.method
        marks += [f"l{plan.layers.new}", *([how] if how != "stack" else []), *filter(None, [recipe.depth.where])]
    marks += [recipe.mode] if recipe.mode else []
    marks += ["learned"] if recipe.learn is not None else []
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
