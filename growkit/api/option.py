"""What a parameter of a public function says of itself: its help, and how a command line writes it. Knows words;
ignorant of the program that shows them.

A public function's signature is the one declaration of a command: `growkit.cli.commands` makes the command from it.
"""

from dataclasses import KW_ONLY, dataclass
from typing import Any

SAME = object()  # the command's default is the function's


@dataclass(frozen=True, kw_only=True)
class Option:
    """A parameter that a command takes by name: `--hidden N`."""

    help: str  # what it is, in a sentence for people
    panel: str | None = None  # under which heading help lists it
    metavar: str | None = None  # the word that stands for its value; short choices are listed instead
    _: KW_ONLY
    flags: tuple[str, ...] = ()  # how it is written, such as -o and --out; by default --name
    min: float | None = None  # the least number that can be meant
    max: float | None = None  # the largest
    command_default: Any = SAME  # where a command, which has somebody before it, begins otherwise than a function


@dataclass(frozen=True)
class Argument:
    """A parameter that a command takes by its place."""

    help: str  # what it is, in a sentence for people
    metavar: str  # the word that stands for it
    may_lack: bool = False  # where nothing is written, the function says what is missing, or what it takes instead


@dataclass(frozen=True)
class Callback:
    """A parameter through which a function tells how far it is; commands show that, and have no option for it."""

    help: str  # when it is called, and with what


def quiet(_: object) -> None:
    """Say nothing: what a callback does where none is given."""
