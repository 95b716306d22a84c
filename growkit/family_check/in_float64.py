"""Stock code that computes parts in float32, made to compute them in float64: what is left of a difference is algebra.
Knows transformers' modules; ignorant of families.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from unittest import mock

import torch


class _DoubleTorch(ModuleType):
    """torch, except that float32 is float64."""

    def __getattr__(self, name: str) -> Any:
        return torch.float64 if name in ("float32", "float") else getattr(torch, name)


@contextmanager
def float32_parts_in_double() -> Iterator[None]:
    """Within the block, norms, softmax and rotary tables of stock models that are loaded by now are float64.

    With this, 1e-10 can be asked of every family.
    """
    double = _DoubleTorch("torch")
    modules = [m for n, m in sys.modules.items() if n.startswith("transformers.models.") and ".modeling_" in n]
    modules.append(sys.modules["transformers.modeling_rope_utils"])
    with ExitStack() as stack:
        for module in modules:
            if getattr(module, "torch", None) is torch:
                stack.enter_context(mock.patch.object(module, "torch", double))
        stack.enter_context(mock.patch.object(torch.Tensor, "float", torch.Tensor.double))
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float64)
        yield
