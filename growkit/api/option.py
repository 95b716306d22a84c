"""What a parameter of a public function says of itself: its help, and how a command line writes it. Knows words;
ignorant of the program that shows them.

A public function's signature is the one declaration of a command: `growkit.cli.commands` makes the command from it.
"""

from dataclasses import KW_ONLY, dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin

from growkit.errors import RequestError

SAME = object()  # the command's default is the function's


@dataclass(frozen=True, kw_only=True)
class Option:
    """A parameter that a command takes by name: `--hidden N`."""

    help: str  # what it is, in a sentence for people
    panel: str | None = None  # under which heading help lists it
    metavar: str | None = None  # the word that stands for its value; short choices are listed instead
    _: KW_ONLY
    flags: tuple[str, ...] = ()  # how it is written, such as -o and --out; by default --name
    within: tuple[float, float] | None = (
        None  # the least and the largest number that can be meant; every number has both
    )
    command_default: Any = SAME  # where a command, which has somebody before it, begins otherwise than a function

    def flag(self, name: str) -> str:
        """How the option of a parameter is written."""
        return self.flags[-1] if self.flags else "--" + name.replace("_", "-")

    def check(self, flag: str, value: Any, whole: bool) -> None:
        """Refuse a number that cannot be meant, by a command and by a function alike. Raises RequestError.

        flag: how the option is written. whole: whether it counts something.
        """
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            raise RequestError(f"{flag} should be a {'whole ' * whole}number, not {value!r}")
        assert self.within is not None, f"{flag} is a number without a range"
        least, most = self.within
        if not least <= value <= most:
            if isinstance(value, int) and abs(value) >= 10**30:
                raise RequestError(f"{flag} has more than 30 digits; it should be from {least} to {most}")
            shown, low, high = (value, least, most) if whole else (f"{number:g}" for number in (value, least, most))
            raise RequestError(f"{flag} {shown} should be from {low} to {high}")


def number_of(annotation: Any) -> type | None:
    """int or float where a parameter is a number, perhaps None; None where it is anything else, or may be text."""
    members = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    kinds = set(members) - {type(None)}
    return kinds.pop() if len(kinds) == 1 and kinds <= {int, float} else None


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
