"""What a skill does to another one's own data, by arithmetic on stored sketches alone: rho, and its bands. Knows the
tensors of two skills; ignorant of models and of what is decided by it.

For a weight, with G the outputs of the input directions V P and K_t = V^T C_t V the sketch of t's data,

    rho(s -> t) = |G_s P_s^T K_t^(1/2)|_F / |G_t P_t^T K_t^(1/2)|_F

is how large what s puts out for t's data is beside what t itself does. It is exact, for all directions lie in V; so
skills compare on one panel alone.
"""

from collections.abc import Sequence
from statistics import mean

import torch

from growkit.skills.skill_file import StoredSkill

FINE, RED = 0.1, 0.3  # bands of rho to start from: below both nothing is lost, above them it shows


def reach(output: torch.Tensor, coordinates: torch.Tensor, sketch: torch.Tensor) -> float:
    """|G P^T K^(1/2)|_F, the root of E|dW x|^2. output: G (out, m). coordinates: P (r, m). sketch: K (r, r)."""
    output, coordinates = output.double(), coordinates.double()
    seen = coordinates.T @ sketch.double() @ coordinates
    return float(((output @ seen) * output).sum().clamp_min(0).sqrt())


def pair_rho(one: StoredSkill, other: StoredSkill, strengths: Sequence[float] = (1.0, 1.0)) -> dict[str, float]:
    """rho(one -> other) by weight, of those on which `other` does anything. Both are of one panel. strengths: of
    both."""
    assert one.facts.panel == other.facts.panel, "sketches compare on one panel alone"
    rho = {}
    for weight, group in other.facts.weights.items():
        sketch = other.tensor(f"{group}.K")
        own = abs(strengths[1]) * reach(other.output(weight), other.tensor(f"{group}.P"), sketch)
        if own > 0:
            strange = 0.0
            if weight in one.facts.weights:
                strange = abs(strengths[0]) * reach(one.output(weight), one.tensor(f"{group}.P"), sketch)
            rho[weight] = strange / own
    return rho


def mean_rho(one: StoredSkill, other: StoredSkill, strengths: Sequence[float] = (1.0, 1.0)) -> float:
    """The mean of rho(one -> other) over weights; 0 where `other` does nothing."""
    rho = pair_rho(one, other, strengths)
    return mean(rho.values()) if rho else 0.0
