"""Stock code that computes parts in float32, made to compute them in float64: what is left of a difference is algebra.
Knows transformers' modules; ignorant of families.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch


class _DoubleTorch(ModuleType):
    """torch, except that float32 is float64."""

    def __getattr__(self, name: str) -> Any:
        return torch.float64 if name in ("float32", "float") else getattr(torch, name)


_DOUBLE = _DoubleTorch("torch")


@lru_cache(maxsize=1)
def _stock_modules(loaded: int) -> tuple[Any, ...]:
    """Modules of transformers that compute. loaded: how many modules there are, by which new ones are noticed."""
    names = [name for name in sys.modules if name.startswith("transformers.models.") and ".modeling_" in name]
    return tuple(sys.modules[name] for name in [*names, "transformers.modeling_rope_utils"])


@contextmanager
def float32_parts_in_double() -> Iterator[None]:
    """Within the block, norms, softmax and rotary tables of stock models that are loaded by now are float64.

    With this, 1e-10 can be asked of every family.
    """
    modules = [module for module in _stock_modules(len(sys.modules)) if vars(module).get("torch") is torch]
    single, usual = torch.Tensor.float, torch.get_default_dtype()
    try:
        for module in modules:
            module.torch = _DOUBLE
        torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
        torch.set_default_dtype(torch.float64)
        yield
    finally:
        torch.set_default_dtype(usual)
        torch.Tensor.float = single  # type: ignore[method-assign]
        for module in modules:
            module.torch = torch
