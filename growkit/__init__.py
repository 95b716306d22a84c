"""growkit grows trained transformers: wider, deeper, or several into one, as stock checkpoints.

The package imports nothing heavy until something is used, so that the command line answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from growkit.errors import CheckpointError, GrowkitError, RequestError
from growkit.version import __version__

if TYPE_CHECKING:  # what editors and type checkers see; at run time the same names are looked up when they are used
    from growkit.api import (
        apply,
        chain,
        check_family,
        delta,
        evaluate,
        forecast,
        fuse,
        generate,
        grow,
        grow_state_dict,
        init,
        inspect,
        load_skills,
        merge,
        panel,
        panel_show,
        param_groups,
        pretrain,
        push,
        report,
        skill_apply_layer,
        skill_carry,
        skill_check,
        skill_dial,
        skill_learn,
        skill_plug,
        stack,
        teach,
        tokenize,
        tune,
        upcycle,
        verify,
        widen,
    )  # fmt: skip
    from growkit.operators import aki, expand, fpi, mapping, stack_layers, stack_order

__all__ = [
    "CheckpointError",
    "GrowkitError",
    "RequestError",
    "__version__",
    "aki",
    "apply",
    "chain",
    "check_family",
    "delta",
    "evaluate",
    "expand",
    "forecast",
    "fpi",
    "fuse",
    "generate",
    "grow",
    "grow_state_dict",
    "init",
    "inspect",
    "load_skills",
    "mapping",
    "merge",
    "panel",
    "panel_show",
    "param_groups",
    "pretrain",
    "push",
    "report",
    "skill_apply_layer",
    "skill_carry",
    "skill_check",
    "skill_dial",
    "skill_learn",
    "skill_plug",
    "stack",
    "stack_layers",
    "stack_order",
    "teach",
    "tokenize",
    "tune",
    "upcycle",
    "verify",
    "widen",
]  # fmt: skip

_OPERATORS = (
    "expand",
    "mapping",
    "fpi",
    "aki",
    "stack_order",
    "stack_layers",
)  # on plain tensors; everything else is a door


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'growkit' has no attribute {name!r}")
    return getattr(import_module("growkit.operators" if name in _OPERATORS else "growkit.api"), name)
