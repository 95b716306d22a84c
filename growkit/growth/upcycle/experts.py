"""What a request for a mixture of experts comes to: which layers, which widths, which random numbers. Knows what can be
asked and what a class can express; ignorant of tensors and files.

Layers and experts count from 1 wherever a person reads or writes them and from 0 in code.
"""

import re
from dataclasses import dataclass

from growkit.errors import RequestError
from growkit.families.upcycling import Upcycling
from growkit.growth.request import Experts
from growkit.growth.width.sizes import Sizes

ROUTER_STD = 0.02  # of a drawn router: after an RMSNorm its logits then have a deviation of about 0.02 * sqrt(hidden)
SHARES = {"noise": 0.1, "drop": 0.5}
ROUTERS = ("normal", "clusters")
_EVERY = re.compile(r"([1-9]\d*)(st|nd|rd|th)")


@dataclass(frozen=True)
class Widths:
    """How the units of one feed-forward layer are dealt out: the first `shared` to a shared expert, then `slices` of
    `slice`.
    """

    dense: int
    shared: int
    slices: int

    @property
    def slice(self) -> int:
        return (self.dense - self.shared) // self.slices


def sparse_layers(wanted: str, count: int, row: Upcycling) -> tuple[tuple[int, ...], int]:
    """(the layers, from 0, that get experts; every how many-th that is, 1 where it is a list).

    wanted: "every", "2nd" and the like, or numbers from 1. Raises RequestError for others, and where the class has
    experts everywhere.
    """
    match = _EVERY.fullmatch(wanted)
    step = 1 if wanted == "every" else int(match[1]) if match else 0
    if step:
        layers = tuple(range(step - 1, count, step))
    else:
        try:
            layers = tuple(sorted({int(number) - 1 for number in wanted.split(",")}))
        except ValueError:
            raise RequestError(f"--layers {wanted!r} should be every, 2nd or layer numbers such as 2,4,6") from None
    if not layers or not all(0 <= layer < count for layer in layers):
        raise RequestError(f"--layers {wanted!r} should name layers of the source, which has {count}, counted from 1")
    if row.all_layers and len(layers) < count:
        raise RequestError(
            f"a {row.target} has experts in every layer, so a {row.source} cannot have them in {len(layers)} of {count};"
            " leave --layers out"
        )
    return layers, step or 1


def diversity_of(wanted: str) -> tuple[str, float]:
    """(none, noise or drop, its share). Raises RequestError for what is none of them, or a share that cannot be."""
    kind, colon, text = wanted.partition(":")
    if kind not in ("none", *SHARES) or (kind == "none" and colon):
        raise RequestError(f"--diversity {wanted!r} is not one of none, noise, noise:SHARE, drop, drop:SHARE")
    try:
        share = float(text) if colon else SHARES.get(kind, 0.0)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise RequestError(f"--diversity {wanted!r}: the share should be a number from 0 to 1")
    return (kind, share) if share else ("none", 0.0)


def widths_of(experts: Experts, row: Upcycling, sizes: Sizes) -> Widths:
    """How the units are dealt out. Raises RequestError for numbers that do not fit together.

    A shared expert takes half of the units, the routed experts are copies of the other half.
    """
    if experts.count < 2:
        raise RequestError("--experts 1 is a dense model with a router; give 2 or more")
    if experts.top_k > experts.count:
        raise RequestError(f"--top-k {experts.top_k} is more than --experts {experts.count}")
    if experts.shared and row.shared is None:
        raise RequestError(f"a {row.target}, which a {row.source} becomes, has no shared expert; leave --shared out")
    slices, units = experts.granularity, sizes["ffn"]
    for option, number in (("experts", experts.count), ("top-k", experts.top_k)):
        if number % slices:
            raise RequestError(
                f"--{option} {number} is no multiple of --granularity {slices}: a token takes all slices of a copy or none"
            )
    shared = 0
    if row.shared is not None:
        shared = units - units // 2 // slices * slices
        if shared == units:
            raise RequestError(f"--granularity {slices} is more than the {units // 2} units that are not shared")
    elif units % slices:
        raise RequestError(f"--granularity {slices} does not divide the {units} units of a feed-forward layer")
    return Widths(units, shared, slices)


def factors(total: int) -> tuple[float, float]:
    """What the two linear tensors of a block, up and down, are multiplied by so that their product has `total`.

    Each takes its root, where that is a power of two: then nothing is rounded in any dtype; else as near as powers of
    two come; for other numbers the root. The gate's tensor takes none: its activation is not linear.
    """
    half = total.bit_length() - 1
    if total == 1 << half:
        return float(1 << (half - half // 2)), float(1 << (half // 2))
    return total**0.5, total**0.5
