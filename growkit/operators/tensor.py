"""One tensor, grown in memory: the operator for people who bring their own code. Knows tensors and maps; ignorant of
the rest.

from growkit.maps import copies, cyclic_index, identity
wide = growkit.expand(weight, [(copies(4, cyclic_index(4, 8)), "write"), (copies(6, cyclic_index(6, 12)), "read")])
"""

from collections.abc import Sequence

import numpy as np
import torch

from growkit.maps.axis import AxisMap
from growkit.maps.notation import READ
from growkit.operators.blocks import Rows, assemble, expand_rows
from growkit.operators.rule import by_turns, rule_of, select
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

    weight: (old rows, old columns) or (old rows,). role: "write", "read", "gain" or "shift" (see growkit.maps). noise:
    relative size of the uneven split between read copies, whose sum stays. donor: a tensor of the same shape whose
    entries replace all but the first copies on the written axis (AKI, see growkit.aki). The result is on the weight's
    device and takes no part in its gradient. Raises ValueError where shapes and maps do not fit, or where both
    dimensions of a matrix are read.
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
    rule = rule_of([select(axis, role) for axis, role in dimensions], [role for _, role in dimensions], noise=noise)
    rules = by_turns(rule, 2) if donor is not None else [rule]

    def rows_of(tensor: torch.Tensor) -> tuple[Rows, torch.Tensor]:
        matrix = tensor.detach().cpu().reshape(shape[0], -1)
        matrix = matrix.T if rule.transposed else matrix
        return lambda rows: matrix[torch.from_numpy(rows)], matrix.double().mean(dim=0)

    sources = [rows_of(tensor) for tensor in (weight, donor) if tensor is not None]

    def part(number: int, rows: np.ndarray, wanted: torch.dtype) -> torch.Tensor:
        source, mean = sources[number]
        return expand_rows(source, rules[number], rows, wanted, generator(seed, f"{number}/{rows[0]}"), mean)

    starts = range(0, rule.rows.new, rule.block_rows)
    grown = torch.cat([assemble(rules, part, start, dtype or weight.dtype) for start in starts])
    grown = (grown.T if rule.transposed else grown).reshape([axis.new for axis, _ in dimensions])
    return grown.to(weight.device)
