"""The result of `growkit skill check`: skills, pairs and general text, as values. Knows numbers and names; ignorant of
how they were measured.
"""

from dataclasses import asdict, dataclass
from typing import Any

from growkit.skills.checking.rho import RED, Interference, together


@dataclass(frozen=True, kw_only=True)
class OwnLosses:
    """Nats per predicted token of a skill's own data: without skills, with it alone, and with all."""

    base: float
    alone: float
    plugged: float

    @property
    def kept(self) -> float | None:
        """Which share of what the skill gained is left with all plugged; None where it gained nothing."""
        gained = self.base - self.alone
        return (self.base - self.plugged) / gained if gained > 0 else None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "kept": self.kept}


@dataclass(frozen=True, kw_only=True)
class GeneralLosses:
    """Nats per predicted token of general text, without skills and with all; alone: by skill. kl: of KL(base || with
    all)."""

    base: float
    plugged: float
    kl: float
    alone: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class CheckedOne:
    """A skill of the table. kind: skill or lora. sha256: of its weights. lost: the sum of the others' mean rho squared,
    about the share of what it learned that they undo together. losses: None where there was no data."""

    name: str
    folder: str
    kind: str
    sha256: str
    strength: float
    lost: float
    losses: OwnLosses | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**vars(self), "losses": None if self.losses is None else self.losses.to_json()}


@dataclass(frozen=True, kw_only=True)
class RepairedLora:
    """A LoRA that reads no more what the others' data are made of. lost: which share of E|dW x|^2 on its own data went
    with that. directions: how many of its inputs it lost, on average over weights. rho: on each other's data, mean over
    weights before and after."""

    skill: str
    folder: str
    lost: float
    directions: float
    rho: dict[str, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class SkillCheck:
    """What was measured. pairs: every skill on every other's data. general: None without such text."""

    panel: str
    skills: tuple[CheckedOne, ...]
    pairs: tuple[Interference, ...]
    general: GeneralLosses | None = None
    repaired: RepairedLora | None = None
    notes: tuple[str, ...] = ()

    def pair(self, source: str, target: str) -> Interference:
        """What one skill does on another's data."""
        return next(pair for pair in self.pairs if (pair.source, pair.target) == (source, target))

    @property
    def red(self) -> tuple[Interference, ...]:
        """The pairs that should not be plugged together."""
        return tuple(pair for pair in self.pairs if pair.band == RED)

    @property
    def together(self) -> list[tuple[str, str]]:
        """Pairs of names that are green both ways."""
        return together(list(self.pairs))

    def to_json(self) -> dict[str, Any]:
        """All figures as plain data."""
        return {
            "panel": self.panel,
            "skills": [skill.to_json() for skill in self.skills],
            "pairs": [pair.to_json() for pair in self.pairs],
            "together": [list(pair) for pair in self.together],
            "red": [[pair.source, pair.target] for pair in self.red],
            "general": None if self.general is None else asdict(self.general),
            "repaired": None if self.repaired is None else asdict(self.repaired),
            "notes": list(self.notes),
        }
