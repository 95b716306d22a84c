"""Promises about the next text from those that were seen: a split-conformal threshold, and a bound on a share that was
counted. Knows numbers alone.

Where the next text is exchangeable with n texts that had no part in making the scores, its score is as likely to have
any rank among all n + 1. Of these at most alpha (n + 1) lie above the ceil((n + 1)(1 - alpha))-th smallest of the n, so
P(score > that) <= alpha, whatever the scores are (Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World,
2005; Lei et al., arXiv 1604.04173). Of several kinds of scores each takes an equal part of alpha, so that the
probabilities of all of them together come to at most alpha, however the kinds depend on one another.
"""

import math
from fractions import Fraction

import torch

CONFIDENCE = 0.95


def texts_needed(alpha: float, kinds: int = 1) -> int:
    """How few texts make thresholds at all: ceil(kinds / alpha) - 1."""
    return math.ceil(kinds / _exact(alpha)) - 1


def order_of(texts: int, alpha: float, kinds: int = 1) -> int:
    """Which of so many scores, from the smallest, counted from 1, is a threshold: ceil((n + 1)(1 - alpha / kinds)),
    which of fewer than texts_needed is one more than there are."""
    return math.ceil((texts + 1) * (1 - _exact(alpha) / kinds))


def conformal_thresholds(scores: torch.Tensor, alpha: float) -> torch.Tensor:
    """(kinds,) numbers; that any of the next text's scores is above its own has a probability of at most alpha.

    scores: (texts, kinds) float64, of texts_needed or more.
    """
    texts, kinds = scores.shape
    return scores.sort(0).values[order_of(texts, alpha, kinds) - 1]


def clopper_pearson(hits: int, texts: int, confidence: float = CONFIDENCE) -> float:
    """The largest share of which `hits` of `texts`, or fewer, would still be seen with probability 1 - confidence: the
    one-sided upper bound of Clopper and Pearson (Biometrika 26, 1934). 1 where there are no texts."""
    if hits >= texts:
        return 1.0
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:  # the binomial tail falls in p: halve until floats end
        low, high = (middle, high) if binomial_tail(hits, texts, middle) > 1 - confidence else (low, middle)
    return high


def binomial_tail(hits: int, texts: int, share: float) -> float:
    """P(X <= hits) where X of `texts` happen with probability `share` each, which is between 0 and 1."""
    one, none = math.log(share), math.log1p(-share)
    whole = math.lgamma(texts + 1)
    return math.fsum(
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(texts - k + 1) + k * one + (texts - k) * none)
        for k in range(hits + 1)
    )


def _exact(alpha: float) -> Fraction:
    """alpha as it is written: 1 % of 100 texts is one of them, not a little less."""
    return Fraction(repr(float(alpha)))
