"""What happens to an axis, and the words for axes. They know index arrays and text; ignorant of tensors, families and
files.

growkit.maps.copies(4, growkit.maps.cyclic_index(4, 8)) is a map that growkit.expand takes.
"""

from growkit.maps.axis import (
    AxisMap,
    Mode,
    axis_map,
    copies,
    cyclic_index,
    even_norm_copies,
    identity,
    mean_filler,
    random_index,
)

__all__ = [
    "AxisMap",
    "Mode",
    "axis_map",
    "copies",
    "cyclic_index",
    "even_norm_copies",
    "identity",
    "mean_filler",
    "random_index",
]
