"""Which directions a skill gets, from sketches and gradients in a panel's coordinates. Knows matrices; ignorant of
models and of training.

Only input directions that others do not use bound what a skill does to them: orthogonal weights do not (OSRM, arXiv
2505.22934). So they are the generalised eigenvectors of the own sketch against the sum of the others': what the own
data has much of and theirs little.
"""

from collections.abc import Sequence

import torch

LEAST = 1e-12
DAMPING = 0.01  # of the others' mean energy in a direction: below it one is as free as another


def input_directions(own: torch.Tensor, others: Sequence[torch.Tensor], size: int) -> torch.Tensor:
    """P (r, size) with orthonormal columns, float32, the best direction first: the top eigenvectors of
    K v = lambda (sum of others + eps I) v, made orthonormal in their order; without others those of K.

    own, others: sketches (r, r), K = E[z z^T] of the data's inputs in the panel's coordinates.
    """
    own = _symmetric(own)
    if not others:
        return _top(own, size).float()
    against = sum((_symmetric(other) for other in others), torch.zeros_like(own))
    least = LEAST * own.diagonal().mean().clamp_min(LEAST)  # where the others have nothing at all
    eps = DAMPING * against.diagonal().mean().clamp_min(float(least))
    lower = torch.linalg.cholesky(against + eps * torch.eye(len(own), dtype=own.dtype))
    half = torch.linalg.solve_triangular(lower, own, upper=False)
    white = torch.linalg.solve_triangular(lower, half.T, upper=False)
    chosen = torch.linalg.solve_triangular(lower.T, _top(_symmetric(white), size), upper=True)
    return torch.linalg.qr(chosen).Q.float()


def output_directions(wanted: torch.Tensor, size: int) -> torch.Tensor:
    """Q (r_w, size) with orthonormal columns, float32: the leading left singular vectors of U^T G V_s (r_w, m_g), the
    gradient of the loss in the panel's output directions and the skill's input directions: of what R could do at first,
    the most (as LoRA-GA, arXiv 2407.05000, for LoRA)."""
    return torch.linalg.svd(wanted.double(), full_matrices=True).U[:, :size].float()


def is_covariance(sketch: torch.Tensor) -> bool:
    """Whether a matrix (r, r) is finite, symmetric to rounding, and has no negative entry on its diagonal."""
    if not torch.isfinite(sketch).all() or (sketch.diagonal() < 0).any():
        return False
    return torch.allclose(sketch, sketch.T, rtol=1e-4, atol=1e-6 * float(sketch.abs().max()))


def _symmetric(matrix: torch.Tensor) -> torch.Tensor:
    matrix = matrix.double()
    return (matrix + matrix.T) / 2


def _top(matrix: torch.Tensor, size: int) -> torch.Tensor:
    """Its eigenvectors of the largest eigenvalues, (r, size), the largest first."""
    return torch.linalg.eigh(matrix).eigenvectors.flip(1)[:, :size]
