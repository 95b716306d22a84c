"""What transformers' own config class makes of a config.json: values of keys that are absent, and what it means. Knows
config classes; ignorant of families and of files. The class is asked only where a config leaves something open, for
importing it takes as long as importing torch.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from growkit.errors import CheckpointError, reason_of
from growkit.families.text_part import BESIDE, flattened, nested

# what stock models read of a config though its class has no such field
READ_ANYWAY = (
    "is_causal", "position_buckets", "norm_rel_ebd", "share_att_key", "conv_kernel_size", "conv_groups", "conv_act",
)  # fmt: skip

# names that config classes take for what they call otherwise; where a config has both, these win
GENERAL = (
    "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers", "head_dim",
)  # fmt: skip


@contextmanager
def hushed() -> Iterator[None]:
    """Within the block transformers says nothing but errors: what it would warn of is told by the caller, or known."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def stock_value(model_type: str, config: Mapping[str, Any], key: str) -> Any:
    """What a key that a config does not have is to transformers: a default, or what follows from the others.

    Of a text model inside a larger one: to its own class. None where the class has no such key. Raises CheckpointError
    where transformers does not take the config.
    """
    whole = _as_stock(model_type, config)
    return getattr(whole.text_config if BESIDE in config else whole, key, None)


def stated_as(model_type: str, config: Mapping[str, Any], key: str) -> str:
    """The key under which a config has what its class calls `key`: that one, or one that transformers takes for it."""
    if key in config or "." in key:
        return key
    names = _names(model_type, config)
    return next((name for name, meant in names.items() if meant == key and name in config), key)


def stated_under(model_type: str, config: Mapping[str, Any], key: str, own: Collection[str]) -> list[str]:
    """Every key under which a config has what its class calls `key`, at least one to state it under.

    own: keys of other things, for which the class need not be asked.
    """
    others = [name for name in GENERAL if name in config and name not in own and name != key]
    if not others:
        return [stated_as(model_type, config, key)]
    names = _names(model_type, config)
    return list(dict.fromkeys([stated_as(model_type, config, key), *(n for n in others if names.get(n) == key)]))


def meaning(model_type: str, config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """(every setting of the config class as this config has it, keys of the config that the class does not know).

    Two configs mean the same where their settings are equal, whichever release wrote them. Raises CheckpointError
    where transformers does not take the config.
    """
    stock = _as_stock(model_type, config)
    known = {*flattened(type(stock)().to_dict()), *READ_ANYWAY}
    settings = flattened(stock.to_dict())
    extra = sorted(key for key in settings if key not in known)
    return {key: settings.get(key) for key in sorted(known)}, extra


def check_taken(config: Mapping[str, Any], whose: str) -> None:
    """Refuse a config that transformers does not take, for the sake of keys that growkit does not read.

    Raises CheckpointError, which says whose it is, such as "the config.json of 'model'".
    """
    _as_stock(str(config.get("model_type")), config, whose)


def _names(model_type: str, config: Mapping[str, Any]) -> dict[str, str]:
    """What a config's class takes for what it calls otherwise."""
    kind = type(_as_stock(model_type, config).text_config) if BESIDE in config else _class_of(model_type)
    return getattr(kind, "attribute_map", {})


def _class_of(model_type: str) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type]


def _as_stock(model_type: str, config: Mapping[str, Any], whose: str = "this config.json") -> Any:
    try:
        with hushed():
            return _class_of(model_type)(**{k: v for k, v in deepcopy(nested(config)).items() if k != "model_type"})
    except Exception as error:  # transformers raises many kinds; each means that it does not take this config
        raise CheckpointError(f"transformers does not take {whose}: {reason_of(error)}") from None
