"""What a skill's own texts look like to the base: centroids of their hidden states and the spread about them. Knows
vectors; ignorant of models, of files and of other skills.
"""

from dataclasses import dataclass

import torch

from growkit.errors import RequestError
from growkit.operators.seeds import generator

MOST_TEXTS = 512  # of a skill; more would hardly move its centroids
LEAST_TEXTS = 4
EACH_CENTROID = 64  # texts that a further centroid takes
MOST_CENTROIDS = 8
HELD_OUT = 4  # one of so many own texts is kept to see whether the gate opens for it
ROUNDS = 25


@dataclass(frozen=True, kw_only=True)
class OwnTexts:
    """A skill's own texts as a gate sees them. layer: whose states, counted from 1; pooling: mean or last.

    centroids: (c, hidden). spread: (k, hidden), k the lesser of texts and hidden: spread^T spread is the covariance of
    the texts about their centroids. held: (m, hidden), states of texts that took no part in these two. lengths: (n,)
    int64, how many tokens each text has. All float32 but lengths.
    """

    layer: int
    pooling: str
    centroids: torch.Tensor
    spread: torch.Tensor
    held: torch.Tensor
    lengths: torch.Tensor

    @property
    def texts(self) -> int:
        """How many own texts there were."""
        return len(self.lengths)


def own_texts(states: torch.Tensor, lengths: list[int], layer: int, pooling: str, seed: int = 0) -> OwnTexts:
    """What pooled_states says of a skill's own texts, made into centroids and spread.

    states: (texts, hidden) in the order of the data; every HELD_OUT-th is held out. Raises RequestError for fewer than
    LEAST_TEXTS.
    """
    if len(states) < LEAST_TEXTS:
        raise RequestError(f"a gate needs {LEAST_TEXTS} of a skill's own texts or more, and there are {len(states)}")
    held = torch.arange(len(states)) % HELD_OUT == HELD_OUT - 1
    seen = states[~held].double()
    count = min(MOST_CENTROIDS, 1 + (len(seen) - 1) // EACH_CENTROID)
    nearest = clusters(seen, count, seed)
    kept = nearest.unique()  # a cluster may have lost all of its texts
    centroids = torch.stack([seen[nearest == number].mean(0) for number in kept])
    rest = seen - centroids[torch.searchsorted(kept, nearest)]
    spread = torch.linalg.qr(rest, mode="r").R / max(1, len(seen) - len(centroids)) ** 0.5
    return OwnTexts(
        layer=layer,
        pooling=pooling,
        centroids=centroids.float(),
        spread=spread.float(),
        held=states[held].float(),
        lengths=torch.tensor(lengths, dtype=torch.int64),
    )


def clusters(states: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """(texts,) which of `count` clusters each of (texts, hidden) is in, by k-means on entries of deviation 1."""
    scaled = (states - states.mean(0)) / states.std(0).clamp(min=1e-12)
    draws = generator(seed, "centroids")
    centres = scaled[torch.randint(len(scaled), (1,), generator=draws)]
    while len(centres) < count:  # each next one where none is yet (k-means++)
        distance = torch.cdist(scaled, centres).min(1).values.square() + 1e-12
        centres = torch.cat([centres, scaled[torch.multinomial(distance, 1, generator=draws)]])
    for _ in range(ROUNDS):
        nearest = torch.cdist(scaled, centres).argmin(1)
        total = torch.zeros_like(centres).index_add_(0, nearest, scaled)
        sizes = torch.bincount(nearest, minlength=len(centres))[:, None]
        centres = torch.where(sizes > 0, total / sizes.clamp(min=1), centres)
    return torch.cdist(scaled, centres).argmin(1)
