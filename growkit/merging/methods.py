"""The methods of merging as rows of one table, and a request for a merge. Knows what each method takes; ignorant of
checkpoints and of arithmetic.

    theta = base + scale * C({ (w_t, S(theta_t - base)) })        one base (or none), members t with weights w_t

A method is a choice of what it needs (a base), how it thins a delta (S) and how it makes one of several (C).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import torch

from growkit.errors import RequestError

DROP, TOP, BAND, RANKED = "drop", "top", "band", "ranked"  # how a delta is thinned
SUM, MEAN, ELECT, SLERP, TSV, ISO = "sum", "mean", "elect", "slerp", "tsv", "iso"  # how several become one
VOCABULARIES = ("same", "base", "tokens")

LARGEST = 3.4e38  # of float32, in which deltas are added


@dataclass(frozen=True)
class Method:
    """One row: sparsify and consensus, whether it needs a base, the options it takes with their defaults, its paper."""

    consensus: str
    sparsify: str = ""
    needs_base: bool = True
    options: Mapping[str, float] = field(default_factory=dict)
    paper: str = ""

    @property
    def draws(self) -> bool:
        """Whether chance decides what stays."""
        return self.sparsify in (DROP, RANKED)

    @property
    def whole(self) -> bool:
        """Whether it must see a matrix whole."""
        return self.consensus in (TSV, ISO)


METHODS = {
    "dare": Method(SUM, DROP, options={"drop": 0.5}, paper="arXiv 2311.03099"),
    "task-arithmetic": Method(SUM, paper="arXiv 2212.04089"),
    "ties": Method(ELECT, TOP, options={"density": 0.2}, paper="arXiv 2306.01708"),
    "dare-ties": Method(ELECT, DROP, options={"drop": 0.5}, paper="arXiv 2311.03099 and 2306.01708"),
    "della": Method(ELECT, RANKED, options={"density": 0.7, "epsilon": 0.07}, paper="arXiv 2406.11617"),
    "breadcrumbs": Method(SUM, BAND, options={"density": 0.1, "gamma": 0.01}, paper="arXiv 2312.06795"),
    "average": Method(MEAN, needs_base=False, paper="arXiv 2203.05482"),
    "slerp": Method(SLERP, needs_base=False),
    "tsv": Method(TSV, paper="arXiv 2412.00081"),
    "iso-c": Method(ISO, paper="arXiv 2502.04959"),
}
TAKES = {option: [name for name, m in METHODS.items() if option in m.options] for option in ("drop", "density")} | {
    "epsilon": ["della"],
    "gamma": ["breadcrumbs"],
}


@dataclass(frozen=True)
class MergeRequest:
    """What was asked for, with defaults filled in.

    weights: of the members, in their order. options: of the method. scale: lambda. vocab: what becomes of vocabularies that
    differ. vectors: whether chance may drop in tensors of one dimension too. dtype: of what is written, None for the base's.
    """

    method: str
    weights: tuple[float, ...]
    options: Mapping[str, float]
    scale: float = 1.0
    seed: int = 0
    vocab: str = "same"
    vectors: bool = False
    dtype: torch.dtype | None = None

    @property
    def row(self) -> Method:
        return METHODS[self.method]

    def to_json(self) -> dict[str, Any]:
        """The request as plain data, for provenance."""
        said = {"method": self.method, **self.options, "scale": self.scale}
        said |= {"seed": self.seed, "drop_vectors": self.vectors} if self.row.draws else {}
        dtype = None if self.dtype is None else str(self.dtype).removeprefix("torch.")
        return {**said, "vocab": self.vocab, "dtype": dtype}


def merge_request(
    weights: tuple[float, ...],
    based: bool,
    method: str = "dare",
    scale: float = 1.0,
    seed: int = 0,
    vocab: str = "same",
    drop_vectors: bool = False,
    dtype: torch.dtype | None = None,
    **options: float | None,
) -> MergeRequest:
    """A request made whole. based: whether a base was given. options: drop, density, epsilon, gamma; None for the default.

    Raises RequestError for what no method takes, for numbers out of range, and for a base that is missing.
    """
    if method not in METHODS:
        raise RequestError(f"--method {method!r} is not one of {', '.join(METHODS)}")
    row = METHODS[method]
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in row.options:
            raise RequestError(f"--{name} is for {', '.join(TAKES[name])}, not for {method}")
    chosen = {**row.options, **given}
    _check_numbers(chosen)
    if row.needs_base and not based:
        free = " and ".join(name for name, other in METHODS.items() if not other.needs_base)
        raise RequestError(
            f"{method} merges what members have learned beyond a base: name the base with --base (without one: {free})"
        )
    if not abs(scale) <= LARGEST or (scale != 1 and not based):
        raise RequestError(
            f"--scale {scale} should be a finite number that float32 holds, and 1 where there is no --base to scale from"
        )
    if row.consensus == SLERP and len(weights) != 2:
        raise RequestError(f"slerp goes from one model to another: name two members, not {len(weights)}")
    if row.consensus in (MEAN, SLERP) and not sum(weights) > 0:
        raise RequestError(f"the weights of {method} add up to {sum(weights):g}; they should add up to more than 0")
    if vocab not in VOCABULARIES:
        raise RequestError(f"--vocab {vocab!r} is not one of {', '.join(VOCABULARIES)}")
    if vocab != "same" and not based:
        raise RequestError(f"--vocab {vocab} keeps the base's vocabulary: name the base with --base")
    return MergeRequest(method, weights, chosen, scale, seed, vocab, drop_vectors, dtype)


def _check_numbers(options: Mapping[str, float]) -> None:
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
            f"--epsilon {epsilon:g} should be from 0, and --density {density:g} with it added or taken off within 0 and 1"
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
