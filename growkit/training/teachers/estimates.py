"""What a summary of a teacher's rows teaches: estimates of KL(teacher || student) from few entries of each row. Knows
the student's log-probabilities at these entries; ignorant of files and models.

A row is known by p_i of its k largest entries (the head), by the mass P of all others (the tail), and by m of these
that were drawn with replacement. With q the student's probabilities, in nats:

    head+sampled  sum_head p log(p/q) + P mean_drawn log(p/q)            unbiased
    sampled       mean of log(p/q) over m entries drawn from all of p    unbiased, and noisier
    bucket        sum_head p log(p/q) + P log(P / (1 - sum_head q))      a lower bound; without noise
    top-k         sum_head p log(p/q)                                    no divergence: pushes mass out of the tail
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What is known of n rows. ids: (n, k + m) int64, the head and then what was drawn. head: (n, k) log p of the head.
    tail: (n,) log P. drawn: (n,) mean log p of what was drawn. lots: (n, m) numbers from 0 to below 1, drawn for each
    row once and for all, for `sampled` alone."""

    ids: torch.Tensor
    head: torch.Tensor
    tail: torch.Tensor
    drawn: torch.Tensor
    lots: torch.Tensor | None = None

    @property
    def k(self) -> int:
        """Entries in the head."""
        return self.head.shape[1]

    @property
    def m(self) -> int:
        """Entries drawn."""
        return self.ids.shape[1] - self.k

    def normalised(self) -> "Summary":
        """The same with probabilities that sum to 1, which half precision does not keep."""
        total = torch.cat([self.head, self.tail[:, None]], 1).logsumexp(1)
        return replace(self, head=self.head - total[:, None], tail=self.tail - total, drawn=self.drawn - total)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """An estimate as sums: constant - sum of weights x log q, less rest x log(1 - sum of q at ids) where there is one.

    ids: (n, j) int64. weights: (n, j). constant, rest: (n,).
    """

    ids: torch.Tensor
    weights: torch.Tensor
    constant: torch.Tensor
    rest: torch.Tensor | None = None

    def of(self, rows: slice | torch.Tensor) -> "Terms":
        """Those of some rows."""
        rest = None if self.rest is None else self.rest[rows]
        return Terms(ids=self.ids[rows], weights=self.weights[rows], constant=self.constant[rows], rest=rest)

    def nats(self, chances: torch.Tensor) -> torch.Tensor:
        """The estimate summed over rows, a scalar. chances: (n, j) the student's log-probabilities at ids."""
        total = self.constant.sum() - (self.weights * chances).sum()
        if self.rest is None:
            return total
        # 1 - sum has the rounding of sums near 1, which bounds what can be told of a student's tail
        tail = (1.0 - chances.exp().sum(1)).clamp(min=torch.finfo(chances.dtype).eps)
        return total - (self.rest * tail.log()).sum()


def top_k(row: Summary) -> Terms:
    """The head alone, as it is."""
    weights = row.head.exp()
    return Terms(ids=row.ids[:, : row.k], weights=weights, constant=_times_log(weights, row.head).sum(1))


def bucket(row: Summary) -> Terms:
    """The head, and the tail as one entry."""
    head, rest = top_k(row), row.tail.exp()
    return Terms(ids=head.ids, weights=head.weights, constant=head.constant + _times_log(rest, row.tail), rest=rest)


def head_and_sampled(row: Summary) -> Terms:
    """The head, and the tail's mass on what was drawn from it."""
    head, rest = top_k(row), row.tail.exp()
    weights = torch.cat([head.weights, (rest / max(1, row.m))[:, None].expand(-1, row.m)], 1)
    return Terms(ids=row.ids, weights=weights, constant=head.constant + _times_log(rest, row.drawn))


def sampled(row: Summary) -> Terms:
    """m entries drawn from the whole row: each is of the head or, by the tail's mass, one that was drawn from it."""
    assert row.lots is not None, "without lots nothing can be drawn"
    ends = row.head.double().exp().cumsum(1)
    chosen = torch.searchsorted(ends, row.lots.double() * (ends[:, -1:] + row.tail.double().exp()[:, None]), right=True)
    from_tail = chosen >= row.k
    chosen = torch.where(from_tail, row.k + torch.arange(row.m, device=chosen.device), chosen)
    log = torch.cat([row.head, row.drawn[:, None].expand(-1, row.m)], 1).gather(1, chosen)
    weight = torch.full_like(log, 1.0 / max(1, row.m))
    return Terms(ids=row.ids.gather(1, chosen), weights=weight, constant=_times_log(weight, log).sum(1))


ESTIMATES: dict[str, Callable[[Summary], Terms]] = {
    "head+sampled": head_and_sampled,
    "bucket": bucket,
    "sampled": sampled,
    "top-k": top_k,
}


@dataclass(frozen=True)
class ShortWord:
    """What a teacher says of which summaries are kept. vocabulary: its entries, the first of the student's.
    temperature: of both distributions."""

    terms: Terms
    vocabulary: int
    temperature: float
    rows: torch.Tensor | None = None

    def is_plain(self, logits: torch.Tensor) -> bool:
        """Whether it asks for the very log-probabilities that the student's own loss is made of."""
        return self.temperature == 1.0 and self.vocabulary == logits.shape[1]

    def nats(self, logits: torch.Tensor) -> torch.Tensor:
        """tau^2 KL(teacher || student) as estimated, summed, over the entries that both have."""
        shared = logits[:, : self.vocabulary] / self.temperature
        chances = torch.log_softmax(shared, dim=-1).gather(1, self.terms.ids)
        return self.temperature**2 * self.terms.nats(chances)


def _times_log(weights: torch.Tensor, log: torch.Tensor) -> torch.Tensor:
    """weights x log, 0 where the weight is, whatever its logarithm."""
    return torch.where(weights > 0, weights * log, 0.0)
