"""growkit grows trained transformers: wider, deeper, or several into one, as stock checkpoints.

The package imports nothing heavy until something is used, so that the command line answers at once.
"""

from importlib import import_module
from typing import Any

from growkit.errors import CheckpointError, GrowkitError, RequestError
from growkit.version import __version__

_LAZY = {
    **dict.fromkeys(("widen", "stack", "grow", "fuse", "upcycle"), "growkit.api"),
    **dict.fromkeys(("plan_widen", "plan_stack", "plan_grow", "plan_fuse", "plan_upcycle"), "growkit.api"),
    "grow_state_dict": "growkit.api",
    **dict.fromkeys(("merge", "plan_merge", "delta", "apply"), "growkit.merging.merge"),
    "pretrain": "growkit.api",
    "verify": "growkit.models.verify",
    "inspect": "growkit.growth.inspect",
    **dict.fromkeys(("expand", "mapping", "fpi", "aki", "stack_order", "stack_layers"), "growkit.operators"),
    "tokenize": "growkit.data.tokenize",
    "init": "growkit.models.init",
    "evaluate": "growkit.models.evaluate",
    "report": "growkit.reports.report",
}

__all__ = ["CheckpointError", "GrowkitError", "RequestError", "__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'growkit' has no attribute {name!r}")
