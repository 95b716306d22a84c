"""What a person asks for, as plain data. Knows the words of a request; ignorant of whether it can be done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from growkit.errors import RequestError
from growkit.growth.learning import Learn
from growkit.growth.spelling import dtype_of, layer_numbers
from growkit.growth.width.uneven import Noise, noise_of

SHRINK_PERTURB, DIRECT_COPY = "shrink-perturb", "direct-copy"  # width methods
AUTO = "auto"  # a method of width or depth that growkit chooses (growkit.growth.studied)


@dataclass(frozen=True, kw_only=True)
class Depth:
    """How many layers, and which of the source's each of them is (see growkit.growth.depth.layers)."""

    layers: int | None = None  # their number; None where the rest says it
    method: str = "stack"  # which layer each new one copies, a row of growkit.growth.depth.layers.METHODS, or "auto"
    overlap: int | None = None  # solar: layers left out of each run
    after: tuple[int, ...] = ()  # identity, interleave, average: the layers, from 1, that a new one follows
    every: int | None = None  # identity, interleave: a new layer after every such one
    where: str | None = None  # identity, interleave, average: "spread", "middle" or "top"; None: as each method does
    block: int | None = None  # top, middle: how many layers are repeated
    slices: str | None = None  # the layers one by one, such as "1-8,5-12"
    option: str = "--method"  # what people call the method: grow has another --method


@dataclass(frozen=True, kw_only=True)
class Experts:
    """A mixture of experts in place of each feed-forward layer (see growkit.growth.upcycle.upcycle_plan)."""

    count: int = 8  # experts of a layer, as config.json will say
    top_k: int = 2  # those that a token takes
    granularity: int = 1  # slices of each copy of the feed-forward layer, every one an expert
    shared: bool = False  # whether a shared expert is asked for
    layers: str = "every"  # which have experts: "every", "2nd" (3rd, ...) or numbers from 1 such as "1,3"
    diversity: str = "none"  # "none", "noise[:SHARE]" or "drop[:SHARE]"
    router: str = "normal"  # "normal", or "clusters" of the hidden states of a text
    text: str | None = None  # that text, a file

    def to_json(self) -> dict[str, Any]:
        """The request as plain data; a text by its name."""
        stated = {key: value for key, value in vars(self).items() if value is not None}
        return {**stated, "text": Path(self.text).name} if self.text else stated


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What was asked for: target sizes, and how they are reached."""

    sizes: Mapping[str, int | None] = field(default_factory=dict)  # by axis; None: follows from the others
    method: str = "fpi"  # "fpi", "aki", "shrink-perturb", "direct-copy" or "auto"
    keep: float = 0.8  # shrink-perturb: what lifted weights are multiplied by
    mapping: str = "cyclic"  # "cyclic" or "random"
    noise: Noise = 0.5  # relative size of the split between read copies, or "auto": by the width
    seed: int = 0  # for everything that is drawn at random
    dtype: torch.dtype | None = None  # of what is written; None: as it was
    depth: Depth | None = None  # None: as deep as it was
    mode: str | None = None  # how several become one, "side-by-side", "fpi", "aki"; None: stacked, or there is one
    experts: Experts | None = None  # what a dense model becomes; None: it stays one
    like: str | Path | None = None  # a model whose sizes are meant; None once they are known (growkit.growth.like)
    top_k: int | None = None  # with more experts: how many a token takes; None: as many as before
    learn: Learn | None = None  # how maps learn; None: they are exact
    # with more experts: of each layer, from 0, how many copies of each; empty: all have as many
    copies: Mapping[int, tuple[int, ...]] = field(default_factory=dict)  # layer -> copies of its experts

    @property
    def widens(self) -> bool:
        """Whether any size but the number of layers was asked for."""
        return any(size is not None for size in self.sizes.values()) or self.mode is not None

    @property
    def corners(self) -> bool:
        """Whether the source lies in a corner of a new model: nothing is copied, and AdamW's state stays behind."""
        return self.method == DIRECT_COPY and self.widens

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
        if self.method == SHRINK_PERTURB:
            asked["keep"] = self.keep
        if self.depth is not None:
            stated = {key: value for key, value in vars(self.depth).items() if value not in (None, ())}
            asked["depth"] = {key: value for key, value in stated.items() if key != "option"}
        if self.mode is not None:
            asked["mode"] = self.mode
        if self.learn is not None:
            asked["learn"] = self.learn.to_json()
        if self.top_k is not None:
            asked["top_k"] = self.top_k
        if self.copies:
            asked["copies"] = {str(layer + 1): list(counts) for layer, counts in self.copies.items()}
        return asked


def usual_noise(method: str) -> Noise:
    """The split between read copies where a width method is named alone: those of fpi would stay equal without one."""
    return Recipe.noise if method == "fpi" else 0.0


