"""Learners that are a part of a stock model: some of its layers, or what of a mixture is expert, router or neither.
Knows where parts are; ignorant of who asks for which.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from growkit.models.live_layers import layers_of, sparse_parts
from growkit.training.prefix import submodel
from growkit.training.step import PlannedStep

EXPERTS, ROUTER, DENSE = MIXTURE_PARTS = ("experts", "router", "dense-part")


class _PartLearns:
    """What both kinds share: a step runs over what its stage says."""

    def in_step(self, model: Any, plan: PlannedStep) -> AbstractContextManager[None]:
        """The prefix of the step, as submodel makes it; below the lowest part that learns there is no graph anyway."""
        return submodel(model, plan.depth, plan.trained)


@dataclass(frozen=True)
class LayersLearn(_PartLearns):
    """Some layers, counted from 0, and nothing else: no embedding, no norm behind the last layer, no head."""

    numbers: Sequence[int]

    def choose(self, model: Any) -> None:
        """All but these layers is frozen."""
        model.requires_grad_(False)
        layers = layers_of(model)
        for number in self.numbers:
            layers[number].requires_grad_(True)


@dataclass(frozen=True)
class MixturePartLearns(_PartLearns):
    """One of the three parts of a mixture of experts, which have no parameter in common and together are all of it.

    experts: the experts that routers choose among. router: the routers. dense-part: the rest, which every token passes:
    attention, norms, embedding, head, layers without experts, and an expert that all tokens share.
    """

    part: str  # one of MIXTURE_PARTS

    def choose(self, model: Any) -> None:
        """All but this part is frozen."""
        model.requires_grad_(self.part == DENSE)
        for part, experts in ((EXPERTS, True), (ROUTER, False)):
            for _, module in sparse_parts(model, experts):
                module.requires_grad_(self.part == part)
