"""A skill turned like a dial: the losses of its base with it at strengths from -0.5 to 1.5, on several datasets. Knows
one skill on a live model; ignorant of how losses are measured and of terminals.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import linear

from growkit.checkpoint.made_for import check_same_weights
from growkit.checkpoint.source import Checkpoint
from growkit.errors import RequestError
from growkit.models.evaluate import measuring
from growkit.models.small.targets import put_around
from growkit.skills.panel_layers import panel_layers
from growkit.skills.picture_file import check_picture, figure_for, save_picture
from growkit.skills.skill_file import SKILL, StoredSkill, read_skill

LOWEST, HIGHEST = -0.5, 1.5


class SkillOnLayer(torch.nn.Module):
    """A linear layer with a skill on it: W + strength G V^T; of strength 0 the layer itself. left: G (out, m). right:
    V^T (m, in)."""

    def __init__(self, base_layer: Any, left: torch.Tensor, right: torch.Tensor):
        super().__init__()
        self.base_layer, self.strength = base_layer, 0.0
        self.left: torch.Tensor
        self.right: torch.Tensor
        self.register_buffer("left", left)
        self.register_buffer("right", right)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        output: torch.Tensor = self.base_layer(inputs)
        return output + self.strength * linear(linear(inputs, self.right), self.left) if self.strength else output


@dataclass
class DialedSkill:
    """A skill on its base, whose strength may be set. Goes on a model as any adapter."""

    skill: StoredSkill
    packs: bool = True
    _layers: list[SkillOnLayer] = field(default_factory=list)

    def check(self, source: Checkpoint) -> None:
        """Refuse another base. Raises RequestError with both hashes."""
        facts = self.skill.facts
        check_same_weights(self.skill.folder, facts.base["name"], facts.base["files"], source, SKILL)

    def put_on(self, model: Any) -> Any:
        """The model with it, at strength 0. Raises RequestError where it is on no layer of the model."""
        for layer in panel_layers(model, self.skill.facts.weights):
            left, right = self.skill.output(layer.weight), self.skill.input(layer.weight).T.contiguous()
            self._layers.append(SkillOnLayer(model.get_submodule(layer.module), left, right))
            put_around(model, layer.module, self._layers[-1])
        self.skill.close()
        return model

    def turn(self, strength: float) -> None:
        """Set the strength on every model that it is on."""
        for layer in self._layers:
            layer.strength = strength

    def reading(self, model: Any, ids: torch.Tensor, asked: torch.Tensor | None) -> AbstractContextManager[None]:
        """Nothing depends on what is read."""
        return nullcontext()

    def opened(self, model: Any) -> list[tuple[str, ...]] | None:
        """It has no gate."""
        return None

    def notes(self) -> Iterator[str]:
        """None of its own."""
        return iter(())


@dataclass(frozen=True, kw_only=True)
class Dialed:
    """What was measured. losses: by domain, nats per predicted token at each of the strengths."""

    skill: str
    strengths: tuple[float, ...]
    losses: Mapping[str, tuple[float, ...]]
    picture: Path | None = None

    def best(self, domain: str) -> float:
        """The strength of the least loss."""
        return min(zip(self.losses[domain], self.strengths))[1]

    def to_json(self) -> dict[str, Any]:
        """The figures as plain data."""
        return {
            "skill": self.skill, "strengths": list(self.strengths),
            "losses": {domain: list(each) for domain, each in self.losses.items()},
            "best": {domain: self.best(domain) for domain in self.losses},
            "picture": None if self.picture is None else str(self.picture),
        }  # fmt: skip


def dial(
    base: str | Path,
    skill: str | Path,
    data: Mapping[str, str | Path],
    *,
    points: int,
    picture: str | Path | None,
    begin: Callable[[int], Callable[[int], None]] = lambda _total: lambda _done: None,
    **how: Any,
) -> Dialed:
    """Measure a skill at so many strengths, 0 and 1 besides, on data by domain; a tagged dataset is as many domains as
    it has. how: as of `measuring`. begin: called with the number of measurements. Raises as `measuring` does."""
    if not data:
        raise RequestError("--data names what is measured, such as --data sums=DATA; it may be given again")
    if picture is not None:
        check_picture(Path(picture))
    even = [LOWEST + (HIGHEST - LOWEST) * number / (points - 1) for number in range(points)]
    strengths = sorted({*even, 0.0, 1.0})
    advance = begin(len(data) * len(strengths))
    losses: dict[str, list[float]] = {}
    for name, place in data.items():
        dialed = DialedSkill(read_skill(skill))
        measure = measuring(base, place, adapter=dialed, **how)
        for strength in strengths:
            dialed.turn(strength)
            seen = measure(lambda _total: lambda _done: None)
            own = {name: seen.loss} if seen.domains is None else {f"{name}/{k}": v for k, v in seen.domains.items()}
            for domain, loss in own.items():
                losses.setdefault(domain, []).append(loss)
            advance(1)
    result = Dialed(
        skill=str(skill),
        strengths=tuple(strengths),
        losses={domain: tuple(each) for domain, each in losses.items()},
        picture=None if picture is None else Path(picture),
    )
    if result.picture is not None:
        _draw(result, result.picture)
    return result


def _draw(result: Dialed, path: Path) -> None:
    """Losses against strength, a line for each domain; 0 and 1 are marked."""
    figure = figure_for(path, (8, 5))
    axes = figure.subplots()
    for domain, losses in result.losses.items():
        axes.plot(result.strengths, losses, marker="o", markersize=3, label=domain.replace("$", r"\$"))
    for mark in (0.0, 1.0):
        axes.axvline(mark, color="gray", linestyle=":", linewidth=1.0)
    axes.set(xlabel="strength of the skill", ylabel="loss, nats per token")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    save_picture(figure, path)
