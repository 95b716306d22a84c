"""A run's teacher, for as long as it has something to say. Knows when it is let go; ignorant of what it says and of
steps.
"""

from typing import Any

from growkit.data.batches import BatchSource
from growkit.training.inheriting import OVERTAKEN
from growkit.training.settings import Settings
from growkit.training.teacher import Teacher
from growkit.training.teaching import Teaching

MARGIN = 1e-3  # nats that rounding alone may put between a model and the one it was grown from exactly


class Lessons:
    """What a teacher counts at each step, and what is known of both losses. teacher: None as soon as it has nothing
    more to say, so that its memory is free."""

    def __init__(self, settings: Settings, teacher: Teacher | None):
        self.teacher = teacher
        self._teaching = Teaching(settings.teacher_steps, settings.teacher_schedule, settings.teacher_weight or 0.0)
        self._watched = settings.teacher_until == OVERTAKEN
        self._theirs: float | None = None  # the teacher's own validation loss, which stays what it is
        self._overtaken = False

    @property
    def watched(self) -> bool:
        """Whether validation may end them."""
        return self.teacher is not None and self._watched

    def alpha(self, step: int) -> float:
        """The teacher's weight at a step, counted from 0; from the first 0 on it is let go."""
        alpha = self._teaching.alpha(step) if self.teacher is not None else 0.0
        if alpha == 0.0:
            self.teacher = None
        return alpha

    def compare(self, step: int, loss: float, val: BatchSource) -> str | None:
        """Let the teacher go where the model's validation loss is below its own; what to say then, else None. All
        processes call this together."""
        if self.teacher is None or not self._watched:
            return None
        if self._theirs is None:
            self._theirs = self.teacher.validation_loss(val)
        if loss >= self._theirs - MARGIN:
            return None
        self._overtaken, self.teacher = True, None
        what = f"the model's validation loss {loss:.4f} passes its teacher's, {self._theirs:.4f}"
        return f"at step {step} {what}; it goes on alone" if step else f"{what}, before the first step; it learns alone"

    def state(self) -> dict[str, Any]:
        """What a checkpoint says of them."""
        return {"overtaken": self._overtaken, "teacher_loss": self._theirs}

    def take_up(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint says."""
        self._overtaken, self._theirs = state["overtaken"], state["teacher_loss"]
        if self._overtaken:
            self.teacher = None
