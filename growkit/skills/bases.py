"""The bases of a control panel by linear algebra: which directions of an input matter, and where outputs can be moved.
Knows matrices; ignorant of models and of files.

For weights that read one input, stacked to W (out, in), each over the size of what it puts out, and the second moment
C of that input (the identity where nothing is known of it): U, the leading eigenvectors of W C W^T, are the leading
left singular vectors of W C^(1/2), and what they see of an input is U^T W x. So V is an orthonormal basis of the
columns of W^T U. Without C these are W's own right singular vectors; with it, what CorDA (arXiv 2406.05223) takes of
svd(W C^(1/2)) C^(-1/2), since U^T W = S Z^T C^(-1/2): the same span, and no inverse, no damping, and nothing lost
where C is singular.

Given V, the outputs of one of the weights that go with what is read through it are the columns of W C V, for the best
guess of W x from z = V^T x is W C V (V^T C V)^-1 z. They are spanned by that weight's U; of a weight that reads alone,
they are the leading eigenvectors again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

ITERATIONS = 4  # rounds of the power method
WHOLE = 1024  # the shorter side of a matrix up to which it is decomposed whole
TINY = 1e-6  # singular values below this share of the largest are rounding


@dataclass(frozen=True)
class Directions:
    """basis: (in, r), orthonormal columns. error: |A A^T U S^-1 - U S|_F / |S|_F of the decomposition U S of
    A = W C^(1/2) that it is from: 0 but for rounding where A was decomposed whole."""

    basis: torch.Tensor
    error: float


def input_directions(
    weight: torch.Tensor, rank: int, generator: torch.Generator, moment: torch.Tensor | None = None
) -> Directions:
    """The leading directions of an input (in,) for what weights W (out, in) make of it; at most its rank many.

    moment: (in, in), of the input. A randomised range finder with power iterations (Halko, Martinsson and Tropp, arXiv
    0909.4061) where the shorter side is above `WHOLE` and far above the rank; else the whole decomposition, in float64.
    """
    rank, sketch = min(rank, *weight.shape), 2 * rank + 10
    if min(weight.shape) <= max(WHOLE, sketch):
        left, values = _whole(weight.double(), moment)
    else:
        left, values = _randomised(weight, sketch, generator, moment)
    left, values = left[:, :rank].to(weight.dtype), values[:rank].to(weight.dtype)
    back = weight.T @ left
    error = _residual(left, values, weight @ (back if moment is None else moment.to(back.dtype) @ back))
    return Directions(torch.linalg.qr(back).Q, error)


def stacked(weights: Sequence[torch.Tensor], moment: torch.Tensor | None = None) -> torch.Tensor:
    """Weights (out, in) that read one input as one (sum of out, in), each over |W C^(1/2)|_F, without moment |W|_F.
    Else queries and keys, which are large, would leave values no directions."""
    sizes = [max(float(_energy(weight.double(), moment)), 0.0) ** 0.5 for weight in weights]
    return torch.cat([weight / (size or 1.0) for weight, size in zip(weights, sizes)])


def output_directions(
    weight: torch.Tensor, basis: torch.Tensor, moment: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(U (out, r), C0 (r, r_in)) of a weight W (out, in) whose input is read through V (in, r_in), r the lesser of out
    and r_in: what it puts out of that, and U^T W V. U is turned so that rows of C0 are at right angles, the longest
    first; moment: (in, in), of the input."""
    seen = basis if moment is None else moment.to(basis.dtype) @ basis
    span = torch.linalg.qr(weight @ seen).Q
    turn, values, right = torch.linalg.svd(span.T @ (weight @ basis), full_matrices=False)
    return span @ turn, values[:, None] * right


def kept(
    weight: torch.Tensor,
    left: torch.Tensor,
    control: torch.Tensor,
    basis: torch.Tensor,
    moment: torch.Tensor | None = None,
) -> float:
    """1 - |(W - U C0 V^T) C^(1/2)|_F^2 / |W C^(1/2)|_F^2, the share of what W puts out that its control does; without
    moment the share of |W|_F^2. 1 where W puts nothing out."""
    rest = weight - left @ control @ basis.T
    whole, lost = (float(_energy(matrix.double(), moment)) for matrix in (weight, rest))
    return 1 - lost / whole if whole > 0 else 1.0


def _energy(matrix: torch.Tensor, moment: torch.Tensor | None) -> torch.Tensor:
    return (matrix * (matrix if moment is None else matrix @ moment.to(matrix.dtype))).sum()


def _whole(weight: torch.Tensor, moment: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    if moment is not None:
        values, vectors = torch.linalg.eigh(moment.double())
        weight = (weight @ vectors) * values.clamp(min=0).sqrt()
    left, values, _ = torch.linalg.svd(weight, full_matrices=False)
    return left, values


def _randomised(
    weight: torch.Tensor, sketch: int, generator: torch.Generator, moment: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    def through(matrix: torch.Tensor) -> torch.Tensor:
        return matrix if moment is None else moment.to(matrix.dtype) @ matrix

    start = torch.randn(weight.shape[1], sketch, generator=generator, dtype=weight.dtype).to(weight.device)
    basis = torch.linalg.qr(weight @ through(start)).Q
    for _ in range(ITERATIONS):
        basis = torch.linalg.qr(weight @ through(torch.linalg.qr(weight.T @ basis).Q)).Q
    seen = (weight.T @ basis).double()
    values, vectors = torch.linalg.eigh(seen.T @ through(seen))
    return basis.double() @ vectors.flip(1), values.flip(0).clamp(min=0).sqrt()


def _residual(left: torch.Tensor, values: torch.Tensor, through: torch.Tensor) -> float:
    """through: A A^T U (out, r)."""
    sound = values > TINY * values[0]
    rest = through[:, sound] / values[sound] - left[:, sound] * values[sound]
    size = float(values.norm())
    return float(rest.norm()) / size if size > 0 else 0.0
