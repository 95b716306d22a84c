"""What kinds of texts look like to the base: the mean of their hidden states and the spread about it. Knows vectors;
ignorant of models, of files and of other skills.
"""

from dataclasses import dataclass

import torch

from growkit.errors import RequestError

MOST_TEXTS = 512  # of a skill; more would hardly move its mean
LEAST_TEXTS = 4
HELD_OUT = 4  # one of so many own texts is kept to see how far from the mean own texts lie


@dataclass(frozen=True, kw_only=True)
class OwnTexts:
    """A skill's own texts as a gate sees them. layer: whose states, counted from 1.

    mean: (hidden,). spread: (k, hidden), k the lesser of texts and hidden: spread^T spread is the covariance of the
    texts. held: (m, hidden), states of texts that took no part in these two. lengths: (n,) int64, how many tokens each
    text has. All float32 but lengths.
    """

    layer: int
    mean: torch.Tensor
    spread: torch.Tensor
    held: torch.Tensor
    lengths: torch.Tensor

    @property
    def texts(self) -> int:
        """How many own texts there were."""
        return len(self.lengths)

    @property
    def freedom(self) -> int:
        """How many texts the spread is of, less one for the mean."""
        return max(1, self.texts - len(self.held) - 1)


def own_texts(states: torch.Tensor, lengths: list[int], layer: int) -> OwnTexts:
    """What pooled_states says of a skill's own texts, made into mean and spread.

    states: (texts, hidden) in the order of the data; every HELD_OUT-th is held out. Raises RequestError for fewer than
    LEAST_TEXTS.
    """
    if len(states) < LEAST_TEXTS:
        raise RequestError(f"a gate needs {LEAST_TEXTS} of a skill's own texts or more, and there are {len(states)}")
    held = torch.arange(len(states)) % HELD_OUT == HELD_OUT - 1
    mean, spread = mean_and_spread(states[~held])
    return OwnTexts(
        layer=layer,
        mean=mean,
        spread=spread,
        held=states[held].float(),
        lengths=torch.tensor(lengths, dtype=torch.int64),
    )


def mean_and_spread(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(mean (hidden,), spread (k, hidden)), float32, of states (texts, hidden)."""
    mean = states.double().mean(0)
    spread = torch.linalg.qr(states.double() - mean, mode="r").R / max(1, len(states) - 1) ** 0.5
    return mean.float(), spread.float()
