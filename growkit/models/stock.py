"""Stock transformers' classes and its voice. Knows how a config names a class and what transformers says unasked;
ignorant of what a model is loaded for.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from growkit.errors import CheckpointError
from growkit.families import family_named
from growkit.growth.width.sizes import odd_width


def stock_class(config: Mapping[str, Any], label: str) -> Any:
    """The class that a config names, or AutoModel. Raises CheckpointError for one that transformers does not have."""
    import transformers

    name = (config.get("architectures") or ["AutoModel"])[0]
    model_class = getattr(transformers, name, None)
    if model_class is None:
        raise CheckpointError(f"config.json of {label!r} names class {name!r}, which transformers does not have")
    return model_class


def parameter_names(config: Mapping[str, Any], label: str) -> list[str]:
    """What the stock model of a config calls its parameters; no memory is taken for them.

    Raises CheckpointError where transformers has no such model, or cannot make it.
    """
    import transformers

    model_class = stock_class(config, label)
    try:
        with hushed(), torch.device("meta"):
            stated = transformers.AutoConfig.for_model(**config)
            model = model_class.from_config(stated) if model_class is transformers.AutoModel else model_class(stated)
    except Exception as error:  # transformers raises many kinds; each means that there is no such model
        raise CheckpointError(f"transformers cannot make the model of {label!r}: {reason_of(error)}") from None
    return [name for name, _ in model.named_parameters()]


@contextmanager
def hushed() -> Iterator[None]:
    """Within the block transformers says nothing but errors: what it would warn of is told by the caller, or known."""
    import transformers

    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)


def reason_of(error: Exception) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def experts_that_compute(model: Any, config: Mapping[str, Any], dtype: torch.dtype) -> Any:
    """A model whose experts, if any, run one after another where torch's grouped product cannot: in float64, or at
    widths that are no multiple of its 16 bytes.
    """
    family = family_named(config.get("model_type"))
    if family.is_moe and (dtype == torch.float64 or odd_width(family, config, dtype.itemsize)):
        model.set_experts_implementation("eager")
    return model
