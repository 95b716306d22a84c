"""TOML of which nothing is believed: tables of bounded size and depth. Knows TOML; ignorant of what it says."""

import sys
from pathlib import Path
from typing import Any

from growkit.checkpoint.small_files import read_bytes
from growkit.errors import CheckpointError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The table that a file of TOML holds. what: what is read from it. Raises CheckpointError where there is none."""
    try:
        return tomllib.loads(read_bytes(path).decode("utf-8"))
    except RecursionError:
        raise CheckpointError(f"cannot read {what} from {str(path)!r}: it is nested too deep") from None
    except ValueError as error:
        raise CheckpointError(f"cannot read {what} from {str(path)!r}: {error}") from None
