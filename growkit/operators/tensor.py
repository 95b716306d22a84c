"""One tensor, grown in memory: the operator for people who bring their own code. Knows tensors and maps; ignorant of the rest.

from growkit.maps import copies, cyclic_index, identity
wide = growkit.expand(weight, [(copies(4, cyclic_index(4, 8)), "write"), (copies(6, cyclic_index(6, 12)), "read")])
"""

from collections.abc import Sequence

import torch

from growkit.axes import READ, WRITE
from growkit.maps import AxisMap, identity
from growkit.operators.blocks import Rule, expand_block, select
from growkit.operators.seeds import generator


def expand(
    weight: torch.Tensor,
    dimensions: Sequence[tuple[AxisMap, str]],
    noise: float = 0.0,
    seed: int = 0,
    donor: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Grow one tensor by one (map, role) per dimension: the rule W'[i, j] = write[i] * read[j] * W[s(i), s(j)].

    weight: (old rows, old columns) or (old rows,). role: "write", "read", "gain" or "shift" (see growkit.maps).
    noise: relative size of the uneven split between read copies, whose sum stays. donor: a tensor of the same shape
    whose entries replace all but the first copies on the written axis (AKI, bert2BERT section 3.3).
    Raises ValueError where shapes and maps do not fit, or where both dimensions of a matrix are read.
    """
    shape = tuple(axis.old for axis, _ in dimensions)
    if tuple(weight.shape) != shape or (donor is not None and donor.shape != weight.shape):
        raise ValueError(f"maps are for shape {shape}, the tensor has {tuple(weight.shape)}")
    if not 1 <= len(dimensions) <= 2 or any(role not in axis.sides for axis, role in dimensions) or not 0 <= noise < 1:
        raise ValueError(
            "expand takes one or two dimensions, roles write, read, gain or shift, and noise from 0 to below 1"
        )
    if [role for _, role in dimensions].count(READ) == 2:
        raise ValueError("a matrix that reads both of its dimensions writes none")
    selections = [select(axis, role) for axis, role in dimensions]
    transposed = len(selections) == 2 and dimensions[0][1] == READ
    columns = selections[1 - transposed] if len(selections) == 2 else select(identity(1), WRITE)
    role = READ if transposed else dimensions[-1][1]
    rule = Rule(selections[1 if transposed else 0], columns, role, noise=noise, transposed=transposed)

    def rows_of(tensor: torch.Tensor):  # type: ignore[no-untyped-def]
        matrix = tensor.reshape(shape[0], -1)
        matrix = matrix.T if transposed else matrix
        return lambda rows: matrix[torch.from_numpy(rows)], matrix.double().mean(dim=0)

    own, mean = rows_of(weight)
    other = rows_of(donor)[0] if donor is not None else None
    blocks = [
        expand_block(own, rule, start, dtype or weight.dtype, generator(seed, f"{start}"), other, mean)
        for start in range(0, rule.rows.new, rule.block_rows)
    ]
    grown = torch.cat(blocks)
    return (grown.T if transposed else grown).reshape([axis.new for axis, _ in dimensions])
