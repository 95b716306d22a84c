"""The methods of merging as rows of one table, and a request for a merge. Knows what each method takes; ignorant of
checkpoints and of arithmetic.

    theta = base + scale * C({ (w_t, S(theta_t - base)) })        one base (or none), members t with weights w_t

A method is a choice of what it needs (a base), how it thins a delta (S) and how it makes one of several (C), both of
which hold the functions that do it (growkit.merging.ways). Adding a method is adding a row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isfinite
from typing import Any

import torch

from growkit.errors import RequestError
from growkit.merging.by_tensor import Number, plain
from growkit.merging.ways import (
    BAND,
    DROP,
    ELECT,
    ISO,
    MEAN,
    NORMALISED,
    RANKED,
    SLERP,
    SUM,
    TOP,
    TSV,
    Consensus,
    Thinning,
)

VOCABULARIES = ("same", "base", "tokens")


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row of the table."""

    consensus: Consensus  # how several deltas become one
    sparsify: Thinning | None = None  # how a delta is thinned before; None: it stays
    needs_base: bool = True
    options: Mapping[str, float] = field(default_factory=dict)  # those it takes, with their defaults
    paper: str = ""

    @property
    def draws(self) -> bool:
        """Whether chance decides what stays."""
        return self.sparsify is not None and self.sparsify.draws

    @property
    def whole(self) -> bool:
        """Whether it must see a matrix whole."""
        return self.consensus.join_whole is not None


METHODS = {
    "dare": Method(consensus=SUM, sparsify=DROP, options={"drop": 0.5}, paper="arXiv 2311.03099"),
    "task-arithmetic": Method(consensus=SUM, paper="arXiv 2212.04089"),
    "ties": Method(consensus=ELECT, sparsify=TOP, options={"density": 0.2}, paper="arXiv 2306.01708"),
    "dare-ties": Method(consensus=ELECT, sparsify=DROP, options={"drop": 0.5}, paper="arXiv 2311.03099 and 2306.01708"),
    "della": Method(
        consensus=ELECT, sparsify=RANKED, options={"density": 0.7, "epsilon": 0.07}, paper="arXiv 2406.11617"
    ),
    "breadcrumbs": Method(
        consensus=SUM, sparsify=BAND, options={"density": 0.1, "gamma": 0.01}, paper="arXiv 2312.06795"
    ),
    "average": Method(consensus=MEAN, needs_base=False, paper="arXiv 2203.05482"),
    "slerp": Method(consensus=SLERP, needs_base=False),
    "tsv": Method(consensus=TSV, paper="arXiv 2412.00081"),
    "iso-c": Method(consensus=ISO, paper="arXiv 2502.04959"),
}


@dataclass(frozen=True, kw_only=True)
class MergeRequest:
    """What was asked for, with defaults filled in."""

    method: str
    weights: tuple[Number, ...]  # of the members, in their order
    options: Mapping[str, float]  # of the method
    by_member: tuple[Mapping[str, Number], ...] = ()  # options of each member beside those; none where all have them
    scale: Number = 1.0  # lambda
    normalize: bool | None = None  # whether a sum is divided by the weights; None: as the method says
    trim: str = "model"  # among whose elements ranks are taken that the method takes over the model, or "tensor"
    seed: int = 0
    vocab: str = "same"  # what becomes of vocabularies that differ
    vectors: bool = False  # whether chance may drop in tensors of one dimension too
    dtype: torch.dtype | None = None  # of what is written, None for the base's
    layers: int | None = None  # that the models must have; None: as many as they have
    notes: tuple[str, ...] = ()  # what is to be said of it
    body: bool = False  # whether base models alone are merged, whatever their heads

    @cached_property
    def row(self) -> Method:
        """The method, as this request has it."""
        method = METHODS[self.method]
        thinning, consensus = method.sparsify, method.consensus
        if self.trim == "tensor" and thinning is not None:
            thinning = replace(thinning, over_model=False)
        if self.normalize is not None:
            consensus = next(pair[self.normalize] for pair in NORMALISED if consensus in pair)
        return replace(method, sparsify=thinning, consensus=consensus)

    def to_json(self) -> dict[str, Any]:
        """The request as plain data, for provenance."""
        stated = {"method": self.method, **self.options, "scale": plain(self.scale)}
        if self.by_member:
            stated["by_member"] = [{key: plain(number) for key, number in own.items()} for own in self.by_member]
        stated |= {"normalize": self.normalize} if self.normalize is not None else {}
        stated |= {"trim": self.trim} if self.trim != "model" else {}
        stated |= {"seed": self.seed, "drop_vectors": self.vectors} if self.row.draws else {}
        dtype = None if self.dtype is None else str(self.dtype).removeprefix("torch.")
        return {**stated, "vocab": self.vocab, "dtype": dtype, **({"body": True} if self.body else {})}


