"""Who learns in a run: which parameters at all, and which in a step. Knows a stock model's parts; ignorant of losses
and of what is saved.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from growkit.models.live_layers import layers_of
from growkit.training.prefix import submodel
from growkit.training.step import PlannedStep

FirstValues = Callable[[Any, int], None]


class Learners(Protocol):
    """A run's choice. What does not learn gets no gradient, no optimizer state and no place in checkpoints."""

    def choose(self, model: Any) -> FirstValues | None:
        """Before the model has weights: parameters that never learn get requires_grad False; parts may be added, and
        then what gives these their first values is returned: called with the model, which has its weights, and a
        seed."""

    def in_step(self, model: Any, plan: PlannedStep) -> AbstractContextManager[None]:
        """Within it, forward and backward of a step run over `plan.depth` first layers, of which `plan.trained` top
        ones learn."""


class Course(Protocol):
    """What a run lets itself be told by its validations. Whatever this remembers lies in the model, in buffers, and so
    in checkpoints."""

    def asks(self, step: int) -> bool:
        """Whether it wants a validation after so many steps, beyond the usual ones."""

    def heard(self, model: Any, step: int, loss: float) -> Iterable[str]:
        """After a validation, on all processes together; returns notes for people."""

    def is_over(self, model: Any) -> bool:
        """Whether the run ends here, before its last step."""


class WholeCourse:
    """All steps, whatever validation says."""

    def asks(self, step: int) -> bool:
        """Never."""
        return False

    def heard(self, model: Any, step: int, loss: float) -> Iterable[str]:
        """Nothing follows."""
        return ()

    def is_over(self, model: Any) -> bool:
        """Never."""
        return False


def learning_layers(model: Any, depth: int, trained: int) -> int:
    """How many of the top `trained` of `depth` first layers have a parameter that learns. depth may be more than the
    model has, whose layers then repeat: a model that is going to be stacked."""
    layers = layers_of(model)
    learn = [any(parameter.requires_grad for parameter in layer.parameters()) for layer in layers]
    return sum(learn[number % len(layers)] for number in range(depth - trained, depth))


class AllLearn:
    """Every parameter, in each step those of the layers that its stage says."""

    def choose(self, model: Any) -> None:
        """None is left out."""

    def in_step(self, model: Any, plan: PlannedStep) -> AbstractContextManager[None]:
        """The prefix of the step, as submodel makes it."""
        return submodel(model, plan.depth, plan.trained)
