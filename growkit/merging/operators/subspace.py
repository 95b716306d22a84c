"""Methods that see a matrix whole: singular subspaces, and the angle between two tensors. Knows matrices; ignorant of
models.
"""

from collections.abc import Iterable, Sequence
from math import acos, sin

import torch

from growkit.merging.operators.consensus import Weighted, weighted_sum

NEARLY_PARALLEL = 0.9995  # a cosine beyond which the great circle is a line to rounding


def tsv(deltas: Weighted, members: int) -> torch.Tensor:
    """TSV-M (arXiv 2412.00081): the leading singular triples of each delta, made orthogonal across members, and added.

    deltas: (out, in) matrices. Each keeps min(out, in) // members triples, 1 at least; with one member nothing changes.
    """
    lefts, sizes, rights = [], [], []
    for weight, delta in deltas:
        rank = max(1, min(delta.shape) // members)
        left, values, right = torch.linalg.svd(delta, full_matrices=False)
        lefts.append(left[:, :rank])
        sizes.append(values[:rank] * weight)
        rights.append(right[:rank])
    return (_polar(torch.cat(lefts, dim=1)) * torch.cat(sizes)) @ _polar(torch.cat(rights))


def iso_c(deltas: Weighted) -> torch.Tensor:
    """Iso-C (arXiv 2502.04959): the sum with all its singular values set to their mean."""
    left, values, right = torch.linalg.svd(weighted_sum(deltas), full_matrices=False)
    return values.mean() * (left @ right)


def _polar(matrix: torch.Tensor) -> torch.Tensor:
    """The nearest matrix with orthonormal columns, or rows."""
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    return left @ right


def slerp_weights(pieces: Iterable[tuple[torch.Tensor, torch.Tensor]], weights: Sequence[float]) -> tuple[float, float]:
    """What the first and the second of two tensors are multiplied by on the great circle between their directions.

    pieces: pairs of parts of the two. weights: their shares; w2 / (w1 + w2) of the angle is gone from the first to the
    second. The angle is that of the normalised tensors and what is mixed are the tensors as they are; nearly parallel
    or opposite ones are mixed linearly.
    """
    dot = first = second = 0.0
    for one, other in pieces:
        a, b = one.flatten().double(), other.flatten().double()
        dot, first, second = dot + float(a @ b), first + float(a @ a), second + float(b @ b)
    part = weights[1] / (weights[0] + weights[1])
    cosine = dot / (first * second) ** 0.5 if first and second else 1.0
    if abs(cosine) > NEARLY_PARALLEL:
        return 1 - part, part
    angle = acos(cosine)
    return sin((1 - part) * angle) / sin(angle), sin(part * angle) / sin(angle)


def low_rank(
    delta: torch.Tensor, rank: int, generator: torch.Generator, iterations: int = 4
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best B (out, rank) and A (rank, in) with B A near delta, each with the root of the singular values.

    By a randomised range finder with power iterations (Halko, Martinsson and Tropp, arXiv 0909.4061, algorithm
    4.4) where that is less work than the whole singular value decomposition, which is used where it is not. Rows and
    columns beyond the matrix's own rank are zeros.
    """
    sketch = 2 * rank + 10
    if sketch >= min(delta.shape):
        left, values, right = torch.linalg.svd(delta, full_matrices=False)
    else:
        start = torch.randn(delta.shape[1], sketch, generator=generator, dtype=delta.dtype)
        basis = torch.linalg.qr(delta @ start).Q
        for _ in range(iterations):
            basis = torch.linalg.qr(delta @ torch.linalg.qr(delta.T @ basis).Q).Q
        small, values, right = torch.linalg.svd(basis.T @ delta, full_matrices=False)
        left = basis @ small
    root = values[:rank].sqrt()
    b, a = delta.new_zeros(delta.shape[0], rank), delta.new_zeros(rank, delta.shape[1])
    b[:, : len(root)], a[: len(root)] = left[:, :rank] * root, root[:, None] * right[:rank]
    return b, a
