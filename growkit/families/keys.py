"""Sizes that config.json states under more than one key. Knows key names; ignorant of what the sizes are of.

A table says of most sizes under which one key they stand, as a plain string.
"""

from collections.abc import Mapping
from typing import Any


class Both(tuple[str, ...]):
    """Keys that all state one size: each is read, and they must agree; each is written."""

    def __new__(cls, *names: str) -> "Both":
        """The keys, the first of which is the size's name in sentences."""
        return super().__new__(cls, names)


class Either(tuple[str, ...]):
    """Keys of which a config has one, by the release that wrote it: those that are there are read; each is written."""

    def __new__(cls, *names: str) -> "Either":
        """The keys, the first of which is meant where a config has none."""
        return super().__new__(cls, names)


Keys = str | Both | Either


def key_names(keys: Keys) -> tuple[str, ...]:
    """All keys of a size, the first of which is its name in sentences."""
    return (keys,) if isinstance(keys, str) else tuple(keys)


def keys_to_read(keys: Keys, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys that a config must state a size under."""
    names = key_names(keys)
    if isinstance(keys, Either):
        return tuple(name for name in names if config.get(name) is not None) or names[:1]
    return names
