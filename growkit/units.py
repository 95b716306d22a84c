"""Large numbers as people read them: 21.5 M parameters, 90.9 MB. Knows numbers; ignorant of what is counted."""

PREFIXES = (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


def count(number: float) -> str:
    """A number with its decimal prefix and three digits, ready for a unit: "21.5 M", "999 "."""
    for prefix, scale in PREFIXES:
        if number >= 0.9995 * scale:  # what would be rounded to 1000 belongs to the next prefix
            digits = f"{number / scale:.3g}"
            return f"{digits if 'e' not in digits else f'{number / scale:.0f}'} {prefix}"
    return f"{number:.0f} "


def size(number: float) -> str:
    """Bytes: "90.9 MB"."""
    return f"{count(number)}B"
