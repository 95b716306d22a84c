"""What a person asks for, as plain data. Knows the words of a request; ignorant of whether it can be done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from growkit.errors import RequestError


@dataclass(frozen=True)
class Depth:
    """How many layers, and which of the source's each of them is (see growkit.growth.depth.layers).

    layers: their number; None where the rest says it. overlap: for solar. after, every: where identity puts its layers,
    counted from 1. block: how many layers top and middle repeat. slices: the layers one by one, such as "1-8,5-12".
    """

    layers: int | None = None
    method: str = "stack"
    overlap: int | None = None
    after: tuple[int, ...] = ()
    every: int | None = None
    block: int | None = None
    slices: str | None = None
    option: str = "--method"  # what people call the method: grow has another --method


@dataclass(frozen=True)
class Experts:
    """A mixture of experts in place of each feed-forward layer (see growkit.growth.upcycle.upcycle_plan).

    count, top_k: experts of a layer, and those a token takes, as config.json will say. granularity: into how many slices
    each copy of the feed-forward layer is cut, every slice an expert. shared: ask for a shared expert. layers: "every",
    "2nd" (3rd, ...) or numbers from 1 such as "1,3". diversity: "none", "noise[:SHARE]" or "drop[:SHARE]". router:
    "normal" or "clusters", those of the hidden states of a `text`, a file.
    """

    count: int = 8
    top_k: int = 2
    granularity: int = 1
    shared: bool = False
    layers: str = "every"
    diversity: str = "none"
    router: str = "normal"
    text: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The request as plain data; a text by its name."""
        stated = {key: value for key, value in vars(self).items() if value is not None}
        return {**stated, "text": Path(self.text).name} if self.text else stated


@dataclass(frozen=True)
class Recipe:
    """What was asked for: target sizes by axis (None: follow from the others), and how.

    method: "fpi" or "aki". mapping: "cyclic" or "random". noise: relative size of the split between read copies.
    dtype: of what is written, None for as it was. depth: None for as deep as it was. mode: how several sources become
    one, "side-by-side", "fpi" or "aki"; None where they are stacked or there is one. experts: what a dense model becomes,
    None where it stays one.
    """

    sizes: Mapping[str, int | None] = field(default_factory=dict)
    method: str = "fpi"
    mapping: str = "cyclic"
    noise: float = 0.5
    seed: int = 0
    dtype: torch.dtype | None = None
    depth: Depth | None = None
    mode: str | None = None
    experts: Experts | None = None

    @property
    def widens(self) -> bool:
        """Whether any size but the number of layers was asked for."""
        return any(size is not None for size in self.sizes.values()) or self.mode is not None

    @property
    def command(self) -> str:
        """The command that makes such a request."""
        if self.experts is not None:
            return "upcycle"
        if self.mode is not None:
            return "fuse"
        return "widen" if self.depth is None else "grow" if self.widens else "stack"

    def to_json(self) -> dict[str, Any]:
        """The request as plain data, for provenance."""
        dtype = None if self.dtype is None else str(self.dtype).removeprefix("torch.")
        if self.experts is not None:
            return {"experts": self.experts.to_json(), "seed": self.seed, "dtype": dtype}
        asked: dict[str, Any] = {
            "sizes": {axis: size for axis, size in self.sizes.items() if size is not None},
            "method": self.method,
            "mapping": self.mapping,
            "noise": self.noise,
            "seed": self.seed,
            "dtype": dtype,
        }
        if self.depth is not None:
            stated = {key: value for key, value in vars(self.depth).items() if value not in (None, ())}
            asked["depth"] = {key: value for key, value in stated.items() if key != "option"}
        if self.mode is not None:
            asked["mode"] = self.mode
        return asked


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
    """A request for a growth in depth (see growkit.growth.request.Depth)."""
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
    """A request for a mixture of experts (see growkit.growth.request.Experts)."""
    wanted = Experts(experts, top_k, granularity, shared, layers, diversity, router, str(text) if text else None)
    return replace(recipe(seed=seed, dtype=dtype, noise=0.0), experts=wanted)
