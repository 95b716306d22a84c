"""Skills on a live model that are switched on and off: the model computes as it would with any of them plugged in.
Knows live linear layers; ignorant of what is measured.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from growkit.skills.checking.checked_skills import CheckedSkill
from growkit.skills.panel_layers import panel_layers

Factors = tuple[str, torch.Tensor, torch.Tensor]  # a skill's name, V (in, m), G^T (m, out)


class SwitchedSkills:
    """The skills on a model, each off until `only` names it. close takes them off again."""

    def __init__(self, model: Any, skills: Sequence[CheckedSkill]):
        self._on: frozenset[str] = frozenset()
        self._hooks = []
        weights = {weight: None for skill in skills for weight in skill.weights}
        for layer in panel_layers(model, [*weights]):
            module = model.get_submodule(layer.module)
            own: list[Factors] = []
            for skill in (skill for skill in skills if layer.weight in skill.weights):
                output, reads = (side.to(module.weight) for side in skill.factors(layer.weight))
                own.append((skill.name, reads, output.T.contiguous()))
            self._hooks.append(module.register_forward_hook(self._adding(own)))

    def _adding(self, own: Sequence[Factors]) -> Any:
        def hook(_: Any, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            for name, reads, puts in own:
                if name in self._on:
                    output = output + (given[0] @ reads) @ puts
            return output

        return hook

    @contextmanager
    def only(self, names: Collection[str]) -> Iterator[None]:
        """Within the block these are on and no others."""
        before, self._on = self._on, frozenset(names)
        try:
            yield
        finally:
            self._on = before

    def close(self) -> None:
        """The model is as it was."""
        for hook in self._hooks:
            hook.remove()
