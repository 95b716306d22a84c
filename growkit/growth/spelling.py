"""Numbers, lists, dtypes and sizes as people write them. Knows spellings; ignorant of what is asked with them."""

from collections.abc import Sequence

import torch

from growkit.errors import RequestError

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "B": 1, "": 1}


def dtype_of(name: str | None) -> torch.dtype | None:
    """The dtype of a name; None for none. Raises RequestError for one that weights are not stored in."""
    if name is not None and name not in DTYPES:
        raise RequestError(f"--dtype {name!r} is not one of {', '.join(DTYPES)}")
    return None if name is None else DTYPES[name]


def size_in_bytes(size: int | str) -> int:
    """'5GB', '500MB' or a number, as bytes. Raises RequestError for what is no such size."""
    text = str(size).strip()
    number = text.rstrip("KMGIBkmgib")
    try:
        count = int(float(number) * UNITS[text[len(number) :].upper()])
    except (KeyError, ValueError, OverflowError):
        count = 0
    if count < 1:
        raise RequestError(f"--shard-size {str(size)!r} is no size such as 5GB, 500MB or 1000000")
    return count


def layer_numbers(numbers: str | Sequence[int] | None) -> tuple[int, ...]:
    """'4,8,12', or the numbers themselves, as numbers; none for nothing. Raises RequestError for what are none."""
    if not isinstance(numbers, str):
        return tuple(numbers or ())
    try:
        return tuple(int(number) for number in numbers.split(",") if numbers)
    except ValueError:
        raise RequestError(f"--after {numbers!r} should be layer numbers such as 4,8,12") from None


def layers_in_ranges(text: str, count: int) -> list[int]:
    """'1-8,12', layers from 1 to `count`, as numbers from 0, in order and each once. Raises RequestError for what are
    none."""
    ranges = [part.partition("-") for part in text.split(",")]
    try:
        ends = [(int(first), int(last if dash else first)) for first, dash, last in ranges]
    except ValueError:
        raise RequestError(f"--layers {text!r} should be layers such as 1-8,12") from None
    for first, last in ends:
        if not 1 <= first <= last <= count:
            raise RequestError(f"--layers {text!r} should name layers from 1 to the model's {count}, such as 1-{count}")
    return sorted({layer - 1 for first, last in ends for layer in range(first, last + 1)})
