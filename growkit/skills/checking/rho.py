"""How much one skill does where another works: rho, weight by weight, and what follows from it. Knows matrices and
numbers; ignorant of files and of models.

A skill s changes a weight by dW_s = G_s V_s^T. Over inputs of second moment C_t, those of another skill's data,

    E_t |dW_s x|^2 = tr(G_s M G_s^T)    M = V_s^T C_t V_s, which is P_s^T K_t P_s where V_s = V P_s and K_t = V^T C_t V
    rho(s -> t)    = sqrt(E_t |dW_s x|^2 / E_t |dW_t x|^2)

is what s puts out on the data of t over what t itself does. The same through the whole network: with p the model with t
alone and q that with s and t, sqrt(KL(p || q) / KL(p || base)); both divergences are quadratic in small changes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

GREEN, AMBER, RED = "green", "amber", "red"
FINE, TOO_MUCH = 0.1, 0.3  # up to the first green, above the second red
Energies = dict[str, float]  # E|dW x|^2 by weight


def output_energy(output: torch.Tensor, moment: torch.Tensor) -> float:
    """E |G z|^2 = tr(G M G^T), at least 0. output: G (out, m). moment: M (m, m) = E[z z^T] of z = V^T x."""
    output, moment = output.double(), moment.double()
    return max(0.0, float((output @ moment * output).sum()))


@dataclass(frozen=True, kw_only=True)
class Interference:
    """What a skill, the source, does on the data of another, the target.

    rho: by weight, of those that the target changes on its data. beside: how many weights the source changes there and
    the target does not. kl: mean over predicted tokens of KL(with target || with both), nats; own_kl: of KL(with target
    || base). None where they were not measured.
    """

    source: str
    target: str
    rho: Mapping[str, float] = field(repr=False)
    beside: int = 0
    kl: float | None = None
    own_kl: float | None = None

    @property
    def mean(self) -> float | None:
        """Of rho over weights; None where the target changes none."""
        return sum(self.rho.values()) / len(self.rho) if self.rho else None

    @property
    def largest(self) -> float | None:
        """Of rho over weights; None where the target changes none."""
        return max(self.rho.values(), default=None)

    @property
    def network(self) -> float | None:
        """sqrt(kl / own_kl); None where that was not measured or the target does nothing."""
        return None if self.kl is None or not self.own_kl else (self.kl / self.own_kl) ** 0.5

    @property
    def band(self) -> str:
        """Green, amber or red, by the larger of the mean rho and the network's. Where the two change different weights,
        of which rho says nothing, it is amber at best until the network is measured."""
        known = [value for value in (self.mean, self.network) if value is not None]
        least = AMBER if self.network is None and self.beside else GREEN
        return max(least, *map(band_of, known), key=_ORDER.index) if known else least

    def worst(self, count: int) -> list[tuple[str, float]]:
        """The weights of the largest rho, the largest first."""
        return sorted(self.rho.items(), key=lambda one: (-one[1], one[0]))[:count]

    def to_json(self) -> dict[str, Any]:
        """All numbers as plain data."""
        return {
            "from": self.source, "to": self.target, "band": self.band, "mean": self.mean, "max": self.largest,
            "kl": self.kl, "own_kl": self.own_kl, "network": self.network, "beside": self.beside, "rho": dict(self.rho),
        }  # fmt: skip


_ORDER = (GREEN, AMBER, RED)


def band_of(value: float) -> str:
    """The colour of one number: rho, or the network's share. Where these come from: docs/skills.md."""
    return GREEN if value <= FINE else AMBER if value <= TOO_MUCH else RED


def interference_of(source: str, target: str, of_source: Energies, of_target: Energies) -> Interference:
    """rho(source -> target) from what either puts out on the target's data, by weight."""
    rho = {w: (of_source.get(w, 0.0) / own) ** 0.5 for w, own in of_target.items() if own > 0}
    beside = sum(energy > 0 and weight not in rho for weight, energy in of_source.items())
    return Interference(source=source, target=target, rho=rho, beside=beside)


def together(pairs: list[Interference]) -> list[tuple[str, str]]:
    """Which two skills may be open at once, each green on the other's data: what a gated bundle lets open together."""
    green = {(pair.source, pair.target) for pair in pairs if pair.band == GREEN}
    return sorted((one, other) for one, other in green if one < other and (other, one) in green)
