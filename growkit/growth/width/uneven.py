"""How unevenly copies that are read share what they carry: `--noise`, a number or by the width. Knows numbers; ignorant
of tensors.

Copies carry W * (1 +- e) / c, with a sign drawn for each entry. That adds a matrix N of independent entries, of root
mean square e |W| / c, to weights W / c. Where an axis of n becomes one of c n, on both sides, W's own length (as the
largest singular value) stays what it is, and N's is e |W| / c * 2 sqrt(c n): it falls as e / sqrt(c). With one e for
all widths, copies part ever less the more there are; e in proportion to sqrt(c) keeps the share. In other words, N has
a root mean square that falls as 1 / sqrt(width), as fresh weights at any width have (the scaling of muP, which arXiv
2602.10545 asks of noise).
"""

from math import sqrt

from growkit.errors import RequestError

Noise = float | str
BY_WIDTH = "auto"
AT_DOUBLE = 0.5  # of an axis that doubles
MOST = 0.95  # beyond it hardly anything is left in one of two copies


def noise_of(said: Noise) -> Noise:
    """--noise as people write it: "auto", a number or its spelling. Raises RequestError for anything else."""
    if said == BY_WIDTH:
        return BY_WIDTH
    try:
        number: Noise = float(said)
    except (TypeError, ValueError):
        number = said
    if isinstance(said, bool) or isinstance(number, str) or not 0 <= number < 1:
        raise RequestError(
            f"--noise {number} should be from 0 (equal parts) to below 1 (all in one copy), or {BY_WIDTH}"
        )
    return number if isinstance(said, str) else said


def unevenness(noise: Noise, grown: float) -> float:
    """The split between copies of an axis that becomes `grown` times as large: 0.5 * sqrt(grown / 2) by the width."""
    return min(MOST, AT_DOUBLE * sqrt(grown / 2)) if isinstance(noise, str) else noise
