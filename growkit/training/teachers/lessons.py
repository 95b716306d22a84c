"""A run's teachers, for as long as they have something to say. Knows when each is let go; ignorant of what they say and
of steps.
"""

from collections.abc import Mapping
from typing import Any

from growkit.data.batches import BatchSource
from growkit.training.settings import EVERYTHING, Settings
from growkit.training.teachers.domain_teachers import Together
from growkit.training.teachers.inheriting import OVERTAKEN
from growkit.training.teachers.teacher import Speaker, Teacher
from growkit.training.teachers.teaching import Teaching, measured_weight

MARGIN = 1e-3  # nats that rounding alone may put between a model and the one it was grown from exactly


class Lessons:
    """What teachers count at each step, and what is known of their losses. teachers: by the domain that each speaks
    for, EVERYTHING of the only one; one that has nothing more to say is let go, so that its memory is free."""

    def __init__(self, settings: Settings, teachers: Mapping[str, Teacher]):
        self._teachers = dict(teachers)
        self._steps, self._schedule = settings.teacher_steps, settings.teacher_schedule
        self._weight = settings.teacher_weight  # None until both losses are known
        self._watched = settings.teacher_until == OVERTAKEN
        self._theirs: dict[str, float] = {}  # each one's own validation loss, which stays what it is
        self._overtaken: dict[str, bool] = {name: False for name in teachers}

    @property
    def teacher(self) -> Speaker | None:
        """Whoever still teaches, as one; None: nobody."""
        several = [teacher for name, teacher in self._teachers.items() if name]
        return Together(several) if several else self._teachers.get(EVERYTHING)

    @property
    def watched(self) -> bool:
        """Whether validation may end them."""
        return bool(self._teachers) and self._watched

    def alpha(self, step: int) -> float:
        """The teachers' weight at a step, counted from 0; from the first 0 on they are let go."""
        alpha = Teaching(self._steps, self._schedule, self._weight or 0.0).alpha(step) if self._teachers else 0.0
        if alpha == 0.0:
            self._teachers.clear()
        return alpha

    def compare(self, step: int, loss: float, domains: Mapping[str, float], val: BatchSource) -> list[str]:
        """Let each teacher go where the model's validation loss on what it speaks for is below its own; what to say
        then. domains: the model's loss on each; a teacher of one that validation lacks stays. All processes call this
        together."""
        notes: list[str] = []
        losses = {**domains, EVERYTHING: loss}
        for name, teacher in list(self._teachers.items()) if self._watched else ():
            if name not in losses:
                continue
            if name not in self._theirs:
                self._theirs[name] = teacher.validation_loss(val)
            if losses[name] < self._theirs[name] - MARGIN:
                self._let_go(name)
                where = f" on {name}" if name else ""
                what = f"the model's validation loss{where} {losses[name]:.4f} passes its teacher's, {self._theirs[name]:.4f}"
                alone = f"goes on alone{where}" if step else f"learns alone{where}"
                notes.append(
                    f"at step {step} {what}; it {alone}" if step else f"{what}, before the first step; it {alone}"
                )
        if self._weight is None and EVERYTHING in self._teachers:
            theirs = self._theirs[EVERYTHING]
            self._weight = measured_weight(loss, theirs)
            both = f"the model's validation loss is {loss:.4f}, its own {theirs:.4f}"
            weak = "" if self._weight else "; it is too weak to teach, unless --teacher-weight says how much it counts"
            notes.append(f"the teacher's weight begins at {self._weight:.3f}: {both}{weak}")
        return notes

    def state(self) -> dict[str, Any]:
        """What a checkpoint says of them."""
        return {
            "weight": self._weight,
            "teachers": {
                name: {"overtaken": overtaken, "loss": self._theirs.get(name)}
                for name, overtaken in self._overtaken.items()
            },
        }

    def take_up(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint says."""
        self._weight = state["weight"]
        for name, said in state["teachers"].items():
            if said["loss"] is not None:
                self._theirs[name] = said["loss"]
            if said["overtaken"]:
                self._let_go(name)

    def _let_go(self, name: str) -> None:
        self._overtaken[name] = True
        self._teachers.pop(name, None)
