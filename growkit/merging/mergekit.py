"""Recipes of mergekit, read: its YAML as a request of growkit's, and what will differ in value. Knows the keys of
version 0.1; ignorant of checkpoints and of arithmetic.

What is not handled is refused by its key. Models are paths or hub ids, as everywhere, BASE+LORA too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.yaml_text import read_yaml
from growkit.errors import RequestError
from growkit.growth.spelling import dtype_of
from growkit.merging.by_tensor import ByTensor, Number
from growkit.merging.methods import MergeRequest, merge_request
from growkit.merging.recipe_settings import (
    Settings,
    Span,
    check_keys,
    check_whole,
    flag_of,
    model_of,
    number_of,
    spans_of,
    table_of,
)

TOP = (
    "merge_method", "base_model", "models", "slices", "parameters", "dtype", "out_dtype", "tokenizer_source",
    "tokenizer",
)  # fmt: skip
INERT = "int8_mask"  # what mergekit keeps signs in
ARITHMETIC = (
    "growkit computes in float32 (float64 where a source is) and rounds once; mergekit computes in the recipe's dtype, or"
    " as stored"
)
SIGNS = (
    "where weighted deltas add up to exactly 0 mergekit elects the positive ones, growkit none; equal magnitudes at the"
    " threshold stay together, where mergekit counts"
)
CHANCE = (
    "what is dropped is drawn from --seed, tensor and member, so it is not what mergekit draws; what stays is divided by"
    " density, where mergekit 0.1 rescales it to the sum of magnitudes there was"
)
ZEROS = "a tensor of zeros is mixed linearly, where mergekit takes it to stand at a right angle"
SIGNED = "with negative weights growkit divides by the sum of their magnitudes, mergekit by the sum with signs"


@dataclass(frozen=True, kw_only=True)
class Way:
    """A method of mergekit. by_input: numbers of each model; by_tensor: of all; flags: yes or no, with defaults."""

    method: str = ""  # growkit's; "" for passthrough
    base: bool = True
    by_input: tuple[str, ...] = ("weight",)
    shared: tuple[str, ...] = ("lambda",)
    normalize: bool | None = None
    rescale: bool | None = None
    notes: tuple[str, ...] = (ARITHMETIC,)


WAYS = {
    "linear": Way(method="average", base=False, shared=(), normalize=True),
    "task_arithmetic": Way(method="task-arithmetic", normalize=False),
    "ties": Way(method="ties", by_input=("weight", "density"), normalize=True, rescale=False, notes=(ARITHMETIC, SIGNS)),
    "dare_linear": Way(
        method="dare", by_input=("weight", "density"), normalize=False, rescale=True, notes=(ARITHMETIC, CHANCE)
    ),
    "dare_ties": Way(
        method="dare-ties", by_input=("weight", "density"), normalize=False, rescale=True,
        notes=(ARITHMETIC, SIGNS, CHANCE),
    ),
    "slerp": Way(method="slerp", by_input=(), shared=("t",), notes=(ARITHMETIC, ZEROS)),
    "passthrough": Way(by_input=(), shared=(), base=False, notes=()),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MergeRecipe:
    """A recipe as growkit carries it out. slices: of passthrough, as growkit stack writes them; "" for a merge."""

    models: tuple[str, ...]
    slices: str = ""
    base: str | None = None
    method: str = ""
    weights: tuple[Number, ...] = ()
    by_member: tuple[Mapping[str, Number], ...] = ()
    scale: Number = 1.0
    normalize: bool | None = None
    layers: int | None = None  # that the slices add up to
    vocab: str = "same"
    dtype: str | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)


def read_recipe(path: Path) -> MergeRecipe:
    """A file of mergekit's YAML. Raises CheckpointError for what is no YAML, RequestError for what is not handled."""
    recipe = table_of(read_yaml(path), f"the recipe {str(path)!r}")
    check_keys(recipe, TOP, "the recipe")
    name = recipe.get("merge_method")
    if not isinstance(name, str) or name not in WAYS:
        raise RequestError(f"the recipe has merge_method {name!r}; growkit reads {', '.join(WAYS)}")
    way, top = WAYS[name], table_of(recipe.get("parameters") or {}, "parameters")
    allowed = (*way.by_input, *way.shared)
    flags = [flag for flag, there in (("normalize", way.normalize), ("rescale", way.rescale)) if there is not None]
    check_keys(top, (*allowed, *flags, *((INERT,) if way.base and name != "slerp" else ())), f"parameters of {name}")
    spans = spans_of(recipe, allowed)
    base = recipe.get("base_model")
    if base is not None:
        base = model_of(base, "base_model")
    dtype = recipe.get("out_dtype") or recipe.get("dtype")
    if dtype is not None and not isinstance(dtype, str):
        raise RequestError(f"the recipe has dtype {dtype!r}; write for example bfloat16")
    if name == "passthrough":
        return _stacked(spans, dtype)
    if recipe.get("slices"):
        check_whole(spans)
    vocab = _vocabulary(recipe, base, [model for span in spans for model in span.models], way)
    settled = _merged(name, way, spans, top, base)
    notes = [*way.notes, *([f"{INERT} changes no value"] if INERT in top else [])]
    if name in ("ties", "dare_ties") and any(_least(weight) < 0 for weight in settled["weights"]):
        notes.append(SIGNED)
    layers = spans[-1].layers[1] if spans[-1].layers is not None else None
    return MergeRecipe(**settled, layers=layers, vocab=vocab, dtype=dtype, notes=tuple(notes))