def merge_request(
    weights: tuple[Number, ...],
    based: bool,
    method: str = "dare",
    scale: float = 1.0,
    seed: int = 0,
    vocab: str = "same",
    drop_vectors: bool = False,
    dtype: torch.dtype | None = None,
    drop: float | None = None,
    density: float | None = None,
    epsilon: float | None = None,
    gamma: float | None = None,
    body: bool = False,
) -> MergeRequest:
    """A request made whole. based: whether a base was given. drop, density, epsilon, gamma: options of some methods;
    None: the default.

    Raises RequestError for what no method takes, for numbers out of range, and for a base that is missing.
    """
    if method not in METHODS:
        raise RequestError(f"--method {method!r} is not one of {', '.join(METHODS)}")
    row = METHODS[method]
    options = {"drop": drop, "density": density, "epsilon": epsilon, "gamma": gamma}
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in row.options:
            takers = ", ".join(other for other, taking in METHODS.items() if name in taking.options)
            raise RequestError(f"--{name} is for {takers}, not for {method}")
    chosen = {**row.options, **given}
    check_options(chosen)
    if row.needs_base and not based:
        free = " and ".join(name for name, other in METHODS.items() if not other.needs_base)
        raise RequestError(
            f"{method} merges what members have learned beyond a base: name the base with --base (without one: {free})"
        )
    if scale != 1 and not based:
        raise RequestError(f"--scale {scale} should be 1 where there is no --base to scale from")
    if row.consensus.mix is not None and len(weights) != 2:
        raise RequestError(f"{method} goes from one model to another: name two members, not {len(weights)}")
    fixed = [weight for weight in weights if isinstance(weight, int | float)]
    if row.consensus.relative and len(fixed) == len(weights) and not sum(fixed) > 0:
        raise RequestError(f"the weights of {method} add up to {sum(fixed):g}; they should add up to more than 0")
    if vocab not in VOCABULARIES:
        raise RequestError(f"--vocab {vocab!r} is not one of {', '.join(VOCABULARIES)}")
    if vocab != "same" and not based:
        raise RequestError(f"--vocab {vocab} keeps the base's vocabulary: name the base with --base")
    if body and not based:
        raise RequestError("--body keeps the base's head: name the base with --base")
    return MergeRequest(
        body=body,
        method=method,
        weights=weights,
        options=chosen,
        scale=scale,
        seed=seed,
        vocab=vocab,
        vectors=drop_vectors,
        dtype=dtype,
    )


def check_options(options: Mapping[str, float]) -> None:
    """Raises RequestError for shares and chances out of range."""
    drop, density = options.get("drop", 0.0), options.get("density", 1.0)
    if not 0 <= drop < 1:
        raise RequestError(f"--drop {drop:g} should be from 0 (drop nothing) to below 1 (drop everything)")
    if not 0 < density <= 1:
        raise RequestError(f"--density {density:g} should be above 0 and at most 1 (keep everything)")
    gamma = options.get("gamma", 0.0)
    if not (gamma >= 0 and gamma + density <= 1):
        raise RequestError(f"--gamma {gamma:g} should be from 0, and at most 1 with --density {density:g} added")
    epsilon = options.get("epsilon")
    if epsilon is not None and not (epsilon >= 0 and density - epsilon > 0 and density + epsilon <= 1):
        raise RequestError(
            f"--epsilon {epsilon:g} should be from 0, and --density {density:g} with it added or taken off within 0 and"
            " 1"
        )


def parse_member(text: str, exists: bool) -> tuple[str, float]:
    """'path:0.5' as (path, weight); weight 1 where none is given. exists: whether the text as a whole is a path.

    Raises RequestError for a weight that is no finite number.
    """
    name, colon, weight = text.rpartition(":")
    if exists or not colon:
        return text, 1.0
    try:
        number = float(weight)
    except ValueError:
        number = float("nan")
    if not name or not isfinite(number):
        raise RequestError(f"member {text!r} has weight {weight!r}, which is no number; write it as PATH:0.5")
    return name, number
