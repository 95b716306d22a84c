"""Pure functions from tensors to tensors. They know no families, files or configs, and of names only the layer's
number.

`expand` is the one rule; fpi, aki and the others say it in bert2BERT's words.
"""

from growkit.operators.bert2bert import aki, fpi, mapping, stack_layers, stack_order
from growkit.operators.tensor import expand

__all__ = ["aki", "expand", "fpi", "mapping", "stack_layers", "stack_order"]
