"""Stock transformers' classes and its voice: the one place that opens configs and models. Knows how a config names a
class and what transformers says unasked; ignorant of what a model is loaded for.

No code that lies beside a checkpoint, or that its config names, is ever run.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch

from growkit.checkpoint.companions import GENERATION
from growkit.checkpoint.small_files import read_json
from growkit.checkpoint.source import CONFIG
from growkit.errors import CheckpointError, ran_out, reason_of
from growkit.families import family_named
from growkit.families.stock_config import hushed
from growkit.families.text_part import nested
from growkit.growth.width.sized_config import odd_width


def stock_class(config: Mapping[str, Any], label: str) -> Any:
    """The class that a config names, or AutoModel. Raises CheckpointError for one that transformers does not have."""
    import transformers

    stated = config.get("architectures") or ["AutoModel"]
    name = stated[0] if isinstance(stated, list) else stated
    model_class = getattr(transformers, name, None) if isinstance(name, str) else None
    if name != "AutoModel" and not (
        isinstance(model_class, type) and issubclass(model_class, transformers.PreTrainedModel)
    ):
        own = "; it needs code of its own (auto_map), which growkit never runs" if config.get("auto_map") else ""
        raise CheckpointError(f"config.json of {label!r} names class {name!r}, which transformers does not have{own}")
    return model_class


def unfilled_model(
    config: Mapping[str, Any], label: str, memory: AbstractContextManager[Any], dtype: torch.dtype | None = None
) -> Any:
    """The stock model of a config, without weights. memory: within which it is made; dtype: None for the config's.

    Raises CheckpointError where transformers has no such model, or cannot make it.
    """
    import transformers

    model_class = stock_class(config, label)
    try:
        with hushed(), memory:
            stated = with_own_kernels(transformers.AutoConfig.for_model(**nested(config)))
            if dtype is not None:
                stated.dtype = dtype
            return model_class.from_config(stated) if model_class is transformers.AutoModel else model_class(stated)
    except Exception as error:  # transformers raises many kinds; each means that there is no such model
        raise CheckpointError(f"transformers cannot make the model of {label!r}: {reason_of(error)}") from None


def parameter_names(config: Mapping[str, Any], label: str) -> list[str]:
    """What the stock model of a config calls its parameters; no memory is taken for them. Raises as unfilled_model."""
    return [name for name, _ in unfilled_model(config, label, torch.device("meta")).named_parameters()]


def stock_config(model_class: Any, folder: Path) -> Any:
    """A folder's config as the config class of a model class reads it. Raises what transformers does."""
    import transformers

    if model_class is transformers.AutoModel:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    else:
        config = model_class.config_class.from_pretrained(folder, local_files_only=True)
    return with_own_kernels(config)


def with_own_kernels(config: Any) -> Any:
    """A config that leaves it to transformers how attention and experts are computed.

    A config.json may name a kernel of the hub for that, which would be fetched and run.
    """
    config._attn_implementation = config._experts_implementation = None
    return config


def stock_model(model_class: Any, folder: Path, label: str, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    """A stock model with the weights of a folder, and what transformers says of their names.

    Raises CheckpointError where it does not load.
    """
    import transformers

    transformers.logging.disable_progress_bar()
    try:
        with hushed():
            return model_class.from_pretrained(
                folder, config=stock_config(model_class, folder), dtype=dtype, output_loading_info=True,
                local_files_only=True, trust_remote_code=False,
            )  # fmt: skip
    except Exception as error:  # transformers raises many kinds; each means that this folder does not load
        raise CheckpointError(f"transformers cannot load {label!r}: {reason_of(error)}") from None


def generation_settings(folder: Path) -> Any:
    """The settings for generating that lie in a folder, or those that transformers takes from its config."""
    from transformers import GenerationConfig

    if (folder / GENERATION).exists():
        read_json(folder / GENERATION)  # transformers would pass over one that it cannot read
    try:
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    except OSError:
        return GenerationConfig.from_pretrained(
            folder, local_files_only=True, config_file_name=CONFIG, _from_model_config=True
        )


@contextmanager
def computing(name: str) -> Iterator[None]:
    """Within the block a stock model of a class computes.

    What its own code cannot do is a CheckpointError: transformers builds models of settings that it cannot run.
    """
    try:
        yield
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, ZeroDivisionError) as error:
        if isinstance(error, RuntimeError) and ran_out(error):
            raise
        raise CheckpointError(
            f"transformers cannot run the {name} that config.json describes ({reason_of(error)}); one of its settings is wrong"
        ) from None


def experts_that_compute(model: Any, config: Mapping[str, Any], dtype: torch.dtype) -> Any:
    """A model whose experts, if any, run one after another where torch's grouped product cannot: in float64, or at
    widths that are no multiple of its 16 bytes.
    """
    family = family_named(config.get("model_type"))
    if family.is_moe and (dtype == torch.float64 or odd_width(family, config, dtype.itemsize)):
        model.set_experts_implementation("eager")
    return model
