"""`growkit inspect`: what a checkpoint is, and how it could grow."""

from typing import TYPE_CHECKING

from growkit.api import words as w
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.growth.inspect import Inspection


@public
def inspect(source: w.Checkpoint, *, family: w.FamilyName = None, source_heads: w.SourceHeads = None) -> "Inspection":
    """Show what a checkpoint is: family, sizes, parameters by part, and which growth would be exact.

    From headers alone, whatever its size. Returns an Inspection. Raises CheckpointError or RequestError for what is no
    checkpoint that growkit knows.
    """
    from growkit.growth.inspect import inspect as look

    return look(source, family, source_heads)