def request_of(recipe: MergeRecipe, seed: int, dtype: torch.dtype | None = None) -> MergeRequest:
    """A recipe as a request, by the rules of every request. dtype: in place of the recipe's."""
    request = merge_request(
        recipe.weights, recipe.base is not None, recipe.method, seed=seed, vocab=recipe.vocab,
        dtype=dtype or dtype_of(recipe.dtype), drop_vectors=True,
    )  # fmt: skip
    return replace(
        request, by_member=recipe.by_member, scale=recipe.scale, normalize=recipe.normalize, layers=recipe.layers,
        trim="tensor" if request.row.sparsify is not None and request.row.sparsify.over_model else "model",
        notes=recipe.notes,
    )  # fmt: skip


def _merged(name: str, way: Way, spans: Sequence[Span], top: Settings, base: str | None) -> dict[str, Any]:
    """Members, weights and options of a merge."""
    named = list(dict.fromkeys(model for span in spans for model in span.models))
    if base is None and (way.base or name == "slerp"):
        raise RequestError(f"the recipe lacks base_model, which {name} starts from")
    normalize, rescale = flag_of(top, "normalize", way.normalize), flag_of(top, "rescale", way.rescale)
    if rescale != way.rescale:
        raise RequestError(
            f"the recipe has rescale {str(rescale).lower()}, which is not handled: growkit's {way.method} has it"
            f" {str(way.rescale).lower()}"
        )
    settled: dict[str, Any] = {"method": way.method, "normalize": normalize}
    if name == "slerp":
        if len(named) != 2 or base not in named or any(len(span.models) != 2 for span in spans):
            raise RequestError(f"slerp goes from base_model to one other: name these two, not {', '.join(named)}")
        share = number_of("t", spans, top)
        rest = _less(share)
        return settled | {
            "models": (base, *(m for m in named if m != base)),
            "weights": (rest, share),
            "normalize": None,
        }
    if name == "linear" and base is not None:
        if base not in named:
            raise RequestError(f"linear lacks the weight of base_model {base!r}; list it under models too")
        named = [base, *(model for model in named if model != base)]
    members = [model for model in named if name == "linear" or model != base]
    if not members:
        raise RequestError("the recipe has no model but base_model; list what is to be merged under models")
    settled |= {
        "models": tuple(members),
        "base": base if way.base else None,
        "weights": tuple(number_of("weight", spans, top, model) for model in members),
        "scale": number_of("lambda", spans, top, default=1.0) if way.base else 1.0,
    }
    if "density" in way.by_input:
        kept = [number_of("density", spans, top, model, 1.0) for model in members]
        settled["by_member"] = tuple({"density": share} if name == "ties" else {"drop": _less(share)} for share in kept)
    return settled


def _less(share: Number) -> Number:
    """The rest of a share: what is dropped, of what is kept."""
    return share.each(lambda part: 1 - part) if isinstance(share, ByTensor) else 1 - share


def _least(number: Number) -> float:
    return min(min(part.values) for part in number.parts) if isinstance(number, ByTensor) else number


def _stacked(spans: Sequence[Span], dtype: str | None) -> MergeRecipe:
    """Slices of layers one after another, as growkit stack takes them: its first source has what stands before the
    layers, its last what follows."""
    if any(span.layers is None or len(span.models) != 1 for span in spans):
        raise RequestError("passthrough takes slices, each of one model with its layer_range; list them under slices")
    named = [next(iter(span.models)) for span in spans]
    sources = list(dict.fromkeys(named))
    if named[-1] != sources[-1]:
        sources = [s for s in sources if s != named[-1] or s == named[0]] + [named[-1]]
    runs = [f"{span.layers[0] + 1}-{span.layers[1]}" for span in spans if span.layers is not None]
    if len(sources) > 1:
        runs = [f"{chr(ord('A') + sources.index(model))}:{run}" for model, run in zip(named, runs)]
    return MergeRecipe(models=tuple(sources), slices=",".join(runs), dtype=dtype)


def _vocabulary(recipe: Settings, base: str | None, models: Sequence[str], way: Way) -> str:
    """How vocabularies are matched. Raises RequestError for tokens that the base does not have."""
    tokenizer = recipe.get("tokenizer")
    if tokenizer is not None:
        check_keys(table_of(tokenizer, "tokenizer"), ("source",), "tokenizer")
    source = recipe.get("tokenizer_source") or (tokenizer or {}).get("source")
    if source not in (None, "base", base if base is not None else models[0]):
        raise RequestError(
            f"the recipe has tokenizer_source {source!r}, which is not handled: the result has the base's tokens; write"
            " base"
        )
    return "tokens" if source is not None and way.base and way.method != "slerp" else "same"
