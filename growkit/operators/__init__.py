"""Pure functions from tensors to tensors. They know no names, families, files or configs."""

from growkit.operators.tensor import expand

__all__ = ["expand"]
