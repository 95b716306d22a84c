"""YAML of which nothing is believed: plain values only, of bounded size, depth and number. Knows YAML; ignorant of what
it says.
"""

from pathlib import Path
from typing import Any

from growkit.checkpoint.small_files import DEEPEST, check_nested, read_bytes
from growkit.errors import CheckpointError

LARGEST_YAML = 256 << 10  # bytes
MOST_VALUES = 20_000  # aliases counted each time they are used, or a few lines stand for billions


def read_yaml(path: Path) -> Any:
    """The value that a file of YAML holds. Raises CheckpointError where there is none that parse_yaml takes."""
    try:
        return parse_yaml(read_bytes(path, LARGEST_YAML))
    except ValueError as error:
        raise CheckpointError(f"{str(path)!r} is no plain YAML ({error}); mend it") from None


def parse_yaml(text: bytes | str) -> Any:
    """A value of lists, tables, text, numbers. Raises ValueError, in a few words, for what is none or is too large."""
    import yaml

    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        if len(text) > LARGEST_YAML:
            raise ValueError(f"more than {LARGEST_YAML:,} characters")
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        raise ValueError(f"line {mark.line + 1}: {problem}" if mark and problem else "not to be read") from None
    except RecursionError:
        raise ValueError(f"nested more than {DEEPEST} deep") from None
    check_nested(value, MOST_VALUES)
    return value
