"""The proof of a growth that was just made, where it fits in memory. Knows what a result says of its proof; ignorant of
how one is run.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from growkit.errors import GrowkitError, ProofInterrupted
from growkit.growth.carry_out import Grown
from growkit.models import verify as proof


def proved(
    grown: Grown, sources: Sequence[str | Path], family: str | None = None, source_heads: int | None = None
) -> Grown:
    """The growth with its proof, or with the reason why there is none: the result is there in either case.

    family, source_heads: of sources without a config. Raises ProofInterrupted where somebody stops it.
    """
    too_big = proof.fits_in_memory(grown.plan)
    if too_big:
        return replace(grown, unverified=too_big)
    # without a head there is nothing to average: hidden states are compared with the first source's
    headed = any(word in grown.plan.growth.architecture for word in ("For", "Head"))
    before = list(sources) if headed else sources[0]
    try:
        return replace(grown, report=proof.verify(before, grown.folder, family=family, source_heads=source_heads))
    except GrowkitError as error:
        return replace(grown, unverified=str(error), broken=True)
    except KeyboardInterrupt:
        raise ProofInterrupted(replace(grown, unverified="interrupted", broken=True)) from None
