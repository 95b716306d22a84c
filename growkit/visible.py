"""Text that is shown and never obeyed. Knows characters; ignorant of where they come from and go to."""


def visible(text: str) -> str:
    """Text with everything that a terminal would not show as it is written as repr writes it: \\x1b, \\n, \\u202e."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