def recipe(
    *,
    hidden: int | None = None,
    heads: int | None = None,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    ffn: int | None = None,
    method: str = Recipe.method,
    mapping: str = Recipe.mapping,
    noise: Noise | None = None,
    keep: float | None = None,
    seed: int = Recipe.seed,
    dtype: str | None = None,
    depth: Depth | None = None,
    mode: str | None = None,
    like: str | Path | None = None,
    experts: int | None = None,
    top_k: int | None = None,
    copies: Mapping[int, tuple[int, ...]] | None = None,
    learn: Learn | None = None,
) -> Recipe:
    """A request for a growth. noise defaults to 0.5 for fpi, and to 0 for every other method, learned maps and fused
    models, which part by themselves.

    Raises RequestError for a dtype that is none of float64, float32, bfloat16, float16.
    """
    default = usual_noise(method) if mode is None and learn is None else 0.0
    if method == AUTO and noise is not None:
        raise RequestError(f"--method {AUTO} chooses --noise too; leave it out, or name a method")
    if keep is not None and method != SHRINK_PERTURB:
        raise RequestError(f"--keep is for --method {SHRINK_PERTURB}, not for {method}")
    return Recipe(
        sizes={
            "hidden": hidden,
            "head": heads,
            "kv_head": kv_heads,
            "head_dim": head_dim,
            "ffn": ffn,
            "expert": experts,
        },
        method=method,
        mapping=mapping,
        noise=default if noise is None else noise_of(noise),
        keep=Recipe.keep if keep is None else keep,
        seed=seed,
        dtype=dtype_of(dtype),
        depth=depth,
        mode=mode,
        like=like,
        top_k=top_k,
        copies=copies or {},
        learn=learn,
    )


def stack_recipe(
    *,
    layers: int | None = None,
    method: str = Depth.method,
    overlap: int | None = None,
    after: str | Sequence[int] | None = None,
    every: int | None = None,
    where: str | None = None,
    block: int | None = None,
    slices: str | None = None,
    seed: int = Recipe.seed,
    dtype: str | None = None,
) -> Recipe:
    """A request for a growth in depth (see Depth); after: numbers, or as people write them, "4,8". Raises
    RequestError.
    """
    depth = Depth(
        layers=layers, method=method, overlap=overlap, after=layer_numbers(after), every=every, where=where,
        block=block, slices=slices,
    )  # fmt: skip
    return recipe(seed=seed, dtype=dtype, depth=depth)


def grow_recipe(
    *,
    hidden: int | None = None,
    heads: int | None = None,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    ffn: int | None = None,
    layers: int | None = None,
    depth: str = Depth.method,
    overlap: int | None = None,
    after: str | Sequence[int] | None = None,
    every: int | None = None,
    where: str | None = None,
    block: int | None = None,
    slices: str | None = None,
    method: str = Recipe.method,
    mapping: str = Recipe.mapping,
    noise: Noise | None = None,
    keep: float | None = None,
    seed: int = Recipe.seed,
    dtype: str | None = None,
    like: str | Path | None = None,
    experts: int | None = None,
    top_k: int | None = None,
    copies: Mapping[int, tuple[int, ...]] | None = None,
    learn: Learn | None = None,
) -> Recipe:
    """A request for a growth in width, in depth or in both. depth: how layers are stacked; the rest as in `recipe` and
    in `stack_recipe`. like: a model whose sizes are meant, its number of layers among them. Raises RequestError.
    """
    placing = Depth(
        layers=layers, method=depth, overlap=overlap, after=layer_numbers(after), every=every, where=where,
        block=block, slices=slices, option="--depth",
    )  # fmt: skip
    deepens = like is not None or placing != Depth(method=depth, option="--depth")
    if not deepens and depth != Depth.method:
        raise RequestError(f"--depth {depth} says how to deepen, but not how far: add --layers N")
    return recipe(
        hidden=hidden, heads=heads, kv_heads=kv_heads, head_dim=head_dim, ffn=ffn, method=method, mapping=mapping,
        noise=noise, keep=keep, seed=seed, dtype=dtype, depth=placing if deepens else None, like=like,
        experts=experts, top_k=top_k, copies=copies, learn=learn,
    )  # fmt: skip


def upcycle_recipe(
    *,
    experts: int = Experts.count,
    top_k: int = Experts.top_k,
    granularity: int = Experts.granularity,
    shared: bool = Experts.shared,
    layers: str = Experts.layers,
    diversity: str = Experts.diversity,
    router: str = Experts.router,
    text: str | Path | None = None,
    seed: int = Recipe.seed,
    dtype: str | None = None,
) -> Recipe:
    """A request for a mixture of experts (see Experts). Raises RequestError for a dtype that weights are not stored
    in.
    """
    wanted = Experts(
        count=experts, top_k=top_k, granularity=granularity, shared=shared, layers=layers, diversity=diversity,
        router=router, text=str(text) if text else None,
    )  # fmt: skip
    return replace(recipe(seed=seed, dtype=dtype, noise=0.0), experts=wanted)
