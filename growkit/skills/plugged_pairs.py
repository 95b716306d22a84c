"""Which skills may be plugged together: what each does to each other one's own data, and what is refused. Knows rho and
its bands; ignorant of how skills are plugged.

For a weight, with G the outputs of the input directions V P and K_t = V^T C_t V the sketch of t's data,

    rho(s -> t) = |G_s P_s^T K_t^(1/2)|_F / |G_t P_t^T K_t^(1/2)|_F

is how large what s puts out for t's data is beside what t itself does. It is exact, for all directions lie in V; so
skills compare on one panel alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean

import torch

from growkit.errors import RequestError
from growkit.skills.skill_file import StoredSkill

FINE, RED = 0.1, 0.3  # bands of rho to start from: below both nothing is lost, above them it shows


@dataclass(frozen=True)
class Disturbed:
    """What one skill does to another one's own data, both by their folders: the mean of rho over weights. None: nobody
    knows, since they are of different panels."""

    one: str
    other: str
    rho: float | None

    @property
    def red(self) -> bool:
        """Whether the two should not be plugged as they are."""
        return self.rho is None or self.rho > RED

    def in_words(self) -> str:
        """What is to be said of it, where rho is not fine; "" where it is."""
        if self.rho is None:
            return (
                f"{self.one!r} and {self.other!r} were learned on different panels, so that what they do to each other is"
                " not known"
            )
        said = f"{self.one!r} puts out {self.rho:.2f} of what {self.other!r} does for the data of that (rho)"
        return "" if self.rho <= FINE else f"{said}, which is more than {RED if self.red else FINE:g}"


def disturbed_pairs(skills: Sequence[tuple[StoredSkill, float]]) -> list[Disturbed]:
    """Of every pair, and both ways. skills: with their strengths."""
    return [pair for two in combinations(skills, 2) for pair in _both_ways(*two)]


def check_disturbed(pairs: Sequence[Disturbed], force: bool) -> list[str]:
    """Notes on pairs that are not fine. Raises RequestError for red ones, unless forced."""
    for pair in pairs if not force else ():
        if pair.red:
            cure = (
                "learn both on one panel"
                if pair.rho is None
                else "gate them (--gated), learn one anew with --protect of the other, or lower a strength"
            )
            raise RequestError(f"{pair.in_words()}; {cure}, or plug them as they are with --force")
    return [said for said in (pair.in_words() for pair in pairs) if said]


def _both_ways(one: tuple[StoredSkill, float], other: tuple[StoredSkill, float]) -> Iterator[Disturbed]:
    first, second = (str(skill.folder) for skill, _ in (one, other))
    if one[0].facts.panel != other[0].facts.panel:
        yield Disturbed(first, second, None)
        return
    yield Disturbed(first, second, mean_rho(one[0], other[0], (one[1], other[1])))
    yield Disturbed(second, first, mean_rho(other[0], one[0], (other[1], one[1])))


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
