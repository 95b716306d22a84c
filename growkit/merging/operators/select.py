"""The k-th largest magnitude of numbers that come in pieces, exactly. Knows tensors; ignorant of where they come from.

The bits of a non-negative float, read as a whole number, are in the order of the floats. So the k-th largest is found
16 bits at a time: count the first 16 bits of all, see which value of them the k-th has, count the next 16 bits of those
alone. Two passes for float32, four for float64, and 65,536 counters, whatever the number of elements.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

DIGIT = 16
DIGITS = 1 << DIGIT


def kth_largest(
    pieces: Callable[[], Iterable[torch.Tensor]], ranks: Sequence[int], dtype: torch.dtype = torch.float32
) -> list[float]:
    """The magnitude of each rank (1: the largest) among all elements of the pieces, float32 or float64 as `dtype` says.

    pieces: gives the tensors anew for every pass. Rank 0 is inf, above all; a rank beyond their number is 0, below all.
    """
    width = 8 * dtype.itemsize
    prefixes, left = [0] * len(ranks), list(ranks)
    for shift in range(width - DIGIT, -1, -DIGIT):
        counts = {prefix: np.zeros(DIGITS, dtype=np.int64) for prefix in prefixes}
        for piece in pieces():
            bits = magnitude_bits(piece)
            for prefix, count in counts.items():
                near = bits if shift == width - DIGIT else bits[bits >> (shift + DIGIT) == prefix]
                count += np.bincount((near >> shift) & (DIGITS - 1), minlength=DIGITS)
        for number, prefix in enumerate(prefixes):
            at_least = np.cumsum(counts[prefix][::-1])  # elements with the largest digit, with the two largest, ...
            place = min(int(np.searchsorted(at_least, left[number])), DIGITS - 1)
            left[number] -= int(at_least[place - 1]) if place else 0
            prefixes[number] = prefix << DIGIT | (DIGITS - 1 - place)
    return [np.inf if rank < 1 else _as_float(bits, dtype) for bits, rank in zip(prefixes, ranks)]


def magnitude_bits(values: torch.Tensor) -> np.ndarray:
    """(elements,) the bits of |values| as whole numbers of the same width, in the order of the magnitudes."""
    whole = torch.int64 if values.dtype == torch.float64 else torch.int32
    return values.abs().view(whole).flatten().numpy()


def _as_float(bits: int, dtype: torch.dtype) -> float:
    return float(np.array(bits, dtype=f"i{dtype.itemsize}").view(f"f{dtype.itemsize}"))
