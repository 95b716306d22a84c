"""A picture that a command was asked for, as a file of its own. Knows matplotlib, which is an extra, and what a name
may be; ignorant of what is drawn.
"""

import io
from pathlib import Path
from typing import Any

from growkit.errors import RequestError

PICTURES = (".svg", ".png", ".pdf")
NO_MATPLOTLIB = "--picture needs matplotlib: pip install matplotlib, or growkit with its extra: growkit[plot]"


def figure_for(path: Path, size: tuple[float, float]) -> Any:
    """An empty figure of matplotlib's, inches wide and high. Raises RequestError for a name that is taken or of no
    picture, and where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise RequestError(NO_MATPLOTLIB) from None
    check_picture(path)
    return Figure(figsize=size, layout="constrained")


def save_picture(figure: Any, path: Path) -> None:
    """Write a picture of the kind that the name ends in. Raises RequestError for the disk, and for what is there."""
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:])
    try:
        with open(path, "xb") as file:
            file.write(content.getvalue())
    except OSError as error:
        raise RequestError(f"cannot write --picture {str(path)!r}: {error.strerror or error}") from None


def check_picture(path: Path) -> None:
    """Refuse a picture that could not be written. Raises RequestError."""
    if path.suffix not in PICTURES:
        raise RequestError(f"--picture {str(path)!r} should end in {', '.join(PICTURES[:-1])} or {PICTURES[-1]}")
    if path.exists() or not path.parent.is_dir():
        what = "exists" if path.exists() else "is in a folder that does not exist"
        raise RequestError(f"--picture {str(path)!r} {what}; choose another name")
