"""How much a teacher's word counts, and for how long. Knows the literature's schedules; ignorant of what teachers say.

The loss of a step is (1 - alpha) CE + alpha tau^2 KL(teacher || student) (growkit.training.objective).
"""

from collections.abc import Callable
from dataclasses import dataclass

FALL = 0.2  # share of its steps in which wsd falls, as of the learning rate's (growkit.training.optim)
# what remains of the first weight when so much of the teacher's steps is done, 0 to below 1
ALPHAS: dict[str, Callable[[float], float]] = {
    "linear": lambda done: 1.0 - done,  # Qin et al., arXiv 2105.13880: the best of its three
    "constant": lambda done: 1.0,  # its 1:1, which is why it begins at a half
    "heaviside": lambda done: 1.0,
    # stays for four fifths, then falls linearly: warm-up-stable-decay (Hu et al., arXiv 2404.06395, section 4), which
    # Peng et al. found to do well as the weight of a teacher in pretraining (arXiv 2410.16215), without its warm-up
    "wsd": lambda done: 1.0 if done < 1.0 - FALL else (1.0 - done) / FALL,
}
HALF = 0.5
# of the model's validation loss that a teacher takes away: with less it costs more than it gives, with more it counts
# whole (measured: docs/benchmarks.md)
WEAK, STRONG = 0.25, 0.5


@dataclass(frozen=True)
class Teaching:
    """How a teacher's word counts. steps: for how many steps it teaches. schedule: a row of ALPHAS. weight: alpha at
    the first step."""

    steps: int
    schedule: str = "linear"
    weight: float = 1.0

    def alpha(self, step: int) -> float:
        """The teacher's weight at a step, counted from 0; 0 when its steps are over."""
        return 0.0 if step >= self.steps else self.weight * ALPHAS[self.schedule](step / self.steps)


def measured_weight(loss: float, theirs: float) -> float:
    """alpha at the first step for a model of this validation loss and a teacher of that: 0 where the teacher takes away
    less than WEAK of it, 1 from STRONG on, in between in proportion.

    While it counts alpha, a model learns that much less of the text, and a weak teacher gives little for it: at 1 it
    costs more than it gives long before it is overtaken.
    """
    share = 1.0 - theirs / loss if loss > 0.0 else 0.0
    return min(1.0, max(0.0, (share - WEAK) / (STRONG - WEAK)))


def first_weight(schedule: str, exactly_grown: bool, measured: bool) -> tuple[float | None, str]:
    """(alpha at the first step where nobody says otherwise, None for `measured_weight`; why). measured: whether both
    losses will be known by then.

    A model that was grown exactly from its teacher says what it says: the KL and its gradient are zero, so that with
    alpha = 1 the first steps would learn nothing.
    """
    if exactly_grown:
        return (
            HALF,
            "the model was grown exactly from this teacher: at 1 it would learn nothing of what it knows already",
        )
    if schedule == "constant":
        return HALF, "constant is half the text, half the teacher"
    if measured:
        return None, "measured before the first step"
    return 1.0, "neither exact growth nor validation says otherwise"
