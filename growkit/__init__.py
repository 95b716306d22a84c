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
    **dict.fromkeys(("merge", "plan_merge", "delta", "apply"), "growkit.merging.api"),
    "pretrain": "growkit.training.api",
    "verify": "growkit.proof",
    "inspect": "growkit.inspection",
    "expand": "growkit.operators",
    "tokenize": "growkit.training.tokenize",
    "init": "growkit.training.initial",
    "evaluate": "growkit.training.evaluate",
    "report": "growkit.training.report",
}

__all__ = ["CheckpointError", "GrowkitError", "RequestError", "__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'growkit' has no attribute {name!r}")
